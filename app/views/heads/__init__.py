"""Heads: which attention heads say the same thing."""
