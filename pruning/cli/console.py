"""What a command says while it works. All of it goes to stderr."""

from __future__ import annotations

import io
import logging
import os
import sys
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

from pruning.artifacts.events import Progress
from pruning.distributed.ranks import own_rank


class Console:
    """Progress and remarks: one bar per stage on a terminal, one line per stage otherwise.

    A context manager, so that the last bar is closed before an error's line is written. Of ranks
    that torchrun started, only the first is heard.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or (io.StringIO() if own_rank() else sys.stderr)
        self._draws = _is_terminal(self._stream)
        self._bar: tqdm | None = None
        self._last: Progress | None = None

    def __enter__(self) -> Console:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end_stage()

    def progress(self, step: Progress) -> None:
        """One step of a stage; the callback that the engine's functions take."""
        if self._last is not None and not _continues(self._last, step):
            self._end_stage()
        self._last = step
        if self._draws:
            if self._bar is None:
                self._bar = tqdm(
                    total=step.total, desc=step.stage, file=self._stream, dynamic_ncols=True
                )
            self._bar.set_postfix_str(_message(step), refresh=False)
            self._bar.update(step.done - self._bar.n)
        if step.done >= step.total:
            self._end_stage()

    def say(self, stage: str, message: str) -> None:
        """One line that belongs to a stage; a bar in progress stays below it."""
        tqdm.write(f"[{stage}] {message}", file=self._stream)

    def warn(self, message: str) -> None:
        """One line that does not stop the command."""
        tqdm.write(f"headroom: note: {message}", file=self._stream)

    def _end_stage(self) -> None:
        step, self._last = self._last, None
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        elif step is not None and step.done:  # nothing done: what is refused is one line
            self._stream.write(f"[{step.stage} {step.done}/{step.total}] {_message(step)}\n")


def _is_terminal(stream: TextIO) -> bool:
    """Whether ``stream`` is a terminal of a known size; on one without, tqdm draws nothing."""
    try:
        return min(os.get_terminal_size(stream.fileno())) > 0
    except (OSError, ValueError):
        return False


def _continues(last: Progress, step: Progress) -> bool:
    """Whether ``step`` is a later one of the same stage, not one of the stage begun again."""
    return (last.stage, last.total) == (step.stage, step.total) and last.done <= step.done


def _message(step: Progress) -> str:
    event = step.event
    if event is None:
        return step.message
    return (
        f"{step.message}: {len(event.removed)} of {event.units} removed, error "
        f"{event.error_before:.4f} -> {event.error_after:.4f}, {event.seconds:.1f} s"
    )


def silence_libraries() -> None:
    """Keep the libraries' bars and advice off the terminal; errors still show.

    Imports transformers, so a command calls it after the request itself was checked.
    """
    # datasets is imported only when a corpus of the hub is read, and looks here
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    from transformers import modeling_gguf_pytorch_utils as gguf_reader
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()  # the bars of huggingface_hub as well
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    gguf_reader.tqdm = lambda tensors, **_: tensors  # the one bar that no setting switches off
