"""How much memory one stage may hold: of activations, and of loss gradients."""

from __future__ import annotations

from pruning.artifacts.shapes import KINDS

BUFFER_BYTES = 2**30
"""At most so much of one module's activations is kept on the device for its equations."""


STREAM_BYTES = 2**29
"""A residual stream of at most so much stays on the device that the blocks are on."""


PAIR_ENTRIES = 2**26
"""Entries of attention patterns that heads are compared at at once, all pairs counted, on a device
other than the CPU: what fills it."""


PIECE_BYTES = 2**25
"""Size of each of the two page-locked buffers by which blocks go to a card."""


PROBES, PROBE_BYTES = 128, 3 * 2**30
"""Calibration windows at most, and bytes of CPU memory, that loss gradients are taken on."""


FEWEST_PROBES = 32
"""Where there is less text, so many windows, augmentations included; more cost time and say
nothing new."""


def probe_token_bytes(blocks: int, hidden: int, element: int) -> int:
    """Bytes that a token of :data:`PROBES` takes: the residual stream between all blocks, in the
    model's number format of ``element`` bytes, and the bfloat16 gradients of both modules."""
    return hidden * ((blocks + 1) * element + 2 * len(KINDS) * blocks)


def probe_windows(texts: int, seq_len: int, token_bytes: int) -> int:
    """How many windows of ``seq_len`` tokens the gradients are taken on at most: half of the
    ``texts``, at least one."""
    fits = PROBE_BYTES // (seq_len * token_bytes)
    return max(min(PROBES, fits, max(texts // 2, FEWEST_PROBES)), 1)
