"""Running a model: block by block, with blocks elsewhere, with a key/value cache."""
