"""Compare: dense and pruned, before and after."""
