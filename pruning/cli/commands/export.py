"""``export``: a saved model in another form."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from pruning.cli.base import COMMANDS, Command
from pruning.cli.console import Console, silence_libraries
from pruning.cli.options import add_form, add_handoff


class Export(Command):
    """Reads a compact folder; the model is not pruned again."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", metavar="DIR", help="compact folder that 'prune' made")
        parser.add_argument("--out", required=True, metavar="OUT", help="folder (or FILE.gguf)")
        parser.add_argument("--dtype", help="auto (as stored), float32, bfloat16 or float16")
        add_form(parser)
        add_handoff(parser)

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        from pruning.checkpoint import FormOptions, export

        silence_libraries()
        out = Path(arguments.out)
        remarks = export(
            Path(arguments.folder),
            out,
            arguments.form,
            options=FormOptions(gguf_type=arguments.gguf_type, handoff=arguments.handoff),
            dtype=arguments.dtype or "auto",
        )
        for remark in remarks:
            console.warn(remark)
        files = [out] if out.is_file() else [path for path in out.rglob("*") if path.is_file()]
        return {
            "out": str(out),
            "form": arguments.form,
            "bytes": sum(path.stat().st_size for path in files),
            "remarks": list(remarks),
        }


COMMANDS.add("export", Export(), summary="write a saved model in another form", place=60)
