"""Write a pruned model in one of its forms, with everything that says how it came about."""

from __future__ import annotations

from pathlib import Path

from pruning.checkpoint.base_model import CARD
from pruning.checkpoint.card import model_card
from pruning.checkpoint.forms import FORMS, FormOptions, check_handoff
from pruning.checkpoint.handoff import write_handoff
from pruning.checkpoint.parts import Parts, parts_from, parts_of
from pruning.checkpoint.records import MARKER, Evaluation
from pruning.checkpoint.rewrite.shards import write_weights
from pruning.models.fingerprint import fingerprint
from pruning.surgery.result import PruneRun
from pruning.utils.atomic_dir import check_place, file_aside, written_aside
from pruning.utils.errors import UsageError, described
from pruning.utils.files import cache_root

DEFAULT_FORM = "compact"


def save(
    run: PruneRun,
    out: Path,
    form: str = DEFAULT_FORM,
    *,
    options: FormOptions | None = None,
    evaluation: Evaluation | None = None,
) -> Path:
    """Write ``run``'s model as ``form`` to the folder ``out``, whole or not at all.

    Beside the weights: config, tokenizer, recipe, plan, report, perplexities when given, and the
    model card. Raises Unsupported when the form cannot hold the model, UsageError when ``out``
    holds something that is not a model saved by Headroom, HeadroomError when it cannot be
    written.
    """
    check_target(Path(out), form)
    write(parts_of(run, evaluation), Path(out), form, options)
    return Path(out)


def export(
    folder: Path, out: Path, form: str, *, options: FormOptions | None = None, dtype: str = "auto"
) -> tuple[str, ...]:
    """Write the compact model in ``folder`` in another form; returns remarks for the user.

    Raises what :func:`save` raises, and SourceError when ``folder`` cannot be read.
    """
    check_target(Path(out), form)
    if options is not None and options.handoff:
        check_handoff(form)
    return write(parts_from(Path(folder), dtype), Path(out), form, options)


def write(
    parts: Parts, out: Path, form: str = DEFAULT_FORM, options: FormOptions | None = None
) -> tuple[str, ...]:
    """Write ``parts`` to a target that was checked; returns remarks for the user."""
    value, options = FORMS[form], options or FormOptions()
    if options.handoff:
        check_handoff(form)
    out = Path(out).resolve()  # a link stays one: what it leads to is written
    if value.single_file and out.suffix == value.single_file:
        with file_aside(out) as place:
            return value.write(parts, place, options)
    with written_aside(out) as place:
        remarks = value.write(parts, place, options)
        parts.records.write(place)
        model_card(parts, form, remarks).save(place / CARD)
        if options.handoff:
            write_handoff(parts, form, place)
    return remarks


def rescue(parts: Parts, out: Path, form: str) -> str:
    """Keep a model that could not be written to ``out``: compact there or else in the cache folder,
    or at least its weights with all that says how it came about. Returns the sentence that says
    where."""
    spare = cache_root() / "rescued" / f"{out.stem}-{fingerprint(parts.model)[:12]}"
    here = out.with_suffix("") if out.suffix == FORMS[form].single_file else out
    for place in [here, spare] if form != DEFAULT_FORM else [spare]:
        try:
            check_target(place)
            write(parts, place)
            return f"The compact form was written to {place} instead."
        except Exception:  # the next place, or the next way
            continue
    try:
        _write_weights(parts, spare)
        return f"Its weights and records were kept in {spare}."
    except Exception as error:
        return f"Nothing could be kept in {spare} either: {described(error)}."


def _write_weights(parts: Parts, place: Path) -> None:
    """Weights under the live model's names and the records, without the rest, which may be what
    cannot be saved."""
    with written_aside(place) as folder:
        blocks = parts.adapter.blocks(parts.model)
        write_weights(parts.model, blocks, folder, parts.loaded.file_dtype)
        parts.records.write(folder)


def check_target(out: Path, form: str = DEFAULT_FORM) -> None:
    """Raise UsageError when ``out`` must not be replaced or the form is unknown, HeadroomError when
    nothing can be written there: what takes hours must not end so."""
    single = FORMS[form].single_file
    if single and out.suffix == single:
        if out.is_dir():
            raise UsageError(f"{out} is a folder; name a file, or a folder of another name.")
        check_place(out)
        return
    if out.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise UsageError(
            f"{out} is the working folder or one above it, which a saved model would replace; "
            "name a new folder, like out/pruned."
        )
    if out.is_file():
        raise UsageError(f"{out} is a file; name a folder for the pruned model.")
    if out.is_dir() and any(out.iterdir()) and not (out / MARKER).is_file():
        raise UsageError(
            f"{out} is not empty and was not saved by Headroom; choose another folder."
        )
    check_place(out)
