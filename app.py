"""LWAP Explorer: the entry point of `streamlit run app.py`."""

from lwap.ui import frame

frame.configure()
page = frame.navigation()
frame.sidebar()
page.run()
