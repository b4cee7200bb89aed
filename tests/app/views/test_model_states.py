"""The Model page with the real engine behind it, when things go wrong; and while they wait."""

from __future__ import annotations

import json
import time

import huggingface_hub
import pytest

from app.jobs import tasks
from app.session import visitor_jobs
from pruning.artifacts.events import stop_if
from pruning.models.loading import memory_estimate
from tests.helpers.stand_ins import OWNER, button, labelled, wait_for, words

GPT2 = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 16}


@pytest.fixture
def folder(visit, tmp_path, monkeypatch):
    """``folder(config, button)``: choose a folder with this config and press a button."""
    monkeypatch.setenv("HEADROOM_ROOTS", str(tmp_path))

    def act(config: dict, label: str):
        (tmp_path / "config.json").write_text(json.dumps(config))
        at = visit("model")
        at.button_group[0].set_value("folder").run()
        labelled(at.text_input, "Folder on the server").set_value(str(tmp_path)).run()
        button(at, label).click().run()
        return ended(at)

    return act


def ended(at):
    """The page after its newest job."""
    wait_for(lambda: not visitor_jobs.manager().of(OWNER)[-1].active)
    return at.run()


def one_sentence(at, *parts: str) -> None:
    assert not at.exception and len(at.error) == 1
    sentence = at.error[0].value
    assert "\n" not in sentence and "Traceback" not in sentence
    assert all(part in sentence for part in parts), sentence
    assert not button(at, "Load").disabled  # the page goes on


def test_nothing_can_be_pressed_before_a_model_is_named(visit):
    at = visit("model")
    at.button_group[0].set_value("hub").run()
    assert all(button(at, name).disabled for name in ("Check memory", "Load", "Measure"))
    labelled(at.text_input, "Model id").set_value("a/b").run()
    assert not any(button(at, name).disabled for name in ("Check memory", "Load", "Measure"))


@pytest.mark.parametrize("label", ["Load", "Measure"])
def test_no_hub(visit, monkeypatch, label):
    def unreachable(*_args, **_kwargs):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    at = visit("model")
    at.button_group[0].set_value("hub").run()
    labelled(at.text_input, "Model id").set_value("someone/some-model").run()
    button(at, label).click().run()
    one_sentence(ended(at), "someone/some-model", "cannot be reached")


def test_an_unsupported_model(folder):
    at = folder({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "Load")
    one_sentence(at, "t5", "llama")


def test_a_folder_without_weights(folder):
    one_sentence(folder(GPT2, "Load"), "safetensors")


def test_memory_that_suffices_and_memory_that_does_not(folder, monkeypatch):
    at = folder(GPT2, "Check memory")
    assert not at.exception and not at.error and "GB free" in at.info[0].value
    monkeypatch.setattr(memory_estimate, "free_bytes", lambda device: 1)
    at = folder(GPT2, "Check memory")
    assert "That does not fit" in at.warning[0].value
    one_sentence(folder(GPT2, "Load"), "does not fit")


def test_out_of_memory_while_measuring(visit, monkeypatch):
    def measuring(*_):
        def work_(progress, should_cancel):
            raise MemoryError

        return work_

    monkeypatch.setattr(tasks, "measuring", measuring)
    at = visit("model")
    button(at, "Measure").click().run()
    one_sentence(ended(at), "not enough memory")


def test_a_load_waits_its_turn_then_runs_and_is_cancelled(visit, engine, monkeypatch):
    def loading(*_):
        def work_(progress, should_cancel):
            while True:
                stop_if(should_cancel)
                time.sleep(0.01)

        return work_

    monkeypatch.setattr(tasks, "loading", loading)
    first = visitor_jobs.manager().submit(
        "prune", "Prune demo", lambda p, c: engine.gate.wait(), owner="other", queue_name="cpu"
    )
    wait_for(lambda: first.status == "running")
    at = visit("model")
    button(at, "Load").click().run()
    job = visitor_jobs.manager().of(OWNER)[-1]
    assert job.status == "queued" and button(at, "Load").disabled
    assert "waiting, 1 job ahead" in at.get("progress")[0].proto.text
    engine.gate.set()
    wait_for(lambda: job.status == "running")
    button(at.run(), "Cancel").click().run()
    at = ended(at)
    assert not at.exception and "Cancelled" in at.info[0].value and not at.error
    assert not button(at, "Load").disabled


def test_a_loaded_model_shows_its_facts(visit, monkeypatch):
    from app.session import state

    shape = state.demo_measurement().shape
    facts = tasks.Facts("demo", None, shape, 5, 20, "float32", "cpu", "Tokens", 99)
    monkeypatch.setattr(tasks, "loading", lambda *_: lambda progress, cancel: facts)
    at = visit("model")
    button(at, "Load").click().run()
    at = ended(at)
    assert not at.exception and "Loaded in" in words(at)
    assert at.table[0].value["value"]["Tokenizer"] == "Tokens, 99 entries"
