"""What if: units of the loaded model switched off, and what that changes."""
