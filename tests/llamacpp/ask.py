"""Runs in an environment that has llama.cpp: answers questions about one GGUF file.

Reads {"file", "text", "windows": [[ids]], "prompt": [ids], "new_tokens"} on stdin and prints
{"tokens", "nll", "written"}.
"""

import json
import sys

import numpy as np
from llama_cpp import Llama


def main():
    asked = json.load(sys.stdin)
    longest = max(len(ids) for ids in asked["windows"])
    model = Llama(
        asked["file"],
        n_ctx=max(longest, len(asked["prompt"]) + asked["new_tokens"]) + 8,
        logits_all=True,
        n_gpu_layers=0,
        verbose=False,
        # one thread: llama.cpp's threads spin while they wait, which starves a busy machine
        n_threads=1,
        n_threads_batch=1,
    )
    text = asked["text"]
    tokens = model.tokenize(text.encode(), add_bos=False, special=False) if text else []
    written = _written(model, asked["prompt"], asked["new_tokens"])
    print(json.dumps({"tokens": tokens, "nll": _nll(model, asked["windows"]), "written": written}))


def _nll(model, windows):
    """Mean negative log-likelihood of tokens 2.. of every window."""
    total, count = 0.0, 0
    for ids in windows:
        model.reset()
        model.eval(ids)
        logits = np.asarray(model.scores[: len(ids) - 1], dtype=np.float64)
        logits -= logits.max(-1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        total -= logits[np.arange(len(ids) - 1), ids[1:]].sum()
        count += len(ids) - 1
    return total / count


def _written(model, prompt, new_tokens):
    """Greedy continuation."""
    model.reset()
    model.eval(prompt)
    written = []
    for _ in range(new_tokens):
        written.append(int(np.argmax(model.scores[model.n_tokens - 1])))
        model.eval(written[-1:])
    return written


main()
