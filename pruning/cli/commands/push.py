"""``push``: a saved folder onto the Hugging Face hub."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from pruning.cli.base import COMMANDS, Command
from pruning.cli.console import Console, silence_libraries


class Push(Command):
    """The only command that sends anything anywhere."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", metavar="DIR", help="folder that 'prune' or 'export' made")
        parser.add_argument("repository", metavar="REPO_ID", help="like 'you/smollm2-pruned'")
        parser.add_argument("--private", action="store_true", help="make a new repository private")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        from pruning.checkpoint.hub import push

        silence_libraries()
        url = push(Path(arguments.folder), arguments.repository, private=arguments.private)
        return {"url": url}


COMMANDS.add("push", Push(), summary="upload a saved folder to the Hugging Face hub", place=70)
