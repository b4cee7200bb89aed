"""The model card of a pruned checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pruning.pipeline import PruneRun


def model_card(run: PruneRun) -> str:
    """Markdown in the Hugging Face form."""
    base = run.dense.source
    hub_like = base.count("/") == 1 and not base.startswith((".", "/", "~"))
    if base == "demo":
        from pruning.sources.demo import REPOSITORY

        base, hub_like = REPOSITORY, True
    metadata = ["library_name: transformers", "tags:", "- headroom", "- structured-pruning"]
    if hub_like:
        metadata.insert(0, f"base_model: {base}")
    kept = run.report.kept_block_parameters
    return f"""---
{chr(10).join(metadata)}
---

# {short_name(base)}, pruned with Headroom

{kept:.1%} of the parameters of the Transformer blocks were kept; nothing was trained.

## Load

Blocks have different widths, so load it with Headroom:

```python
import pruning
loaded = pruning.load("this folder")
```

or on the command line: `python -m pruning generate THIS_FOLDER --prompt "..."`.

{run.report.to_markdown(heading="##")}
## Reproduce

`python -m pruning prune MODEL --recipe recipe.yaml --out FOLDER` with this recipe:

```yaml
{run.recipe.to_yaml().rstrip()}
```

## Limits

Pruned models lose rare knowledge first; check the text they write for your own use.
The base model's licence and limits apply.
"""


def short_name(name: str) -> str:
    """The last part of a path or hub id."""
    return name.rstrip("/").rsplit("/", 1)[-1]
