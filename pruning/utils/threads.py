"""How the threads of torch's products wait for each other."""

from __future__ import annotations

import os

POLICY = "OMP_WAIT_POLICY"


def wait_asleep() -> None:
    """Threads that wait for others sleep, unless the environment says otherwise. To spin is the
    default: on cores that other work shares, they keep from them the thread that they wait for, and
    a pass takes ten times as long. To be called before torch is imported: OpenMP reads this once.
    """
    os.environ.setdefault(POLICY, "PASSIVE")
