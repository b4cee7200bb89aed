"""One-line errors, registries, files that are whole or absent, number formats."""
