"""Prune: edit the recipe, see at once what it saves, run it."""

from __future__ import annotations

from functools import partial

import streamlit as st

from app import pages
from app.charts import plan_map
from app.charts.plan_map import width_rows
from app.components import recipe_summary
from app.components.block_picker import OPEN_WORDS, on_open
from app.components.chart import show_chart
from app.components.cost_metrics import cost_metrics
from app.components.csv_export import csv_button
from app.components.headline import sentence
from app.components.job_progress import outcome
from app.components.recipe_fields import calibration_fields
from app.components.scroll_top import show_top
from app.components.text import duration
from app.components.widgets import needs_measurement, page_header, show_problem
from app.jobs.job import Job
from app.pages import Page
from app.session import recorded, state, visitor_jobs
from app.views.prune import after_run, recipe_file, recipe_form, replay, starting
from app.views.prune import feed as feed_view
from pruning.artifacts.plan import Plan
from pruning.artifacts.recipe import Recipe
from pruning.planning import make_plan
from pruning.planning.loss_curves import has_loss_curves, plan_losses
from pruning.utils.errors import HeadroomError, NeedsMeasurement

PAGE = Page("Prune", ":material/content_cut:", place=40, jobs=("prune",))

_PREVIEW_STAYS = """<style>
[data-testid=stLayoutWrapper]:has(> .st-key-prune-preview) { position: sticky; top: 4.5rem }
</style>"""
"""The form may be longer than the screen; what it does stays in view."""


def main() -> None:
    # alone on the page: the feed is for the back of the room, and below a recipe nobody sees it
    if feed_view.draw(visitor_jobs.active(("prune",))):
        return
    page_header(
        "Prune",
        "Decide how much goes; the right side shows at once what that saves. Nothing touches the "
        "model until you press Run.",
    )
    show_problem()
    with st.container():  # up here, where the feed was: below the charts nobody sees it
        last = visitor_jobs.latest("prune")
        outcome(last)
        if last is not None and last.status in ("failed", "cancelled"):
            show_top(f"{last.id}.ended")  # one that fails at once has shown no feed
    shape = state.current_measurement().shape
    left, right = st.columns([4, 7], gap="large")
    with left:
        with st.container():  # of its own: what follows must not move, or it closes
            recipe_form.rules(shape)
        with st.expander("How units are chosen"):
            recipe_form.choosing(shape)
        with st.container():
            recipe_form.recovery()
        with st.expander("Tuning (training)"):
            recipe_form.tuning()
        with st.expander("Calibration text"):
            calibration_fields()
        with st.expander("After the run"):
            after_run.section()
        with st.expander("Recipe file"):
            recipe_file.section()
    st.html(_PREVIEW_STAYS)
    with right, st.container(key="prune-preview"):
        plan = preview()
        run(plan)  # above the chart: on a laptop it would be below the screen
        if plan is not None:
            widths(plan)


def preview() -> Plan | None:
    """The live count; None when there is no plan to show."""
    measurement, draft = state.current_measurement(), state.draft_recipe()
    if draft.model.source != measurement.model:
        st.warning(
            f"This recipe is for {draft.model.source}, which is not measured yet, so there is no "
            "preview. Run works all the same; or measure it first."
        )
        pages.link("model")
        return None
    try:
        plan = make_plan(measurement, draft)
    except NeedsMeasurement as error:
        st.warning(f"{needs_measurement(error)} Run makes it as well, only without a preview.")
        pages.link("model")
        return None
    except HeadroomError as error:
        st.error(str(error))
        return None
    metrics(plan)
    expected(plan)
    for reason in (*plan.shape.fixed.values(), *plan.shape.whole, *plan.remarks):
        st.info(reason)
    notes(draft)
    return plan


def widths(plan: Plan) -> None:
    """What each block keeps; a click opens one."""
    show_chart(
        plan_map.block_widths(plan),
        "widths",
        "prune.widths",
        open_block=state.current_block(),
        selection_mode="points",
        on_select=lambda: on_open("prune.widths"),
    )
    st.caption(f"{OPEN_WORDS} Now open: block {state.current_block()}.")
    csv_button(partial(width_rows, plan), "widths", "prune.widths.csv")


