"""``python -m benchmarks.ablation``: what each part of the paper's reconstruction does.

The plain cut, then every form of the first layers' fit with either target of the second layer's,
each as it is (no check against the plain cut). A Markdown row per form as soon as it is known.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from pruning.artifacts.recipe import Recipe
from pruning.evaluate import perplexity
from pruning.models.loading import load
from pruning.pipeline import measure_model, prune
from pruning.presets import with_preset

FORMS: Mapping[str, Mapping[str, Any]] = {
    "plain": {"method": "none", "rescore": False},
    **{
        f"{in_proj}-{target}": {"in_proj": in_proj, "target": target}
        for target in ("residual", "dense")
        for in_proj in ("keep", "dense", "checked")
    },
}


def main() -> None:
    """Run the forms asked for, in order, on one measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--calibration", default="sample", help="corpus or path")
    parser.add_argument("--text", default="sample", help="corpus or path for the perplexity")
    parser.add_argument("--other-text", default="sample", help="text of another kind")
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--kept", type=float, default=0.8, help="of the blocks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=list(FORMS))
    options = parser.parse_args()
    loaded = load(options.model, dtype="float32")
    recipe = Recipe.parse(
        {
            "calibration": {"source": options.calibration, "samples": options.samples},
            "budget": {"kept": options.kept},
            "seed": options.seed,
        }
    )
    recipe = with_preset(recipe, "paper_literal").changed(recovery={"keep_better": False})

    def perplexities(model: Any) -> list[float]:
        texts = (options.text, options.other_text)
        found = (
            perplexity(model, loaded.tokenizer, text, windows=options.windows) for text in texts
        )
        return [one.perplexity for one in found]

    dense = perplexities(loaded.model)
    measurement = measure_model(loaded, recipe)
    print(
        "| form | perplexity / dense | other text / dense | kept |\n|---|---|---|---|", flush=True
    )
    for name in options.forms:
        run = prune(loaded, recipe.changed(recovery=FORMS[name]), measurement=measurement)
        ratios = [a / b for a, b in zip(perplexities(run.pruned.model), dense, strict=True)]
        kept = run.report.kept_block_parameters
        print(f"| {name} | {ratios[0]:,.3f} | {ratios[1]:,.3f} | {kept:.1%} |", flush=True)


if __name__ == "__main__":
    main()
