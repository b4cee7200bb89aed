"""Charts: data in, Plotly figure out; no Streamlit."""
