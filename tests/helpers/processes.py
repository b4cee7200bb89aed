"""Command lines in processes of their own, forked from one that has loaded torch already, so that
a run takes as long as its work and not the seconds of its imports."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

from tests.helpers import PATIENCE

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "torch",
        "transformers.models.llama.modeling_llama",
        "transformers.integrations.ggml",
        "pruning.cli.main",
        "pruning.checkpoint.saving",
        "pruning.evaluate",
        "pruning.pipeline",
        "pruning.models.loading",
    ]
)
Prepare = Callable[[], None]
"""Called in the new process before the command; it is pickled."""


@dataclass(frozen=True)
class Ended:
    """How a command ended; ``status`` is negative after a signal, as everywhere in Python."""

    status: int
    said: str

    @property
    def last_line(self) -> str:
        return (self.said.strip().splitlines() or [""])[-1]


class Command:
    """``headroom ARGV`` at work."""

    def __init__(self, argv: Sequence[str], cache: Path, log: Path, prepare: Prepare | None = None):
        self._log = log
        log.touch()  # it may be killed before it says a word
        self.process = FORKS.Process(target=_work, args=(list(argv), cache, log, prepare))
        # a page that was tested leaves its script as the main module, which would be run first
        main = patch.dict(sys.modules, {"__main__": ModuleType("__main__")})
        # for the server of forks, which begins here: transformers looks at its import
        with main, patch.dict(os.environ, {"HF_HUB_OFFLINE": "1"}):
            self.process.start()

    def end(self, signal: int | None = None) -> Ended:
        """Wait for its end, which ``signal`` brings about."""
        if signal is not None and self.process.exitcode is None:
            os.kill(self.process.pid, signal)
        self.process.join(PATIENCE)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"it goes on and on: {self._log.read_text()}")
        return Ended(self.process.exitcode, self._log.read_text(errors="replace"))

    def wait(self, seconds: float) -> None:
        """Let it work for so long, or until it ends."""
        self.process.join(seconds)


def _work(argv: list[str], cache: Path, log: Path, prepare: Prepare | None) -> None:
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(target, stream)
    os.environ["HEADROOM_CACHE"] = str(cache)
    import torch

    from pruning.cli.main import main

    torch.set_num_threads(1)
    if prepare is not None:
        prepare()
    try:
        status = main(argv)
    except SystemExit as error:
        status = error.code
    for limit in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE):  # for the work alone
        resource.setrlimit(limit, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    atexit._run_exitfuncs()  # a forked process leaves them out
    sys.stdout.flush()
    os._exit(status)
