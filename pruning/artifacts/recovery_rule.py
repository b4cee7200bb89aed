"""The recovery section of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pruning.artifacts import fields

ENOUGH_WINDOWS = 128
"""Windows that ``copies: auto`` aims at."""


class RecoveryRule(fields.Strict):
    """How the loss is repaired (method section 4); fields that are not named here are described
    where they stand.

    ``target``: ``residual`` makes each module also repair the drift before it; ``dense`` is the
    paper's (the dense module's own output). ``damping``: relative ridge.
    ``choice``: of methods that refit. Units go by ``score``, or by ``elimination``: the one that
    the others make up for best, then the next under what is left; marks and similarity are heeded.
    ``in_proj``: of reconstructions. ``checked``: fitted as with ``dense``, with the damping by
    which the module comes closest to its target on held-out windows, or not at all.
    ``copies``: ``auto`` makes about ENOUGH_WINDOWS windows in all.
    ``keep_better``: off only to show what a method does by itself.
    """

    method: fields.RecoveryName = fields.setting(
        "refit", "Recovery", "method", registry="recoveries"
    )
    """Recovery solves for new weights of the layers that stay, so that the block's output stays
    close to the dense one. No training."""
    target: Literal["residual", "dense"] = fields.choice(
        "residual",
        "Repair toward",
        "recovery",
        residual="Output and the drift so far",
        dense="The dense module's output (paper)",
    )
    """The first also repairs the error that earlier cuts left."""
    in_proj: Literal["dense", "checked", "keep"] = fields.choice(
        "dense",
        "First layers of a module",
        "recovery",
        dense="Fit to their dense outputs (paper)",
        checked="Fit where that helps the module",
        keep="Leave as they are",
    )
    """What reconstruction does to queries, keys, values, up and gate."""
    damping: Literal["auto"] | Annotated[float, Field(gt=0.0, le=1e6)] = fields.setting(
        "auto",
        "Damping",
        "recovery",
        auto="Choose damping automatically",
        start=0.3,
        step=0.1,
        digits=4,
    )
    """Damping holds the solution near the present weights. Automatic: chosen for each module on
    text held out from calibration."""
    rescore: bool = fields.setting(True, "Rank again before each cut", "recovery")
    """By the weights as already repaired. What goes may then differ a little from the preview."""
    choice: Literal["score", "elimination"] = fields.choice(
        "score",
        "Which units go",
        "refit",
        score="Those with the lowest scores",
        elimination="Those that the others can make up for",
    )
    """By the criterion, or one after the other by what the refit of the others cannot make up for;
    as many as planned. What goes may then differ from the preview."""
    intercept: Literal["auto", "add"] = fields.choice(
        "auto",
        "Bias terms",
        "recovery",
        auto="Only where the layer has a bias",
        add="Add a bias everywhere",
    )
    """An added bias carries the mean of what was cut."""
    scope: Literal["pruned", "all"] = fields.choice(
        "pruned",
        "Modules to repair",
        "recovery",
        pruned="Only modules that lose units",
        all="Every module after a cut",
    )
    samples: int | None = fields.windows(
        None, "Samples for recovery", "recovery", step=32, empty="as for calibration"
    )
    """Windows of the calibration text to solve on; empty means as many as for measuring. More give
    a better repair and take longer."""
    copies: Literal["auto"] | Annotated[int, Field(ge=0, le=64)] = fields.setting(
        3,
        "Augmentations of each sample",
        "recovery",
        auto="Choose augmentations automatically",
        start=3,
        step=1,
    )
    """More text for the repair without more data: further copies of each sample in which the model
    has resampled half of the tokens. More give a better repair and take longer. Automatic: as many
    as make about 128 windows."""
    keep_better: bool = fields.setting(True, "Never worse than the plain cut", "recovery")
    """Compares the recovered model with the cut alone on held-out text and keeps the better one.
    Costs two passes over a quarter as much text."""
    compute: Literal["model", "bfloat16", "auto"] = fields.choice(
        "model",
        "Autocast",
        "recovery",
        model="The model's own number format",
        bfloat16="bfloat16",
        auto="bfloat16 where the hardware has units for it",
    )
    """Number format of the passes over the text. bfloat16 is quicker on hardware made for it;
    weights and equations stay as they are."""
