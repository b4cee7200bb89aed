"""Where models come from: the embedded demo, a hub id, a folder, a GGUF file."""

from pruning.models.loading.loaded import LoadedModel
from pruning.models.loading.loader import load

__all__ = ["LoadedModel", "load"]
