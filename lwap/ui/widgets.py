"""Widgets that several pages share: example menu, sentences, pairs, figures, progress."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from lwap.errors import InputError
from lwap.ui.state import example, link_values, phenomena, put_in_link
from lwap.ui.work import WAITING, Work

if TYPE_CHECKING:
    from lwap.ui.cache import ModelFacts

MAX_SENTENCES = 200
FIGURE_FORMAT = "figure_format"  # of the download at a figure's corner


# --- sentences ----------------------------------------------------------------------------------


def example_menu(key: str, on_change: Callable[[], None]) -> dict[str, Any]:
    """Draw the menu of examples, bound to the link; return the chosen one."""
    chosen = st.selectbox(
        "Example",
        [entry["title"] for entry in phenomena()],
        key=key,
        bind="query-params",
        persist_state="session",
        on_change=on_change,
        help="Fills the box below; edit it freely.",
    )
    return example(chosen)


def sentence_box(key: str, menu_key: str, link: str) -> list[str]:
    """Draw the example menu and the sentences, one a line; return the sentences.

    Raises:
        InputError: If there are none, or more than the limit.
    """

    def text_of(entry: dict[str, Any]) -> str:
        return "\n".join(entry["sentences"])

    def fill() -> None:
        st.session_state[key] = text_of(example(st.session_state[menu_key]))

    chosen = example_menu(menu_key, fill)
    filled_with = st.session_state.get(f"{key}_example")
    if key not in st.session_state:
        st.session_state[key] = "\n".join(link_values(link)) or text_of(chosen)
    elif filled_with != chosen["title"] and st.session_state[key] == text_of(example(filled_with)):
        fill()  # another one was chosen on another page, and this one was not edited
    st.session_state[f"{key}_example"] = chosen["title"]
    text = st.text_area(
        "Sentences, one a line", key=key, height=230, persist_state="session", width="stretch"
    )
    sentences = lines_of(text)
    is_example = sentences == chosen["sentences"]
    if is_example:
        st.caption(f"**What to look for.** {chosen['look_for']}")
    if not put_in_link(link, [] if is_example else sentences):
        st.caption("These sentences are too long for a link; the link keeps the rest of the view.")
    if not sentences:
        raise InputError("There is no sentence yet. Write one a line, or pick an example.")
    if len(sentences) > MAX_SENTENCES:
        raise InputError(
            f"{len(sentences)} sentences are more than this page draws; the limit is "
            f"{MAX_SENTENCES}. Remove some, or use: python -m lwap explain --file FILE"
        )
    return sentences


def lines_of(text: str) -> list[str]:
    """Return the lines of a box that are not blank, one a sentence."""
    # Not str.splitlines: it also cuts at form feeds and U+2028, inside of sentences.
    return [line.strip() for line in text.split("\n") if line.strip()]


def views(label: str, options: Sequence[str], key: str, default: str | None = None) -> str:
    """Draw a row of views, bound to the link; return the chosen one, the first by default."""
    return st.segmented_control(
        label,
        options,
        default=default or options[0],
        key=key,
        bind="query-params",
        persist_state="session",
        required=True,
        label_visibility="collapsed",
    )


def say_truncated(is_truncated: Sequence[bool], max_tokens: int, what: str) -> None:
    """Say which sentences or pairs the encoder saw only the beginning of."""
    cut = [place + 1 for place, flag in enumerate(is_truncated) if flag]
    if cut:
        shown = ", ".join(map(str, cut[:8])) + ("…" if len(cut) > 8 else "")
        st.warning(
            f"{what} {shown}: longer than the encoder's limit of {max_tokens} tokens, so only the "
            "beginning was read.",
            icon=":material/content_cut:",
        )


def strategy_menu(key: str, facts: ModelFacts) -> list[str]:
    """Draw the menu of the model's strategies, bound to the link; return the chosen ones.

    Raises:
        InputError: If none is chosen.
    """
    default = list(facts.default_strategies)
    if key in st.session_state:  # another model may have other ones
        chosen = st.session_state[key]
        was_default = chosen == st.session_state.get(f"{key}_default")
        kept = [name for name in chosen if name in facts.strategies]
        if was_default and chosen != default:
            st.session_state[key] = default
        elif chosen and kept != chosen:
            st.session_state[key] = kept or default
    st.session_state[f"{key}_default"] = default
    chosen = st.multiselect(
        "Strategies",
        facts.strategies,
        # Streamlit warns of a default beside a value that was set.
        default=None if key in st.session_state else default,
        key=key,
        bind="query-params",
        persist_state="session",
        help="layer_mean:K and layer_cls:K read one state alone; 0 is the embedding output.",
    )
    if not chosen:
        raise InputError("No strategy is chosen. Pick at least one above.")
    return chosen


def strategy_choice(label: str, key: str, default: str, facts: ModelFacts, **options: Any) -> str:
    """Draw a menu of one of the model's strategies, bound to the link; return it."""
    if key in st.session_state:  # another model may have other ones
        chosen = st.session_state[key]
        was_default = chosen == st.session_state.get(f"{key}_default")
        if was_default or chosen not in facts.strategies:
            st.session_state[key] = default
    st.session_state[f"{key}_default"] = default
    return st.selectbox(
        label,
        # First, so that the link leaves it out, and Streamlit lets the state above replace it.
        [default, *(name for name in facts.strategies if name != default)],
        key=key,
        bind="query-params",
        persist_state="session",
        help="layer_mean:K and layer_cls:K read one state alone; 0 is the embedding output.",
        **options,
    )


