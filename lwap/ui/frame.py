"""The frame around every page: configuration, sidebar with the model picker, header, errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import streamlit as st

from lwap.errors import LwapError
from lwap.ui import cache, links
from lwap.ui.state import ASSETS

PAPER = """\
LWAP Explorer makes visible what every layer of a sentence encoder knows, and what a pooling that
attends over all layers does with it.

The method: Dongsuk Oh, Yejin Kim, Hodong Lee, H. Howie Huang, Heuiseok Lim.
*Don't Judge a Language Model by Its Last Layer: Contrastive Learning with Layer-Wise Attention
Pooling.* COLING 2022. [arXiv 2209.05972](https://arxiv.org/abs/2209.05972)

The bundled encoder is all-MiniLM-L6-v2 (Apache-2.0), checked by SHA-256 at the first start.
Everything runs on this machine; nothing that you type leaves it.
"""

FIGURE_FORMAT = "figure_format"  # of the download at a figure's corner
_SEEN = "models_seen"
_OTHER_PICKERS = ("other", "second", "space_model")  # of a second model, on other pages


def configure() -> None:
    """Set title, icon and layout; the first call of every run."""
    st.set_page_config(
        page_title="LWAP Explorer", page_icon=str(ASSETS / "icon.svg"), layout="wide"
    )
    st.logo(str(ASSETS / "logo.svg"), size="large", icon_image=str(ASSETS / "icon.svg"))
    # Streamlit leaves 6rem above the title; the picture is what people come for.
    st.html("<style>.stMainBlockContainer { padding-top: 3.25rem; }</style>")


def navigation():
    """Declare the pages; return the one that the address asks for."""
    return st.navigation(
        {
            "Explore": [
                st.Page("pages/layers.py", title="Layers", icon=":material/layers:", default=True),
                st.Page("pages/pairs.py", title="Pairs", icon=":material/compare_arrows:"),
                st.Page("pages/space.py", title="Space", icon=":material/scatter_plot:"),
                st.Page("pages/search.py", title="Search", icon=":material/search:"),
            ],
            "Measure": [
                st.Page("pages/evaluate.py", title="Evaluate", icon=":material/leaderboard:")
            ],
            "Train": [
                st.Page("pages/finetune.py", title="Fine-tune", icon=":material/model_training:"),
                st.Page("pages/models.py", title="Models", icon=":material/inventory_2:"),
            ],
        }
    )


def sidebar() -> None:
    """Draw the model picker, the model's facts, and the about box."""
    names = cache.checkpoint_names()
    gone = _leave_what_is_gone(names)
    with st.sidebar:
        name = st.selectbox(
            "Model",
            names,
            key="model",
            accept_new_options=True,
            help="A checkpoint, the plain encoder, or type a Hugging Face id or a folder. "
            "What you typed on the pages stays when you change it.",
            **links.BOUND,
        )
        if gone:
            say_gone(gone, " This model takes its place.")
        place = st.empty()
        st.segmented_control(
            "Figures download as",
            ["SVG", "PNG"],
            default="SVG",
            key=FIGURE_FORMAT,
            persist_state="session",
            required=True,
            help="With the camera at a figure's upper right corner.",
        )
        with st.expander("About"):
            st.markdown(PAPER)
    _draw_facts(place, name)


def _leave_what_is_gone(names: list[str]) -> str:
    """Let no picker stay on a checkpoint that this session saw and that is gone.

    Returns what the sidebar's picker was on, "" where it can stay.
    """
    seen = st.session_state.get(_SEEN, ())
    st.session_state[_SEEN] = names
    gone = [name for name in seen if name not in names and not cache.is_checkpoint(name)]
    for key in _OTHER_PICKERS:
        if st.session_state.get(key) in gone:
            del st.session_state[key]
    if (name := st.session_state.get("model")) not in gone:
        return ""
    st.session_state["model"] = names[0]
    return name


def follow_rename(old: str, new: str) -> None:
    """Let every picker that is on a checkpoint stay on it under its new name; for callbacks."""
    for key in ("model", *_OTHER_PICKERS):
        if st.session_state.get(key) == old:
            st.session_state[key] = new


def _draw_facts(place, name: str) -> None:
    with place, st.spinner("Loading the model. The first one takes about ten seconds."):
        try:
            facts = cache.facts(name)
        except LwapError:
            place.caption("Not loaded; see the message on the page.")
            return
    lines = [
        f"**Encoder** {escape(facts.encoder)}, {facts.num_states} states of {facts.dimension}",
        f"**Pooling** {escape(facts.pooling)}",
        f"**Trained on** {escape(facts.trained_on)}",
        f"**Dev score** {escape(facts.dev_score) or 'none recorded'}",
    ]
    place.caption("  \n".join(lines))


def model_name() -> str:
    """Return the model that is picked."""
    return st.session_state["model"]


def theme() -> str:
    """Return "light" or "dark", as the person sees the app."""
    return "dark" if st.context.theme.type == "dark" else "light"


def header(title: str, question: str, reading: str) -> None:
    """Draw a page's title, the question that it answers, and how to read it (closed)."""
    if "model" not in st.session_state:
        # The first request of a fresh server may come for a page's own address; Streamlit then
        # runs the page's file without app.py, as it did before st.navigation. Say so and go again.
        configure()
        navigation()
        st.rerun()
    left, right = st.columns([4, 1], vertical_alignment="bottom")
    with left:
        st.title(title, anchor=False)
        st.markdown(question)
    with right, st.popover("How to read this", icon=":material/menu_book:", width="stretch"):
        st.markdown(reading)


@contextlib.contextmanager
def messages() -> Iterator[None]:
    """Show an error of ours as text and end the page there; others keep their traceback."""
    try:
        yield
    except LwapError as error:
        say_error(error)
        st.stop()


def say_error(error: LwapError | str) -> None:
    """Show what went wrong, as text."""
    st.error(escape(str(error)), icon=":material/error:")


def say_gone(name: str, instead: str = "") -> None:
    """Say that what was chosen is no longer there."""
    st.warning(
        f"'{escape(name)}' is no longer there: it was renamed or deleted.{instead}",
        icon=":material/info:",
    )


def say_outcome(kind: str, text: str) -> None:
    """Show what became of what was asked for: "success", "error", or "" for nothing to say."""
    if kind == "success":
        st.success(escape(text), icon=":material/check:")
    elif kind == "error":
        say_error(text)


def second_model(label: str, key: str, *, none: str, help: str) -> str:
    """Draw the picker of a second model; return its name, the sidebar's for `none`."""
    own = model_name()
    others = [none, *(name for name in cache.checkpoint_names() if name != own)]
    chosen = st.selectbox(label, others, key=key, accept_new_options=True, help=help, **links.BOUND)
    return own if chosen in (none, None) else chosen


def escape(text: str) -> str:
    """Return text so that Markdown shows it as it is."""
    for mark in "\\`*_{}[]<>#|~$:":
        text = text.replace(mark, f"\\{mark}")
    return text


def place(folder: Path) -> str:
    """Return a folder's path, from where the app was started if it lies in there."""
    here = Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)
