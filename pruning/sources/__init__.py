"""Where models come from: the embedded demo, a hub id, a folder, a GGUF file."""

from pruning.sources.loaded import LoadedModel
from pruning.sources.open import load

__all__ = ["LoadedModel", "load"]
