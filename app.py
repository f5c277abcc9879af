"""LWAP Explorer: the entry point of `streamlit run app.py`."""

import streamlit as st

from lwap.ui import frame

frame.configure()
page = st.navigation(
    {
        "Explore": [
            st.Page("pages/layers.py", title="Layers", icon=":material/layers:", default=True),
            st.Page("pages/pairs.py", title="Pairs", icon=":material/compare_arrows:"),
        ]
    }
)
frame.sidebar()
page.run()
