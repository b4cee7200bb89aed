"""GGUF files: dequantised once into a safetensors folder."""

from __future__ import annotations

from pathlib import Path

from pruning.utils.errors import SourceError, Unsupported, one_line


def convert(source: Path, target: Path) -> None:
    """Dequantise ``source`` to float32 safetensors in ``target``, whole or not at all.

    Raises SourceError when the file is not a readable GGUF.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from pruning.utils.atomic_dir import written_aside

    check_header(source)
    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**where)
        model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    except ValueError as error:
        raise Unsupported(
            f"{source} holds a model that cannot be read here: {one_line(error)}."
        ) from None
    except Exception as error:
        raise SourceError(f"{source} is not a readable GGUF file: {one_line(error)}.") from None
    # transformers refuses to save a model that still says it is quantised
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config._name_or_path = source.stem
    with written_aside(target) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def check_header(source: Path) -> None:
    """Raise SourceError when the file does not begin as a GGUF file does."""
    try:
        with open(source, "rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise SourceError(f"{source} cannot be read: {error.strerror or error}.") from None
    if magic != b"GGUF":
        raise SourceError(f"{source} is not a GGUF file; check the path.")
