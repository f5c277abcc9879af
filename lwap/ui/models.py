"""The parts of the Models page: all checkpoints compared, one of them with its card, the import."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from lwap import figures
from lwap.checkpoints.manifest import MANIFEST, CheckpointInfo, Contents, folder_size, read_object
from lwap.encoding.sources import BUNDLED, bundled_folder
from lwap.errors import InputError, LwapError
from lwap.library.stored import (
    MAX_NAME,
    MAX_ZIP_BYTES,
    Score,
    StoredModel,
    delete,
    dev_score,
    gain,
    gain_on_start,
    import_checkpoint,
    layer_weights,
    list_models,
    read_card,
    rename,
    what_stays,
    zip_checkpoint,
)
from lwap.pooling.declarations import needs_training
from lwap.registry import STRATEGIES
from lwap.ui import change, frame, widgets
from lwap.ui.frame import escape, theme

MAX_UPLOAD = 200  # MB
SHIPPED, OWN, PACKAGE = "shipped", "yours", "package"
_CHOSEN, _NEXT, _LAST = "checkpoint", "models_next", "models_last"
_SAID, _ASKS, _NEW_NAME = "models_said", "models_asks", "models_new_name"
_CHECKED, _UPLOADS = "models_checked", "models_uploads"
_TRAINED = {"head": "head", "lora": "LoRA", "full": "full"}
_CONTENTS = {Contents.HEAD: "head", Contents.ADAPTER: "LoRA", Contents.ENCODER: "full"}


@dataclass(frozen=True)
class Entry:
    """A row of the table: a checkpoint, or the bundled encoder.

    Attributes:
        name: The name that the model picker takes.
        key: What the menu calls it: the name, unless two have it.
        origin: "shipped", "yours" or "package".
        stored: The checkpoint; None for the bundled encoder.
        weights: Weight of each state on its dev set, (S,), or 1 for the last layer where the
            pooling reads that alone; None where none was recorded.
        size_bytes: Size on disk.
        problem: What is wrong with it, or "".
    """

    name: str
    key: str
    origin: str
    stored: StoredModel | None
    weights: list[float] | None
    size_bytes: int
    problem: str = ""

    @property
    def info(self) -> CheckpointInfo | None:
        """What the checkpoint says of itself; None where it cannot be read."""
        return self.stored.info if self.stored else None


# --- what there is ------------------------------------------------------------------------------


def entries() -> list[Entry]:
    """Return what there is: shipped, the person's own, the bundled encoder."""
    found: list[Entry] = []
    for stored in list_models():
        is_known = any(entry.key == stored.name for entry in found)
        found.append(
            Entry(
                name=stored.name,
                key=f"{stored.name} (yours)" if is_known else stored.name,
                origin=SHIPPED if stored.is_shipped else OWN,
                stored=stored,
                weights=_weights(stored.info) if stored.info else None,
                size_bytes=stored.size_bytes,
                problem=stored.problem,
            )
        )
    return [*found, _bundled()]


def _bundled() -> Entry:
    weights, size, problem = None, 0, ""
    try:
        if folder := bundled_folder():
            size = folder_size(folder)
            layers = read_object(folder / "config.json")["num_hidden_layers"]
            weights = _last_layer(layers + 1)
    except LwapError as error:
        problem = str(error)
    return Entry(BUNDLED, BUNDLED, PACKAGE, None, weights, size, problem)


def _weights(info: CheckpointInfo) -> list[float] | None:
    return layer_weights(info) if needs_training(info.pooling) else _last_layer(info.num_states)


def _last_layer(num_states: int) -> list[float]:
    return [0.0] * (num_states - 1) + [1.0]


def chosen_of(found: Sequence[Entry]) -> Entry:
    """Return the entry that is looked into; say so where the chosen one is gone."""
    keys = [entry.key for entry in found]
    if (wanted := st.session_state.pop(_NEXT, None)) in keys:
        st.session_state[_CHOSEN] = wanted
    elif st.session_state.get(_CHOSEN, keys[0]) not in keys:
        gone = st.session_state[_CHOSEN]
        st.session_state[_CHOSEN] = keys[0]
        if _SAID not in st.session_state:
            st.warning(
                f"'{escape(gone)}' is no longer there: it was renamed or deleted.",
                icon=":material/info:",
            )
    linked = st.query_params.get(_CHOSEN)
    chosen = st.session_state.get(_CHOSEN) or (linked if linked in keys else keys[0])
    return found[keys.index(chosen)]


# --- all of them --------------------------------------------------------------------------------


