"""Compact: every block at its own width; what Headroom itself loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pruning.checkpoint.forms.base import FORMS, Form, write_model

CLASS = "HeadroomForCausalLM"
MODULE = "modeling_headroom"
_IMPORT = "from transformers import LlamaForCausalLM as Architecture\n"


class Compact(Form):
    """Safetensors, the widths under our key of the config, and a modelling file beside them."""

    def write(self, parts, place, options):
        from pruning.models.compact.config_key import KEY, Record, counted, plain_config, to_config
        from pruning.models.compact.layout import layout
        from pruning.models.compact.load import skeleton

        model = parts.model
        architecture = type(model).__name__
        dense = skeleton(plain_config(model.config), model.dtype)
        widths = counted(model, dense, parts.adapter)
        record = Record(architecture, widths, layout(model, dense))
        # under the live model's own names, which the record uses as well
        write_model(model, parts, place, options, save_original_format=False)
        _complete_config(place / "config.json", {KEY: to_config(record)})
        (place / f"{MODULE}.py").write_text(modelling_file(architecture), encoding="utf-8")
        return ()

    def loading(self, parts):
        others = "|".join(entry.name for entry in FORMS if entry.value is not self)
        return f"""Every block has widths of its own. With Headroom:

```python
import pruning
loaded = pruning.load("this folder")
```

or `python -m pruning generate THIS_FOLDER --prompt "..."`. Without it, through the short
modelling file in this folder (`{MODULE}.py`; read it first, it needs torch and transformers only):

```python
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("this folder", trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained("this folder")
```

Other tools need another form: `python -m pruning export THIS_FOLDER --form {others}
--out OUT`."""


def modelling_file(architecture: str) -> str:
    """The source of the modelling file for one architecture class of transformers."""
    source = (Path(__file__).parents[2] / "models" / "compact" / f"{MODULE}.py").read_text(
        encoding="utf-8"
    )
    assert source.count(_IMPORT) == 1
    return source.replace(_IMPORT, _IMPORT.replace("LlamaForCausalLM", architecture))


def _complete_config(path: Path, record: dict[str, Any]) -> None:
    """Add our key, and the class to build, so that no tool takes it for the dense model."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {
        "architectures": [CLASS],
        "auto_map": {"AutoModelForCausalLM": f"{MODULE}.{CLASS}"},
        **record,
    }
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


FORMS.add(
    "compact",
    Compact(),
    title="Compact",
    summary="Smallest and exact; loads with Headroom, or with transformers through the short "
    "modelling file in the folder.",
    source="transformers custom models (auto_map)",
    place=10,
)
