"""The model card of a pruned checkpoint, in the Hugging Face form."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from pruning.checkpoint.base_model import Origin, short_name
from pruning.checkpoint.forms import FORMS
from pruning.checkpoint.parts import Parts
from pruning.checkpoint.records import MARKER, Records
from pruning.recovery import RECOVERIES


def model_card(parts: Parts, form: str, remarks: Sequence[str] = ()) -> str:
    """Markdown with a YAML head: what it is, how to load it, what was removed, how to repeat it."""
    records, entry = parts.records, FORMS.entry(form)
    kept = records.report.kept_block_parameters
    noted = "".join(f"\n- {remark}" for remark in remarks)
    return f"""---
{_head(parts.origin, form)}---

# {short_name(parts.origin.name)}, pruned with Headroom

Whole attention heads and FFN channels were removed; {kept:.1%} of the parameters of the Transformer
blocks were kept. Nothing was trained. {_recovery(records)}

This is the {form} form: {entry.summary[0].lower()}{entry.summary[1:]}

## Load

{entry.value.loading(parts)}
{noted}
{_numbers(parts, form)}{_quality(records)}
{records.report.to_markdown(heading="##")}
{_reproduce(records)}
## Limits

Pruned models lose rare words and rare knowledge first, and perplexity on one text says little
about that: try the model on your own task. Neither its answers nor its safety were evaluated, and
what the base model's card says of use and limits holds here as well.
{_licence(parts.origin)}
"""


def _recovery(records: Records) -> str:
    method = records.recipe.recovery.method
    how = RECOVERIES.entry(method).summary.rstrip(".")
    return f"Recovery, `{method}`: {how[0].lower()}{how[1:]}."


def _head(origin: Origin, form: str) -> str:
    head: dict = {}
    if origin.repository:
        head["base_model"] = origin.repository
        head["base_model_relation"] = "quantized" if form == "gguf" else "finetune"
    if origin.licence:
        head["license"] = origin.licence
    head |= origin.terms
    head["library_name"] = "gguf" if form == "gguf" else "transformers"
    head["pipeline_tag"] = "text-generation"
    head["tags"] = ["headroom", "structured-pruning", form]
    return yaml.safe_dump(head, sort_keys=False)


def _numbers(parts: Parts, form: str) -> str:
    """Says so when the weights are stored otherwise than they were measured."""
    measured, stored = parts.records.report.dtype, parts.loaded.dtype
    if form == "gguf":
        return f"Sizes and perplexities below are of the model in {measured}, not of the file.\n\n"
    if stored != measured:
        return f"Stored as {stored}; sizes and perplexities below are those in {measured}.\n\n"
    return ""


def _quality(records: Records) -> str:
    found = records.evaluation
    if found is None:
        return (
            "## Quality\n\nPerplexity was not measured with this run; "
            "`python -m pruning evaluate MODEL --text SOURCE` measures it.\n"
        )
    return f"""## Quality

| | dense | pruned |
|---|---|---|
| perplexity | {found.before:.2f} | {found.after:.2f} |

Protocol: {found.protocol} Lower is better.
"""


def _reproduce(records: Records) -> str:
    source = records.recipe.model.source
    return f"""## Reproduce

`python -m pruning prune {source} --recipe {MARKER} --out FOLDER` gives the same tensors on the same
machine with the same versions, and says what differs otherwise. The recipe:

```yaml
{records.recipe.to_yaml().rstrip()}
{"" if records.provenance is None else records.provenance.to_yaml().rstrip()}
```
"""


def _licence(origin: Origin) -> str:
    if origin.licence:
        name = origin.terms.get("license_name") or origin.licence
        return f"The base model's licence ({name}) and its limits apply."
    return "The base model's licence and limits apply; its card did not say which licence."
