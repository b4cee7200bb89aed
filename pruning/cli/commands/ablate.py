"""``ablate``: switch units off in the loaded model and say what that changes."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pruning.artifacts.ablation import SENTENCE, Ablation
from pruning.cli.base import COMMANDS, Command, table
from pruning.cli.console import Console
from pruning.cli.options import add_model, checked, load_model, parse_names, text_help
from pruning.cli.recipe import recipe_from
from pruning.utils.errors import UsageError

if TYPE_CHECKING:
    from pruning.artifacts.shapes import ModelShape
    from pruning.preflight import Forecast


class Ablate(Command):
    """Masks in the loaded model: nothing is cut and nothing is written."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_model(parser)
        add = parser.add_argument
        add("--heads", type=parse_names, default=(), metavar="B.H,...", help="heads, as 3.1,3.2")
        add("--groups", type=parse_names, default=(), metavar="B.G,...", help="key/value groups")
        share = "lowest-scored share of FFN channels of blocks, as 5:0.3,6:0.3"
        add("--ffn", type=parse_names, default=(), metavar="B:SHARE,...", help=share)
        whole = "whole blocks, which then pass on what enters them"
        add("--blocks", dest="off", type=parse_names, default=(), metavar="B,...", help=whole)
        each = "every head of this block one by one, against what the criteria predict"
        add("--block", type=int, metavar="B", help=each)
        add("--sentence", default=SENTENCE, metavar="TEXT", help="whose next token is predicted")
        add("--text", default="sample", metavar="SRC", help=f"for the loss, a {text_help()}")
        add("--text-field", dest="column", metavar="NAME", help="column of a JSON or parquet file")
        add("--tokens", type=int, default=128, metavar="N", help="tokens per window (default 128)")
        add("--windows", type=int, default=2, metavar="N", help="windows (default 2)")
        add("--recipe", metavar="RECIPE.yaml", help="criteria, and the text to measure on")
        add("--ffn-score", metavar="NAME", help="criterion for FFN channels")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        # blocks of a recipe are those that may be cut, not those that are off
        recipe = recipe_from(Namespace(**{**vars(arguments), "blocks": None}))
        asked = (arguments.heads, arguments.groups, arguments.ffn, arguments.off)
        if not any(asked) and arguments.block is None:
            raise UsageError(
                "Nothing to switch off; give --heads, --groups, --ffn or --blocks, or --block for "
                "the heads of one block."
            )
        forecast = checked(arguments, recipe, texts=[arguments.text], prunes=False)
        off = _ablation(arguments, forecast.outline.shape)
        _check(arguments, forecast, off)
        from pruning.ablation import leave_one_out, masks_for, read, what_if
        from pruning.ablation.request import needs_scores
        from pruning.pipeline import measure_model, memory_task

        loaded = load_model(arguments, console, memory_task(recipe, prunes=False), recipe)
        measurement = None
        if needs_scores(off) or arguments.block is not None:
            measurement = measure_model(loaded, recipe, progress=console.progress)
        reading = read(
            loaded,
            arguments.sentence,
            text=arguments.text,
            seq_len=arguments.tokens,
            windows=arguments.windows,
            text_field=arguments.column,
        )
        result: dict[str, Any] = {}
        if any(asked):
            masks = masks_for(off, forecast.outline.shape, measurement, recipe)
            found = what_if(loaded, reading, off, masks, progress=console.progress)
            result["what_if"] = found.as_dict()
        if arguments.block is not None:
            options = {"seed": recipe.seed, "progress": console.progress}
            each = leave_one_out(loaded, reading, arguments.block, measurement, **options)
            result["leave_one_out"] = each.as_dict()
        return result

    def text(self, result: Mapping[str, Any]) -> str:
        parts = []
        if "what_if" in result:
            found, after = result["what_if"], result["what_if"]["next"]
            told = {name: found[name] for name in ("protocol", "seconds")}
            lines = {"off": found["off"], **found["change"], **told}
            parts.append(super().text(lines))
            rows = [{**token, "text": repr(token["text"])} for token in after["tokens"]]
            heading = f"next token after {after['sentence']!r} (KL {after['kl']:.4g} nats)"
            parts.append(f"{heading}\n{table(rows, ('text', 'before', 'after'))}")
        if "leave_one_out" in result:
            parts += _each_head(result["leave_one_out"])
        return "\n\n".join(parts)


