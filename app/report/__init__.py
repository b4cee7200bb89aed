"""The report that a visitor takes away, as HTML, Markdown and JSON."""
