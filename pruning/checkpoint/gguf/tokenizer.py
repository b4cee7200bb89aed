"""A tokenizer of transformers, as llama.cpp's vocabulary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pruning.utils.errors import Unsupported

_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {_LETTERS + r"\p{N}{1,3}" + _REST: "llama-bpe", _LETTERS + r"\p{N}" + _REST: "qwen2"}
"""Splitting patterns, and the names under which llama.cpp knows them."""

_SPACE = "\u2581"


@dataclass(frozen=True)
class Vocabulary:
    """``kind``: llama.cpp's tokenizer model; one text and type per row of the embedding.
    ``merges`` for byte-level BPE, ``scores`` for SentencePiece."""

    kind: str
    splits: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    scores: list[float]
    space_prefix: bool


def write_vocabulary(writer: Any, tokenizer: Any, size: int) -> None:
    """Write ``tokenizer`` for an embedding of ``size`` rows; without one, only ids can be used.

    Raises Unsupported for a tokenizer of a kind that llama.cpp does not have.
    """
    if tokenizer is None:
        writer.add_tokenizer_model("none")
        return
    rows = vocabulary(tokenizer, size)
    writer.add_tokenizer_model(rows.kind)
    writer.add_tokenizer_pre(rows.splits)
    writer.add_token_list(rows.tokens)
    writer.add_token_types(rows.types)
    if rows.merges:
        writer.add_token_merges(rows.merges)
    if rows.scores:
        writer.add_token_scores(rows.scores)
    writer.add_add_space_prefix(rows.space_prefix)
    for kind in ("bos", "eos", "unk", "pad"):
        token = getattr(tokenizer, f"{kind}_token_id")
        if token is not None:
            getattr(writer, f"add_{kind}_token_id")(token)
    ids = tokenizer("a").input_ids
    writer.add_add_bos_token(bool(ids) and ids[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(bool(ids) and ids[-1] == tokenizer.eos_token_id)
    template = tokenizer.chat_template
    if isinstance(template, Mapping):
        template = [{"name": name, "template": text} for name, text in template.items()]
    if template:
        writer.add_chat_template(template)


def vocabulary(tokenizer: Any, size: int) -> Vocabulary:
    """The rows of the vocabulary; raises Unsupported."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise Unsupported("The tokenizer has no tokenizer.json; llama.cpp's form needs one.")
    data = json.loads(backend.to_str())
    model = data["model"]
    if model["type"] != "BPE":
        raise Unsupported(f"llama.cpp has no tokenizer of type {model['type']}; use another form.")
    texts = {number: text for text, number in tokenizer.get_vocab().items()}
    if max(texts) >= size:
        raise Unsupported(f"The tokenizer has more tokens than the model's {size} embeddings.")
    added = {token["id"]: token for token in data["added_tokens"]}
    tokens = [texts.get(number, f"[PAD{number}]") for number in range(size)]
    pairs = [pair if isinstance(pair, list) else pair.split(" ", 1) for pair in model["merges"]]
    types = _types(tokens, texts, added, model)
    if model.get("byte_fallback"):
        scores = _scores(tokens, pairs)
        return Vocabulary("llama", "default", tokens, types, [], scores, _adds_space(data))
    merges = [" ".join(pair) for pair in pairs]
    return Vocabulary("gpt2", _splits(data["pre_tokenizer"]), tokens, types, merges, [], False)


def _types(
    tokens: Sequence[str], texts: Mapping[int, str], added: Mapping[int, Any], model: Any
) -> list[int]:
    from gguf import TokenType

    def kind(number: int) -> int:
        if number not in texts:
            return TokenType.UNUSED
        if number in added:
            special = added[number]["special"]
            return TokenType.CONTROL if special else TokenType.USER_DEFINED
        text = tokens[number]
        if text == model.get("unk_token"):
            return TokenType.UNKNOWN
        byte = model.get("byte_fallback") and len(text) == 6 and text.startswith("<0x")
        return TokenType.BYTE if byte else TokenType.NORMAL

    return [int(kind(number)) for number in range(len(tokens))]


def _scores(tokens: Sequence[str], pairs: Sequence[Sequence[str]]) -> list[float]:
    """llama.cpp joins the pair of the highest score, the tokenizer that of the earliest merge."""
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(pairs):
        ranks.setdefault("".join(pair), rank)
    return [-float(ranks.get(token, len(pairs))) for token in tokens]


def _adds_space(data: Mapping[str, Any]) -> bool:
    """True when a space is put before the text (SentencePiece's dummy prefix)."""
    for part in (*_flat(data["normalizer"]), *_flat(data["pre_tokenizer"])):
        if part["type"] == "Prepend" and part["prepend"] == _SPACE:
            return True
        if part["type"] == "Metaspace":
            return part.get("prepend_scheme", "always") != "never"
    return False


def _splits(rule: Any) -> str:
    """llama.cpp's name of a byte-level pre-tokenizer; raises Unsupported for an unknown one."""
    parts = _flat(rule)
    kinds = [part["type"] for part in parts]
    if kinds == ["ByteLevel"] and parts[0]["use_regex"]:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and parts[0]["individual_digits"]:
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        name = SPLITS.get(parts[0]["pattern"].get("Regex"))
        if name is not None:
            return name
    raise Unsupported(
        "llama.cpp has no name for the way this tokenizer splits text, so tokens would differ; "
        "use the uniform form with llama.cpp's own converter."
    )


def _flat(rule: Any) -> list[Any]:
    if rule is None:
        return []
    for name in ("pretokenizers", "normalizers"):
        if name in rule:
            return [part for inner in rule[name] for part in _flat(inner)]
    return [rule]
