"""Sentences instead of "Unexpected ...Error", and nothing beside them: what the command line says
of odd models and texts, in every placement."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import pruning
from pruning.artifacts.recipe import Recipe
from pruning.checkpoint import save
from pruning.cli.main import main
from pruning.measure.attention_maps import attention_patterns
from pruning.pipeline import prune
from pruning.utils.errors import SourceError
from tests.adversarial import odd_models
from tests.adversarial.odd_models import WEIGHTS, changed
from tests.helpers import PATIENCE, ROOT, families

PLACES = ("whole", "memory", "disk")
UP = "model.layers.1.mlp.up_proj.weight"
TEXT = "The water cycle moves a fish around. " * 40


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    return file


def as_it_is(_weights, _config):
    pass


def folder_of(tmp_path, change=as_it_is, tokens=()):
    folder = changed(tmp_path / "m", change)
    made = odd_models.tokenizer()
    made.add_tokens(list(tokens))
    made.save_pretrained(folder)
    return folder


def told(capsys, *command):
    """Status and the last line of stderr, of which there is no more than progress before."""
    capsys.readouterr()
    status = main([*map(str, command), "--device", "cpu"])
    *before, last = capsys.readouterr().err.splitlines() or [""]
    assert all(line.startswith("[") for line in before), before
    return status, last


def evaluating(folder, text, *more):
    return ("evaluate", folder, "--text", text, "--seq-len", "16", "--windows", "2", *more)


def pruning_to(out, folder, text, *more):
    size = ("--samples", "2", "--seq-len", "16", "--ffn-ratio", "0.3", "--calibration", text)
    return ("prune", folder, *size, "--evaluate", "none", "--out", out, *more)


def without_tokenizer(tmp_path):
    return changed(tmp_path / "m", as_it_is)


def with_nan(tmp_path):
    def change(weights, _config):
        weights[UP][3, 4] = torch.nan

    return folder_of(tmp_path, change)


def with_another_name(tmp_path):
    def change(weights, _config):
        weights["model.layers.0.what.weight"] = weights.pop(UP)

    return folder_of(tmp_path, change)


def with_fewer_rows(tmp_path):
    return folder_of(tmp_path, lambda _weights, config: config.update(vocab_size=299))


def with_another_tokenizer(tmp_path):
    families.build("llama_grouped").save_pretrained(tmp_path / "m")
    odd_models.tokenizer().save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def written_for_llamacpp(tmp_path):
    loaded = pruning.load(str(folder_of(tmp_path)), device="cpu")
    run = prune(loaded, families.recipe(ffn__ratio=0.3, recovery__method="none"))
    save(run, tmp_path / "m.gguf", "gguf")
    return tmp_path / "m.gguf"


def mixture(tmp_path, change):
    folder = tmp_path / "m"
    families.build("mixtral").save_pretrained(folder)
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


LOST = "model.layers.1.block_sparse_moe.experts.2.w3.weight"


def with_a_lost_expert(tmp_path):
    return mixture(tmp_path, lambda weights: weights.pop(LOST))


def with_a_weight_too_many(tmp_path):
    return mixture(tmp_path, lambda weights: weights.update(more=torch.ones(2)))


REFUSED = {
    "no tokenizer": (without_tokenizer, ("no tokenizer",)),
    "NaN": (with_nan, ("NaN", UP)),
    "another name": (with_another_name, ("lacks", UP)),
    "rows": (with_fewer_rows, ("(300, 48)", "(299, 48)")),
    "another tokenizer": (with_another_tokenizer, ("300 tokens", "rows")),
    "a lost expert": (with_a_lost_expert, ("lacks", LOST)),
    "a weight too many": (with_a_weight_too_many, ("'more'", "no place")),
}
"""What is made, and the words about it."""


@pytest.mark.parametrize("name", REFUSED)
def test_every_placement_and_command_says_the_same(tmp_path, text, name, capsys):
    make, words = REFUSED[name]
    place = make(tmp_path)
    commands = [evaluating(place, text, "--placement", placement) for placement in PLACES]
    for command in [*commands, pruning_to(tmp_path / "out", place, text)]:
        status, line = told(capsys, *command)
        assert status == 1 and all(word in line for word in words), line
        assert len(line.replace(str(tmp_path), "")) <= 300 and "Unexpected" not in line
    assert not (tmp_path / "out").exists()


def test_what_disk_advises_works(tmp_path):
    """Experts that are stored one by one: the other placements take them."""
    folder = mixture(tmp_path, lambda _weights: None)
    with pytest.raises(Exception, match=r"experts.*choose placement 'memory' or 'whole'"):
        pruning.load(str(folder), device="cpu", placement="disk")
    for placement in ("memory", "whole"):
        assert pruning.load(str(folder), device="cpu", placement=placement).placement == placement


def test_the_header_of_a_gguf_is_checked_before_anything_is_read(tmp_path, capsys):
    """In one line, where a library's error had none that a person could use."""
    recipe = tmp_path / "r.yaml"
    recipe.write_text("ffn: {ratio: 0.3}\n")
    odd = odd_models.write_gguf(
        tmp_path / "n.gguf", odd_models.llama(), {"attention.twist": 1.5}, parts=2
    )
    status, line = told(capsys, "validate", recipe, odd)
    assert status == 1 and "attention.twist" in line
    plain = odd_models.write_gguf(tmp_path / "p.gguf", odd_models.llama())
    assert told(capsys, "validate", recipe, plain, "--json")[0] == 2  # windows of 128 tokens
    recipe.write_text("ffn: {ratio: 0.3}\ncalibration: {seq_len: 16}\n")
    for file in (plain, written_for_llamacpp(tmp_path)):
        assert told(capsys, "validate", recipe, file)[0] == 0
    assert not (tmp_path / "cache" / "models").exists()


