"""What libraries say, made fit for one sentence."""

from __future__ import annotations

import pytest

from pruning.utils.errors import described, one_line, shortened


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("no such file.\nTraceback ..."), "no such file"),
        (ValueError(" \n first\nsecond"), "first"),
        (KeyError(), "KeyError"),
        (ValueError("\n"), "ValueError"),
    ],
)
def test_the_first_line_counts(error, line):
    assert one_line(error) == line


def test_long_texts_are_cut_where_one_can_see_it():
    found = one_line(ValueError("x" * 5000))
    assert len(found) == 200 and found.endswith("x…")
    assert shortened("abc", 3) == "abc" and shortened("abcd", 3) == "ab…"


def test_an_unforeseen_error_is_named_once():
    assert described(ValueError("a\nb")) == "ValueError: a"
    assert described(ValueError()) == "ValueError"
    assert len(described(ValueError("x" * 5000))) < 200
