"""GGUF: one file for llama.cpp, with a width of its own for every block."""

from __future__ import annotations

from pruning.checkpoint.forms.base import FORMS, Form


class Gguf(Form):
    """llama.cpp's ``deci`` architecture."""

    single_file = ".gguf"
    untrainable = "it is read by llama.cpp, which does not train"

    def check(self, outline, recipe, outlook):
        from pruning.checkpoint.gguf.writer import check

        check(outline)
        return ()

    def write(self, parts, place, options):
        from pruning.checkpoint.base_model import short_name
        from pruning.checkpoint.gguf.writer import write_file

        if place.is_dir():
            name = f"{short_name(parts.origin.name)}-pruned-{options.gguf_type}.gguf"
            place = place / name
        return write_file(parts, place, options.gguf_type)

    def loading(self, parts):
        return """With llama.cpp and everything built on it (blocks of different widths are its
`deci` architecture, which stock builds know):

```
llama-cli -m FILE.gguf -p "The water cycle"
```

With Headroom: `pruning.load("FILE.gguf")`."""


FORMS.add(
    "gguf",
    Gguf(),
    title="GGUF",
    summary="One file for llama.cpp and its kin, with per-block widths; Llama-type models only.",
    source="llama.cpp, architecture deci",
    place=40,
)
