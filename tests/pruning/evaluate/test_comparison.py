"""What both models are asked at the end of a run."""

from __future__ import annotations

import pytest

import pruning
from pruning.artifacts.comparison import Comparison, Pair, Perplexity, Questions, Speed, headline
from pruning.artifacts.recipe import Recipe
from pruning.evaluate import compare, generate, perplexity
from pruning.pipeline import prune

ASKED = Questions(seq_len=12, windows=5, prompt="The sea", new_tokens=4)


@pytest.fixture(scope="module")
def run(model_folder):
    loaded = pruning.load(str(model_folder), device="cpu")
    sections = {"calibration": {"samples": 8, "seq_len": 16}, "ffn": {"ratio": 0.5}}
    return prune(loaded, Recipe.parse({**sections, "recovery": {"method": "none"}}))


def test_one_reading_gives_the_perplexities_of_two(run):
    seen = []
    found = compare(run.dense, run.pruned, ASKED, progress=seen.append)
    for score, side in ((found.perplexity.before, run.dense), (found.perplexity.after, run.pruned)):
        alone = perplexity(side.model, side.tokenizer, "sample", seq_len=12, windows=5)
        assert score.perplexity == alone.perplexity and score.protocol() == alone.protocol()
        text = generate(side.model, side.tokenizer, "The sea", max_new_tokens=4).text
        assert text in (found.texts.before.text, found.texts.after.text)
    assert len(found.tokens.passages) == 5 and found.speed.before.decode > 0
    assert found.prompt == "The sea" and found.problems == ()
    assert [step.stage for step in seen][0] == "evaluate" and seen[-1].stage == "generate"


def test_only_what_is_asked_is_answered(run):
    assert compare(run.dense, run.pruned, Questions(None, speed=False, prompt=None)) == Comparison()


def test_cancelling_leaves_out_the_rest(run):
    timing = []
    found = compare(
        run.dense,
        run.pruned,
        ASKED,
        progress=lambda step: timing.append(step.message.startswith("timing")),
        should_cancel=lambda: any(timing),
    )
    assert found.perplexity is not None and found.speed is None and found.texts is None


def test_a_question_that_cannot_be_answered_is_one_sentence(run):
    found = compare(run.dense, run.pruned, Questions("no-such-file.txt", prompt=None, speed=True))
    assert found.perplexity is None and found.speed is not None
    (problem,) = found.problems
    assert "no-such-file.txt" in problem and "\n" not in problem


def test_texts_are_no_longer_than_the_model_reads(run):
    found = compare(run.dense, run.pruned, Questions(windows=1, prompt=None))
    assert found.problems == () and found.perplexity.after.seq_len == 48 and found.speed


def score(value):
    return Perplexity(value, 0.0, 1, 1, 2, "float32", 0.0, "sample", "test", "none", "")


@pytest.mark.parametrize(
    ("scores", "rates", "words"),
    [
        ((58.2, 68.4), (10.0, 12.4), "perplexity 58 → 68, 1.2 × as fast"),
        ((58.2, 58.6), (10.0, 10.1), "perplexity 58.2 → 58.6, about as fast"),
        ((6.1, 9.34), (10.0, 8.0), "perplexity 6.1 → 9.3, 0.8 × as fast"),
        ((20.0, float("inf")), None, "perplexity 20 → ∞"),
        # other work on the machine: no model gains more than it loses
        ((20.0, 30.0), (8.0, 19.9), "perplexity 20 → 30"),
    ],
)
def test_the_answer_in_one_sentence(scores, rates, words):
    speed = rates and Pair(*(Speed(10 * rate, rate) for rate in rates))
    found = Comparison(perplexity=Pair(*map(score, scores)), speed=speed)
    assert headline(0.85, found) == f"15% of the block parameters gone, {words}"
    assert headline(0.85, None) == "15% of the block parameters gone"
