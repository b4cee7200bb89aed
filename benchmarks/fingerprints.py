"""Fingerprints of whole runs, to show that a change of the code changes no result.

    python -m benchmarks.fingerprints --out before.json             # before the change
    python -m benchmarks.fingerprints --out after.json --against before.json

Every recipe is run on tiny random models of many families and, with ``--embedded``, some on the
embedded model. What is compared: the plan as carried out, the widths, every tensor bit for bit,
the loss of fixed tokens and the errors that the events report. The figures are those of one
machine and one set of libraries: compare on the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pruning
from pruning.artifacts.plan import Plan
from pruning.artifacts.recipe import Recipe
from pruning.evaluate.perplexity import batched_losses
from pruning.models.loading.loaded import LoadedModel
from pruning.pipeline import prune
from pruning.presets import PRESETS, with_preset
from pruning.utils.errors import HeadroomError
from tests.helpers import families

FAMILIES = (
    "llama_grouped",
    "llama_biased",
    "gpt2",
    "mixtral",
    "gemma2",
    "falcon_grouped",
    "bloom",
    "opt",
    "phi3",
    "olmo2",
    "qwen2_moe",
    "gpt_neox_sequential",
)
WITH_PRESETS = ("llama_grouped", "gpt2", "mixtral")

CALIBRATION = {
    "source": "random",
    "samples": 24,
    "seq_len": 16,
    "gradient_samples": 4,
    "gradient_seq_len": 12,
}
EMBEDDED = {"source": "sample", "samples": 8, "seq_len": 64}


def both(score: str, ratio: float) -> dict[str, Any]:
    """The same criterion and ratio for heads and channels."""
    return {"heads": {"ratio": ratio, "score": score}, "ffn": {"ratio": ratio, "score": score}}


NO_RECOVERY = {"recovery": {"method": "none"}}
PLAIN_REFIT = {"recovery": {"copies": 0}}
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "ffn_refit": {"ffn": {"ratio": 0.25}},
    "similar_first": {
        "heads": {"threshold": 0.3, "ratio": 0.3, "policy": "kv_group", "drop": "first"},
        "ffn": {"ratio": 0.4},
    },
    "reconstruct": {
        "heads": {"ratio": 0.3},
        "ffn": {"ratio": 0.3, "score": "second_moment"},
        "recovery": {"method": "reconstruct", "target": "dense"},
    },
    "full_all": {
        "heads": {"ratio": 0.4},
        "ffn": {"ratio": 0.3},
        "recovery": {"method": "full", "scope": "all"},
        "blocks": {"start": 1, "end": 3},
    },
    "flap_bias": {
        **both("flap", 0.3),
        "allocation": "adaptive",
        "recovery": {"method": "bias", "intercept": "add", "rescore": False, "copies": 0},
    },
    "loss_curves": {
        "budget": {"kept": 0.8},
        "heads": {"policy": "auto", "score": "second_moment_exact"},
        "allocation": "predicted",
        "recovery": {"copies": "auto"},
    },
    "ungroup": {
        "heads": {"ratio": 0.6, "policy": "ungroup"},
        "ffn": {"ratio": 0.3},
        "recovery": {"copies": 2, "damping": 0.3},
    },
    "by_hand": {
        "allocation": "by_hand",
        "by_hand": {"0": {"heads": 0.4, "ffn": 0.2}, "2": {"ffn": 0.5}},
        **PLAIN_REFIT,
    },
    "marks": {
        "heads": {"ratio": 0.4, "policy": "auto"},
        "marks": {"1": {"keep": [0], "drop": [2]}},
        **PLAIN_REFIT,
    },
    "layers": {**both("wanda_sp", 0.3), "allocation": "adaptive_layers", **PLAIN_REFIT},
    "modules": {**both("fisher", 0.3), "allocation": "adaptive_modules", **PLAIN_REFIT},
    "taylor": {**both("taylor_element1", 0.3), **NO_RECOVERY},
    "magnitude": {**both("l2", 0.4), **NO_RECOVERY, "seed": 3},
    "random": {**both("random", 0.3), **NO_RECOVERY, "seed": 3},
    "ffn_only": {
        "budget": {"kept": 0.9, "of": "model", "spare_heads": True},
        "allocation": "predicted",
        "recovery": {"copies": 1},
    },
}


def main() -> int:
    """Write the fingerprints; 1 when they differ from those of ``--against``."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--embedded", action="store_true", help="minutes more")
    chosen = parser.parse_args()
    os.environ["HEADROOM_CACHE"] = tempfile.mkdtemp()  # nothing may come from an earlier run
    started = time.perf_counter()
    now = dict(tiny_runs())
    if chosen.embedded:
        now |= embedded_runs()
    text = json.dumps(now, indent=1)
    chosen.out.write_text(text)
    now = json.loads(text)
    print(f"{len(now)} runs in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    if chosen.against is None:
        return 0
    before = json.loads(chosen.against.read_text())
    differ = [name for name in before.keys() | now.keys() if before.get(name) != now.get(name)]
    print("\n".join(sorted(differ)) or "All equal.")
    return 1 if differ else 0


def tiny_runs() -> Iterator[tuple[str, Any]]:
    """Every recipe on every family, every preset on some."""
    torch.set_num_threads(1)
    ids = families.token_ids(8, 16, seed=5)
    for family in FAMILIES:
        loaded = families.loaded(family)
        for name, changes in RECIPES.items():
            recipe = Recipe.parse({"calibration": CALIBRATION, **changes})
            yield f"{family}/{name}", fingerprint(loaded, recipe, ids)
        half = families.loaded(family, dtype=torch.bfloat16)
        recipe = Recipe.parse({"calibration": CALIBRATION, **both("second_moment", 0.3)})
        yield f"{family}/bfloat16", fingerprint(half, recipe, ids)
        if family in WITH_PRESETS:
            sized = Recipe.parse({"calibration": CALIBRATION, "budget": {"kept": 0.8}})
            for preset in PRESETS.names():
                recipe = with_preset(sized, preset)
                yield f"{family}/preset {preset}", fingerprint(loaded, recipe, ids)


def embedded_runs() -> dict[str, Any]:
    """Two presets and two plain recipes on the embedded model."""
    torch.set_num_threads(2)
    loaded = pruning.load("demo", dtype="float32")
    ids = families.token_ids(4, 64, seed=5)
    sized = Recipe.parse({"calibration": EMBEDDED, "budget": {"kept": 0.8}})
    recipes = {preset: with_preset(sized, preset) for preset in ("fast", "best")}
    for name in ("ffn_refit", "reconstruct"):
        recipes[name] = Recipe.parse({"calibration": EMBEDDED, **RECIPES[name]})
    return {f"demo/{name}": fingerprint(loaded, recipe, ids) for name, recipe in recipes.items()}


def fingerprint(loaded: LoadedModel, recipe: Recipe, ids: Tensor) -> dict[str, Any]:
    """What a run gives, or the kind of its refusal. Recoveries are shown as they are: on random
    models many do harm."""
    try:
        run = prune(loaded, recipe.changed(recovery={"keep_better": False}))
    except HeadroomError as error:
        return {"refused": type(error).__name__}
    losses = torch.cat([part.flatten() for part in batched_losses(run.pruned.model, ids)])
    return {
        "plan": plan_digest(run.plan),
        "widths": [(width.heads, width.kv_heads, width.channels) for width in run.widths],
        "tensors": tensors_digest(run.pruned.model),
        "loss": losses.double().mean().item().hex(),
        "errors": [float(event.error_after).hex() for event in run.events],
    }


def plan_digest(plan: Plan) -> str:
    """Everything a plan decides, whatever its file looks like."""
    decisions = [asdict(block) for block in plan.blocks]
    return hashlib.sha256(json.dumps(decisions, sort_keys=True).encode()).hexdigest()


def tensors_digest(model: nn.Module) -> str:
    """Names, types, shapes and bytes of every tensor."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().clone(memory_format=torch.contiguous_format).flatten()
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
