"""What a GGUF file holds: the keys and tensors of all its parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pruning.utils.errors import SourceError

FACTORS = "rope_freqs.weight"
"""The tensor that divides the rotary frequencies."""

BLOCKWISE = "deci"
"""llama.cpp's graph of Llama in which every block has widths of its own."""


@dataclass(frozen=True)
class Header:
    """``settings``: keys behind the architecture; ``readers``: one for each part."""

    architecture: str
    settings: dict[str, Any]
    readers: tuple[Any, ...]

    @property
    def is_blockwise(self) -> bool:
        """Whether every block has widths of its own."""
        return self.architecture == BLOCKWISE

    @property
    def tensors(self) -> dict[str, Any]:
        """Of all parts, by name."""
        return {tensor.name: tensor for reader in self.readers for tensor in reader.tensors}

    def without_place(self, model: Any) -> set[str]:
        """Names of tensors that transformers does not give ``model``."""
        from transformers.modeling_gguf_pytorch_utils import (
            TENSOR_PROCESSORS,
            TensorProcessor,
            get_gguf_hf_weights_map,
        )

        processor = TENSOR_PROCESSORS.get(self.architecture, TensorProcessor)(
            config=model.config.to_dict()
        )
        known = get_gguf_hf_weights_map(model, processor)
        return {name for name in self.tensors if name not in known and name != FACTORS}

    def copy_keys(self, writer: Any, wanted: Callable[[str], bool]) -> None:
        """Give a GGUFWriter the ``wanted`` keys, and not what it writes by itself."""
        import gguf

        for field in self.readers[0].fields.values():
            own = field.name.startswith("GGUF.") or field.name == "general.architecture"
            if own or not wanted(field.name):
                continue
            kind = field.types[0]
            inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)

    def write_whole(self, path: Path) -> None:
        """Write the parts as one file, for readers that know one only; raises OSError."""
        import gguf

        writer = gguf.GGUFWriter(path, self.architecture)
        self.copy_keys(writer, lambda name: not name.startswith("split."))
        for name, tensor in self.tensors.items():
            data = tensor.data
            writer.add_tensor_info(name, data.shape, data.dtype, data.nbytes, tensor.tensor_type)
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for tensor in self.tensors.values():
                writer.write_tensor_data(tensor.data)
        finally:
            writer.close()


def read_header(parts: list[Path]) -> Header:
    """The header of the first part, and the tensors of all. Raises SourceError when they do not
    belong together."""
    import gguf

    readers = tuple(gguf.GGUFReader(part) for part in parts)
    fields = readers[0].fields
    if "general.architecture" not in fields:
        raise SourceError(f"{parts[0]} names no architecture; download or make it again.")
    architecture = str(fields["general.architecture"].contents())
    for number, (part, reader) in enumerate(zip(parts, readers, strict=True)):
        count, place = _split(reader, "split.count", 1), _split(reader, "split.no", 0)
        if max(count, 1) != len(parts) or place != number:
            raise SourceError(
                f"{part} is part {place + 1} of {count}; give the parts their names back, like "
                f"model-00001-of-{count:05}.gguf, in one folder."
            )
    header = Header(
        architecture,
        {
            name.removeprefix(f"{architecture}."): field.contents()
            for name, field in fields.items()
            if name.startswith(f"{architecture}.")
        },
        readers,
    )
    promised = _split(readers[0], "split.tensors.count", len(header.tensors))
    if promised != len(header.tensors):
        raise SourceError(
            f"{parts[0]} and its parts hold {len(header.tensors)} tensors of {promised}; download "
            "all parts again."
        )
    return header


def _split(reader: Any, name: str, default: int) -> int:
    return int(reader.fields[name].contents()) if name in reader.fields else default
