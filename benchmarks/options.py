"""What several benchmarks ask for, and what they make of it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from torch import nn

from pruning.evaluate import perplexity


def parser(description: str) -> ArgumentParser:
    """With the model, its device and the text to calibrate on; ``description`` begins with a line
    on the benchmark."""
    made = ArgumentParser(description=description.splitlines()[0])
    made.add_argument("--model", default="demo")
    made.add_argument("--device", default="auto")
    made.add_argument("--calibration", default="sample", help="corpus or path")
    return made


def add_texts(made: ArgumentParser, samples: int = 32) -> None:
    """Two texts for the perplexity, and how much of each text is read."""
    made.add_argument("--text", default="sample", help="corpus or path for the perplexity")
    made.add_argument("--other-text", default="sample", help="text of another kind")
    made.add_argument("--windows", type=int, default=32)
    made.add_argument("--samples", type=int, default=samples)
    made.add_argument("--seq-len", type=int, default=128)


def calibration(options: Namespace) -> dict[str, Any]:
    """That section of the recipe."""
    return {"source": options.calibration, "samples": options.samples, "seq_len": options.seq_len}


def perplexities(model: nn.Module, tokenizer: Any, options: Namespace) -> list[float]:
    """On both texts."""
    size = {"seq_len": options.seq_len, "windows": options.windows}
    texts = (options.text, options.other_text)
    return [perplexity(model, tokenizer, text, **size).perplexity for text in texts]
