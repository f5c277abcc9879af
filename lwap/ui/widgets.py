"""Widgets that several pages share: menus, figures, progress, questions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import streamlit as st

from lwap.errors import InputError
from lwap.ui import cache, links
from lwap.ui.frame import FIGURE_FORMAT, say_error, theme
from lwap.ui.state import example, phenomena
from lwap.ui.work import DONE, FAILED, STOPPED, WAITING, Work

WAITED = 1.5  # seconds a page waits before it shows progress instead
ENCODED_IS_KEPT = "Stopped. What was encoded is kept; a new run continues from there."


def example_menu(key: str, on_change: Callable[[], None]) -> dict[str, Any]:
    """Draw the menu of examples, bound to the link; return the chosen one."""
    chosen = st.selectbox(
        "Example",
        [entry["title"] for entry in phenomena()],
        key=key,
        on_change=on_change,
        help="Fills the box below; edit it freely.",
        **links.BOUND,
    )
    return example(chosen)


def views(label: str, options: Sequence[str], key: str, **more: Any) -> str:
    """Draw a row of views without its label, bound to the link; return the chosen one."""
    return row(label, options, key, label_visibility="collapsed", **more)


def row(label: str, options: Sequence[str], key: str, **more: Any) -> str:
    """Draw a row of options, bound to the link; return the chosen one, the first by default."""
    more = {"default": options[0], **links.BOUND} | more
    return st.segmented_control(label, options, key=key, required=True, **more)


def say_truncated(is_truncated: Sequence[bool] | np.ndarray, max_tokens: int, what: str) -> None:
    """Say which sentences or pairs the encoder saw only the beginning of."""
    cut = [place + 1 for place, flag in enumerate(is_truncated) if flag]
    if cut:
        shown = ", ".join(map(str, cut[:8])) + ("…" if len(cut) > 8 else "")
        st.warning(
            f"{what} {shown}: longer than the encoder's limit of {max_tokens} tokens, so only the "
            "beginning was read.",
            icon=":material/content_cut:",
        )


def strategy_menu(key: str, facts: cache.ModelFacts) -> list[str]:
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
        help="layer_mean:K and layer_cls:K read one state alone; 0 is the embedding output.",
        **links.BOUND,
    )
    if not chosen:
        raise InputError("No strategy is chosen. Pick at least one above.")
    return chosen


def strategy_choice(label: str, key: str, default: str, facts: cache.ModelFacts) -> str:
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
        help="layer_mean:K and layer_cls:K read one state alone; 0 is the embedding output.",
        **links.BOUND,
    )


def own_strategy(facts: cache.ModelFacts, otherwise: str) -> str:
    """Return the model's trained strategy; `otherwise` where it has none."""
    # A trained strategy comes last of those that a model gives.
    return facts.default_strategies[-1] if facts.has_attention else otherwise


# --- figures and progress -----------------------------------------------------------------------


def show(figure, key: str, *, lasso: bool = False, **options: Any):
    """Draw a Plotly figure in the app's own colours, with its download at the corner."""
    form = st.session_state.get(FIGURE_FORMAT, "SVG").lower()
    unused = ["autoScale2d", "zoomIn2d", "zoomOut2d"]
    config: dict[str, Any] = {
        "displaylogo": False,
        "toImageButtonOptions": {"format": form, "filename": f"lwap-{key}", "scale": 3},
        "modeBarButtonsToRemove": unused if lasso else ["select2d", "lasso2d", *unused],
    }
    if form == "svg":
        config["toImageButtonOptions"].pop("scale")
    return st.plotly_chart(figure, key=key, theme=None, width="stretch", config=config, **options)


def draw(key: str, figure: Callable[..., Any], *data: Any, **options: Any) -> None:
    """Draw one of our figures of data, in the app's theme."""
    show(figure(*data, **options, theme=theme()), key)


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
def follow(
    work: Work, what: str, before: str, key: str, below: Callable[[], None] | None = None
) -> None:
    """Draw progress anew until the work has ended, then run the page again.

    Args:
        work: What is followed.
        what: What its steps are, such as "Sentences encoded:".
        before: What is said before the first one.
        key: Of the button that stops it.
        below: Draws what there is so far.
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
    if below is not None:
        below()


def is_done(
    work: Work, forget: Callable[[Any], None], *, what: str, key: str, before: str, stopped: str
) -> bool:
    """Return whether work ended well; draw how far it is, or why it ended, where it did not.

    Args:
        work: What is waited for.
        forget: Drops it, so that the next run of the page starts it anew.
        what: What its steps are, such as "Sentences encoded".
        key: Of the buttons, before "_stop" and "_again".
        before: What is said before the first step.
        stopped: What is said where a person stopped it.
    """
    if not work.wait(WAITED):
        follow(work, f"{what}:", before, f"{key}_stop")
        return False
    if work.state == FAILED:
        with with_button("Try again", f"{key}_again", forget, work):
            say_error(work.error)
    elif work.state == STOPPED:
        again = with_button("Go on", f"{key}_again", forget, work)
        again.info(stopped, icon=":material/stop_circle:")
    return work.state == DONE


def with_button(label: str, key: str, call: Callable[..., Any], *arguments: Any):
    """Draw a button at the right that calls a function; return the place beside it."""
    left, right = st.columns([5, 1], vertical_alignment="center")
    right.button(label, key=key, on_click=call, args=arguments, width="stretch")
    return left


def ask_to_delete(question: str, key: str, *, delete: Callable, of: Any, keep: Callable) -> bool:
    """Ask before something is deleted for good; return whether it just was."""
    with st.container(border=True):
        st.markdown(question)
        with st.container(horizontal=True):
            is_deleted = st.button(
                "Delete for good",
                type="primary",
                on_click=delete,
                args=(of,),
                key=f"{key}_delete_now",
            )
            st.button("Keep it", on_click=keep, key=f"{key}_delete_not")
    return is_deleted


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
    links.put(key, [] if chosen == places[start] else [chosen])
    return int(chosen) - 1


def _brief(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
