"""Figures as pure functions of engine results: no Streamlit, no session, no decisions."""
