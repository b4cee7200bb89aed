"""Upload a saved folder to the Hugging Face hub; only ever on an explicit command."""

from __future__ import annotations

import os
from pathlib import Path

from pruning.checkpoint.records import MARKER
from pruning.utils.errors import HeadroomError, SourceError, UsageError, one_line, shortened

TOKEN = "HF_TOKEN"


def push(folder: Path, repository: str, *, private: bool = False) -> str:
    """Create ``repository`` when it is not there, upload ``folder``, return the address.

    The token comes from the environment only. Raises UsageError without one or for a wrong
    name, SourceError for a folder that Headroom did not save, HeadroomError when the hub
    refuses.
    """
    folder = Path(folder)
    if not (folder / MARKER).is_file():
        raise SourceError(f"{folder} was not saved by Headroom; name a folder that 'prune' made.")
    token = check_repository(repository)
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Upload a model pruned with Headroom",
        )
    except Exception as error:  # the hub's errors are many; none may show the token
        # the token is taken out of the whole line, before the line is cut
        whole_line = one_line(error, limit=10**6)
        line = shortened(whole_line.replace(token, "…"), 200)
        raise HeadroomError(f"{repository} could not be uploaded: {line}.") from None
    return str(address)


def check_repository(repository: str) -> str:
    """The token to upload with; raises UsageError for a wrong name or without a token."""
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise UsageError(f"{repository!r} is not of the form owner/name, like 'you/my-model'.")
    token = os.environ.get(TOKEN, "").strip()
    if not token:
        raise UsageError(
            f"No token for the hub: set {TOKEN} in the environment to a token with write access."
        )
    return token
