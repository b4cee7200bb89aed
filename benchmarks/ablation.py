"""``python -m benchmarks.ablation``: what each part of the paper's reconstruction does.

The plain cut, then every form of the first layers' fit with either target of the second layer's,
each as it is (no check against the plain cut). A Markdown row per form as soon as it is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.options import add_texts, calibration, parser, perplexities
from pruning.artifacts.recipe import Recipe
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
    made = parser(__doc__)
    add_texts(made)
    made.add_argument("--kept", type=float, default=0.8, help="of the blocks")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--forms", nargs="+", default=list(FORMS), choices=list(FORMS))
    options = made.parse_args()
    loaded = load(options.model, dtype="float32", device=options.device)
    recipe = Recipe.parse(
        {
            "calibration": calibration(options),
            "budget": {"kept": options.kept},
            "seed": options.seed,
        }
    )
    recipe = with_preset(recipe, "paper_literal").changed(recovery={"keep_better": False})
    dense = perplexities(loaded.model, loaded.tokenizer, options)
    measurement = measure_model(loaded, recipe)
    print(
        "| form | perplexity / dense | other text / dense | kept |\n|---|---|---|---|", flush=True
    )
    for name in options.forms:
        run = prune(loaded, recipe.changed(recovery=FORMS[name]), measurement=measurement)
        after = perplexities(run.pruned.model, loaded.tokenizer, options)
        ratios = [a / b for a, b in zip(after, dense, strict=True)]
        kept = run.report.kept_block_parameters
        print(f"| {name} | {ratios[0]:,.3f} | {ratios[1]:,.3f} | {kept:.1%} |", flush=True)


if __name__ == "__main__":
    main()
