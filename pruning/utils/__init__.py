"""What any program needs: one-line errors, registries, files that are whole or absent, number formats."""
