"""Charts: data in; one plain description each, drawn by Plotly or, for the report, as SVG."""
