"""The store of dense models, and which files visitors may name."""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace

import pytest

from app.jobs.model_store import ModelStore
from app.session import paths
from pruning.artifacts.rules import ModelChoice
from pruning.utils.errors import UsageError
from tests.helpers import PATIENCE


class Weights:
    def __init__(self, size: int) -> None:
        self.size = size

    def parameters(self):
        storage = SimpleNamespace(data_ptr=lambda: id(self), nbytes=lambda: self.size)
        device = SimpleNamespace(type="cpu")
        return [SimpleNamespace(untyped_storage=lambda: storage, device=device)]


def loader(counts, size=10):
    def load(choice, device):
        counts.append((choice.source, choice.dtype, device))
        return SimpleNamespace(model=Weights(size))

    return load


def test_visitors_share_a_model_but_not_across_dtype_or_device():
    counts, store = [], ModelStore(count=5, byte_limit=1000)
    first = store.get(ModelChoice(source="demo"), "cpu", loader(counts))
    assert store.get(ModelChoice(source="demo"), "cpu", loader(counts)) is first
    half = ModelChoice(source="demo", dtype="bfloat16")
    assert store.get(half, "cpu", loader(counts)) is not first
    assert store.get(ModelChoice(source="demo"), "cuda", loader(counts)) is not first
    assert len(counts) == 3


def test_two_visitors_at_once_load_once():
    counts, store = [], ModelStore(count=5, byte_limit=1000)
    gate = threading.Event()

    def slow(choice, device):
        gate.wait(PATIENCE)
        return loader(counts)(choice, device)

    threads = [
        threading.Thread(target=store.get, args=(ModelChoice(), "cpu", slow)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(counts) == 1


@pytest.mark.parametrize(("count", "limit"), [(2, 10_000), (10, 25)])
def test_the_least_recently_used_goes(count, limit):
    counts, store = [], ModelStore(count=count, byte_limit=limit)
    for name in ("a/a", "b/b", "a/a", "c/c"):
        store.get(ModelChoice(source=name), "cpu", loader(counts))
    assert len(store) == 2
    store.get(ModelChoice(source="a/a"), "cpu", loader(counts))
    assert [name for name, *_ in counts] == ["a/a", "b/b", "c/c"]


def test_a_failed_load_can_be_tried_again():
    store = ModelStore(count=2, byte_limit=100)

    def broken(choice, device):
        raise OSError("disk")

    with pytest.raises(OSError):
        store.get(ModelChoice(), "cpu", broken)
    assert store.get(ModelChoice(), "cpu", loader([])) is not None


def test_paths_stay_inside_the_roots(tmp_path, monkeypatch):
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "link").symlink_to(outside)
    monkeypatch.setenv("HEADROOM_ROOTS", os.pathsep.join([str(inside)]))
    assert paths.allowed(str(inside / "model")) == inside / "model"
    for bad in (outside, inside / ".." / "out", inside / "link" / "model.gguf", "/etc/passwd"):
        with pytest.raises(UsageError, match="outside the folders"):
            paths.allowed(str(bad))
        with pytest.raises(UsageError):
            paths.check_corpus(str(bad))
    paths.check_model("demo")
    paths.check_model("openai-community/gpt2")
    paths.check_corpus("sample")
    with pytest.raises(UsageError):
        paths.check_model(str(outside))


def test_the_working_directory_is_the_default_root(tmp_path, monkeypatch):
    monkeypatch.delenv("HEADROOM_ROOTS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert paths.roots() == [tmp_path.resolve()]
