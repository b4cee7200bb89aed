"""Padded: the original shapes, zeros in place of what was removed."""

from __future__ import annotations

from pruning.checkpoint.forms.base import FORMS, Form, write_model


class Padded(Form):
    """Loads everywhere as the original architecture and saves nothing."""

    untrainable = "training would fill its zeros"

    def write(self, parts, place, options):
        from pruning.checkpoint.rewrite.pad import padded_model

        model, remarks = padded_model(parts)
        write_model(model, parts, place, options)
        return remarks

    def loading(self, parts):
        return """Any tool that loads the original architecture loads this:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("this folder")
tokenizer = AutoTokenizer.from_pretrained("this folder")
```

It computes what the compact form computes, with the size and the cost of the dense model."""


FORMS.add(
    "padded",
    Padded(),
    title="Padded",
    summary="Zeros in place of what was removed; loads everywhere as the original architecture "
    "and saves nothing. For checks, and tools that need the original shape.",
    source="the original architecture",
    place=30,
)
