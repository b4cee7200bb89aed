"""The library in a few names: prune a model that is in memory or on a hub, keep the result."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.artifacts.events import CancelCheck, ProgressCallback, ignore, never
from pruning.artifacts.recipe import Recipe
from pruning.checkpoint.forms import FormOptions
from pruning.checkpoint.gguf.types import GgufType
from pruning.checkpoint.records import Evaluation
from pruning.presets import with_preset
from pruning.utils.errors import HeadroomError, Unsupported, UsageError

if TYPE_CHECKING:
    from torch import nn

    from pruning.artifacts.plan import Plan
    from pruning.artifacts.report import Report
    from pruning.models.loading.loaded import LoadedModel
    from pruning.surgery.result import PruneRun

IN_MEMORY = "a model in memory"
"""The source of a model that has no name of its own."""


@dataclass(frozen=True)
class PrunedModel:
    """What :func:`prune` gives: the pruned model and everything that says how it came about.

    ``evaluation``: perplexities that :meth:`evaluate` found, which go into the model card.
    """

    run: PruneRun
    evaluation: Evaluation | None = None

    @property
    def model(self) -> nn.Module:
        """The pruned ``transformers`` model; it shares untouched parameters with the dense one. Of
        a bfloat16 or float16 source it computes in float32, with weights that the source's dtype
        holds exactly, unless the recipe names a dtype."""
        return self.run.pruned.model

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the dense model, or None."""
        return self.run.pruned.tokenizer

    @property
    def recipe(self) -> Recipe:
        """The recipe that gives the same tensors again."""
        return self.run.recipe

    @property
    def plan(self) -> Plan:
        """What went and why, as carried out."""
        return self.run.plan

    @property
    def report(self) -> Report:
        """Sizes before and after, errors per module, seconds, memory, versions."""
        return self.run.report

    def save_pretrained(
        self,
        directory: str | Path,
        *,
        form: str = "compact",
        gguf_type: GgufType = "f16",
        handoff: bool = False,
    ) -> Path:
        """Write weights, config, tokenizer, recipe, plan, report and card into ``directory``.

        ``form``: ``compact`` (any widths; loads with :func:`pruning.load`), ``uniform`` or
        ``padded`` (load with plain ``transformers``), ``gguf``. Weights are saved in
        ``report.saved_dtype``: the source's, unless the recipe or the model names another one; they
        have the values of :attr:`model`, bit for bit. ``handoff``: a script that trains it further
        (TRL, PEFT) is written into its folder ``training``. Raises Unsupported with the reason
        when the form cannot hold this model, UsageError when ``directory`` holds something else.
        """
        from pruning.checkpoint.saving import save

        options = FormOptions(gguf_type=gguf_type, handoff=handoff)
        return save(self.run, Path(directory), form, options=options, evaluation=self.evaluation)

    def push_to_hub(self, repo_id: str, *, form: str = "compact", private: bool = False) -> str:
        """Save and upload to ``repo_id`` (``owner/name``); returns the address. The token is read
        from ``HF_TOKEN`` only. Raises UsageError without one, HeadroomError when the hub refuses.
        """
        from tempfile import TemporaryDirectory

        from pruning.checkpoint.hub import check_repository, push

        check_repository(repo_id)
        with TemporaryDirectory(prefix="headroom-") as folder:
            saved = self.save_pretrained(Path(folder) / "model", form=form)
            return push(saved, repo_id, private=private)

    def evaluate(
        self,
        text: str = "sample",
        *,
        seq_len: int = 128,
        windows: int | None = 32,
        progress: ProgressCallback = ignore,
        should_cancel: CancelCheck = never,
    ) -> PrunedModel:
        """The same with perplexities before and after (``evaluation``) on the first ``windows``
        windows of ``text`` (a corpus or a file). Raises UsageError, SourceError, Cancelled, and
        HeadroomError where a perplexity is not finite."""
        from pruning.evaluate import perplexity

        before, after = (
            perplexity(
                side.model,
                side.tokenizer,
                text,
                seq_len=min(seq_len, self.plan.shape.max_positions),
                windows=windows,
                progress=progress,
                should_cancel=should_cancel,
            )
            for side in (self.run.dense, self.run.pruned)
        )
        if not math.isfinite(before.perplexity) or not math.isfinite(after.perplexity):
            raise HeadroomError("The perplexity overflows; prune less, or with recovery.")
        evaluation = Evaluation(before.perplexity, after.perplexity, after.protocol())
        return replace(self, evaluation=evaluation)


