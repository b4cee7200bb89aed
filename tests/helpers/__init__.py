"""What tests share: tiny models, stand-ins, steps in a browser."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""
