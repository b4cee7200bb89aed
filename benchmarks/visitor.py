"""What one visitor of ``benchmarks.visitors`` does, and what he notices."""

from __future__ import annotations

import asyncio
import random
import re
import time
import urllib.request
from dataclasses import dataclass, field

from benchmarks.server import HOST
from benchmarks.streamlit_client import Tab

TAU = "τ, nats (natural log)"
UPLOAD = "Upload a recipe"
PAGES = ("model", "heads", "activations", "prune", "compare", "sweeps")
ODD = {
    "empty.yaml": (b"", 204),
    "binary.yaml": (bytes(range(256)) * 64, 204),
    "aliases.yaml": (b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"b: [*a,*a,*a,*a,*a]\n" * 40, 204),
    "deep.json": (b"[" * 50_000, 204),
    "large.yaml": (b"# " + b"x" * (3 << 20), 413),
    "elsewhere.yaml": (b"version: 1\ncalibration: {source: /etc/passwd}\n", 204),
}
"""Files that are no recipes, and whether the server takes them at all."""


@dataclass
class Found:
    """What the visitors saw."""

    tau: list[float] = field(default_factory=list)
    switches: list[float] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1


class Visitor:
    """One who knows ``mark`` and must never see any other of ``marks``."""

    def __init__(self, port: int, number: int, marks: list[str], found: Found) -> None:
        self.mark, self._found, self._port = marks[number], found, port
        self._others = [mark.encode() for mark in marks if mark != self.mark]
        self._random = random.Random(number)
        self.tab = Tab(port, self._look)

    def _look(self, data: bytes) -> None:
        for other in self._others:
            if other in data:
                self._found.wrong.append(f"{self.mark} was sent {other.decode()}")
        if b"Traceback" in data:
            self._found.wrong.append(f"{self.mark} was sent a traceback")

    async def visit(self, until: float) -> None:
        """Come, do this and that until then, and go."""
        await self.tab.open("heads")
        await self.open_recipe()
        while time.monotonic() < until:
            acts = (self.move, self.move, self.move, self.look_around, self.run, self.odd_file)
            more = (self.cancel, self.download, self.come_back)
            act = self._random.choice((*acts, *more))
            try:
                await act()
            except TimeoutError:
                self._found.wrong.append(f"{self.mark} waited two minutes for {act.__name__}")
            self._found.count(act.__name__)
            await asyncio.sleep(self._random.uniform(0.2, 1.5))
        await self.tab.close()

    async def move(self) -> None:
        if self.tab.page != "heads":
            await self.tab.switch("heads")
        for _ in range(3):
            seconds = await self.tab.slide(TAU, round(self._random.uniform(0.01, 0.69), 3))
            if seconds is not None:
                self._found.tau.append(seconds)
            await asyncio.sleep(self._random.uniform(0.2, 0.8))

    async def look_around(self) -> None:
        self._found.switches.append(await self.tab.switch(self._random.choice(PAGES)))

    async def open_recipe(self) -> None:
        await self.tab.switch("prune")
        recipe = (
            f"version: 1\nmodel: {{source: models/{self.mark}}}\nffn: {{ratio: 0.25}}\n"
            "calibration: {source: sample, samples: 24, seq_len: 32}\n"
        )
        status = await self.tab.upload(UPLOAD, f"{self.mark}.yaml", recipe.encode())
        if status >= 300:
            self._found.wrong.append(f"a recipe was refused with {status}")

    async def run(self) -> None:
        await self.tab.switch("prune")
        await self.tab.press("Run")

    async def cancel(self) -> None:
        await self.tab.press("Cancel")

    async def odd_file(self) -> None:
        await self.tab.switch("prune")
        name = self._random.choice(list(ODD))
        data, expected = ODD[name]
        status = await self.tab.upload(UPLOAD, name, data)
        if status != expected:
            self._found.wrong.append(f"{name} was answered with {status}")

    async def download(self) -> None:
        """Prepare the model of the last run, and take what was prepared."""
        await self.tab.switch("compare")
        await self.tab.press("Prepare download")
        for element in list(self.tab.elements.values()):
            link = re.search(rb"download/([\w-]{20,})", element.SerializeToString())
            if link:
                address = f"http://{HOST}:{self._port}/download/{link[1].decode()}"
                head = await asyncio.to_thread(_disposition, address)
                self._found.count("downloaded")
                if self.mark not in head:
                    self._found.wrong.append(f"{self.mark} downloaded {head!r}")

    async def come_back(self) -> None:
        """Close the tab; open it again by its address, or as a new visitor."""
        query = self.tab.query
        await self.tab.close()
        self.tab = Tab(self._port, self._look)
        await asyncio.sleep(self._random.uniform(0, 2))
        if self._random.random() < 0.5:
            await self.tab.open("prune", query)
        else:
            await self.tab.open("heads")
            await self.open_recipe()


def _disposition(address: str) -> str:
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            answer.read()
            return answer.headers["Content-Disposition"] or ""
    except OSError as error:
        return str(error)
