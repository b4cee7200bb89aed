"""Where the cells of a grid are computed: here, or on many machines."""
