"""Pieces of pages that know the visitor's state but no single page."""
