"""Numbers as people read them."""

from __future__ import annotations


def rounded(seconds: float) -> float:
    """An estimate as coarse as it is sure: whole seconds to 10, then fives, then half minutes, then
    tens of minutes."""
    step = 1 if seconds < 10 else 5 if seconds < 60 else 30 if seconds < 3600 else 600
    return max(1, step * round(seconds / step))


def duration(seconds: float) -> str:
    """``8 s``, ``2 min``, ``2 min 05 s``, ``1 h 10 min``."""
    whole = int(seconds)
    if whole >= 3600:
        minutes = whole % 3600 // 60
        return f"{whole // 3600} h {minutes:02d} min" if minutes else f"{whole // 3600} h"
    if whole and whole % 60 == 0:
        return f"{whole // 60} min"
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"


def count(value: float) -> str:
    """``134.5 M``: three or four significant digits with a unit of thousands."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.1f} {unit}"
    return f"{value:.0f}"


def size(value: float) -> str:
    """Bytes as ``538 MB`` (powers of ten)."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= limit:
            return f"{value / limit:.{2 if unit == 'GB' else 0}f} {unit}"
    return f"{value:.0f} B"


def spans(blocks: tuple[int, ...]) -> str:
    """Runs of block numbers, shortened: ``2–4, 8``."""
    runs: list[list[int]] = []
    for block in blocks:
        if runs and block == runs[-1][1] + 1:
            runs[-1][1] = block
        else:
            runs.append([block, block])
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in runs)


def amount(count: int, noun: str) -> str:
    """``1 edge``, ``2 edges``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
