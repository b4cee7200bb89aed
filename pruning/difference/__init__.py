"""Two models side by side: what went, how far the rest moved, how alike their blocks answer."""
