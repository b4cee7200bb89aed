"""The model card of a pruned checkpoint, in the hub's form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from pruning.checkpoint.base_model import Origin, short_name
from pruning.checkpoint.forms import FORMS
from pruning.checkpoint.parts import Parts
from pruning.checkpoint.records import MARKER
from pruning.recovery import RECOVERIES

TEMPLATE = Path(__file__).with_name("card.md.j2")


def model_card(parts: Parts, form: str, remarks: Sequence[str] = ()) -> ModelCard:
    """What the model is, how to load it, what was removed and how to repeat it."""
    records, origin, entry = parts.records, parts.origin, FORMS.entry(form)
    recovery = RECOVERIES.entry(records.recipe.recovery.method)
    return ModelCard.from_template(
        _metadata(origin, form),
        template_path=str(TEMPLATE),
        name=short_name(origin.name),
        form=form,
        form_summary=_inside_a_sentence(entry.summary),
        loading=entry.value.loading(parts),
        remarks=remarks,
        recipe=records.recipe,
        recipe_file=MARKER,
        recovery=_inside_a_sentence(recovery.summary).rstrip("."),
        report=records.report,
        provenance=records.provenance,
        evaluation=records.evaluation,
        stored_dtype=parts.loaded.saved_dtype,
        licence=origin.licence and (origin.terms.get("license_name") or origin.licence),
    )


def _metadata(origin: Origin, form: str) -> ModelCardData:
    gguf = form == "gguf"
    relation = "quantized" if gguf else "finetune"
    return ModelCardData(
        base_model=origin.repository,
        base_model_relation=relation if origin.repository else None,
        license=origin.licence,
        library_name="gguf" if gguf else "transformers",
        pipeline_tag="text-generation",
        tags=["headroom", "structured-pruning", form],
        **origin.terms,
    )


def _inside_a_sentence(summary: str) -> str:
    return summary[0].lower() + summary[1:]
