"""Least squares: what recovery and loss curves are fitted with."""
