"""How much memory a model takes in each placement, and the arithmetic as a sentence."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pruning.artifacts.shapes import BYTES_PER_ELEMENT
from pruning.models.limits import (
    BUFFER_BYTES,
    PAIR_ENTRIES,
    PIECE_BYTES,
    STREAM_BYTES,
    probe_token_bytes,
    probe_windows,
)
from pruning.models.loading.sizes import Sizes, Task

PLACEMENTS = ("whole", "spread", "memory", "disk")
"""Where blocks are while they are not used: on the device, on all devices in turn, in CPU memory,
in their files."""

_BATCH_TOKENS = 2048
_FEWEST_SAMPLES = 4
PLACEMENT_TITLES = {
    "whole": "one device",
    "spread": "all devices",
    "memory": "CPU offload",
    "disk": "disk offload",
}
"""The placements in the words of accelerate."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that ``task`` takes with a model of these ``sizes``, and what is free now on
    ``device`` and in CPU memory (the same where the device is the CPU)."""

    sizes: Sizes
    task: Task
    dtype: str
    device: str
    free_bytes: int
    free_cpu_bytes: int
    cards: int = 1
    least_free_bytes: int | None = None
    """Of several cards, on the one that has least; None: as on ``device``."""

    @property
    def parameters(self) -> int:
        return self.sizes.parameters

    @property
    def weight_bytes(self) -> int:
        return self.parameters * self._size

    @property
    def working_bytes(self) -> int:
        """On the device, beside weights: one module's inputs of ``out_proj`` and targets, two sets
        of float64 equations with their solves, and a batch of intermediates, attention maps and
        logits."""
        s, task = self.sizes, self.task
        rows = task.samples * task.seq_len
        # a Gram matrix, or with few tokens the tokens themselves (pruning.recovery.solvers.dual)
        known = min(rows, s.inner) * (s.inner + s.hidden)
        equations = 8 * (5 * known + 4 * s.inner * s.hidden) * s.experts if task.prunes else 0
        if task.prunes and s.experts == 1:
            collected = rows * (s.inner * self._size + 4 * s.hidden)
            # see pruning.recovery.solvers.activation_buffer
            equations += collected if rows < s.inner else min(collected, BUFFER_BYTES)
        # inputs of the probes by channel, ordered, whitened; a Gram matrix, ordered, its factor
        probing = s.inner * (6 * 4 * self._probed_tokens + 4 * 8 * s.inner * s.experts)
        equations = max(equations, probing if task.probed else 0)
        tokens = max(_BATCH_TOKENS, task.seq_len)
        maps = 3 * s.heads * task.seq_len
        logits = s.vocabulary * min(tokens, task.samples * task.seq_len)
        # what each expert of a token reads, gives and should give
        routed = 3 * s.routes * s.hidden if s.experts > 1 else 0
        batch = 4 * (tokens * (4 * s.active + maps + routed) + logits)
        return max(equations + batch, batch + self._comparing_bytes, self._training_bytes)

    @property
    def _comparing_bytes(self) -> int:
        """Of mixtures of all pairs of heads and their entropies, while a batch is measured."""
        if self.device == "cpu":
            return 0
        heads, tokens = self.sizes.heads, max(_BATCH_TOKENS, self.task.seq_len)
        entries = heads * (heads + 1) // 2 * tokens * (self.task.seq_len + 1) // 2
        return 2 * 4 * min(PAIR_ENTRIES, entries)

    @property
    def _training_bytes(self) -> int:
        """What is trained, its gradients and both moments of AdamW, in float32, where need be a
        float32 copy of the model; what a batch leaves in every block for the way back, and its
        logits by both models with their gradients."""
        s, task = self.sizes, self.task
        if not task.trained:
            return 0
        numbers = 4 * task.trained * s.block_parameters
        numbers += s.parameters if self.dtype != "float32" else 0
        kept = 16 * s.hidden + 4 * s.active + s.heads * task.seq_len
        batch = task.batch * task.seq_len * (s.blocks * kept + 6 * s.vocabulary)
        return 4 * round(numbers + batch)

    @property
    def activation_bytes(self) -> int:
        """The residual streams of the calibration set and, before they are those of a prune, the
        gradients of the probed half; in CPU memory but for :attr:`_staying_bytes`."""
        return max(self._streams_bytes, self._probing_bytes)

    @property
    def _stream_bytes(self) -> int:
        return self.task.samples * self.task.seq_len * self.sizes.hidden * self._size

    @property
    def _streams_bytes(self) -> int:
        return (self.sizes.streams if self.task.prunes else 1) * self._stream_bytes

    @property
    def _probing_bytes(self) -> int:
        return self._stream_bytes + self._probed_tokens * self._probe_bytes

    @property
    def _staying_bytes(self) -> int:
        """Of streams that stay on a device which holds all blocks (see
        :func:`pruning.models.execution.blockwise.embed`)."""
        stays = self.device != "cpu" and self._stream_bytes <= STREAM_BYTES
        return self._streams_bytes if stays else 0

    @property
    def _probed_tokens(self) -> int:
        task = self.task
        if not task.probed:
            return 0
        most = probe_windows(task.probed, task.seq_len, self._probe_bytes)
        return min(most, -(-task.samples // 2)) * task.seq_len

    @property
    def _probe_bytes(self) -> int:
        return probe_token_bytes(self.sizes.blocks, self.sizes.hidden, self._size)

    @property
    def pruned_bytes(self) -> int:
        """At most: what is left of the blocks after a cut."""
        return self.sizes.block_parameters * self._size if self.task.prunes else 0

    def needs(self, placement: str) -> tuple[int, int]:
        """Bytes on the device (of several, on each) and in CPU memory; on the CPU all counts as
        device."""
        s = self.sizes
        outside = (s.parameters - s.block_parameters) * self._size
        blocks, current = s.block_parameters * self._size, self._current_bytes
        on_cpu = self.activation_bytes
        if placement in ("whole", "spread"):
            cards = self.cards if placement == "spread" else 1
            on_device = outside + -(-(blocks + self.pruned_bytes) // cards) + self.working_bytes
            if placement == "whole" and self._staying_bytes:
                on_device += self._staying_bytes
                on_cpu = self._probing_bytes if self.task.probed else 0
        else:
            on_device = outside + current + self.working_bytes
            if self._sends:
                on_device += self._next_bytes
                on_cpu += 2 * min(PIECE_BYTES, self._next_bytes)  # see models.execution.prefetch
            # with disk pruned blocks are files too, and the next block is read while one computes
            on_cpu += self.pruned_bytes + blocks if placement == "memory" else self._next_bytes
        if placement == "memory":  # all weights are read before the others go to the device;
            on_cpu = max(on_cpu, self.weight_bytes)  # elsewhere they go straight there
        return (on_device + on_cpu, 0) if self.device == "cpu" else (on_device, on_cpu)

    def fits_as(self, placement: str) -> bool:
        on_device, on_cpu = self.needs(placement)
        return on_device <= self._free(placement) and on_cpu <= self.free_cpu_bytes

    def _free(self, placement: str) -> int:
        """Bytes free on the device; on the fullest card, where all are used."""
        if placement == "whole" or self.least_free_bytes is None:
            return self.free_bytes
        return self.least_free_bytes

    @property
    def fits(self) -> bool:
        """Whether the model fits as a whole."""
        return self.fits_as("whole")

    def placement(self) -> str | None:
        """The quickest placement that fits; None when none does."""
        return next((name for name in self._placements() if self.fits_as(name)), None)

    def _placements(self) -> tuple[str, ...]:
        # on the CPU, blocks in CPU memory are where they are used
        useless = {"memory": self.device == "cpu", "spread": self.cards == 1}
        return tuple(name for name in PLACEMENTS if not useless.get(name))

    def sentence(self, placement: str = "whole") -> str:
        """The arithmetic, and what would fit when this does not."""
        arithmetic = self._arithmetic(placement)
        if self.fits_as(placement):
            return arithmetic
        would = self._alternatives()
        if not would:
            return f"{arithmetic} That does not fit; choose a smaller model or another device."
        return f"{arithmetic} That does not fit; this would: {'; '.join(would)}."

    def _arithmetic(self, placement: str) -> str:
        s, on_device = self.sizes, self.needs(placement)[0]
        if placement in ("whole", "spread"):
            weights = f"take {_gb(self.weight_bytes)}"
        else:
            largest = _gb(self._current_bytes)
            outside = _gb((s.parameters - s.block_parameters) * self._size)
            weights = (
                f"take {_gb(self.weight_bytes)}, of which {outside} outside the blocks and one "
                f"block{', dense and pruned' if self.task.prunes else ''} ({largest}), at a time"
            )
            if placement == "disk" or self._sends:
                weights += f", while the next ({_gb(self._next_bytes)}) is brought"
        parts = [weights, f"the working set {_gb(self.working_bytes)}"]
        if self.task.prunes and placement != "disk":
            parts.append(f"pruned blocks up to {_gb(self.pruned_bytes)}")
        windows = f"{self.task.samples} x {self.task.seq_len} tokens"
        parts.append(f"activations of {windows} {_gb(self.activation_bytes)}")
        free = f"{_gb(on_device)} of {self.device}, which has {_gb(self._free(placement))} free"
        if self.device != "cpu":
            on_cpu = self.needs(placement)[1]
            free += f", and {_gb(on_cpu)} of CPU memory, which has {_gb(self.free_cpu_bytes)}"
        return (
            f"{self.parameters / 1e6:,.0f} M parameters in {self.dtype} {', '.join(parts)}: "
            f"in all {free}."
        )

    @property
    def _current_bytes(self) -> int:
        """Of the block in use; in a prune the dense and the pruned one."""
        return (2 if self.task.prunes else 1) * self.sizes.largest_block * self._size

    @property
    def _next_bytes(self) -> int:
        """Of the dense block that comes while another is in use."""
        return self.sizes.largest_block * self._size

    @property
    def _sends(self) -> bool:
        """Whether it comes as far as the device (see :mod:`pruning.models.execution.prefetch`)."""
        return self.device.startswith("cuda")

    def _alternatives(self) -> list[str]:
        """Changes, each by itself or with the least of another kind, that would fit."""
        fitting = []
        if self.placement():
            fitting.append(_option(self.placement()))
        half = replace(self, dtype="bfloat16")
        if self.dtype == "float32" and half.placement():
            fitting.append(f"bfloat16 {_option(half.placement())}")
        fewer = self
        while not fitting and fewer.task.samples > _FEWEST_SAMPLES:
            fewer = replace(fewer, task=replace(fewer.task, samples=fewer.task.samples // 2))
            if fewer.placement():
                fitting.append(f"{fewer.task.samples} samples {_option(fewer.placement())}")
        return fitting

    @property
    def _size(self) -> int:
        return BYTES_PER_ELEMENT[self.dtype]


def _option(placement: str) -> str:
    """A placement that would fit, as the end of a sentence."""
    title = PLACEMENT_TITLES[placement]
    return f"{'with' if 'offload' in title else 'on'} {title} (placement {placement})"


def _gb(size: int) -> str:
    """Powers of ten, as files, cards and the app's other sizes are given."""
    return f"{size / 1e9:.2f} GB"
