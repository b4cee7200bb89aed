"""Downloads: who gets what, for how long, and what the browser is told."""

from __future__ import annotations

import os
import shutil
import time
import zipfile
from types import SimpleNamespace

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app.jobs import compare_tasks
from app.main import app  # noqa: F401  (the route hangs on it)
from app.server import downloads
from app.server.downloads import DownloadStore
from app.session import visitor_jobs
from app.views.compare.export import file_name
from pruning.checkpoint.forms import FormOptions
from pruning.checkpoint.zip import move_into_zip
from pruning.utils.errors import Cancelled, HeadroomError
from tests.helpers.finished_jobs import add_run
from tests.helpers.stand_ins import OWNER, button, labelled, wait_for, words
from tests.helpers.waiting import Clock


@pytest.fixture
def download_store(engine, tmp_path, monkeypatch):
    """The process's shelf, in a cache folder of its own."""
    monkeypatch.setenv("HEADROOM_CACHE", str(tmp_path))
    return downloads.download_store()


def client() -> TestClient:
    return TestClient(Starlette(routes=[downloads.route()]))


def offered(
    download_store: DownloadStore, owner: str = OWNER, name: str = "a.zip", text: bytes = b"abcdef"
):
    with download_store.room(1) as place:
        (place / name).write_bytes(text)
        return download_store.offer(place / name, owner)


def saved_folder(place):
    folder = place / "tiny-pruned-compact"
    (folder / "more").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "more" / "weights.safetensors").write_bytes(os.urandom(100_000))
    return folder


def test_a_file_is_sent_whole_or_in_part_by_its_id(download_store):
    made = offered(download_store)
    answer = client().get(f"/download/{made.id}")
    assert answer.content == b"abcdef" and answer.headers["content-length"] == "6"
    assert answer.headers["content-disposition"] == 'attachment; filename="a.zip"'
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "no-store" in answer.headers["cache-control"]
    part = client().get(f"/download/{made.id}", headers={"Range": "bytes=4-"})
    assert part.status_code == 206 and part.content == b"ef"


@pytest.mark.parametrize("name", ["", "x", "../secret", "%2e%2e%2fsecret", "a/b", "/etc/passwd"])
def test_nothing_else_is_sent(download_store, tmp_path, name):
    offered(download_store)
    (tmp_path / "secret").write_text("of others")
    answer = client().get(f"/download/{name}")
    assert answer.status_code == 404 and "of others" not in answer.text


def test_an_ended_download_says_so(download_store):
    made = offered(download_store)
    shutil.rmtree(made.path.parent)
    answer = client().get(f"/download/{made.id}")
    assert answer.status_code == 404 and "This download has ended" in answer.text


def test_ids_cannot_be_guessed_and_an_owner_has_one_file(download_store):
    first, other = offered(download_store), offered(download_store, "somebody else")
    second = offered(download_store)
    assert len({first.id, second.id, other.id}) == 3 and len(second.id) >= 32
    assert download_store.find(first.id) is None and not first.path.exists()
    assert download_store.find(second.id) == second and download_store.find(other.id) == other
    download_store.clear()
    assert not second.path.exists() and not other.path.exists()


