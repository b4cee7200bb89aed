"""The Streamlit app: five pages over the engine in ``pruning``. It does no mathematics."""
