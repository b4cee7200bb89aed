"""Folders as they come from the hub: loaded by their id; code in them is neither run nor asked
for."""

from __future__ import annotations

import ast
import json
import os
import pty
import shutil
import subprocess
import sys

import pytest
import torch

from pruning.checkpoint import save
from pruning.pipeline import prune
from tests.adversarial import odd_models
from tests.adversarial.odd_models import changed, ids
from tests.helpers import PATIENCE, ROOT, families

HANDED_OUT = ROOT / "pruning" / "checkpoint" / "handoff" / "train.py"
"""Never run here: whoever runs it elsewhere has read the model's own file, which its settings
name."""


def _in_hub(home, repository, folder):
    """``folder`` as the hub's client lays it into its cache."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    place = home / "hub" / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    shutil.copytree(folder, place / "snapshots" / commit)


_BY_ID = """
import sys, torch, pruning
from pathlib import Path
from tests.helpers import families
for folder in map(Path, sys.argv[1:]):
    wanted, ids = (torch.load(folder / f"{name}.pt") for name in ("wanted", "ids"))
    for placement in ("whole", "memory", "disk"):
        loaded = pruning.load(f"you/{folder.name}", device="cpu", placement=placement)
        assert torch.equal(families.logits(loaded.model, ids), wanted), placement
        assert loaded.revision and loaded.model.generation_config.max_new_tokens == 7
    print("equal")
"""


def test_a_pruned_model_loads_by_its_hub_id(tmp_path):
    places = [tmp_path / family for family in ("llama_grouped", "gpt2")]
    for place in places:
        loaded = families.loaded(place.name)
        run = prune(loaded, families.recipe(ffn__ratio=0.4, heads__ratio=0.3))
        run.pruned.model.generation_config.max_new_tokens = 7
        _in_hub(tmp_path / "home", f"you/{place.name}", save(run, place / "compact"))
        few = ids() % loaded.model.config.vocab_size
        torch.save(few, place / "ids.pt")
        torch.save(families.logits(run.pruned.model, few), place / "wanted.pt")
    done = subprocess.run(
        [sys.executable, "-c", _BY_ID, *map(str, places)],
        env={**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
        | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout == "equal\nequal\n", done.stderr


_WITH_A_TERMINAL = """
import sys, pruning
from pruning.utils.errors import HeadroomError
assert sys.stdin.isatty()
for folder in sys.argv[1:]:
    try:
        pruning.load(folder, device="cpu")
        print("loaded", flush=True)
    except HeadroomError as error:
        print("refused", error, flush=True)
"""


def test_code_of_the_authors_is_neither_run_nor_asked_for(tmp_path):
    """A terminal at which someone would say yes to everything."""
    trap = tmp_path / "was-run"
    folders = []
    for kind in ("llama", "their-own"):
        folder = tmp_path / kind
        auto = ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")
        more = {"model_type": kind, "auto_map": {name: f"evil.{name}" for name in auto}}
        changed(folder, lambda _, settings, more=more: settings.update(more))
        odd_models.tokenizer().save_pretrained(folder)
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        settings["auto_map"] = {"AutoTokenizer": ["evil.AutoTokenizer", None]}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        for name in ("evil.py", "custom_generate/generate.py"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(f"open({str(trap)!r}, 'w').close()\n")
        folders.append(str(folder))
    keyboard, terminal = pty.openpty()
    os.write(keyboard, b"y\n" * 20)
    done = subprocess.run(
        [sys.executable, "-c", _WITH_A_TERMINAL, *folders],
        stdin=terminal,
        capture_output=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    os.close(keyboard)
    os.close(terminal)
    first, second = done.stdout.splitlines()
    assert first == "loaded" and second.startswith("refused") and "auto_map" in second
    assert "[y/N]" not in done.stdout + done.stderr
    assert not trap.exists()


def _reads_models(node):
    """Whether a call reads something with ``from_pretrained``, by itself or by way of another."""
    named = (node.func, *node.args)
    return any(
        isinstance(part, ast.Attribute)
        and part.attr == "from_pretrained"
        and not (isinstance(part.value, ast.Name) and part.value.id == "GenerationConfig")
        for part in named
    )


@pytest.mark.parametrize("room", ["pruning", "app", "benchmarks"])
def test_every_call_says_that_no_code_is_trusted(room):
    calls = [
        (path, node)
        for path in (ROOT / room).rglob("*.py")
        if path != HANDED_OUT
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and _reads_models(node)
    ]
    trusting = [
        f"{path}:{node.lineno}"
        for path, node in calls
        if not any(
            word.arg == "trust_remote_code"
            and isinstance(word.value, ast.Constant)
            and word.value.value is False
            for word in node.keywords
        )
    ]
    assert trusting == []
    assert len(calls) >= (5 if room == "pruning" else 0)
