"""Whatever strikes a run: nothing broken under a final name, nothing of it left after the next run,
which works. Each run is a whole ``headroom prune`` of a GGUF file, converted, read block by block
from disk, measured, cut, evaluated and saved, in a process of its own."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from pruning.artifacts.measurement import Measurement
from pruning.utils.errors import LONGEST
from tests.adversarial import odd_models
from tests.adversarial.faults import AtChange, clock, dying, file_limit, memory_limit, removing
from tests.helpers import ROOT
from tests.helpers.processes import Command, Ended, Prepare

RECIPE = "--calibration sample --samples 4 --seq-len 16 --ffn-ratio 0.25 --recovery refit"
RUN = f"{RECIPE} --evaluate-windows 2 --placement disk".split()
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and files as in Linux")


class Work:
    """A folder with a source, a cache and a place for the pruned model, and what a run that
    nothing strikes leaves there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cache, self.out = folder, folder / "cache", folder / "outs" / "model"
        self.source = odd_models.write_gguf(folder / "tiny.gguf", odd_models.llama())
        self.again()  # imports the rest
        started = time.monotonic()
        shutil.rmtree(self.cache)
        assert self.start().end().status == 0
        self.seconds = time.monotonic() - started
        self.names, self.weights = self.found(), self.stored()

    @property
    def argv(self) -> list[str]:
        return ["prune", str(self.source), *RUN, "--out", str(self.out)]

    def start(self, prepare: Prepare | None = None) -> Command:
        log = self.folder / f"log-{time.monotonic_ns()}"
        return Command(self.argv, self.cache, log, prepare)

    def again(self) -> None:
        ended = self.start().end()
        assert ended.status == 0, ended.said

    def found(self) -> set[str]:
        places = (self.cache, self.out.parent)
        return {str(path.relative_to(self.folder)) for p in places for path in p.rglob("*")}

    def stored(self) -> dict[str, bytes]:
        """Everything under final names that must be the same each time."""
        files = (self.out / "model.safetensors", self.out / "recipe.yaml", self.out / "plan.json")
        converted = self.cache.glob("models/[!.]*/*")
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in (*files, *converted)
            if path.is_file()
        }

    def check_whole(self) -> None:
        """What is under a final name is all there and right."""
        stored = self.stored()
        folders = {str(Path(name).parent) for name in stored}
        expected = {n: data for n, data in self.weights.items() if str(Path(n).parent) in folders}
        assert stored == expected
        if self.out.exists():
            present = {str(path.relative_to(self.folder)) for path in self.out.rglob("*")}
            assert present == {name for name in self.names if name.startswith("outs/model/")}
        for file in self.cache.glob("measurements/[!.]*"):
            assert Measurement.read(file).samples == 4

    def check_next_run(self) -> None:
        self.again()
        assert self.found() == self.names
        assert self.stored() == self.weights

    def clear(self, number: int) -> None:
        """Begin with and without a cache, with and without an earlier model."""
        if number % 2:
            shutil.rmtree(self.cache, ignore_errors=True)
        if number % 4 > 1:
            shutil.rmtree(self.out, ignore_errors=True)


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Work:
    return Work(tmp_path_factory.mktemp("work"))


def check_refusal(ended: Ended) -> None:
    """Done, or refused in one sentence; libraries may say more before it."""
    last = ended.last_line
    assert ended.status in (0, 1), ended.said
    if ended.status:
        assert last.startswith("headroom: ") and last.endswith("."), ended.said
        assert len(last) <= LONGEST + 10 and "Unexpected" not in last
    assert "Traceback" not in ended.said, ended.said


def test_killed_at_random_moments(work):
    moments = random.Random(20)
    for number in range(20):
        work.clear(number)
        command = work.start()
        command.wait(moments.uniform(0, work.seconds))
        assert command.end(signal.SIGKILL).status in (0, -signal.SIGKILL)
        work.check_whole()
        if number % 5 == 4:
            work.check_next_run()


def test_killed_between_changes_of_files(work):
    """Between two renames no clock strikes by chance."""
    for number, at in enumerate(random.Random(7).sample(range(1, 76), 8)):
        work.clear(2 * number + 1)
        ended = work.start(AtChange(at, partial(dying, signal.SIGKILL))).end()
        assert ended.status in (0, -signal.SIGKILL), ended.said
        work.check_whole()
        if number % 4 == 3:
            work.check_next_run()


