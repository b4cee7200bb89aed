"""The Hugging Face hub: what names a repository there, and whether it answers at all."""

from __future__ import annotations

import re
import threading

PATIENCE = 4.0
"""Seconds that the hub is given to answer; its own client tries again for half a minute."""

_ID = re.compile(r"[A-Za-z0-9][\w-]*|[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def is_hub_id(source: str) -> bool:
    """Whether ``source`` could be a model of the hub: ``openai-community/gpt2``, or one of the old
    names without an owner (``gpt2``), which have no dots, so that file names are none."""
    return _ID.fullmatch(source) is not None


def is_reachable(patience: float = PATIENCE) -> bool:
    """Whether the hub answers anything within ``patience`` seconds; no when it is switched off."""
    found: list[bool] = []
    # a thread: no timeout of a request covers looking up the address
    asking = threading.Thread(target=lambda: found.append(_answers(patience)), daemon=True)
    asking.start()
    asking.join(patience)
    return found == [True]


def _answers(patience: float) -> bool:
    from huggingface_hub import constants, get_session

    if constants.is_offline_mode():
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=patience)
    except Exception:  # its client raises many kinds; all mean: no answer
        return False
    return True
