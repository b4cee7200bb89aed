"""Getting a model into memory and running it block by block."""