def test_a_model_that_was_being_replaced_comes_back(tmp_path):
    """Killed with the earlier model set aside and the new one not yet in its place."""
    from pruning.utils import atomic_dir

    target = tmp_path / "model"
    with atomic_dir.written_aside(target) as folder:
        (folder / "weights").write_text("earlier")
    script = (
        "import os, pathlib, sys\n"
        "from pruning.utils import atomic_dir\n"
        "real, count = os.rename, iter(range(9))\n"
        "def rename(*names):\n"
        "    if next(count) == 2: os.kill(os.getpid(), 9)\n"
        "    real(*names)\n"
        "os.rename = rename\n"
        "with atomic_dir.written_aside(pathlib.Path(sys.argv[1])) as folder:\n"
        "    (folder / 'weights').write_text('new')\n"
    )
    subprocess.run([sys.executable, "-c", script, target], cwd=ROOT, check=False)
    assert not target.exists()
    atomic_dir.check_place(target)
    assert (target / "weights").read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_ended_by_sigterm(work):
    """It takes away what is half written itself."""
    for number, share in enumerate((0.35, 0.6, 0.9)):
        work.clear(number)
        command = work.start()
        command.wait(share * work.seconds)
        ended = command.end(signal.SIGTERM)
        # before the command line has begun there is nobody to catch it
        assert ended.status in (0, 143, -signal.SIGTERM), ended.said
        if ended.status == 143:
            assert ended.last_line == "headroom: Terminated."
            assert not [name for name in work.found() if ".headroom" in name or "blocks-" in name]
        work.check_whole()
    work.check_next_run()


def test_one_real_process_is_killed(work):
    shutil.rmtree(work.cache)
    environment = {**os.environ, "HEADROOM_CACHE": str(work.cache), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "pruning", *work.argv]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr.readline().startswith(b"[load")  # it reads the model
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    work.check_whole()
    work.check_next_run()


@contextmanager
def small_disk(place: Path, size: int):
    """A file system of ``size`` bytes at ``place``; skips where none may be made."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        place.rmdir()
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("where, sizes", [("cache", (9, 40, 240)), ("outs", (5, 60, 120))])
def test_full_disk(work, where, sizes):
    """On a small disk where one may be made, else with files that may not grow."""
    for size in sizes:
        with small_disk(work.folder / where, size * 1024) as made:
            ended = work.start(None if made else partial(file_limit, size * 1024)).end()
            check_refusal(ended)
            assert ended.status == 1
            assert not made or "disk is full" in ended.last_line
            left = [name for name in work.found() if ".headroom" in name or "blocks-" in name]
            assert not left
            work.check_whole()
    shutil.rmtree(work.cache / "rescued", ignore_errors=True)  # as its sentence said
    work.check_next_run()


def test_out_of_memory(work):
    """Where a library ends the process itself there is no sentence, but nothing broken either."""
    said = []
    for number, more in enumerate((1 << 16, 1 << 20, 3 << 20, 14 << 20, 30 << 20, 1 << 28)):
        work.clear(2 * number + 1)
        ended = work.start(partial(memory_limit, more)).end()
        if ended.status in (0, 1) and "SystemError" not in ended.last_line:  # Python's own, then
            check_refusal(ended)
            said.append(ended.status)
        work.check_whole()
    assert 0 in said and 1 in said
    work.check_next_run()


def test_runs_into_one_folder_at_once(work):
    for number in range(3):
        work.clear(number)
        commands = [work.start() for _ in range(2 + number % 2)]
        assert [command.end().status for command in commands] == [0] * len(commands)
        assert work.found() == work.names
        work.check_whole()


def test_the_cache_is_removed_in_the_middle(work):
    for number, at in enumerate(random.Random(3).sample(range(1, 76), 6)):
        work.clear(number)
        ended = work.start(AtChange(at, partial(removing, work.cache))).end()
        check_refusal(ended)
        work.check_whole()
    work.check_next_run()


@pytest.mark.parametrize("step", [-3600, 1e7])
def test_the_clock_jumps(work, step):
    shutil.rmtree(work.cache)
    ended = work.start(partial(clock, step)).end()
    assert ended.status == 0, ended.said
    assert work.found() == work.names and work.stored() == work.weights
