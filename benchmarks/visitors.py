"""``python -m benchmarks.visitors --visitors 20 --minutes 5``: the app under load.

So many visitors at once, on loopback, without browsers: they switch pages, move τ, open recipes and
odd files, start jobs and cancel them, prepare downloads, close tabs and come back. Each works on a
model of a name of his own, which nobody else may ever be sent. Printed are the times of moving τ
and of switching pages as a visitor sees them, while jobs run all the time, and the server's memory
before, at its peak, and once everybody has gone for the grace period.

Ends with status 1 where the server's log has a traceback, a visitor saw what is another's, an odd
file was taken, or the memory did not come back to within a tenth.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from typing import Any

import psutil

from benchmarks.server import ROOT, server
from benchmarks.visitor import PAGES, Found, Visitor
from pruning.models.loading import demo

GONE = 5
"""Seconds until a closed tab's session is dropped."""
MEMORY = 1.10


def write_models(folder: Path, marks: list[str]) -> None:
    """A small random model for each, 8 blocks wide enough that a run takes a while."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()
    words = Tokenizer(models.WordLevel(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(
        vocab_size=500, special_tokens=["<s>", "</s>", "<unk>"], show_progress=False
    )
    words.train([str(ROOT / "assets" / "sample" / "train.txt")], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        vocab_size=500,
        max_position_embeddings=128,
    )
    model = LlamaForCausalLM(config)
    for mark in marks:
        model.save_pretrained(folder / mark)
        tokenizer.save_pretrained(folder / mark)


@contextmanager
def serving(home: Path) -> Iterator[tuple[int, psutil.Process]]:
    """The app as a user starts it, with a working folder and a log of its own."""
    environment = {
        "HEADROOM_PRELOAD": os.environ.get("HEADROOM_PRELOAD", "1"),
        "HEADROOM_CACHE": str(home / "cache"),
        "HEADROOM_ROOTS": str(home),
        "HEADROOM_MODELS": "demo,models/*",
        "HEADROOM_GRACE_MINUTES": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
    }
    # Streamlit looks for it in the working folder
    copytree(ROOT / ".streamlit", home / ".streamlit", dirs_exist_ok=True)
    converted, models = demo.folder(), home / "cache" / "models"
    models.mkdir(parents=True)  # as after set-up, so that nobody waits for it
    (models / converted.name).symlink_to(converted)
    started = server(
        environment=environment, log=home / "server.log", folder=home, disconnectedSessionTTL=GONE
    )
    with started as (address, process_id, _):
        yield int(address.rpartition(":")[2]), psutil.Process(process_id)


async def warmed_up(port: int, marks: list[str], found: Found) -> None:
    """One visitor sees every page and makes a run, so that all is loaded."""
    visitor = Visitor(port, len(marks) - 1, marks, found)
    await visitor.tab.open("heads")
    await visitor.open_recipe()
    await visitor.run()
    for _ in range(300):
        await asyncio.sleep(1)
        await visitor.tab.switch("compare")
        if visitor.tab.find("button", "Prepare download"):
            break
    else:
        raise SystemExit("The first run did not end.")
    await visitor.download()
    for page in PAGES:
        await visitor.tab.switch(page)
    await visitor.tab.close()


async def crowd(port: int, marks: list[str], seconds: float, found: Found) -> None:
    until = time.monotonic() + seconds
    visitors = [Visitor(port, number, marks, found) for number in range(len(marks) - 1)]
    for end in await asyncio.gather(*(v.visit(until) for v in visitors), return_exceptions=True):
        if end is not None:
            found.wrong.append(f"a visitor was thrown out: {type(end).__name__} {end}")


@dataclass(frozen=True)
class Memory:
    """Of the server, in MiB."""

    before: float
    peak: float
    after: float


def measure(visitors: int, seconds: float, home: Path, grace: float) -> tuple[Found, Memory, str]:
    """What they saw, the server's memory, and its log."""
    marks = [
        f"visitor{number:02}x{random.Random(number).getrandbits(40):010x}"
        for number in range(visitors + 1)
    ]
    write_models(home / "models", marks)
    found = Found()
    with serving(home) as (port, process):
        asyncio.run(warmed_up(port, marks, Found()))
        time.sleep(GONE + 2 if grace else 0)  # for the memory alone
        before = peak = process.memory_info().rss / 2**20

        async def watched() -> None:
            nonlocal peak
            load = asyncio.create_task(crowd(port, marks, seconds, found))
            while not load.done():
                peak = max(peak, process.memory_info().rss / 2**20)
                await asyncio.sleep(0.5)
            await load

        asyncio.run(watched())
        deadline = time.monotonic() + grace
        after = process.memory_info().rss / 2**20
        while time.monotonic() < deadline and after > MEMORY * before:
            time.sleep(1)
            after = process.memory_info().rss / 2**20
    return found, Memory(before, peak, after), (home / "server.log").read_text()


def problems(found: Found, memory: Memory, log: str) -> list[str]:
    """What must not be."""
    wrong = list(dict.fromkeys(found.wrong))
    if "Traceback" in log:
        wrong.append("the server's log has a traceback: " + log[log.index("Traceback") :][:1500])
    if memory.after > MEMORY * memory.before:
        wrong.append(f"the memory went from {memory.before:.0f} to {memory.after:.0f} MiB")
    return wrong


def quantile(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(share * len(times)))]


def rows(found: Found) -> Iterator[str]:
    for name, times in {"move of τ": found.tau, "page switch": found.switches}.items():
        if times:
            numbers = (quantile(times, share) for share in (0.5, 0.95, 1.0))
            yield f"| {name} | " + " | ".join(f"{n:.2f}" for n in numbers) + f" | {len(times)} |"


def main(arguments: list[str] | None = None) -> Any:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--grace", type=float, default=120, help="seconds to wait for the memory")
    options = parser.parse_args(arguments)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as home:
        place = Path(home)
        found, memory, log = measure(options.visitors, 60 * options.minutes, place, options.grace)
    print("| as a visitor sees it | median, s | 95th percentile, s | slowest, s | times |")
    print("|---|---|---|---|---|")
    print("\n".join(rows(found)))
    print(f"\nWhat they did: {dict(sorted(found.counts.items()))}.")
    print(
        f"Memory of the server: {memory.before:.0f} MiB before, {memory.peak:.0f} at its peak, "
        f"{memory.after:.0f} after. Load of the machine: {load:.1f} before, "
        f"{os.getloadavg()[0]:.1f} after, on {os.cpu_count()} cores."
    )
    wrong = problems(found, memory, log)
    if wrong:
        raise SystemExit("\n".join(wrong[:20]))


if __name__ == "__main__":
    main()
