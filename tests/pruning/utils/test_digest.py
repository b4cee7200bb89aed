"""Keys under which results lie on people's disks stay the same."""

from __future__ import annotations

import hashlib

from pruning.utils.digest import key_of, sha256_of


def test_chunks_count_as_one_text():
    whole = hashlib.sha256(b"abcdef").hexdigest()
    assert sha256_of([b"abc", b"def"]) == sha256_of([b"abcdef"]) == whole
    assert sha256_of(iter([b"abcdef"]), 16) == whole[:16]


def test_keys_know_contents_and_no_order_of_names():
    assert key_of([1, "a", None]) == "b9d7fba5cc7137e777464343b98efea7"
    assert key_of([{"a": 1, "b": 2}]) == key_of([{"b": 2, "a": 1}]) != key_of([{"a": 2, "b": 1}])
    assert key_of((1, 2)) == key_of([1, 2]) != key_of([2, 1])
