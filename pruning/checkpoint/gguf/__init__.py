"""GGUF: the file, its tokenizer, its types."""
