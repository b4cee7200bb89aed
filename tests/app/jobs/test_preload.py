"""The embedded model is loaded once a page has been drawn, before anyone asks for it."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
import streamlit as st
import torch

import pruning.ablation
import pruning.evaluate
import pruning.models.loading
from app import warmup
from app.jobs import tasks
from app.jobs.model_store import ModelStore
from app.session import first_page, state, visitor_jobs
from pruning.artifacts.comparison import Speed
from pruning.artifacts.recipe import ModelChoice
from tests.helpers.stand_ins import at_address
from tests.helpers.waiting import wait_for

CHOICE = ModelChoice()


@pytest.fixture
def timed(monkeypatch):
    """Calls of the stopwatch, each with whether the store had the model by then."""
    store, calls = ModelStore(byte_limit=1000), []

    def speed(model, **how):
        calls.append(store.has(CHOICE, "auto"))
        return Speed(1000.0, 50.0)

    model = SimpleNamespace(parameters=list, dtype=torch.bfloat16)  # nothing is gained by autocast
    shape = SimpleNamespace(max_positions=64)
    loaded = SimpleNamespace(model=model, shape=shape, identity="it", dtype="", device="cpu")
    monkeypatch.setattr(tasks, "_make_room", lambda *_: None)
    monkeypatch.setattr(pruning.models.loading, "load", lambda *a, **k: loaded)
    monkeypatch.setattr(pruning.evaluate, "tokens_per_second", speed)
    return store, calls


def test_the_model_is_timed_before_a_run_can_have_it(timed):
    """Two threads must never run one model."""
    store, calls = timed
    first = [store, CHOICE, "auto", lambda _: calls.append(store.has(CHOICE, "auto"))]
    assert tasks.preload(*first) == (Speed(1000.0, 50.0), None)
    assert calls == [False, False] and store.has(CHOICE, "auto")
    assert tasks.preload(*first) is None and len(calls) == 2


def test_a_server_waits_for_its_first_page_and_then_loads(monkeypatch, timed):
    st.cache_resource.clear()
    monkeypatch.setattr(warmup, "SETTLED", 0.0)
    monkeypatch.setattr(visitor_jobs, "models", lambda: timed[0])
    asked = []
    text = SimpleNamespace(nbytes=1)
    monkeypatch.setattr(pruning.ablation, "read", lambda *a, **k: asked.append(k) or text)
    thread = threading.Thread(target=warmup.preload, daemon=True)
    thread.start()
    assert not first_page.drawn().is_set() and not len(timed[0])
    assert not at_address().exception
    wait_for(lambda: not thread.is_alive())
    assert timed[0].has(CHOICE, state.FIRST_DEVICE)
    assert visitor_jobs.estimator().decoded == 20.0
    assert len(visitor_jobs.readings()) == 1 and asked[0]["text"] == "sample"


def test_it_is_a_setting(monkeypatch):
    asked = []
    monkeypatch.setattr(warmup, "warm_up", lambda: None)
    monkeypatch.setattr(warmup, "measure_machine", lambda: None)
    monkeypatch.setattr(warmup, "preload", lambda: asked.append(1))
    monkeypatch.setenv("HEADROOM_PRELOAD", "0")
    warmup._in_background()
    monkeypatch.delenv("HEADROOM_PRELOAD")
    warmup._in_background()
    assert asked == [1]


def test_how_long_a_run_takes_is_not_told_while_the_server_warms_up(monkeypatch):
    """It said 2 min 30 s for a run of 40 s: the machine was measured while it was at work."""
    st.cache_resource.clear()
    told = []
    monkeypatch.setenv("HEADROOM_PRELOAD", "0")
    monkeypatch.setattr(warmup, "warm_up", lambda: told.append(visitor_jobs.tells_time()))
    monkeypatch.setattr(visitor_jobs, "machine_rate", lambda pause=0.0: 2e11 if pause else 1e10)
    warmup._in_background()
    assert told == [False] and visitor_jobs.tells_time()
    assert visitor_jobs.estimator().rate == 2e11