# --- figures and progress -----------------------------------------------------------------------


def show(figure, key: str, *, lasso: bool = False, **options: Any):
    """Draw a Plotly figure in the app's own colours, with its download at the corner."""
    form = st.session_state.get(FIGURE_FORMAT, "SVG").lower()
    unused = ["autoScale2d", "zoomIn2d", "zoomOut2d"]
    config = {
        "displaylogo": False,
        "toImageButtonOptions": {"format": form, "filename": f"lwap-{key}", "scale": 3},
        "modeBarButtonsToRemove": unused if lasso else ["select2d", "lasso2d", *unused],
    }
    if form == "svg":
        config["toImageButtonOptions"].pop("scale")
    return st.plotly_chart(figure, key=key, theme=None, width="stretch", config=config, **options)


def clicked(key: str, every: bool = False) -> list:
    """Return the custom data of the point that was clicked in a figure, or of every one chosen."""
    points = st.session_state[key]["selection"]["points"]
    found = []
    for point in points:
        data = point["customdata"]
        found.append(list(data.values()) if isinstance(data, dict) else list(np.ravel(data)))
    return found if every else (found[0] if found else [])


@contextlib.contextmanager
def progress(what: str, count: int, least: int = 64) -> Iterator[Callable[[int, int], None] | None]:
    """Give a progress callback with a bar where there is enough work to see one."""
    if count < least:
        yield None
        return
    bar = st.progress(0.0, text=f"{what}: 0 of {count}")

    def advance(done: int, total: int) -> None:
        bar.progress(done / total, text=f"{what}: {done:,} of {total:,}")

    try:
        yield advance
    finally:
        bar.empty()


@st.fragment(run_every=0.7)
def follow(work: Work, what: str, before: str, key: str) -> None:
    """Draw progress anew until the work has ended, then run the page again.

    Args:
        work: What is followed.
        what: What its steps are, such as "Sentences encoded:".
        before: What is said before the first one.
        key: Of the button that stops it.
    """
    if not work.is_active:
        st.rerun()
    left, right = st.columns([6, 1], vertical_alignment="center")
    if work.state == WAITING:
        left.progress(0.0, text="Another computation is running; this one is next.")
    elif work.total > 1:
        text = f"{what} {work.done:,} of {work.total:,}"
        if work.remaining is not None:
            text += f", about {work.remaining:.0f} s more"
        left.progress(min(work.done / work.total, 1.0), text=text)
    else:
        left.progress(0.0, text=before)
    if right.button("Stop", key=key, width="stretch"):
        work.stop()


def choose(label: str, texts: Sequence[str], key: str, default: int = 0, **options: Any) -> int:
    """Draw a menu of texts; return the chosen row. The link has its place, from 1 on."""
    places = [str(place) for place in range(1, len(texts) + 1)]
    if st.session_state.get(key, places[0]) not in places:
        del st.session_state[key]  # the text was removed
    elif key not in st.session_state and st.query_params.get(key) in places:
        # Not bind="query-params": that would put the texts themselves into the link.
        st.session_state[key] = st.query_params[key]
    start = min(default, len(places) - 1)
    if key not in st.session_state:
        st.session_state[key] = places[start]
    chosen = st.selectbox(
        label,
        places,
        format_func=lambda place: f"{place}. {_brief(texts[int(place) - 1])}",
        key=key,
        persist_state="session",
        **options,
    )
    put_in_link(key, [] if chosen == places[start] else [chosen])
    return int(chosen) - 1


def _brief(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
