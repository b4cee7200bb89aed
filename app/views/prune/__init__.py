"""Prune: what goes, and watching it go."""
