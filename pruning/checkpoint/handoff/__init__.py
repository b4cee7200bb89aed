"""Files for people who train elsewhere: a script, its settings and a page beside a saved model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from pruning.checkpoint.parts import Parts
from pruning.registries import CORPORA

FOLDER = "training"
SCRIPT, SETTINGS, PAGE = "train.py", "settings.yaml", "README.md"
_HERE = Path(__file__).parent
_HUB_TEXT = {"path": "Salesforce/wikitext", "name": "wikitext-103-raw-v1", "split": "train"}


def write_handoff(parts: Parts, form: str, place: Path) -> None:
    """Write the folder ``training`` into the saved model ``place``; raises OSError."""
    folder = place / FOLDER
    folder.mkdir()
    settings = _settings(parts, form)
    (folder / SCRIPT).write_text((_HERE / SCRIPT).read_text(encoding="utf-8"), encoding="utf-8")
    (folder / SETTINGS).write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    template = (_HERE / "README.md.j2").read_text(encoding="utf-8")
    page = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    (folder / PAGE).write_text(
        page.from_string(template).render(settings=settings, origin=parts.origin, form=form),
        encoding="utf-8",
    )


def _settings(parts: Parts, form: str) -> dict[str, Any]:
    recipe = parts.records.recipe
    source, text = recipe.calibration.source, dict(_HUB_TEXT)
    if source not in CORPORA:
        file = str(Path(os.path.expanduser(source)).resolve())
        text = {"path": "text", "data_files": file, "split": "train"}
    seq_len = min(512, parts.adapter.max_positions(parts.model.config))
    return {
        "model": "..",
        "own_code": form == "compact",
        "teacher": _teacher(parts),
        "text": text,
        "seq_len": seq_len,
        "windows": None,
        "lora": {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"},
        "training": {
            "output_dir": "trained",
            "num_train_epochs": 1,
            "learning_rate": 5e-4,
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 1,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 100,
            "logging_steps": 10,
            "save_steps": 500,
            "seed": recipe.seed,
            "report_to": "none",
        },
    }


def _teacher(parts: Parts) -> str:
    """The dense model by the name that transformers finds it under, from any folder."""
    source = parts.records.recipe.model.source
    folder = Path(os.path.expanduser(source))
    return str(folder.resolve()) if folder.is_dir() else parts.origin.repository or source
