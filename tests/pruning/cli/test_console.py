"""What stderr shows: bars on a terminal, a line per stage otherwise."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import termios

import pytest

from pruning.artifacts.events import Progress
from pruning.cli.console import Console, silence_libraries
from pruning.utils.errors import Cancelled

STEPS = [
    *(Progress("measure", done, 3, f"Block {done - 1}") for done in (1, 2, 3)),
    *(Progress("evaluate", done, 2, "dense") for done in (1, 2)),
    *(Progress("evaluate", done, 2, "pruned") for done in (1, 2)),
]


@pytest.fixture
def terminal():
    """A terminal of 30 lines and 100 columns, and a function that closes it and gives its lines as
    they stand at the end."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    stream = os.fdopen(follower, "w", encoding="utf-8")

    def lines() -> list[str]:
        stream.close()
        text = b""
        try:
            while chunk := os.read(leader, 1 << 16):
                text += chunk
        except OSError:
            pass  # how Linux says that the other end is closed
        return [line.rsplit("\r", 1)[-1] for line in text.decode().rstrip().split("\r\n")]

    yield stream, lines
    stream.close()
    os.close(leader)


def test_one_line_per_stage_in_a_log():
    log = io.StringIO()
    with Console(log) as console:
        for step in STEPS:
            console.progress(step)
    assert log.getvalue().splitlines() == [
        "[measure 3/3] Block 2",
        "[evaluate 2/2] dense",
        "[evaluate 2/2] pruned",
    ]


def test_a_stage_that_stops_early_says_how_far_it_came():
    log = io.StringIO()
    with pytest.raises(Cancelled), Console(log) as console:
        console.progress(Progress("prune", 1, 6, "Block 0 ffn"))
        console.say("prune", "a remark")
        raise Cancelled("stopped")
    assert log.getvalue().splitlines() == ["[prune] a remark", "[prune 1/6] Block 0 ffn"]


def test_one_bar_per_stage_on_a_terminal(terminal):
    stream, lines = terminal
    with Console(stream) as console:
        for step in STEPS:
            console.progress(step)
    bars = lines()
    assert [bar.split(":")[0] for bar in bars] == ["measure", "evaluate", "evaluate"]
    assert "3/3" in bars[0] and "2/2" in bars[1]


def test_a_remark_stands_above_the_bar(terminal):
    stream, lines = terminal
    with Console(stream) as console:
        console.progress(STEPS[0])
        console.warn("something to know")
        console.progress(STEPS[1])
    first, bar = lines()
    assert first == "headroom: note: something to know"
    assert bar.startswith("measure:") and "2/3" in bar


def test_the_bars_of_the_loaders_are_silent(monkeypatch, capsys):
    from huggingface_hub.utils import tqdm as hub_bar
    from transformers import modeling_gguf_pytorch_utils as gguf_reader
    from transformers.utils import logging as transformers_logging

    monkeypatch.setattr(gguf_reader, "tqdm", gguf_reader.tqdm)  # put back afterwards
    silence_libraries()
    for bar in (gguf_reader.tqdm, transformers_logging.tqdm, hub_bar):
        assert list(bar([1, 2], desc="Reading")) == [1, 2]
    assert capsys.readouterr().err == ""
