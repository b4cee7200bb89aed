"""``ls``: everything that can be chosen, as a table and as data."""

from __future__ import annotations

import json

import pytest

from pruning.cli.main import main
from pruning.registries import KINDS


def _entries(kind, capsys):
    assert main(["ls", kind, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)["entries"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_listed_in_the_order_of_its_registry(kind, capsys):
    entries = _entries(kind, capsys)
    assert [entry["name"] for entry in entries] == KINDS[kind].names()
    for entry in entries:
        assert entry["title"] and entry["source"] and entry["summary"], entry["name"]
    assert main(["ls", kind]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["name", "title"] and "source" in header
    assert [row.split()[0] for row in rows] == KINDS[kind].names()


def test_methods_have_a_cost_class(capsys):
    costs = {entry["name"]: entry["cost"] for entry in _entries("criteria", capsys)}
    assert costs["flap"] == "closed form" and costs["taylor_vector"] == "reads gradients"
    assert main(["ls", "criteria"]) == 0
    assert "cost" in capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["ls", "criterion"], "criteria"),
        (["prun", "demo"], "prune"),
        (["sweep", "demo", "--values", "1", "--axis", "sample"], "samples"),
        (["export", "x", "--out", "y", "--form", "gguf", "--gguf-type", "q8"], "q8_0"),
    ],
)
def test_an_unknown_name_gets_the_nearest_one(arguments, near, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    err = capsys.readouterr().err
    assert ended.value.code == 2 and err.count("\n") == 1
    assert f"did you mean {near!r}" in err.lower()