def prune(
    model: str | nn.Module | LoadedModel,
    tokenizer: Any = None,
    *,
    preset: str | None = None,
    keep: float | None = None,
    recipe: Recipe | None = None,
    calibration: str | None = None,
    samples: int | None = None,
    seq_len: int | None = None,
    seed: int | None = None,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> PrunedModel:
    """Prune ``model`` without retraining; the model itself is never changed.

    ``model``: a ``transformers`` model in memory (with its ``tokenizer``), a hub id, a folder, a
    ``.gguf`` file, ``demo``, or what :func:`pruning.load` gave. ``preset``: a whole method by one
    name (``headroom ls presets``; ``fast`` unless a recipe is given); ``keep``: the share of the
    Transformer blocks' parameters that stays (0.8 unless a recipe is given). ``recipe``: every
    setting; the other arguments win over it. ``calibration``: a corpus or a text file, ``samples``
    windows of ``seq_len`` tokens. A model that is named is computed in float32 and later saved in
    the dtype of its files, unless the recipe's ``model.dtype`` says otherwise; one in memory keeps
    its dtype.

    Raises UsageError, SourceError, Unsupported, OutOfMemory and Cancelled, one sentence each.
    """
    from pruning.pipeline import prune as run_prune

    chosen = _recipe(recipe, preset, keep)
    text = {"source": calibration, "samples": samples, "seq_len": seq_len}
    changes: dict[str, Any] = {"calibration": {k: v for k, v in text.items() if v is not None}}
    if seed is not None:
        changes["seed"] = seed
    chosen = chosen.changed(**changes)
    loaded = _loaded(model, tokenizer, chosen)
    named: dict[str, Any] = {"source": loaded.source, "revision": loaded.revision}
    if not isinstance(model, str | Path):  # it has its dtype, whatever the recipe says
        named["dtype"] = None if loaded.file_dtype else loaded.dtype
    chosen = chosen.changed(model=named)
    run = run_prune(loaded, chosen, progress=progress, should_cancel=should_cancel)
    return PrunedModel(run)


def _recipe(recipe: Recipe | None, preset: str | None, keep: float | None) -> Recipe:
    """The recipe, or the fast preset at four fifths, with what was named besides."""
    if recipe is None:
        preset, keep = preset or "fast", 0.8 if keep is None else keep
    chosen = recipe or Recipe()
    if preset is not None:
        chosen = with_preset(chosen, preset)
    if keep is not None:
        chosen = chosen.changed(budget={"kept": keep, "megabytes": None})
    return chosen


def _loaded(model: str | nn.Module | LoadedModel, tokenizer: Any, recipe: Recipe) -> LoadedModel:
    """``model`` as the engine wants it; one that the caller holds is looked at, not changed."""
    from torch import nn

    from pruning.models.loading import LoadedModel, load
    from pruning.pipeline import memory_task
    from pruning.preflight import preflight

    if isinstance(model, LoadedModel):
        return model if tokenizer is None else replace(model, tokenizer=tokenizer)
    if isinstance(model, nn.Module):
        return from_memory(model, tokenizer)
    if not isinstance(model, str | Path):
        raise UsageError(
            f"A model cannot be {type(model).__name__}; give a transformers model or a name."
        )
    choice = recipe.model
    preflight(recipe.changed(model={"source": str(model)}))
    loaded = load(
        str(model), revision=choice.revision, dtype=choice.dtype, task=memory_task(recipe)
    )
    return loaded if tokenizer is None else replace(loaded, tokenizer=tokenizer)


def from_memory(model: nn.Module, tokenizer: Any = None) -> LoadedModel:
    """A ``transformers`` model that the caller holds, ready for every stage. It shares all
    parameters with ``model``, which stays as it is. Raises Unsupported for other families and for
    weights that are not floating-point numbers on one device."""
    from pruning.adapters import adapter_for
    from pruning.models.fingerprint import content_digest
    from pruning.models.loading.loaded import LoadedModel
    from pruning.surgery.cut import shared_copy

    if not hasattr(model, "config"):
        raise Unsupported("The model has no config; give a transformers model for causal LM.")
    adapter = adapter_for(model.config)
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point() or parameter.is_meta:
            raise Unsupported(
                f"The weight {name!r} is {parameter.dtype} on {parameter.device}; load the model "
                "unquantised and whole, or give its name."
            )
    own: Any = adapter.prepared(shared_copy(model)).eval()
    name = getattr(model.config, "_name_or_path", "") or IN_MEMORY
    return LoadedModel(own, tokenizer, adapter, name, None, f"memory:{content_digest(own)}")
