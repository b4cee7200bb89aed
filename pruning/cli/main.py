"""Reads the command line, runs the command, turns every failure into one line and a status."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from pruning.cli.base import COMMANDS
from pruning.cli.console import Console
from pruning.distributed.ranks import own_rank, world_size
from pruning.utils.errors import HeadroomError, UsageError, described
from pruning.utils.registry import unknown_name
from pruning.utils.threads import wait_asleep
from pruning.utils.version import __version__


class Parser(argparse.ArgumentParser):
    """Wrong use gives one line and exit status 2; an unknown name gives the registries' line."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: {message}\n")
        raise SystemExit(2)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        arguments, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(self._unknown(unknown[0], arguments.command))
        return arguments

    def _unknown(self, word: str, command: str) -> str:
        """The line for an argument that ``command`` does not take, with the nearest option."""
        (commands,) = (a for a in self._actions if isinstance(a, argparse._SubParsersAction))
        options = commands.choices[command]._option_string_actions
        near = get_close_matches(word.partition("=")[0], options, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        return f"Unknown argument {word!r}{hint}; see '{self.prog} {command} --help'."

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        # the one hook that sees options and commands alike
        if action.choices is not None and value not in action.choices:
            kind = action.dest.replace("_", " ")
            self.error(str(unknown_name(kind, value, action.choices)))


def build_parser() -> Parser:
    """The parser with every command that is found."""
    installed = Path(sys.argv[0]).stem == "headroom"
    parser = Parser(
        prog="headroom" if installed else "python -m pruning",
        description="Structured pruning without retraining.",
    )
    parser.add_argument("--version", action="version", version=f"headroom {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for entry in COMMANDS:
        command = commands.add_parser(entry.name, help=entry.summary)
        entry.value.add_arguments(command)
        command.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status (0 done, 1 failed, 2 wrong use).

    Wrong use that the parser itself sees raises SystemExit(2).
    """
    wait_asleep()
    try:
        arguments = build_parser().parse_args(argv)
        command = COMMANDS[arguments.command]
        if world_size() > 1 and not command.shares_work:
            raise UsageError(
                f"{arguments.command!r} is for one process; torchrun is for prune and measure."
            )
        with _leaving_on_sigterm(), Console() as console:
            result = command.run(arguments, console)
        if result is None:
            return 0
        text = json.dumps(result, allow_nan=False) if arguments.json else command.text(result)
        print(text, flush=True)
        return 0
    except HeadroomError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("Interrupted.", 1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # no traceback for users; HEADROOM_DEBUG shows it to engineers
        if os.environ.get("HEADROOM_DEBUG"):
            raise
        from pruning.utils.memory import is_out_of_memory

        if is_out_of_memory(error):
            return _fail(
                "The memory is exhausted; use fewer or shorter samples, bfloat16, or "
                "--placement disk.",
                1,
            )
        return _fail(f"Unexpected {described(error)} (set HEADROOM_DEBUG=1 for details).", 1)


@contextmanager
def _leaving_on_sigterm() -> Iterator[None]:
    """Have SIGTERM unwind the work like Ctrl+C, so that what is half written goes at once; status
    143, as shells say."""

    def leave(*_: Any) -> NoReturn:
        raise SystemExit(128 + signal.SIGTERM)

    # only the main thread may, and only where nobody else has
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if ours:
        signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except SystemExit as error:
        if error.code == 128 + signal.SIGTERM and own_rank() == 0:
            _fail("Terminated.", 1)  # after the last line of progress
        raise
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _fail(message: str, status: int) -> int:
    rank = f"rank {own_rank()}: " if own_rank() else ""
    sys.stderr.write(f"headroom: {rank}{message}\n")
    return status
