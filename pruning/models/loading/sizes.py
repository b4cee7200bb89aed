"""What a memory estimate is made of: the work, and the sizes of a model."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pruning.distributed.ranks import Ranks


@dataclass(frozen=True)
class Task:
    """What the model is loaded for: calibration windows (augmentations included) of
    ``seq_len`` tokens; ``prunes``: equations are solved and cut blocks kept as well; ``probed``:
    windows of text, of which half are probed with loss gradients. ``trained``: share of the blocks'
    parameters that is trained then, ``batch`` windows at a time. ``processes``: how many share the
    memory of this machine."""

    samples: int = 32
    seq_len: int = 128
    prunes: bool = True
    probed: int = 0
    trained: float = 0.0
    batch: int = 0
    processes: int = 1

    def shared(self, ranks: Ranks) -> Task:
        """What one of ``ranks`` has to do of it."""
        if ranks.size == 1:
            return self
        samples, probed = (-(-count // ranks.size) for count in (self.samples, self.probed))
        return replace(self, samples=samples, probed=probed, processes=ranks.here)


EVALUATION = Task(samples=16, prunes=False)


@dataclass(frozen=True)
class Sizes:
    """Of a model, in parameters; ``inner``: largest input of ``out_proj``, of one expert where
    there are ``experts``; ``active``: the same over the ``routes`` experts of one token;
    ``streams``: residual streams [n, s, d] that exist at once in a prune."""

    parameters: int
    block_parameters: int
    largest_block: int
    hidden: int
    inner: int
    active: int
    experts: int
    heads: int
    vocabulary: int
    streams: int
    blocks: int
    routes: int = 1
