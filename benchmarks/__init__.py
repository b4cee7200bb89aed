"""Measurements of speed and quality; every figure in the README comes from one of them."""