def test_old_files_go_and_those_asked_for_stay(tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(downloads, "time", clock)
    download_store = DownloadStore(tmp_path, keep=60)
    left, used = offered(download_store), offered(download_store, "somebody else")
    stranger = tmp_path / "of-a-server-that-is-gone"
    stranger.mkdir()
    (stranger / "model.zip").write_bytes(b"x")
    hour_ago = time.time() - 3600
    for path in (stranger / "model.zip", stranger):
        os.utime(path, (hour_ago, hour_ago))
    for _ in range(2):
        clock.go_on(40)
        download_store.touch(used)
    download_store.sweep()
    assert download_store.find(left.id) is None and not left.path.exists()
    assert not stranger.exists()
    assert used.path.exists()


def test_a_full_disk_is_told_before_and_leaves_nothing(tmp_path):
    download_store = DownloadStore(tmp_path / "downloads")
    with (
        pytest.raises(HeadroomError, match="GB of the server's disk"),
        download_store.room(1 << 60),
    ):
        raise AssertionError("never here")
    with pytest.raises(Cancelled), download_store.room(1) as place:
        (place / "half").write_bytes(b"x")
        raise Cancelled("Cancelled.")
    assert list((tmp_path / "downloads").iterdir()) == []


def test_a_folder_becomes_one_zip_of_the_same_bytes(tmp_path):
    folder = saved_folder(tmp_path)
    weights = (folder / "more" / "weights.safetensors").read_bytes()
    told = []
    out = move_into_zip(folder, tmp_path / "model.zip", progress=told.append)
    assert not folder.exists() and told[-1].done == told[-1].total > 100_000
    with zipfile.ZipFile(out) as packed:
        assert packed.testzip() is None
        assert {entry.compress_type for entry in packed.infolist()} == {zipfile.ZIP_STORED}
        assert sorted(packed.namelist()) == [
            "tiny-pruned-compact/config.json",
            "tiny-pruned-compact/more/weights.safetensors",
        ]
        assert packed.read("tiny-pruned-compact/more/weights.safetensors") == weights


def test_packing_can_be_cancelled(tmp_path):
    with pytest.raises(Cancelled):
        move_into_zip(saved_folder(tmp_path), tmp_path / "model.zip", should_cancel=lambda: True)
    assert not (tmp_path / "model.zip").exists()


@pytest.mark.parametrize("form", ["compact", "gguf"])
def test_the_work_packs_what_the_form_writes(download_store, monkeypatch, form):
    def write(run, out, form, options, found):
        assert (options, found) == (FormOptions(), None)
        if out.suffix == ".gguf":
            out.write_bytes(b"GGUF")
        else:
            out.mkdir()
            (out / "model.safetensors").write_bytes(b"weights")
        return ("A bias was added.",)

    monkeypatch.setattr(compare_tasks, "_write", write)
    run = SimpleNamespace(report=SimpleNamespace(before=SimpleNamespace(bytes=10, parameters=5)))
    task = compare_tasks.packing(run, f"t-{form}", form, FormOptions(), None, download_store, OWNER)
    made, remarks = task(lambda _: None, lambda: False)
    assert remarks == ("A bias was added.",) and download_store.find(made.id) == made
    assert made.path.name == {"compact": "t-compact.zip", "gguf": "t-gguf.gguf"}[form]
    assert [p.name for p in made.path.parent.iterdir()] == [made.path.name]


def test_compare_offers_a_download_until_it_ends(visit, download_store, monkeypatch):
    asked = []

    def packing(run, name, form, options, found, download_store, owner):
        asked.append((name, form, options, found, owner))
        return lambda progress, should_cancel: (
            offered(download_store, owner, f"{name}.zip"),
            ("A bias was added.",),
        )

    monkeypatch.setattr(compare_tasks, "packing", packing)
    add_run(0.2)
    at = visit("compare")
    labelled(at.radio, "The pruned model as").set_value("uniform").run()
    labelled(at.toggle, "With a training script").set_value(True).run()
    button(at, "Prepare download").click().run()
    job = visitor_jobs.manager().of(OWNER, "pack")[-1]
    wait_for(lambda: not job.active)
    at.run()
    assert not at.exception
    assert asked == [("demo-pruned-uniform", "uniform", FormOptions(handoff=True), None, OWNER)]
    made = job.result[0]
    links = [element.proto.body for element in at.get("html")]
    assert any(f'href="download/{made.id}"' in link for link in links)
    assert any("demo-pruned-uniform.zip (6 B)" in link for link in links)
    assert "A bias was added." in words(at) and "Kept for 2 h" in words(at)
    download_store.clear()
    at.run()
    assert "has ended" in words(at)
    assert not any("download/" in element.proto.body for element in at.get("html"))


def test_names_that_a_browser_is_told_are_plain():
    assert file_name("owner/Model-1.5", "compact") == "Model-1.5-pruned-compact"
    assert file_name('models/../my "file".gguf', "gguf") == "my-file-pruned-gguf"
    assert file_name("..", "padded") == "model-pruned-padded"
