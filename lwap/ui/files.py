"""Files that come in and go out: uploads, the data folder, downloads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from lwap.datasets.readers import MAX_MEGABYTES, data_folder
from lwap.datasets.tasks import STS_TASKS, available_tasks, sts_task, task_file
from lwap.errors import InputError, LwapError


def kept_upload(
    label: str, key: str, read: Callable[[bytes, str], Any], **options: Any
) -> tuple[Any, bool]:
    """Draw the upload of a file; return what was read of the last one, and if it is in the box.

    Raises:
        LwapError: If the file cannot be read.
    """
    # No type filter: the reader's message says what is accepted, and why.
    uploaded = st.file_uploader(label, key=key, max_upload_size=MAX_MEGABYTES, **options)
    if uploaded is not None and st.session_state.get(f"{key}_id") != uploaded.file_id:
        # Kept apart from the widget: that one forgets its file when the page changes.
        st.session_state[f"{key}_kept"] = read(uploaded.getvalue(), uploaded.name)
        st.session_state[f"{key}_id"] = uploaded.file_id
    return st.session_state.get(f"{key}_kept"), uploaded is not None


def upload_into(key: str, put: Callable[[bytes, str], None], **options: Any) -> str:
    """Draw the upload of a file that fills a box; return what is wrong with the file, or "".

    `put` gets a new file's content and name, before the box is drawn.
    """

    def fill() -> None:
        st.session_state[f"{key}_error"] = ""
        if (uploaded := st.session_state[key]) is not None:
            try:
                put(uploaded.getvalue(), uploaded.name)
            except LwapError as error:
                st.session_state[f"{key}_error"] = str(error)

    uploaded = st.file_uploader(
        "Or upload a file", key=key, max_upload_size=MAX_MEGABYTES, on_change=fill, **options
    )
    return "" if uploaded is None else st.session_state.get(f"{key}_error", "")


def forget_upload(key: str) -> None:
    """Forget what was read of the last upload."""
    st.session_state.pop(f"{key}_kept", None)


def stamp(file: Path) -> tuple[int, int]:
    """Return what tells a file from one that was put in its place.

    Raises:
        InputError: If it cannot be looked at.
    """
    try:
        found = file.stat()
    except OSError as error:
        raise InputError(f"'{file.name}' cannot be read: {error.strerror}.") from error
    return found.st_mtime_ns, found.st_size


def task_stamps(*keys: str) -> tuple[tuple[int, int], ...]:
    """Return the stamps of STS tasks' files."""
    folder = data_folder()
    return tuple(stamp(task_file(sts_task(key), folder)) for key in keys)


def sts_titles(instead: str) -> dict[str, str]:
    """Return the titles of the STS tasks in the data folder, by key.

    Raises:
        InputError: If there are none; `instead` says what works without them.
    """
    folder = data_folder()
    there = available_tasks(folder)
    if not there:
        raise InputError(
            f"There are no STS tasks in '{folder}'. Get them with `python -m lwap data download "
            f"sts`, or name their folder in LWAP_DATA and start the app again. {instead}"
        )
    return {task.key: task.title for task in STS_TASKS if task.key in there}


def csv_button(
    label: str, table: pd.DataFrame | Callable[[], pd.DataFrame], file: str, **options: Any
) -> None:
    """Draw the download of a table; a function is called when it is asked for."""
    content = (
        (lambda: table().to_csv(index=False)) if callable(table) else table.to_csv(index=False)
    )
    st.download_button(label, content, file, "text/csv", on_click="ignore", **options)