def table(found: Sequence[Entry]) -> None:
    """Draw all models as a table."""
    rows = pd.DataFrame([_row(entry) for entry in found])
    if not rows["State"].any():
        rows = rows.drop(columns="State")
    st.dataframe(
        rows,
        hide_index=True,
        width="stretch",
        column_config={
            "Model": st.column_config.TextColumn(pinned=True),
            "State": st.column_config.TextColumn(width=95),
            "Dev score": st.column_config.TextColumn(
                help="Spearman × 100 on the dev set that the step was chosen on, 95 % interval."
            ),
            "Against mean": st.column_config.TextColumn(
                help="Difference to the untouched encoder's mean on the same pairs, 95 % interval."
            ),
            "MB": st.column_config.NumberColumn(format="%.1f"),
        },
    )


def _row(entry: Entry) -> dict[str, object]:
    row: dict[str, object] = {"Model": entry.key, "State": _state(entry), "Origin": entry.origin}
    row |= dict.fromkeys(["Pooling", "Trained", "Dev score", "Against mean"], "")
    row |= {"MB": entry.size_bytes / 1e6}
    row |= dict.fromkeys(["Dev set", "Data", "Encoder"], "")
    info = entry.info
    if info is not None:
        row |= {
            "Pooling": pooling_words(info),
            "Trained": trained(info),
            "Dev score": in_words(dev_score(info)),
            "Against mean": in_words(gain(info), "+"),
            "Dev set": str(info.results.get("dev_set", "")),
            "Data": info.trained_on,
            "Encoder": _encoder(info),
        }
    elif entry.origin == PACKAGE:
        row |= {"Pooling": "mean", "Trained": "as published", "Encoder": BUNDLED}
    return row


def _state(entry: Entry) -> str:
    """Return what is wrong with a model, in a word."""
    if not entry.problem:
        return ""
    return "damaged" if entry.info is None else "name taken"


def pooling_words(info: CheckpointInfo) -> str:
    """Return a checkpoint's pooling in words, with what differs from the paper's."""
    entry = STRATEGIES.get(info.pooling)
    return entry.in_words(info.options) if entry else info.pooling.replace("_", " ") or "none"


def trained(info: CheckpointInfo) -> str:
    """Return what of a checkpoint was trained: "head", "LoRA", "full", or that none is recorded.

    And how many runs were merged into it, or which checkpoint it started from, if any.
    """
    if not info.training:
        return "not recorded"
    mode = info.training.get("mode")
    what = _TRAINED.get(mode) if isinstance(mode, str) and mode in _TRAINED else _held(info)
    merged, start = info.training.get("merged"), info.training.get("start")
    if isinstance(merged, list):
        return f"{what}, {len(merged)} runs merged"
    return f"{what}, from {start}" if isinstance(start, str) else what


def _held(info: CheckpointInfo) -> str:
    return _CONTENTS[Contents(info.contains)]


def _encoder(info: CheckpointInfo) -> str:
    """Return an encoder's name without what its id or folder says before it."""
    return re.split(r"[/\\]", info.encoder.rstrip("/\\"))[-1]


def in_words(score: Score | None, sign: str = "") -> str:
    """Return a score with its interval, "" without one; with sign "+" as a difference."""
    if score is None:
        return ""
    value, low, high = (
        f"{number:{sign}.2f}".replace("-", "−") for number in (score.value, score.low, score.high)
    )
    return f"{value} [{low}, {high}]"


def gains(info: CheckpointInfo) -> list[str]:
    """Return the recorded differences to the encoder and to the start, and what they mean."""
    start = escape(str(info.training.get("start", "")))
    return [
        f"**Against {what}** {_against(difference)}"
        for what, difference in (
            ("the encoder's mean", gain(info)),
            (f"{start}, where it started,", gain_on_start(info)),
        )
        if difference is not None
    ]


def _against(difference: Score) -> str:
    verdict = "the two cannot be told apart"
    if not difference.low <= 0 <= difference.high:
        verdict = "better on this set" if difference.value > 0 else "worse on this set"
    return f"{in_words(difference, '+')}: {verdict}"


def weights_figure(found: Sequence[Entry], chosen: Entry) -> None:
    """Draw the layer weights of all models that have recorded theirs."""
    drawn = [entry for entry in found if entry.weights is not None]
    if drawn:
        figure = figures.model_weights(
            [entry.weights for entry in drawn],
            [entry.key for entry in drawn],
            selected=drawn.index(chosen) if chosen in drawn else None,
            theme=theme(),
        )
        widgets.show(figure, "model-weights")
    if lacking := [entry.key for entry in found if entry.weights is None]:
        st.caption(f"No weights recorded: {escape(', '.join(lacking))}.")


# --- one of them --------------------------------------------------------------------------------