def metrics(plan: Plan) -> None:
    """Before, after and saved."""
    columns = st.columns([5, 5, 5, 6])
    cost_metrics(columns[:3], plan.before, plan.after)
    heads = sum(len(block.attention.removed) for block in plan.blocks)
    all_heads = sum(block.attention.units for block in plan.blocks)
    channels = sum(len(block.ffn.removed) for block in plan.blocks)
    all_channels = sum(block.ffn.units for block in plan.blocks)
    columns[3].metric(
        "Heads removed",
        f"{heads:,} of {all_heads:,}",
        delta=f"{channels:,} channels ({channels / max(all_channels, 1):.0%})",
        delta_color="off",
        delta_arrow="off",
    )


def expected(plan: Plan) -> None:
    """What the cut is expected to cost, where the measurement can say."""
    measurement = state.current_measurement()
    if plan.is_empty or not has_loss_curves(measurement):
        return
    losses = plan_losses(measurement, plan)
    attention, ffn = sum(losses["attention"]), sum(losses["ffn"])
    st.caption(
        f"Expected to cost about **{attention + ffn:.2f} nats per token** after a refit "
        f"(attention {attention:.2f}, FFN {ffn:.2f}): each module looked at alone, so a guess to "
        "compare plans by, not a promise."
    )


def notes(draft: Recipe) -> None:
    """What the preview cannot know."""
    measured, calibration = state.current_measurement(), draft.calibration
    same = (measured.corpus, measured.samples, measured.seq_len, measured.seed) == (
        calibration.source,
        calibration.samples,
        calibration.seq_len,
        draft.seed,
    )
    if not same:
        st.caption(
            f"The preview uses the measurement on {measured.corpus} ({measured.samples} × "
            f"{measured.seq_len}); the run will measure again on {calibration.source} "
            f"({calibration.samples} × {calibration.seq_len}), so which units go may differ."
        )


def run(plan: Plan | None) -> None:
    """The Run button, and what the last run left."""
    draft = state.draft_recipe()
    empty = plan is not None and plan.is_empty
    with st.container(horizontal=True, vertical_alignment="center"):
        pressed = st.button(
            "Run", type="primary", icon=":material/play_arrow:", disabled=empty, width=160
        )
        if empty:
            st.caption("Nothing would go yet: raise a ratio or switch similarity on.")
        else:
            parts = [recipe_summary.summary(draft), recipe_summary.scope(draft)]
            time = starting.time_in_words(draft)
            parts = parts if time is None else [f"**{time}** on this machine", *parts]
            st.caption(" · ".join(parts))
    if pressed:
        starting.start(draft)
    last = visitor_jobs.latest("prune")
    if last is not None:
        ended(last)
    elif (shown := recorded.job()) is not None:
        first_look(shown)


def first_look(job: Job) -> None:
    """Before the first run: the recorded one."""
    with st.container(horizontal=True, vertical_alignment="center"):
        replay.replay_button(job, "Play the recording")
        pages.link("compare", "See what came of it")
        st.caption(f"{recorded.origin(job)}: nothing is computed.")


def ended(job: Job) -> None:
    """The last run in short, with the ways to Compare and to its replay."""
    if job.status == "done":
        st.success(
            f"Last run, {duration(job.elapsed)}: {sentence(job)}.", icon=":material/check_circle:"
        )
        if job.check is not None:
            (st.warning if job.check.kept == "plain" else st.caption)(job.check.sentence())
        if job.result.report.tuning is not None:
            tuned = job.result.report.tuning
            (st.warning if tuned.kept == "untuned" else st.caption)(tuned.sentence())
    with st.container(horizontal=True, vertical_alignment="center"):
        if job.status == "done":
            pages.link("compare")
        replay.replay_button(job)


main()
