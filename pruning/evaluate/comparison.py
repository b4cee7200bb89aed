"""The questions that a dense and a pruned model are asked together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pruning.artifacts.comparison import Comparison, Generation, Pair, Questions, Speed
from pruning.artifacts.events import CancelCheck, Progress, ProgressCallback, ignore, never, stop_if
from pruning.evaluate.generation import generate
from pruning.evaluate.speed import tokens_per_second
from pruning.evaluate.token_losses import read_with_both
from pruning.models.loading.loaded import LoadedModel
from pruning.utils.errors import Cancelled, HeadroomError
from pruning.utils.memory import memory_guard

TURNS, WRITTEN_TOKENS = 4, 8
"""How often each model is timed, and the tokens that it writes each time. Many short turns: the
first is cold, other work comes and goes, and the best of them is the machine's own."""

PROMPT_TOKENS = 128
"""Tokens of the prompt that prefill is timed with, as far as the model has positions."""


def compare(
    dense: LoadedModel,
    pruned: LoadedModel,
    questions: Questions,
    *,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> Comparison:
    """All that ``questions`` asks, one after the other. Never raises what a question raises: one
    that cannot be answered is among the ``problems``, and cancelling leaves out the rest."""
    callbacks = {"progress": progress, "should_cancel": should_cancel}
    found = Comparison()

    def read() -> dict[str, Any]:
        text = {"seq_len": min(questions.seq_len, _positions(dense)), "windows": questions.windows}
        models = (dense.model, pruned.model, dense.tokenizer)
        scores, tokens = read_with_both(*models, questions.text, **text, **callbacks)
        return {"perplexity": scores, "tokens": tokens}

    def time() -> dict[str, Any]:
        return {"speed": speeds(dense, pruned, **callbacks)}

    def write() -> dict[str, Any]:
        wanted = (questions.prompt, questions.new_tokens)
        return {
            "texts": continuations(dense, pruned, *wanted, **callbacks),
            "prompt": questions.prompt,
        }

    asked: list[Callable[[], dict[str, Any]]] = []
    asked += [read] if questions.text is not None else []
    asked += [time] if questions.speed else []
    asked += [write] if questions.prompt is not None else []
    for ask in asked:
        try:
            with memory_guard(f"The memory of {dense.device} is exhausted; ask for shorter texts."):
                found = replace(found, **ask())
        except Cancelled:
            break
        except HeadroomError as error:
            found = replace(found, problems=(*found.problems, str(error)))
    return found


def speeds(
    dense: LoadedModel,
    pruned: LoadedModel,
    *,
    new_tokens: int = WRITTEN_TOKENS,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> Pair[Speed]:
    """Tokens per second of both, by turns, the best of each; raises Cancelled."""
    turns = (dense, pruned) * TURNS
    rates = []
    prompt = max(1, min(PROMPT_TOKENS, _positions(dense) - new_tokens))
    for place, loaded in enumerate(turns):
        stop_if(should_cancel)
        name = "pruned" if place % 2 else "dense"
        progress(Progress("evaluate", place, len(turns), f"timing the {name} model"))
        how = {"prompt_tokens": prompt, "new_tokens": new_tokens, "repeats": 1}
        rates.append(tokens_per_second(loaded.model, **how))
    sides = (rates[0::2], rates[1::2])
    return Pair(*(Speed(max(s.prefill for s in one), max(s.decode for s in one)) for one in sides))


def continuations(
    dense: LoadedModel,
    pruned: LoadedModel,
    prompt: str,
    new_tokens: int,
    *,
    on_text: Callable[[int, str], None] | None = None,
    progress: ProgressCallback = ignore,
    should_cancel: CancelCheck = never,
) -> Pair[Generation]:
    """``prompt`` continued greedily by both. ``on_text`` gets the side (0: dense, 1: pruned) and a
    further piece of its text. Raises what :func:`generate` raises."""

    def side(loaded: LoadedModel, name: str, part: int) -> Generation:
        def heard(piece: str) -> None:
            if on_text is not None:
                on_text(part, piece)
            progress(Progress("generate", part, 2, f"The {name} model generates"))

        progress(Progress("generate", part, 2, f"The {name} model reads the prompt"))
        models = (loaded.model, loaded.tokenizer)
        how = {"max_new_tokens": new_tokens, "on_text": heard, "should_cancel": should_cancel}
        return generate(*models, prompt, **how)

    return Pair(side(dense, "dense", 0), side(pruned, "pruned", 1))


def _positions(loaded: LoadedModel) -> int:
    return loaded.adapter.max_positions(loaded.model.config)
