"""Runs a command and turns every failure into one line and an exit status."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pruning.cli import saving
from pruning.cli.common import load_model, show
from pruning.cli.parser import build_parser
from pruning.cli.recipe import recipe_from
from pruning.utils.errors import HeadroomError


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``python -m pruning``; returns the exit status (0 done, 1 failed, 2 wrong use)."""
    arguments = build_parser().parse_args(argv)
    try:
        # checked before torch is imported, so that wrong use is answered at once
        recipe = recipe_from(arguments) if arguments.command in TAKES_RECIPE else None
        quiet_libraries()
        result = COMMANDS[arguments.command](arguments, recipe)
        text = json.dumps(result, allow_nan=False) if arguments.json else _readable(result)
        print(text, flush=True)
        return 0
    except HeadroomError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("Interrupted.", 1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # no traceback for users; HEADROOM_DEBUG shows it to engineers
        if os.environ.get("HEADROOM_DEBUG"):
            raise
        line = (str(error).splitlines() or [""])[0]
        return _fail(
            f"Unexpected {type(error).__name__}: {line} (set HEADROOM_DEBUG=1 for details).", 1
        )


def _fail(message: str, status: int) -> int:
    sys.stderr.write(f"headroom: {message}\n")
    return status


def quiet_libraries() -> None:
    """Keep the libraries' bars and advice off the terminal; errors still show."""
    import logging

    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def _measure(arguments: Any, recipe: Any) -> dict[str, Any]:
    from pruning.pipeline import measure_model, memory_task
    from pruning.utils.files import check_writable

    check_writable(Path(arguments.out))
    task = memory_task(recipe, prunes=False, loss_curves=arguments.curves)
    loaded = load_model(arguments, recipe.model.dtype, task)
    measurement = measure_model(
        loaded, recipe, gradients=arguments.gradients, loss_curves=arguments.curves, progress=show
    )
    measurement.write(Path(arguments.out))
    return {
        "out": str(arguments.out),
        "model": measurement.model,
        "dtype": measurement.dtype,
        "blocks": len(measurement.blocks),
        "calibration": measurement.corpus,
        "samples": measurement.samples,
        "seq_len": measurement.seq_len,
        "seconds": measurement.seconds,
    }


def _evaluate(arguments: Any, _recipe: Any) -> dict[str, Any]:
    from pruning.evaluate import perplexity
    from pruning.models.loading.sizes import Task

    task = Task(arguments.windows or _SOME_WINDOWS, arguments.seq_len, prunes=False)
    loaded = load_model(arguments, arguments.dtype or "auto", task)
    result = perplexity(
        loaded.model,
        loaded.tokenizer,
        arguments.text,
        seq_len=arguments.seq_len,
        windows=arguments.windows,
        progress=show,
    )
    if math.isinf(result.perplexity):
        raise HeadroomError(
            f"The perplexity overflows (mean negative log-likelihood {result.nll:.1f} nats): the "
            "model is broken; prune less, or with recovery."
        )
    return {**result.as_dict(), "protocol": result.protocol()}


def _generate(arguments: Any, _recipe: Any) -> dict[str, Any]:
    from pruning.evaluate import generate
    from pruning.models.loading.sizes import Task

    loaded = load_model(arguments, arguments.dtype or "auto", Task(1, prunes=False))
    result = generate(
        loaded.model, loaded.tokenizer, arguments.prompt, max_new_tokens=arguments.max_new_tokens
    )
    return {
        "prompt": arguments.prompt,
        "text": result.text,
        "new_tokens": result.new_tokens,
        "seconds": result.seconds,
    }


def _sweep(arguments: Any, recipe: Any) -> dict[str, Any]:
    from pruning.pipeline import memory_task
    from pruning.sweep import Sweep, sweep

    wanted = Sweep(
        recipe,
        arguments.axis,
        arguments.values,
        arguments.presets,
        arguments.text,
        arguments.text_seq_len,
        arguments.windows,
    )
    arguments.revision = recipe.model.revision
    loaded = load_model(arguments, recipe.model.dtype, memory_task(recipe))

    def told(point: Any) -> None:
        size = "overflow" if point.perplexity is None else f"{point.perplexity:.3f}"
        value = "" if point.value is None else f" at {point.value:g}"
        sys.stderr.write(f"[sweep] {point.preset}{value}: perplexity {size}\n")

    points = sweep(loaded, wanted, on_point=told)
    rows = [asdict(point) for point in points]
    return {"axis": wanted.axis, "protocol": points[0].protocol, "points": rows}


_SOME_WINDOWS = 64
"""Evaluation windows to reckon with before the text is read."""

COMMANDS = {
    "measure": _measure,
    "prune": saving.prune,
    "export": saving.export,
    "push": saving.push,
    "evaluate": _evaluate,
    "generate": _generate,
    "sweep": _sweep,
}
TAKES_RECIPE = ("measure", "prune", "sweep")


def _readable(result: dict[str, Any]) -> str:
    """``name: value`` lines; tables and nested parts are left to ``--json``."""
    lines = [f"{k}: {v}" for k, v in result.items() if not isinstance(v, (dict, list, tuple))]
    return "\n".join(lines)
