"""The training itself: what is trained, the loss, the loop, and what is kept of it on disk."""
