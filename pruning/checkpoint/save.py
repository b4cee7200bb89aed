"""Write a pruned model with everything that says how it came about."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pruning.checkpoint.card import model_card
from pruning.checkpoint.folder import written_aside
from pruning.checkpoint.widths import KEY, recorded, to_config
from pruning.errors import UsageError

if TYPE_CHECKING:
    from pruning.pipeline import PruneRun

MARKER = "recipe.yaml"


def save(run: PruneRun, folder: Path) -> Path:
    """Write safetensors shards, config, tokenizer, recipe, plan, report and model card.

    The folder appears whole or not at all. Raises UsageError when ``folder`` holds something
    that is not a model saved by Headroom, HeadroomError when it cannot be written.
    """
    folder = Path(folder)
    check_target(folder)
    model = run.pruned.model
    setattr(model.config, KEY, to_config(recorded(run.dense.model, run.widths)))
    with written_aside(folder) as place:
        # under the live model's own names: the loader matches them without renaming
        model.save_pretrained(place, max_shard_size="5GB", save_original_format=False)
        if run.pruned.tokenizer is not None:
            run.pruned.tokenizer.save_pretrained(place)
        (place / MARKER).write_text(run.recipe.to_yaml(), encoding="utf-8")
        (place / "plan.json").write_text(run.plan.to_json(), encoding="utf-8")
        (place / "report.json").write_text(run.report.to_json(), encoding="utf-8")
        (place / "README.md").write_text(model_card(run), encoding="utf-8")
        for file in place.rglob("*"):
            if file.is_file():
                file.chmod(0o644)  # safetensors writes its files private
    return folder


def check_target(folder: Path) -> None:
    """Raise UsageError when ``folder`` must not be replaced."""
    if folder.is_file():
        raise UsageError(f"{folder} is a file; name a folder for the pruned model.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise UsageError(
            f"{folder} is not empty and was not saved by Headroom; choose another folder."
        )
