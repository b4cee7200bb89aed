"""Whether the hub answers, and which names it could have."""

from __future__ import annotations

import threading
import time

import huggingface_hub
import pytest

from app.session import paths
from pruning.models.loading.resolve import locate
from pruning.utils import hub
from pruning.utils.errors import SourceError


@pytest.mark.parametrize(
    "name", ["gpt2", "distilgpt2", "bert-base-uncased", "openai-community/gpt2", "a/b.c-1_2"]
)
def test_ids_of_the_hub(name, monkeypatch):
    assert hub.is_hub_id(name) and not paths.is_path(name)
    asked = []

    def download(source, file, **how):
        asked.append((source, file, how["local_files_only"]))
        return f"/hub/snapshots/0123/{file}"

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr("pruning.models.loading.resolve.is_reachable", lambda: False)
    assert locate(name) == (name, "0123") and asked == [(name, "config.json", True)]


@pytest.mark.parametrize("name", ["model.bin", "./gpt2", "a/b/c", "~/x", "/x", "a b", "", "-x"])
def test_what_is_no_id(name):
    assert not hub.is_hub_id(name) and (not name or paths.is_path(name))
    if name.strip():
        with pytest.raises(SourceError):
            locate(name)


class Session:
    def __init__(self, head):
        self.head = head


def test_a_hub_that_answers(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    answers = Session(lambda address, timeout: None)
    monkeypatch.setattr(huggingface_hub, "get_session", lambda: answers)
    assert hub.is_reachable()


def test_a_hub_that_refuses_or_hangs(monkeypatch):
    def refuses(address, timeout):
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "get_session", lambda: Session(refuses))
    assert not hub.is_reachable()
    gate = threading.Event()
    hangs = Session(lambda address, timeout: gate.wait())
    monkeypatch.setattr(huggingface_hub, "get_session", lambda: hangs)
    started = time.monotonic()
    assert not hub.is_reachable(patience=0.1) and time.monotonic() - started < hub.PATIENCE
    gate.set()