def _each_head(found: Mapping[str, Any]) -> list[str]:
    """The heads of a block by what they change, then how well it was foretold."""
    predictors = found["predictors"]
    heads = [
        {"head": head, **change, **{p["name"]: p["values"][head] for p in predictors}}
        for head, change in enumerate(found["changes"])
    ]
    heads.sort(key=lambda row: row["kl"])
    shown = ("head", "kl", "js", "loss_before", "loss_after", "nearest", "second_moment")
    ranked = [{**p, "spearman": p["rank_correlation"]} for p in predictors]
    title = f"every head of block {found['block']} alone, least change first"
    return [
        f"{title}\n{table(heads, shown)}\n{found['protocol']}",
        f"what foretold it, by rank correlation with KL (by chance up to ±{found['by_chance']:.2f})"
        f"\n{table(ranked, ('name', 'spearman'))}",
    ]


def _ablation(arguments: Namespace, shape: ModelShape) -> Ablation:
    """What the options name; raises UsageError."""
    heads = [_pair("--heads", text) for text in arguments.heads]
    for block, group in (_pair("--groups", text) for text in arguments.groups):
        heads += _heads_of(block, group, shape)
    return Ablation(
        heads=tuple(dict.fromkeys(heads)),
        ffn=tuple(dict(_share(text) for text in arguments.ffn).items()),
        blocks=tuple(dict.fromkeys(_number("--blocks", text) for text in arguments.off)),
    )


def _heads_of(block: int, group: int, shape: ModelShape) -> list[tuple[int, int]]:
    from pruning.ablation.request import check_block

    check_block(block, shape)
    attention = shape.blocks[block].attention
    if group >= attention.groups:
        raise UsageError(
            f"Block {block} has no key/value group {group}; its groups are numbered 0 to "
            f"{attention.groups - 1}."
        )
    size = attention.units_per_group
    return [(block, head) for head in range(group * size, (group + 1) * size)]


def _pair(option: str, text: str) -> tuple[int, int]:
    block, _, number = text.partition(".")
    return _number(option, block, text), _number(option, number, text)


def _share(text: str) -> tuple[int, float]:
    block, _, share = text.partition(":")
    try:
        return _number("--ffn", block, text), float(share)
    except ValueError:
        raise UsageError(f"--ffn {text!r} is not of the form BLOCK:SHARE, like 5:0.3.") from None


def _number(option: str, part: str, text: str = "") -> int:
    if not (part.isascii() and part.isdecimal()):
        form = {"--ffn": "BLOCK:SHARE, like 5:0.3", "--blocks": "BLOCK, like 7"}
        like = form.get(option, "BLOCK.NUMBER, like 3.1")
        raise UsageError(f"{option} {text or part!r} is not of the form {like}.")
    return int(part)


def _check(arguments: Namespace, forecast: Forecast, off: Ablation) -> None:
    """Raise UsageError, before weights are read, for what this model does not have."""
    from pruning.ablation.reading import check_reading
    from pruning.ablation.request import check_ablation, check_block
    from pruning.data.windows import check_length

    check_reading(arguments.tokens, arguments.windows)
    check_length(forecast.outline.model, arguments.tokens)
    check_ablation(off, forecast.outline.shape)
    if arguments.block is not None:
        check_block(arguments.block, forecast.outline.shape)


COMMANDS.add("ablate", Ablate(), summary="switch units off and see what it changes", place=35)
