"""What the server answers besides Streamlit: the first page, downloads."""
