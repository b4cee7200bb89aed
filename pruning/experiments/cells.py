"""Cells on disk and how one is computed: each is a file of its own, under a key of everything that
its numbers depend on, so that a finished one is never computed again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pruning.artifacts.cell import CELL_VERSION, Cell, Protocol, TextScore
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.report import versions
from pruning.artifacts.shapes import footprint, full_widths
from pruning.utils.digest import key_of, sha256_of
from pruning.utils.errors import HeadroomError
from pruning.utils.files import cache_root, write_bytes
from pruning.utils.version import __version__

if TYPE_CHECKING:
    from pruning.evaluate.task_data import TaskSource
    from pruning.models.loading.loaded import LoadedModel


class CellStore:
    """Cells of one model under one protocol, a JSON file each in the cache folder."""

    def __init__(self, loaded: LoadedModel, protocol: Protocol) -> None:
        self.loaded, self.protocol = loaded, protocol
        self._texts: dict[tuple[str, str, str | None], str] = {}
        self.sources = sources_of(protocol)
        self._made_from = [
            CELL_VERSION,
            __version__,
            loaded.identity,
            loaded.revision,
            loaded.dtype,
            loaded.saved_dtype,
            [self._text(text, "test") for text in protocol.texts],
            protocol.seq_len,
            protocol.windows,
            [[source.name, source.data] for source in self.sources],
            protocol.limit if self.sources else None,
        ]
        self.folder: Path = cache_root() / "cells"

    def path(self, recipe: Recipe | None) -> Path:
        """The file of the cell of ``recipe`` (None: the dense model)."""
        return self.folder / f"{key_of([self._made_from, self._content(recipe)])}.json"

    def get(self, recipe: Recipe | None) -> Cell | None:
        """The finished cell; None where there is none, or a damaged one."""
        path = self.path(recipe)
        try:
            return Cell.from_json(path.read_bytes())
        except (OSError, HeadroomError):
            return None

    def put(self, recipe: Recipe | None, cell: Cell) -> Cell:
        """Store ``cell``; a full disk must not lose what is in memory."""
        try:
            write_bytes(self.path(recipe), cell.to_json().encode())
        except HeadroomError:
            pass
        return cell

    def _content(self, recipe: Recipe | None) -> Any:
        if recipe is None:
            return "dense"
        # the model is in the key by its contents, whatever the recipe calls it
        data, text = recipe.model_dump(exclude={"model"}), recipe.calibration
        return [data, self._text(text.source, "train", text.text_field)]

    def _text(self, source: str, split: Literal["train", "test"], field: str | None = None) -> str:
        """What a corpus holds: a file of the same name may change."""
        from pruning.data.corpora.base import CORPORA, TextCorpus
        from pruning.data.windows import read_text

        if source in CORPORA and not isinstance(CORPORA[source], TextCorpus):
            return source
        if (source, split, field) not in self._texts:
            text = read_text(source, split, field)
            self._texts[source, split, field] = sha256_of([text.encode()])
        return self._texts[source, split, field]


def sources_of(protocol: Protocol) -> tuple[TaskSource, ...]:
    """The tasks of ``protocol``; raises what
    :func:`pruning.evaluate.task_data.task_sources` raises."""
    if not protocol.tasks:
        return ()
    from pruning.evaluate.task_data import task_sources

    folder = None if protocol.task_data is None else Path(protocol.task_data).expanduser()
    return task_sources(protocol.tasks, folder)


def compute_cell(
    loaded: LoadedModel,
    recipe: Recipe | None,
    protocol: Protocol,
    sources: Sequence[TaskSource] = (),
    **callbacks: Any,
) -> Cell:
    """Prune by ``recipe`` (None: not at all) and evaluate; the pruned model is not kept.

    ``callbacks``: ``progress`` and ``should_cancel``. Raises what
    :func:`pruning.pipeline.prune` and :func:`pruning.evaluate.perplexity` raise.
    """
    from pruning import pipeline
    from pruning.evaluate import latency, perplexity, zero_shot
    from pruning.evaluate.speed import peak_memory_bytes, reset_process_peak
    from pruning.models.execution.offload import devices_of

    reset_process_peak()
    shape = loaded.adapter.model_shape(loaded.model)
    heads = sum(block.attention.units for block in shape.blocks)
    widths = full_widths(shape)
    pruned, kept, seconds, peak, check = loaded, 1.0, 0.0, 0, None
    if recipe is not None:
        run = pipeline.prune(loaded, recipe, **callbacks)
        check = run.report.recovery_check
        pruned, seconds = run.pruned, run.seconds
        kept, peak = run.report.kept_block_parameters, run.report.peak_memory_bytes
        widths = tuple(run.widths)
    texts = []
    for text in protocol.texts:
        score = perplexity(
            pruned.model,
            loaded.tokenizer,
            text,
            seq_len=protocol.seq_len,
            windows=protocol.windows,
            **callbacks,
        )
        seconds += score.seconds
        finite = score.perplexity if math.isfinite(score.perplexity) else None
        nll = score.nll if math.isfinite(score.nll) else None
        texts.append(TextScore(text, finite, nll, score.protocol()))
    tasks = None
    if sources:
        tasks = zero_shot(pruned, sources, limit=protocol.limit, **callbacks)
        seconds += tasks.seconds
    return Cell(
        model=loaded.source,
        dtype=loaded.dtype,
        device=loaded.device,
        recipe=None if recipe is None else recipe.model_dump(mode="json"),
        kept=kept,
        parameters=sum(parameter.numel() for parameter in pruned.model.parameters()),
        macs_per_token=footprint(shape, widths, protocol.seq_len).flops_per_token // 2,
        heads=heads,
        heads_removed=heads - sum(width.heads for width in widths),
        recovery=None if check is None else check.kept,
        latency=latency(pruned, protocol.seq_len),
        texts=tuple(texts),
        zero_shot=tasks,
        seconds=round(seconds, 3),
        peak_memory_bytes=max(peak, peak_memory_bytes(*devices_of(pruned.model))),
        versions=versions(),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
    )
