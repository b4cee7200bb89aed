"""``diff``: what tells two models apart, tensor by tensor and block by block."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pruning.cli.base import COMMANDS, Command, table
from pruning.cli.console import Console, silence_libraries
from pruning.cli.options import text_help
from pruning.utils.errors import UsageError
from pruning.utils.files import check_writable, write_bytes


class Diff(Command):
    """Weights are read from their files one block at a time."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        add = parser.add_argument
        for name, what in (("first", "the first model, mostly the dense one"), ("second", "other")):
            add(name, metavar=name.upper(), help=f"{what}: 'demo', a hub id, a folder or a .gguf")
        add(
            "--text",
            default="sample",
            metavar="SRC",
            help=f"text on which outputs are compared, {text_help()}, or 'none' (default: sample)",
        )
        add("--seq-len", type=int, default=128, metavar="N", help="tokens per window (128)")
        add("--windows", type=int, default=2, metavar="N", help="windows of the text (2)")
        add("--html", type=Path, metavar="FILE", help="one page with sortable tables")
        add("--csv", type=Path, metavar="FILE", help="one line per tensor")
        add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        for path in filter(None, (arguments.html, arguments.csv)):
            check_writable(path)
        if arguments.seq_len < 2 or arguments.windows < 1:
            raise UsageError("At least one window of two tokens is needed; ask for more.")
        silence_libraries()
        from pruning.difference.compare import Passage, compare_places
        from pruning.difference.html import to_html

        passage = Passage(arguments.text, arguments.windows, arguments.seq_len)
        found = compare_places(
            arguments.first,
            arguments.second,
            None if arguments.text == "none" else passage,
            device=arguments.device,
            progress=console.progress,
        )
        for remark in found.remarks:
            console.warn(remark)
        if arguments.html:
            write_bytes(arguments.html, to_html(found).encode())
        if arguments.csv:
            write_bytes(arguments.csv, found.to_csv().encode())
        return {**found.as_dict(), "headline": found.headline(), "rows": found.block_rows()}

    def text(self, result: Mapping[str, Any]) -> str:
        rows = result["rows"]
        return f"{result['headline']}\n{result['matching']}\n\n{table(rows, list(rows[0]))}"


COMMANDS.add("diff", Diff(), summary="what tells two models apart, tensor by tensor", place=35)
