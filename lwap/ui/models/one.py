"""One model: its facts, what can be done with it, its card."""

from __future__ import annotations

import re

import streamlit as st

from lwap.checkpoints.manifest import MANIFEST
from lwap.errors import LwapError
from lwap.library.archive import MAX_ZIP_BYTES, zip_checkpoint
from lwap.library.edit import MAX_NAME, delete, rename, what_stays
from lwap.library.stored import StoredModel, read_card
from lwap.ui import change, frame, links, widgets
from lwap.ui.frame import escape, say_error, say_outcome
from lwap.ui.model_words import dev_score_line, gains, pooling_words, trained
from lwap.ui.models.entries import ASKS, NEXT, OWN, SAID, Entry, ask_nothing

_NEW_NAME, _CHECKED = "models_new_name", "models_checked"


def one_model(entry: Entry) -> None:
    """Draw what a model says of itself, and what can be done with it."""
    if entry.problem:
        say_error(entry.problem)
    st.markdown("  \n".join(_facts(entry)))
    _actions(entry)
    asks = st.session_state.get(ASKS, ("", ""))
    if entry.origin == OWN and asks == ("rename", entry.key):
        _rename_box(entry)
    elif entry.origin == OWN and asks == ("delete", entry.key):
        _delete_box(entry)
    _verdict(entry)


def change_box(entry: Entry) -> None:
    """Draw what training changed (closed); nothing is computed before it is opened."""
    if entry.info is None or entry.problem:
        return
    box = st.expander(
        "What did it change?",
        icon=":material/difference:",
        key="model_changes",
        on_change="rerun",
        bind="query-params",
    )
    if box.open:
        with box:
            change.card(entry.name)


def card(entry: Entry) -> None:
    """Draw a model's card."""
    if entry.stored is None:
        return
    st.subheader("Model card", anchor=False)
    text = read_card(entry.stored.folder)
    with st.container(border=True, key="model_card"):
        st.markdown(card_markdown(text) if text else "*This checkpoint has no card.*")


def _facts(entry: Entry) -> list[str]:
    info = entry.info
    if info is None:
        if entry.stored is None:
            return [
                "**Pooling** mean",
                "**Trained** as published, nothing of ours (Apache-2.0)",
                "**Origin** a Python package, its weights checked by SHA-256",
            ]
        return [_size_and_place(entry.stored)]
    lines = [
        f"**Pooling** {escape(pooling_words(info))}",
        f"**Encoder** {escape(info.encoder)}, {info.num_states} states of "
        f"{info.embedding_dimension}",
        f"**Trained** {escape(trained(info))}",
    ]
    if data := info.trained_on:
        rows = info.training.get("triplets")
        count = f", {rows:,} rows" if isinstance(rows, int) else ""
        lines[-1] += f" on {escape(data)}{count}"
    return [*lines, *dev_score_line(info), *gains(info), _size_and_place(entry.stored)]


def _size_and_place(stored: StoredModel) -> str:
    whose = "shipped" if stored.is_shipped else "yours"
    return f"**Size** {stored.size_bytes / 1e6:.1f} MB, {whose}, in `{frame.place(stored.folder)}`"


def _actions(entry: Entry) -> None:
    is_own = entry.origin == OWN
    shipped = None if is_own else "Only checkpoints of your own can be changed."
    with st.container(horizontal=True, gap="xsmall", key="model_actions"):
        links.use_model_button(entry.name, "model_use", is_usable=not entry.problem)
        if entry.stored is not None and st.button(
            "Verify", key="model_verify", help="Check files, classes and encoder, and load it."
        ):
            _verify(entry)
        for what in ("rename", "delete"):
            st.button(
                what.capitalize(),
                on_click=_ask,
                args=(what, entry),
                disabled=not is_own,
                help=shipped,
                key=f"model_{what}",
            )
        if entry.stored is not None:
            is_too_large = entry.stored.size_bytes > MAX_ZIP_BYTES
            st.download_button(
                "Download",
                lambda: zip_checkpoint(entry.stored),
                f"{entry.name}.zip",
                "application/zip",
                on_click="ignore",
                disabled=is_too_large,
                help=f"More than {MAX_ZIP_BYTES // 1_000_000} MB; copy the folder instead."
                if is_too_large
                else "A zip file, which can be imported elsewhere.",
                key="model_download",
            )


