"""The pages: a file or a folder each."""
