"""The downloadable report: what the engine wrote about the run, plus what Compare found."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from app.jobs.compare_tasks import Pair


def as_json(report: Any, found: dict[str, tuple[Pair, tuple]]) -> str:
    """The engine's report with an ``evaluation`` entry per kind of comparison.

    ``found``: by job kind, the result and what it was about.
    """
    data = json.loads(report.to_json())
    data["evaluation"] = {
        kind: {"before": asdict(pair.before), "after": asdict(pair.after)}
        for kind, (pair, _) in found.items()
        if kind != "tokens"
    }
    if "texts" in found:
        data["evaluation"]["texts"]["prompt"] = found["texts"][1][1]
    return json.dumps(data, indent=1)


def as_markdown(model: str, report: Any, found: dict[str, tuple[Pair, tuple]]) -> str:
    """The same for people."""
    parts = [f"# {model}, pruned"]
    if "perplexity" in found:
        before, after = _sides(found["perplexity"])
        ratio = after.perplexity / before.perplexity
        parts.append(
            "## Perplexity\n\n| dense | pruned | ratio |\n|---|---|---|\n"
            f"| {before.perplexity:.3f} | {after.perplexity:.3f} | {ratio:.4f} |\n\n"
            f"{after.protocol()}"
        )
    if "speed" in found:
        before, after = _sides(found["speed"])
        parts.append(
            "## Tokens per second\n\n| | dense | pruned |\n|---|---|---|\n"
            f"| reading | {before.prefill:.0f} | {after.prefill:.0f} |\n"
            f"| writing | {before.decode:.1f} | {after.decode:.1f} |"
        )
    if "texts" in found:
        before, after = _sides(found["texts"])
        parts.append(
            f"## Text\n\nPrompt:\n\n{_quoted(found['texts'][1][1])}\n\n"
            f"Dense:\n\n{_quoted(before.text)}\n\nPruned:\n\n{_quoted(after.text)}"
        )
    if "tokens" in found:
        parts.append(_token_table(found["tokens"][0]))
    return "\n\n".join([*parts, report.to_markdown("##")])


def _token_table(found: Any) -> str:
    rows = "\n".join(
        f"| `{_cell(passage.pieces[place])}` | {passage.dense[place - 1]:.2f} | "
        f"{passage.pruned[place - 1]:.2f} |"
        for index, place, _ in found.worst(15)
        for passage in [found.passages[index]]
    )
    return (
        "## Tokens whose likelihood fell most\n\n"
        f"{found.corpus} ({found.split}), {len(found.passages)} windows of {found.seq_len} tokens; "
        f"nats.\n\n| token | dense | pruned |\n|---|---|---|\n{rows}"
    )


def _cell(text: str) -> str:
    """Code in a table: neither pipes nor back quotes nor line ends may leave it."""
    return text.replace("|", "¦").replace("`", "'").replace("\n", "⏎").strip() or "space"


def _sides(entry: tuple[Pair, tuple]) -> tuple[Any, Any]:
    return entry[0].before, entry[0].after


def _quoted(text: str) -> str:
    """An indented block: what a model writes must not be read as markup."""
    return "\n".join(f"    {line}" for line in text.splitlines() or [""])