WORD = "zebrafish"


@pytest.mark.parametrize("placement", PLACES)
def test_a_token_beyond_the_embedding(tmp_path, text, placement, capsys):
    folder, odd = folder_of(tmp_path, tokens=[WORD]), tmp_path / "odd.txt"
    odd.write_text(TEXT.replace("fish", WORD))
    where = ("--placement", placement)
    status, _ = told(capsys, *evaluating(folder, text, *where))
    assert status == 0  # a text without it is scored
    measured = ("measure", folder, "--calibration", odd, "--samples", "2", "--seq-len", "16")
    for command in (
        evaluating(folder, odd, *where),
        pruning_to(tmp_path / "out", folder, odd, *where),
        (*measured, "--out", tmp_path / "m.json", *where),
        ("generate", folder, "--prompt", f"A {WORD}", *where),
    ):
        status, line = told(capsys, *command)
        assert status == 1, line
        assert f"'{WORD}' (number 300)" in line and "300 rows" in line, line
        assert len(line.replace(str(tmp_path), "")) <= 300
    loaded = pruning.load(str(folder), device="cpu", placement=placement)
    with pytest.raises(SourceError, match="The sentence holds the token"):
        attention_patterns(loaded, f"A {WORD}")


def test_windows_without_the_token_are_scored(tmp_path, text, capsys):
    """Only what is used counts."""
    folder = folder_of(tmp_path, tokens=[WORD])
    text.write_text(f"{TEXT} {WORD} {TEXT}")
    status, _ = told(capsys, *evaluating(folder, text))
    assert status == 0
    status, line = told(capsys, "evaluate", folder, "--text", text, "--seq-len", "16")
    assert status == 1 and WORD in line


def test_a_text_for_the_card_that_does_not_fit_costs_no_run(tmp_path, text, capsys):
    folder, odd = folder_of(tmp_path, tokens=[WORD]), tmp_path / "odd.txt"
    odd.write_text(TEXT.replace("fish", WORD))
    command = list(pruning_to(tmp_path / "out", folder, text))
    command[command.index("none")] = odd
    assert main([*map(str, command), "--device", "cpu"]) == 0
    assert f"the card has no perplexity: {odd} holds the token" in capsys.readouterr().err
    assert Recipe.read(tmp_path / "out" / "recipe.yaml").ffn.ratio == 0.3


def broken_tokenizer(tmp_path):
    folder = folder_of(tmp_path)
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "what"}}')
    return folder


def damaged_gguf(tmp_path):
    file = odd_models.write_gguf(tmp_path / "m.gguf", odd_models.llama())
    file.write_bytes(file.read_bytes()[:5000])
    return file


def odd_config(tmp_path):
    """Settings that transformers would warn of."""

    def change(weights, config):
        config["rope_parameters"] = {"rope_type": "yarn", "factor": 2.0, "what": 3}
        config["generation"] = {"temperature": -1}
        del weights[UP]

    return folder_of(tmp_path, change)


_ONE_BY_ONE = """
import json, sys
from pruning.cli.main import main
for command in json.loads(sys.argv[1]):
    status = main(command)
    print("ended with", status, file=sys.stderr, flush=True)
"""


def test_stderr_of_a_refusal_is_one_line(tmp_path, text):
    """In a process of its own, so that nothing is silenced here that is not there."""
    commands = []
    for make in (with_a_lost_expert, broken_tokenizer, damaged_gguf, odd_config):
        (place := tmp_path / make.__name__).mkdir()
        commands.append([*map(str, evaluating(make(place), text)), "--device", "cpu"])
    quiet = {"TRANSFORMERS_VERBOSITY", "PYTHONWARNINGS", "HF_HUB_VERBOSITY"}
    env = {name: value for name, value in os.environ.items() if name not in quiet}
    done = subprocess.run(
        [sys.executable, "-c", _ONE_BY_ONE, json.dumps(commands)],
        env={**env, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    said = done.stderr.splitlines()
    assert done.stdout == "" and len(said) == 2 * len(commands), done.stderr
    assert all(line.startswith("headroom: ") for line in said[::2]), done.stderr
    assert set(said[1::2]) == {"ended with 1"}, done.stderr


def test_json_is_all_of_stdout(tmp_path, text, capsys):
    assert main([*map(str, evaluating(folder_of(tmp_path), text)), "--json"]) == 0
    json.loads(capsys.readouterr().out)