def _ask(what: str, entry: Entry) -> None:
    st.session_state[ASKS] = (what, entry.key)
    st.session_state[_NEW_NAME] = entry.name


def _rename_box(entry: Entry) -> None:
    with st.container(border=True):
        st.text_input("New name", key=_NEW_NAME, max_chars=MAX_NAME)
        with st.container(horizontal=True):
            st.button(
                "Rename it",
                type="primary",
                on_click=_rename,
                args=(entry.name,),
                key="model_rename_now",
            )
            st.button("Cancel", on_click=ask_nothing, key="model_rename_not")


def _rename(name: str) -> None:
    new = st.session_state[_NEW_NAME].strip()
    try:
        rename(name, new)
    except LwapError as error:
        st.session_state[SAID] = ("error", str(error))
        return
    ask_nothing()
    frame.follow_rename(name, new)
    st.session_state[NEXT] = new
    st.session_state[SAID] = ("success", f"'{name}' is now called '{new}'.")


def _delete_box(entry: Entry) -> None:
    beside = what_stays(entry.stored)
    stays = "Nothing of the run is kept."
    if beside:
        stays = f"Other files of the run are kept: {escape(', '.join(beside))}."
    question = (
        f"**Delete {escape(entry.name)}?** Its weights, its card and its scores are lost "
        f"({entry.stored.size_bytes / 1e6:.1f} MB); there is no way back. {stays}"
    )
    widgets.ask_to_delete(question, "model", delete=_delete, of=entry.name, keep=ask_nothing)


def _delete(name: str) -> None:
    ask_nothing()
    try:
        stays = delete(name)
    except LwapError as error:
        st.session_state[SAID] = ("error", str(error))
        return
    rest = f" Kept from its run: {', '.join(stays)}." if stays else ""
    st.session_state[SAID] = ("success", f"'{name}' is deleted.{rest}")


def say_what_happened() -> None:
    """Say what became of the last thing that was asked for."""
    say_outcome(*st.session_state.pop(SAID, ("", "")))


def _verify(entry: Entry) -> None:
    from lwap.checkpoints.verify import verify

    with st.spinner("Checking files and encoder, and loading it. A few seconds."):
        try:
            # By its folder: a shipped one of the same name would be taken instead.
            found = ("", verify(str(entry.stored.folder)))
        except LwapError as error:
            found = (str(error), [])
    st.session_state[_CHECKED] = (_stamp(entry), *found)


def _stamp(entry: Entry) -> tuple:
    """Return what tells a checkpoint from one that was put in its place."""
    try:
        changed = (entry.stored.folder / MANIFEST).stat().st_mtime_ns
    except OSError:
        changed = 0
    return entry.key, entry.stored.size_bytes, changed


def _verdict(entry: Entry) -> None:
    if entry.stored is None:
        return
    stamp, problem, lines = st.session_state.get(_CHECKED, ((), "", []))
    if stamp != _stamp(entry):
        return
    if problem:
        st.error(f"**Not to be trusted.** {escape(problem)}", icon=":material/error:")
    else:
        st.success("**Verified**", icon=":material/verified:")
        st.markdown("\n".join(f"- {escape(line)}" for line in lines))


def card_markdown(card: str) -> str:
    """Return a card to be shown: no picture is fetched, and its headings stand below the page's.

    >>> card_markdown("# A head\\n![seen](http://example.org/me.png)")
    '#### A head\\n&#33;[seen](http://example.org/me.png)'
    """
    lines, fence = [], ""
    for line in card.split("\n"):
        mark = re.match(r" {0,3}(`{3,}|~{3,})", line)
        if fence:
            if mark and mark[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
        elif mark:
            fence = mark[1]
        else:
            line = re.sub(r"!(?=\[)", "&#33;", line)
            line = re.sub(r"^(#{1,3}) ", r"###\1 ", line)
        lines.append(line)
    return "\n".join(lines)
