"""Arguments of the commands."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from pruning.checkpoint.forms import FORMS, GGUF_TYPES
from pruning.criteria import CRITERIA
from pruning.planning.allocation import ALLOCATIONS
from pruning.presets import PRESETS
from pruning.recovery import RECOVERIES
from pruning.sweep import AXES
from pruning.utils.version import __version__

MODEL_HELP = "'demo', a hub id, a model folder or a .gguf file"
EVALUATE_HELP = "text for the card's perplexity, or 'none' (default: sample)"
PLACEMENT_HELP = (
    "where blocks wait that are not in use: whole (on the device), spread (over all cards), memory "
    "(CPU memory), disk, or auto: the first of these that fits (default)"
)
TEXT_HELP = "corpus (wikitext2, ptb, c4, bookcorpus, sample, self, random) or a path"


class Parser(argparse.ArgumentParser):
    """Wrong use gives one line and exit status 2."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: {message}\n")
        raise SystemExit(2)


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``python -m pruning``."""
    parser = Parser(prog="python -m pruning", description="Structured pruning without retraining.")
    parser.add_argument("--version", action="version", version=f"headroom {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    measure = commands.add_parser("measure", help="measure heads and activations")
    _common(measure)
    _calibration(measure)
    measure.add_argument(
        "--gradients", action="store_true", help="also make the gradient pass (Taylor, Fisher)"
    )
    measure.add_argument(
        "--curves", action="store_true", help="also measure expected losses (allocation predicted)"
    )
    measure.add_argument("--out", required=True, metavar="FILE.json", help="where to write it")

    prune = commands.add_parser("prune", help="prune, recover and save")
    _common(prune)
    _calibration(prune)
    _decisions(prune)
    prune.add_argument("--recipe", metavar="RECIPE.yaml", help="options below override it")
    prune.add_argument("--out", required=True, metavar="DIR", help="folder for the pruned model")
    _form(prune)
    prune.add_argument("--evaluate", default="sample", metavar="SRC", help=EVALUATE_HELP)
    prune.add_argument(
        "--evaluate-windows", type=int, default=16, metavar="N", help="windows of it (default 16)"
    )

    evaluate = commands.add_parser("evaluate", help="perplexity on a text")
    _common(evaluate)
    evaluate.add_argument("--text", required=True, metavar="SRC", help=TEXT_HELP)
    evaluate.add_argument("--seq-len", type=int, default=128, metavar="N")
    evaluate.add_argument("--windows", type=int, metavar="N", help="first N windows (default all)")

    sweep = commands.add_parser("sweep", help="perplexity along a ratio, τ or sample count")
    _common(sweep)
    _calibration(sweep)
    _decisions(sweep, preset=False)
    sweep.add_argument("--recipe", metavar="RECIPE.yaml", help="options here override it")
    sweep.add_argument("--axis", choices=tuple(AXES), default="ratio")
    sweep.add_argument("--values", type=_numbers, required=True, metavar="A,B,...")
    sweep.add_argument(
        "--presets",
        type=_names,
        default=("fast",),
        metavar="A,B,...",
        help=f"methods, some of: {', '.join(PRESETS.names())}",
    )
    sweep.add_argument("--text", default="sample", metavar="SRC", help=TEXT_HELP)
    sweep.add_argument("--text-seq-len", type=int, default=128, metavar="N")
    sweep.add_argument("--windows", type=int, metavar="N", help="first N windows (default all)")

    generate = commands.add_parser("generate", help="continue a prompt greedily")
    _common(generate)
    generate.add_argument("--prompt", required=True, metavar="TEXT")
    generate.add_argument("--max-new-tokens", type=int, default=64, metavar="N")

    export = commands.add_parser("export", help="write a saved model in another form")
    export.add_argument("folder", metavar="DIR", help="compact folder that 'prune' made")
    export.add_argument("--out", required=True, metavar="OUT", help="folder (or FILE.gguf)")
    export.add_argument("--dtype", help="auto (as stored), float32, bfloat16 or float16")
    export.add_argument("--json", action="store_true", help="one JSON object on stdout")
    _form(export, required=True)

    push = commands.add_parser("push", help="upload a saved folder to the Hugging Face hub")
    push.add_argument("folder", metavar="DIR", help="folder that 'prune' or 'export' made")
    push.add_argument("repository", metavar="REPO_ID", help="like 'you/smollm2-pruned'")
    push.add_argument("--private", action="store_true", help="make a new repository private")
    push.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


def _form(parser: argparse.ArgumentParser, required: bool = False) -> None:
    # any name is taken here: the registry refuses an unknown one with the list
    parser.add_argument(
        "--form",
        required=required,
        default=None if required else "compact",
        metavar="NAME",
        help=f"one of: {', '.join(FORMS.names())}",
    )
    parser.add_argument("--gguf-type", default="f16", choices=GGUF_TYPES, help="with --form gguf")


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("--revision", help="hub revision")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--dtype", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--placement", default="auto", metavar="WHERE", help=PLACEMENT_HELP)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _calibration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--calibration", metavar="SRC", help=TEXT_HELP)
    parser.add_argument("--samples", type=int, metavar="N", help="calibration windows")
    parser.add_argument("--seq-len", type=int, metavar="N", help="tokens per window")
    parser.add_argument("--seed", type=int, metavar="N")


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in _names(text))


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _decisions(parser: argparse.ArgumentParser, *, preset: bool = True) -> None:
    add = parser.add_argument
    if preset:
        names = ", ".join(PRESETS.names())
        add("--preset", metavar="NAME", help=f"a whole method, one of: {names}")
    add("--keep", type=float, metavar="K", help="share of the block parameters to keep")
    add("--megabytes", type=float, metavar="MB", help="size that the whole model may have")
    add("--spare-heads", action="store_true", default=None, help="take FFN channels only")
    add("--allocation", metavar="NAME", help=f"one of: {', '.join(ALLOCATIONS.names())}")
    add("--multiple", type=int, metavar="N", help="round FFN widths to a multiple of N")
    add("--head-threshold", type=float, metavar="TAU", help="similarity threshold in nats")
    add("--head-ratio", type=float, metavar="R", help="share of heads that must go, per block")
    add("--head-policy", metavar="NAME", help="grouped queries: query, kv_group, ungroup, auto")
    # any name is taken here: the recipe refuses an unknown one with the list
    scores = ", ".join(CRITERIA.names())
    add("--head-score", metavar="NAME", help=f"criterion for heads, one of: {scores}")
    add("--ffn-ratio", type=float, metavar="R", help="share of FFN channels to remove")
    add("--ffn-score", metavar="NAME", help="criterion for FFN channels, like --head-score")
    add("--blocks", metavar="START:END", help="blocks [START, END) may be cut")
    add("--recovery", metavar="NAME", help=f"one of: {', '.join(RECOVERIES.names())}")
