"""What the caller of an experiment chooses, and the text and protocol that it leads to."""

from __future__ import annotations

from dataclasses import dataclass

from pruning.artifacts.cell import Protocol
from pruning.artifacts.shapes import ModelShape
from pruning.experiments.base import Experiment, Sampling, named_text
from pruning.experiments.facts import paper_model


@dataclass(frozen=True)
class Request:
    """What the caller of an experiment chooses. ``quick``: less text and fewer samples; the others
    take the place of what the experiment's file says (None: as there). ``tasks`` False: no
    zero-shot tasks."""

    quick: bool = False
    texts: tuple[str, ...] | None = None
    calibration: str | None = None
    windows: int | None = None
    task_data: str | None = None
    tasks: bool = True
    limit: int | None = None
    seed: int = 0


def sampling_of(experiment: Experiment, request: Request) -> Sampling:
    """The text that ``request`` leads to."""
    return experiment.sampled(
        request.quick,
        texts=request.texts,
        calibration=request.calibration,
        windows=request.windows,
        limit=request.limit,
    )


def protocol_for(experiment: Experiment, request: Request, seq_len: int | None = None) -> Protocol:
    """How the cells of ``request`` are evaluated."""
    sampling = sampling_of(experiment, request)
    return Protocol(
        texts=tuple(named_text(text)[1] for text in sampling.texts),
        seq_len=seq_len or sampling.seq_len,
        windows=sampling.windows,
        tasks=experiment.tasks if request.tasks else (),
        task_data=request.task_data,
        limit=sampling.limit,
    )


def window_length(source: str, shape: ModelShape, sampling: Sampling, request: Request) -> int:
    """Tokens per window: the paper's for its own models in a full run, and never more than the
    model's positions."""
    known = None if request.quick else paper_model(source, shape)
    return min(known.seq_len if known else sampling.seq_len, shape.max_positions)


def adapted(experiment: Experiment, request: Request, source: str, shape: ModelShape) -> Sampling:
    """:func:`sampling_of` with windows as long as those of the model ``source``."""
    sampling = sampling_of(experiment, request)
    seq_len = window_length(source, shape, sampling, request)
    return sampling.model_copy(update={"seq_len": seq_len})


def read_texts(experiment: Experiment, request: Request) -> None:
    """Read all text and the rows of all tasks, so that what cannot be had is refused before weights
    are. Raises UsageError and SourceError."""
    from pruning.data.corpora.base import CORPORA, TextCorpus
    from pruning.data.windows import read_text

    source = sampling_of(experiment, request).calibration
    if source not in CORPORA or isinstance(CORPORA[source], TextCorpus):
        read_text(source, "train")
    if experiment.only_measures:
        return
    protocol = protocol_for(experiment, request)
    for text in protocol.texts:
        read_text(text, "test")
    if protocol.tasks:
        from pruning.evaluate.zero_shot import check_tasks
        from pruning.experiments.cells import sources_of

        check_tasks(sources_of(protocol), protocol.limit)
