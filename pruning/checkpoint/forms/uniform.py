"""Uniform: the same widths in every block, as a model of the original architecture."""

from __future__ import annotations

from pruning.checkpoint.forms.base import FORMS, Form, write_model


class Uniform(Form):
    """A vanilla checkpoint of smaller sizes: no code, no key of ours."""

    def check(self, outline, recipe, outlook):
        from pruning.checkpoint.rewrite.resize import check_uniform

        return check_uniform(outline, outlook)

    def write(self, parts, place, options):
        from pruning.checkpoint.rewrite.resize import uniform_model

        model, remarks = uniform_model(parts)
        write_model(model, parts, place, options)
        return remarks

    def loading(self, parts):
        return """An ordinary checkpoint of the original architecture, with smaller sizes in its
config, for everything that reads them there: transformers, vLLM, TGI, llama.cpp's converter.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("this folder")
tokenizer = AutoTokenizer.from_pretrained("this folder")
```"""


FORMS.add(
    "uniform",
    Uniform(),
    title="Uniform",
    summary="An ordinary smaller checkpoint for transformers, vLLM, TGI and llama.cpp's "
    "converter; needs the same widths in every block.",
    source="the original architecture",
    place=20,
)