def choose(found: Sequence[Entry], chosen: Entry) -> None:
    """Draw the menu of models, bound to the link."""
    st.session_state[_CHOSEN] = chosen.key
    st.selectbox(
        "Look into",
        [entry.key for entry in found],
        key=_CHOSEN,
        bind="query-params",
        persist_state="session",
        on_change=_ask_nothing,
    )


def one_model(entry: Entry) -> None:
    """Draw what a model says of itself, and what can be done with it."""
    if entry.problem:
        st.error(escape(entry.problem), icon=":material/error:")
    st.markdown("  \n".join(_facts(entry)))
    _actions(entry)
    asks = st.session_state.get(_ASKS, ("", ""))
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
    if score := dev_score(info):
        dev_set = escape(str(info.results.get("dev_set", "its dev set")))
        lines.append(f"**Dev score** {in_words(score)} on {dev_set}")
    return [*lines, *gains(info), _size_and_place(entry.stored)]


def _size_and_place(stored: StoredModel) -> str:
    whose = "shipped" if stored.is_shipped else "yours"
    return f"**Size** {stored.size_bytes / 1e6:.1f} MB, {whose}, in `{frame.place(stored.folder)}`"


def _actions(entry: Entry) -> None:
    is_own = entry.origin == OWN
    shipped = None if is_own else "Only checkpoints of your own can be changed."
    is_picked = frame.model_name() == entry.name
    with st.container(horizontal=True, gap="xsmall", key="model_actions"):
        st.button(
            "Use this model",
            type="primary",
            on_click=frame.use_model,
            args=(entry.name,),
            disabled=is_picked or bool(entry.problem),
            help="It is the model in the sidebar." if is_picked else None,
            key="model_use",
        )
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
    st.session_state[_ASKS] = (what, entry.key)
    st.session_state[_NEW_NAME] = entry.name


def _ask_nothing() -> None:
    st.session_state.pop(_ASKS, None)


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
            st.button("Leave it", on_click=_ask_nothing, key="model_rename_not")


def _rename(name: str) -> None:
    new = st.session_state[_NEW_NAME].strip()
    try:
        rename(name, new)
    except LwapError as error:
        st.session_state[_SAID] = ("error", str(error))
        return
    _ask_nothing()
    frame.follow_rename(name, new)
    st.session_state[_NEXT] = new
    st.session_state[_SAID] = ("success", f"'{name}' is called '{new}' now.")


def _delete_box(entry: Entry) -> None:
    stored = entry.stored
    beside = what_stays(stored)
    stays = (
        f"What else the run wrote stays: {escape(', '.join(beside))}."
        if beside
        else "Nothing of the run stays."
    )
    with st.container(border=True):
        st.markdown(
            f"**Delete {escape(entry.name)}?** Its weights, its card and its scores are lost "
            f"({stored.size_bytes / 1e6:.1f} MB); there is no way back. {stays}"
        )
        with st.container(horizontal=True):
            st.button(
                "Delete for good",
                type="primary",
                on_click=_delete,
                args=(entry.name,),
                key="model_delete_now",
            )
            st.button("Keep it", on_click=_ask_nothing, key="model_delete_not")


def _delete(name: str) -> None:
    _ask_nothing()
    try:
        stays = delete(name)
    except LwapError as error:
        st.session_state[_SAID] = ("error", str(error))
        return
    rest = f" Of its run stay: {', '.join(stays)}." if stays else ""
    st.session_state[_SAID] = ("success", f"'{name}' is deleted.{rest}")


def say_what_happened() -> None:
    """Say what became of the last thing that was asked for."""
    kind, text = st.session_state.pop(_SAID, ("", ""))
    if kind == "success":
        st.success(escape(text), icon=":material/check:")
    elif kind == "error":
        st.error(escape(text), icon=":material/error:")


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


# --- import -------------------------------------------------------------------------------------


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
            "Name", key=f"models_name_{number}", placeholder="as it calls itself"
        ).strip()
        st.caption(
            "It is verified before it is kept: SHA-256 of each file, classes on the allow-list, "
            "weights from safetensors. Pickles, code and links are refused."
        )
        if not st.form_submit_button("Import", key="models_import_now"):
            return
        try:
            if (uploaded is None) == (not path):
                raise InputError("Choose a zip file, or type a path; one of the two.")
            with st.spinner("Unpacking, checking and loading it. A few seconds."):
                if path:
                    model = import_checkpoint(path, name or None)
                else:
                    model = import_checkpoint(
                        uploaded.getvalue(), name or None, title=uploaded.name
                    )
        except LwapError as error:
            st.error(escape(str(error)), icon=":material/error:")
            return
    st.session_state[_UPLOADS] += 1
    st.session_state[_NEXT] = model.name
    st.session_state[_SAID] = ("success", f"'{model.name}' is imported and verified.")
    st.rerun()
