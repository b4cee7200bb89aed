"""What whoever runs a server may decide, and that it holds."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from app import settings
from app.jobs import model_store, tasks
from app.jobs.queue import JobManager
from app.server.downloads import DownloadStore
from app.session import paths
from app.settings import Settings
from pruning.artifacts.recipe import ModelChoice
from pruning.utils.errors import LONGEST, HeadroomError, UsageError
from tests.helpers import ROOT
from tests.helpers.waiting import wait_for

README = ROOT / "app" / "README.md"


def test_nothing_set_is_the_defaults():
    assert settings.current({}) == Settings()
    assert settings.current({"HEADROOM_JOBS": " "}).jobs == 100


def test_values_come_from_the_environment(tmp_path):
    given = {
        "HEADROOM_ROOTS": f"{tmp_path}:/data",
        "HEADROOM_MODELS": "demo, google/gemma-*",
        "HEADROOM_JOBS_PER_VISITOR": "2",
        "HEADROOM_MODEL_GB": "1.5",
        "HEADROOM_SAVE": "no",
    }
    found = settings.current(given)
    assert found.roots == (tmp_path, Path("/data"))
    assert found.models == ("demo", "google/gemma-*")
    assert (found.jobs_per_visitor, found.model_gb, found.save) == (2, 1.5, False)


@pytest.mark.parametrize(
    "name, value",
    [
        ("JOBS", "many"),
        ("JOBS_PER_VISITOR", "0"),
        ("GRACE_MINUTES", "0.5"),
        ("MODEL_GB", "-1"),
        ("DOWNLOADS_GB", "nan"),
        ("SAVE", "x" * 9000),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(name, value):
    with pytest.raises(UsageError, match=f"HEADROOM_{name}=") as refused:
        settings.current({f"HEADROOM_{name}": value})
    assert len(str(refused.value)) <= LONGEST


def test_the_readme_has_every_setting_and_its_default():
    rows = dict(re.findall(r"^\| `HEADROOM_(\w+)` \| ([^|]*) \|", README.read_text(), re.MULTILINE))
    assert rows.keys() - {"CACHE"} == {name.upper() for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, float | int) and not isinstance(field.default, bool):
            assert rows[name.upper()].strip() == f"{field.default:g}"


def test_models_beside_the_list_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADROOM_ROOTS", str(tmp_path))
    monkeypatch.setenv("HEADROOM_MODELS", "demo,google/gemma-*,models/*")
    for name in ("models/mine", "other"):
        (tmp_path / name).mkdir(parents=True)
    for source in ("demo", "google/gemma-2b", "models/mine", f"{tmp_path}/models/mine"):
        paths.check_model(source)
    for source in ("google/flan", "openai/gemma-2b", "other", "models/../other", "DEMO"):
        with pytest.raises(UsageError, match="may not be loaded"):
            paths.check_model(source)


def test_a_model_that_is_too_large_is_refused_before_it_is_loaded(monkeypatch):
    from pruning.models.loading import memory_estimate

    needed = SimpleNamespace(weight_bytes=3 * settings.GB, fits=True)
    monkeypatch.setattr(memory_estimate, "estimate", lambda *_, **__: needed)
    monkeypatch.setenv("HEADROOM_MODEL_GB", "2.5")
    work = tasks.loading(model_store.ModelStore(), ModelChoice(source="large/model"), "cpu")
    with pytest.raises(UsageError, match="takes 3.0 GB, and this server loads models of up to 2.5"):
        work(lambda step: None, lambda: False)


def test_memory_for_models_follows_the_setting(monkeypatch):
    monkeypatch.setenv("HEADROOM_MEMORY_GB", "8")
    assert model_store.default_byte_limit() == 4 * settings.GB


def test_a_visitor_and_all_visitors_have_only_so_many_jobs():
    queue = JobManager(most_each=2, most=3)
    going = []

    def work(progress, should_cancel):
        wait_for(lambda: going)

    def submit(owner: str):
        return queue.submit("prune", "Prune", work, owner=owner, queue_name="cpu")

    first = [submit("one"), submit("one")]
    with pytest.raises(UsageError, match="2 jobs waiting or at work"):
        submit("one")
    queue.cancel(first[1])  # it still waits, and gives its place back
    submit("two"), submit("two")
    with pytest.raises(UsageError, match="3 jobs wait on this server"):
        submit("three")
    going.append(True)
    wait_for(lambda: not any(job.active for job in (*queue.of("one"), *queue.of("two"))))
    assert submit("three").id


def test_downloads_take_only_so_much_together(tmp_path):
    store = DownloadStore(tmp_path, most_bytes=100)
    with store.room(60) as place:
        with pytest.raises(HeadroomError, match="that this server"), store.room(50):
            raise AssertionError("there was no room")
        (place / "model.zip").write_bytes(b"x" * 30)
        made = store.offer(place / "model.zip", "one")
    with store.room(70):
        pass
    with pytest.raises(HeadroomError, match="that this server"), store.room(71):
        raise AssertionError("there was no room")
    assert store.find(made.id)


def test_a_file_in_the_making_outlives_a_clock_that_jumps(tmp_path, monkeypatch):
    from pruning.utils import leftovers

    store = DownloadStore(tmp_path, keep=60)
    with store.room(1) as place:
        ahead = SimpleNamespace(time=lambda: 4e9)
        monkeypatch.setattr(leftovers, "time", ahead)
        store.sweep()
        assert place.is_dir()


def test_saving_can_be_switched_off(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADROOM_ROOTS", str(tmp_path))
    assert paths.check_target(str(tmp_path / "out")) == tmp_path / "out"
    monkeypatch.setenv("HEADROOM_SAVE", "0")
    with pytest.raises(UsageError, match="prepare a download"):
        paths.check_target(str(tmp_path / "out"))
