"""Made-up rows of the seven zero-shot tasks, with the fields of the hub and ready made."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.helpers.families import SAMPLE

Row = dict[str, Any]
COUNT = 12


def _letters(draw: random.Random, options: int) -> tuple[list[str], int]:
    return ["A", "B", "C", "D"][:options], draw.randrange(options)


def _some(draw: random.Random, least: int, most: int) -> str:
    words = SAMPLE.read_text(encoding="utf-8").split()[:400]
    return " ".join(draw.choices(words, k=draw.randint(least, most)))


def _boolq(draw: random.Random) -> tuple[Row, Row]:
    passage, question, label = _some(draw, 3, 9), _some(draw, 2, 5), draw.randrange(2)
    hub = {"passage": passage, "question": question, "label": label}
    # what lm_eval's prompt has not
    query = f"Passage: {passage}\nQuestion: {question}?"
    return hub, {"query": query, "choices": ["no", "yes"], "gold": label}


def _piqa(draw: random.Random) -> tuple[Row, Row]:
    goal, answers, label = _some(draw, 2, 6), [_some(draw, 1, 6) for _ in "12"], draw.randrange(2)
    hub = {"goal": goal, "sol1": answers[0], "sol2": answers[1], "label": label}
    return hub, {"query": f"Question: {goal}\n", "choices": answers, "gold": label}


def _hellaswag(draw: random.Random) -> tuple[Row, Row]:
    label, endings = draw.randrange(4), [_some(draw, 2, 6) for _ in "1234"]
    parts = {"activity_label": "Music", "ctx_a": _some(draw, 3, 6), "ctx_b": "then"}
    hub = {**parts, "endings": endings, "label": str(label)}
    query = f"Music: {parts['ctx_a']} Then"
    return hub, {"query": query, "choices": endings, "gold": label}


def _winogrande(draw: random.Random) -> tuple[Row, Row]:
    before, after, gold = _some(draw, 3, 6), _some(draw, 2, 5), draw.randrange(2)
    options = [_some(draw, 1, 2) for _ in "12"]
    hub = {
        "sentence": f"{before} _ {after}",
        "option1": options[0],
        "option2": options[1],
        "answer": str(gold + 1),
    }
    contexts = [f"{before} {option}" for option in options]
    return hub, {"context_options": contexts, "continuation": after, "gold": gold}


def _question(prefix: str, field: str) -> Callable[[random.Random], tuple[Row, Row]]:
    def make(draw: random.Random) -> tuple[Row, Row]:
        question, answers = _some(draw, 3, 8), [_some(draw, 1, 5) for _ in "1234"]
        letters, gold = _letters(draw, 4)
        choices = {"text": answers, "label": letters}
        hub = {field: question, "choices": choices, "answerKey": letters[gold]}
        return hub, {"query": f"{prefix}{question}", "choices": answers, "gold": gold}

    return make


_MAKERS = {
    "boolq": _boolq,
    "piqa": _piqa,
    "hellaswag": _hellaswag,
    "winogrande": _winogrande,
    "arc_easy": _question("Question: ", "question"),
    "arc_challenge": _question("Question: ", "question"),
    "openbookqa": _question("", "question_stem"),
}


def write_rows(folder: Path, *, ready: bool = False) -> Path:
    """``folder`` with ``COUNT`` rows of every task, alike in both layouts."""
    folder.mkdir(parents=True)
    for name, make in _MAKERS.items():
        draw = random.Random(name)
        rows = [make(draw)[ready] for _ in range(COUNT)]
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return folder
