"""The import of a model."""

from __future__ import annotations

import streamlit as st

from lwap.errors import InputError, LwapError
from lwap.library.archive import import_checkpoint
from lwap.ui.frame import say_error
from lwap.ui.models.entries import NEXT, SAID

MAX_UPLOAD = 200  # MB
_UPLOADS = "models_uploads"


def import_box() -> None:
    """Draw the import (closed) and do it."""
    number = st.session_state.setdefault(_UPLOADS, 0)  # a new one empties what was filled in
    with (
        st.expander("Import a model", icon=":material/upload:", key="model_import"),
        st.form("models_import", border=False),
    ):
        left, right = st.columns(2, gap="large")
        uploaded = left.file_uploader(
            "A zip file",
            help="As *Download* gives it, or a zipped folder that sentence-transformers saved.",
            key=f"models_upload_{number}",
            max_upload_size=MAX_UPLOAD,
        )
        path = right.text_input(
            "Or a folder or zip file on this machine",
            key=f"models_path_{number}",
            placeholder="~/Downloads/checkpoint",
        ).strip()
        name = right.text_input(
            "Name", key=f"models_name_{number}", placeholder="its own name"
        ).strip()
        st.caption(
            "It is verified before it is kept: SHA-256 of each file, classes on the allow-list, "
            "weights from safetensors. Pickles, code and links are refused."
        )
        if not st.form_submit_button("Import", key="models_import_now"):
            return
        try:
            if (uploaded is None) == (not path):
                raise InputError("Choose a zip file or type a path, not both.")
            with st.spinner("Unpacking, checking and loading it. A few seconds."):
                if path:
                    model = import_checkpoint(path, name or None)
                else:
                    model = import_checkpoint(
                        uploaded.getvalue(), name or None, title=uploaded.name
                    )
        except LwapError as error:
            say_error(error)
            return
    st.session_state[_UPLOADS] += 1
    st.session_state[NEXT] = model.name
    st.session_state[SAID] = ("success", f"'{model.name}' is imported and verified.")
    st.rerun()
