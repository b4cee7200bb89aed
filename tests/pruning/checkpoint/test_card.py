"""The model card of a saved folder, in the hub's form."""

from __future__ import annotations

from pruning.checkpoint import Evaluation, export, save
from pruning.checkpoint.base_model import front_matter
from pruning.models.loading.loaded import LoadedModel


def test_the_card_in_the_hubs_form(uneven_run, tmp_path):
    run = uneven_run[0]
    evaluation = Evaluation(12.5, 14.75, "some text (test), 4 windows.")
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text("---\nlicense: mit\nbase_model: some/one\n---\n# One\n")
    dense = LoadedModel(**{**vars(run.dense), "source": str(base)})
    run = type(run)(**{**vars(run), "dense": dense})
    folder = save(run, tmp_path / "out", evaluation=evaluation)
    card = (folder / "README.md").read_text()
    head = front_matter(folder / "README.md")
    assert (head["base_model"], head["license"]) == ("some/one", "mit")
    assert head["library_name"] == "transformers" and "structured-pruning" in head["tags"]
    for part in (
        "12.50",
        "14.75",
        "some text (test), 4 windows.",
        "trust_remote_code=True",
        "pruning.load",
        "What was removed",
        "provenance:",
        "Limits",
    ):
        assert part in card, part
    assert "Stored as" not in card
    export(folder, tmp_path / "padded", "padded", dtype="bfloat16")
    assert front_matter(tmp_path / "padded" / "README.md")["license"] == "mit"
    card = (tmp_path / "padded" / "README.md").read_text()
    assert "14.75" in card and "Stored as bfloat16; sizes and perplexities below" in card


def test_a_licence_that_the_hub_has_no_name_for(uneven_run, tmp_path):
    """Its name and where it stands are carried on, through every form."""
    from huggingface_hub import ModelCard

    run = uneven_run[0]
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text(
        "---\nlicense: other\nlicense_name: own-terms\nlicense_link: LICENSE\nlanguage: [en, de]\n"
        "base_model: some/one\n---\n# One\n"
    )
    dense = LoadedModel(**{**vars(run.dense), "source": str(base)})
    folder = save(type(run)(**{**vars(run), "dense": dense}), tmp_path / "out")
    for form in ("compact", "padded", "gguf"):
        export(folder, tmp_path / form, form)
        card = ModelCard.load(tmp_path / form / "README.md")  # refuses what the hub cannot read
        found = card.data.to_dict()
        assert (found["license"], found["license_name"]) == ("other", "own-terms")
        assert found["license_link"] == "https://huggingface.co/some/one/blob/main/LICENSE"
        assert found["language"] == ["en", "de"] and found["base_model"] == "some/one"
        assert form in found["tags"] and found["pipeline_tag"] == "text-generation"
        assert "licence (own-terms)" in card.text
