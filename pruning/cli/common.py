"""What several commands do alike."""

from __future__ import annotations

import sys
from typing import Any

from pruning.artifacts.events import Progress


def show(progress: Progress) -> None:
    """One line per step on stderr."""
    line = f"[{progress.stage} {progress.done}/{progress.total}] {progress.message}"
    event = progress.event
    if event is not None:
        line += (
            f": {len(event.removed)} of {event.units} removed, error "
            f"{event.error_before:.4f} -> {event.error_after:.4f}, {event.seconds:.1f} s"
        )
    sys.stderr.write(line + "\n")


def load_model(arguments: Any, dtype: str, task: Any) -> Any:
    """The model that the command names, placed so that ``task`` fits into memory."""
    from pruning.models.loading import load

    sys.stderr.write(f"[load] {arguments.model}\n")
    loaded = load(
        arguments.model,
        revision=arguments.revision,
        dtype=dtype,
        device=arguments.device,
        placement=arguments.placement,
        task=task,
    )
    if loaded.placement != "whole":
        sys.stderr.write(f"[load] block by block (placement {loaded.placement})\n")
    return loaded


def warn(message: str) -> None:
    """One line on stderr that does not stop the command."""
    sys.stderr.write(f"headroom: note: {message}\n")
