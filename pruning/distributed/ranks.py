"""The processes that share the calibration windows, as the passes see them.

Measuring and the equations of a recovery are sums over windows: every rank runs the model over its
own windows, sums are added up, and what is decided or solved is done on the first rank and given
to the others, so that all go on with the same bits.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


def world_size() -> int:
    """Processes that torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def own_rank() -> int:
    """Of this process among them; 0 without torchrun."""
    return int(os.environ.get("RANK", 0))


class Ranks:
    """One process, which has all windows; nothing costs anything. ``here``: ranks on this machine.
    Every method must be called by all ranks, in the same order."""

    rank, size, here = 0, 1, 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of ``tensor`` over all ranks, the same bits on each."""
        return tensor

    def total_at_first(self, tensor: Tensor) -> Tensor:
        """The same on the first rank; the others have no use for what they get."""
        return tensor

    def gathered(self, rows: Tensor) -> Tensor:
        """The ``rows`` [n, ...] of all ranks one after the other, in the order of the windows."""
        return rows

    def from_first(self, make: Callable[[], T]) -> T:
        """What ``make`` gives on the first rank; it is called nowhere else."""
        return make()

    def together(self) -> AbstractContextManager[None]:
        """What one rank cannot do inside (it raises HeadroomError) ends all: the first such rank
        raises, the others leave with SystemExit. Nothing inside may need the others."""
        return nullcontext()


ALONE = Ranks()
