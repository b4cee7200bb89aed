"""Nothing outside the configured roots is read or written for a visitor, whatever names it: a
recipe, an upload, a link, a model folder, the parts of a file, a target. The command line's own
user may read what he names, but no model makes him read anything else."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import pruning
from app.server.downloads import DownloadStore
from app.session import paths, recipe_link
from pruning.artifacts.recipe import Recipe
from pruning.checkpoint.saving import check_target
from pruning.checkpoint.zip import move_into_zip
from pruning.utils.errors import LONGEST, HeadroomError, SourceError, UsageError
from tests.adversarial import odd_models
from tests.helpers import PATIENCE

SECRET = "what is written here belongs to nobody else"


@pytest.fixture
def places(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """A root and a folder outside it that holds a secret."""
    inside, outside = tmp_path / "roots" / "inside", tmp_path / "outside"
    for folder in (inside, outside):
        folder.mkdir(parents=True)
    (outside / "secret.txt").write_text(SECRET)
    monkeypatch.setenv("HEADROOM_ROOTS", str(inside))
    monkeypatch.setenv("HEADROOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(inside)
    return inside, outside


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    odd_models.llama().save_pretrained(folder)
    odd_models.tokenizer().save_pretrained(folder)
    return folder


def names_of(outside: Path, inside: Path) -> list[str]:
    """Ways to name the secret."""
    (inside / "link").symlink_to(outside)
    (inside / "link.txt").symlink_to(outside / "secret.txt")
    (inside / "chain").symlink_to(inside / "link")
    return [
        str(outside / "secret.txt"),
        "../../outside/secret.txt",
        f"{inside}/../../outside/secret.txt",
        "link/secret.txt",
        "chain/secret.txt",
        "link.txt",
        "./link.txt",
        f"{inside}-beside/secret.txt",
        "/etc/passwd",
        "/proc/self/environ",
        "~/secret.txt",
        "~root/secret.txt",
    ]


def test_a_recipe_names_nothing_outside(places):
    inside, outside = places
    for name in names_of(outside, inside):
        for section in ("model", "calibration"):
            recipe = Recipe.from_yaml(json.dumps({"version": 1, section: {"source": name}}))
            with pytest.raises(UsageError, match="lies outside the folders") as refused:
                paths.check_recipe(recipe)
            assert len(str(refused.value)) <= LONGEST and SECRET not in str(refused.value)
        with pytest.raises(UsageError):
            paths.check_target(name)


def test_nor_does_the_recipe_in_an_address_or_an_upload(places):
    from streamlit.testing.v1 import AppTest

    inside, outside = places
    wanted = {"calibration": {"source": str(outside / "secret.txt")}}
    recipe = Recipe.from_yaml(json.dumps({"version": 1, **wanted}))

    def script() -> None:
        import streamlit as st

        from app.session import recipe_link, state
        from app.views.prune import recipe_file

        recipe_link.follow()
        if "upload" in st.session_state:
            st.session_state[recipe_file._UPLOAD] = st.session_state["upload"]
            recipe_file._uploaded()
        st.text(state.draft_recipe().calibration.source)
        st.text(state.take_problem())

    class Upload:
        name = "../../etc/cron.d/recipe.yaml"

        @staticmethod
        def getvalue() -> bytes:
            return recipe.to_yaml().encode()

    for source in ("address", "upload"):
        at = AppTest.from_function(script, default_timeout=PATIENCE)
        if source == "address":
            at.query_params["recipe"] = recipe_link.encode(recipe)
        else:
            at.session_state["upload"] = Upload
        at.run()
        draft, problem = (text.value for text in at.text)
        assert draft == "sample" and "outside the folders" in problem, source


def test_links_within_a_model_folder_do_not_lead_out(places, model):
    inside, outside = places
    shutil.copytree(model, outside / "model")
    for number, name in enumerate(("model.safetensors", "config.json", "tokenizer.json", "more")):
        folder = inside / f"model-{number}"
        shutil.copytree(model, folder)
        paths.check_model(str(folder))
        (folder / name).unlink(missing_ok=True)
        target = outside if name == "more" else outside / "model" / name
        (folder / name).symlink_to(target, target_is_directory=name == "more")
        with pytest.raises(UsageError, match="outside the folders"):
            paths.check_model(str(folder))
    # a link to another place inside is nobody's harm: the hub's cache is made of them
    folder = inside / "snapshot"
    shutil.copytree(model, folder)
    shutil.move(folder / "model.safetensors", inside / "blob")
    (folder / "model.safetensors").symlink_to(inside / "blob")
    paths.check_model(str(folder))
    assert pruning.load(str(folder)).model.num_parameters()


def test_an_index_names_files_of_its_folder_only(places, model):
    inside, outside = places
    weights = load_file(model / "model.safetensors")
    for number, name in enumerate(
        ("../../../outside/x.safetensors", f"{outside}/x.safetensors", "a/../../model/../x", "")
    ):
        folder = inside / f"indexed-{number}"
        shutil.copytree(model, folder)
        (folder / "model.safetensors").unlink()
        save_file(weights, outside / "x.safetensors", metadata={"format": "pt"})
        index = {"metadata": {}, "weight_map": dict.fromkeys(weights, name)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        for placement in ("whole", "disk"):
            with pytest.raises(SourceError):
                pruning.load(str(folder), device="cpu", placement=placement)


def test_a_tokenizer_reads_files_of_its_folder_only(places, model):
    inside, outside = places
    other = odd_models.tokenizer()
    other.add_tokens([SECRET])
    other.save_pretrained(outside / "tokenizer")
    folder = inside / "model"
    shutil.copytree(model, folder)
    file = str(outside / "tokenizer" / "tokenizer.json")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {
        "tokenizer_file": file,
        "vocab_file": file,
        "special_tokens_map_file": file,
        "name_or_path": str(outside / "tokenizer"),
        "fast_tokenizer_files": ["tokenizer.json", "../../../outside/tokenizer/tokenizer.json"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert SECRET not in pruning.load(str(folder)).tokenizer.get_vocab()
    (folder / "tokenizer.json").unlink()
    try:
        tokenizer = pruning.load(str(folder)).tokenizer
    except HeadroomError as error:
        assert SECRET not in str(error)
    else:
        assert tokenizer is None or SECRET not in tokenizer.get_vocab()


def test_parts_of_a_file_are_beside_it_and_no_links_out(places):
    inside, outside = places
    first = odd_models.write_gguf(inside / "tiny.gguf", odd_models.llama(), parts=2)
    paths.check_model(str(first))
    second = first.with_name(first.name.replace("00001-of", "00002-of"))
    shutil.move(second, outside / second.name)
    second.symlink_to(outside / second.name)
    with pytest.raises(UsageError, match="outside the folders"):
        paths.check_model(str(first))
    # a name cannot lead elsewhere either: its folder is that of the file
    for name in ("../outside/tiny-00001-of-00002.gguf", "tiny-00001-of-00002.gguf/../../x.gguf"):
        with pytest.raises(UsageError):
            paths.check_model(str(inside / ".." / name))


def test_a_link_as_target_is_followed_by_its_owner_and_by_no_visitor(places, model):
    inside, outside = places
    small = pruning.prune(str(model), keep=0.9, samples=2, seq_len=16)
    (inside / "out").symlink_to(outside / "saved")
    with pytest.raises(UsageError, match="outside the folders"):
        paths.check_target("out")
    (inside / "within").symlink_to(inside / "real")
    assert paths.check_target("within") == inside / "real"
    check_target(inside / "out")
    small.save_pretrained(inside / "out")  # the command line: the link stays one
    assert (inside / "out").is_symlink() and (outside / "saved" / "config.json").is_file()
    with pytest.raises(UsageError, match="not saved by Headroom"):
        check_target(Path("../../outside"))


def test_a_zip_holds_names_of_its_folder_only(places):
    inside, outside = places
    folder = inside / "model"
    (folder / "sub").mkdir(parents=True)
    for name in ("weights", "sub/more", "..hidden", "a\\b", "C:"):
        (folder / name).write_text("x")
    (folder / "leak").symlink_to(outside / "secret.txt")
    (folder / "leaks").symlink_to(outside)
    out = move_into_zip(folder, inside / "model.zip")
    with zipfile.ZipFile(out) as packed:
        assert all(Path(name).parts[0] == "model" for name in packed.namelist())
        assert not [name for name in packed.namelist() if ".." in Path(name).parts]
        assert SECRET.encode() not in b"".join(map(packed.read, packed.namelist()))
        packed.extractall(inside / "unpacked")
    assert (outside / "secret.txt").read_text() == SECRET


@pytest.mark.parametrize(
    "name", ["../secret.txt", "..%2fsecret.txt", "%2e%2e/secret.txt", "/etc/passwd", "", "\0", "."]
)
def test_a_download_is_an_id_and_never_a_path(places, name):
    _, outside = places
    store = DownloadStore(outside / "downloads")
    with store.room(1) as place:
        (place / "model.zip").write_bytes(b"x")
        made = store.offer(place / "model.zip", "somebody")
    assert store.find(name) is None and store.find(made.id) is not None
