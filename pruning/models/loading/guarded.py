"""Failures of the libraries that load, as one sentence each."""

from __future__ import annotations

from typing import Any

from pruning.utils.errors import HeadroomError, SourceError, described, one_line
from pruning.utils.memory import is_out_of_memory


def guarded(source: str, call: Any, *args: Any, **kwargs: Any) -> Any:
    """Run a hub or loading call; turn its failures into one clear sentence."""
    from huggingface_hub import errors as hub

    try:
        return call(*args, **kwargs)
    except HeadroomError:
        raise
    except hub.GatedRepoError:
        reason = "its licence must be accepted first; set HF_TOKEN in the environment"
    except hub.RevisionNotFoundError:
        reason = "that revision does not exist"
    except hub.RepositoryNotFoundError:
        reason = "no such model on the hub (or it is private: set HF_TOKEN)"
    except (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, ConnectionError):
        reason = (
            "the Hugging Face hub cannot be reached and no local copy exists; check the network, "
            "or use 'demo', a folder or a .gguf file"
        )
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        known = isinstance(error, OSError | ValueError | ImportError | RuntimeError)
        reason = one_line(error) if known else described(error)
        if "safetensors" in reason:
            reason = f"it has no safetensors weights ({reason})"
    raise SourceError(f"{source} cannot be loaded: {reason}.") from None
