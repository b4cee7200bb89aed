"""The Streamlit app: pages over the engine in ``pruning``. It does no mathematics."""
