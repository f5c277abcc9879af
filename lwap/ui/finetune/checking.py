"""The check of a run before it starts: computed in a thread, drawn as a card as far as it is."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from lwap.checkpoints.manifest import Contents, find_checkpoint, runs_folder, starting_checkpoint
from lwap.encoding.sources import HUB_IGNORED, HUB_PATTERNS, bundled_folder, is_bundled_name
from lwap.errors import LwapError
from lwap.ui.finetune.known import duration
from lwap.ui.frame import escape
from lwap.ui.work import Registry, Work

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from lwap.training.check import DataCheck
    from lwap.training.config import TrainConfig
    from lwap.training.estimate import Estimate
    from lwap.ui.finetune.training_data import Source

KEPT = 6  # checks in memory
FETCH = "train_fetch"  # the encoder that is to be fetched from the hub
_SHOWN_NOTES = 3  # rows that are named for each reason
READING, LOADING, COUNTING, TIMING = (
    "Reading the rows",
    "Loading the encoder",
    "Counting tokens",
    "Timing a few sentences on this machine",
)


@dataclass(frozen=True)
class Request:
    """What is checked: plain values, by which the same request is recognised.

    Attributes:
        config: The settings.
        data, dev: SHA-256 of the files; "" without a dev set.
        evaluation: Names of the sets that are looked through for leaks.
        is_asked: Whether the encoder is looked at: it is here, or is to be fetched.
    """

    config: TrainConfig
    data: str
    dev: str
    evaluation: tuple[str, ...]
    is_asked: bool


@dataclass(eq=False)
class Check(Work):
    """One check, and how far it is.

    Attributes:
        request: What was asked for.
        data, dev: The rows, and the scored pairs or None.
        evaluation: Sentences of sets to look through for leaks, by name.
        stage: What it does, in words.
        result: What was found in the data; lengths come last.
        estimate: What the run takes; None before that is known.
        refusal: Why the encoder cannot be used, or "".
    """

    NAME = "the check of the data"

    request: Request
    data: Source
    dev: Source | None
    evaluation: Mapping[str, Sequence[str]] = field(repr=False)
    stage: str = READING
    result: DataCheck | None = None
    estimate: Estimate | None = None
    refusal: str = ""

    def compute(self, models: dict[str, Any]) -> None:
        """Check, load the encoder, count, estimate; each is there for the page at once."""
        from lwap.training.estimate import estimate

        config = self.request.config
        pairs = None if self.dev is None else self.dev.content
        self.result = self._check()
        self.check()
        if self.result.problems or not self.request.is_asked:
            return
        self.stage = LOADING
        try:
            encoder = _encoder(config.encoder, _changed(config.encoder))
        except LwapError as error:
            self.refusal = str(error)
            return
        self.check()
        self.stage = COUNTING
        self.result = self._check(encoder)
        self.check()
        self.stage = TIMING
        self.estimate = estimate(config, self.result, encoder, pairs, folder=runs_folder())

    def _check(self, encoder: SentenceTransformer | None = None) -> DataCheck:
        return check_sources(
            self.request.config, self.data, self.dev, evaluation=self.evaluation, encoder=encoder
        )

    @property
    def problems(self) -> list[str]:
        """Why a run would be refused, or would not end well."""
        found = [*self.result.problems] if self.result else []
        found += [self.error, self.refusal]
        found += self.estimate.problems if self.estimate else []
        return [problem for problem in found if problem]


def check_sources(config: TrainConfig, data: Source, dev: Source | None, **more: Any) -> DataCheck:
    """Return what `check_data` finds in two sources."""
    from lwap.training.check import check_data

    if dev is None:
        return check_data(config, data.content, **more)
    return check_data(config, data.content, dev.content, dev_name=dev.title, **more)


@st.cache_resource(show_spinner=False)
def _registry() -> Registry[Check]:
    return Registry(KEPT)


def find(request: Request) -> Check | None:
    """Return the check of a request, if it was asked for since the server started."""
    return _registry().find(request)


def start(
    request: Request,
    data: Source,
    dev: Source | None,
    evaluation: Mapping[str, Sequence[str]],
    before: Request | None = None,
) -> Check:
    """Return the check of a request; start it where there is none, or it was stopped.

    Args:
        request: What is checked.
        data, dev, evaluation: Its content.
        before: What was asked for before; nobody waits for that any longer.
    """
    if before is not None and before != request and (old := find(before)) and old.is_active:
        old.stop()
    found = find(request)
    if found is not None and found.error:
        return found  # it failed and would fail again
    return _registry().start(request, lambda: Check(request, data, dev, evaluation), {})


# --- the encoder --------------------------------------------------------------------------------


def is_here(encoder: str) -> bool:
    """Say whether an encoder can be loaded without asking the hub."""
    if is_bundled_name(encoder) and bundled_folder() is not None:
        return True
    if os.path.isdir(os.path.expanduser(encoder)):
        return True
    try:
        checkpoint = starting_checkpoint(encoder)
    except LwapError:
        return True  # it is damaged: loading says so without asking anybody
    if checkpoint is not None:
        return checkpoint.contains == Contents.ENCODER or is_here(checkpoint.encoder)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        snapshot_download(
            encoder,
            allow_patterns=list(HUB_PATTERNS),
            ignore_patterns=list(HUB_IGNORED),
            local_files_only=True,
        )
    except HFValidationError:
        return True  # it is no id: loading says so without asking anybody
    except Exception:  # not in the hub's cache, or its cache cannot be read
        return False
    return True


def _changed(encoder: str) -> int:
    folder = find_checkpoint(encoder) or Path(os.path.expanduser(encoder))
    try:
        return max((entry.stat().st_mtime_ns for entry in os.scandir(folder)), default=0)
    except OSError:
        return 0


@functools.lru_cache(maxsize=1)
def _encoder(name: str, changed: int) -> SentenceTransformer:
    """Return the encoder that a run would start from; the last one is kept.

    Raises:
        LwapError: If a run could not start from it.
    """
    from lwap.checkpoints.load import identify_encoder, load

    identify_encoder(name)
    return load(name)


# --- the card ------------------------------------------------------------------------------------


def card(found: Check) -> None:
    """Draw what is known of the data and of the run."""
    with st.container(border=True, key="train_check"):
        if found.is_active:
            _follow(found)
        else:
            _draw(found)


@st.fragment(run_every=0.5)
def _follow(found: Check) -> None:
    if not found.is_active:
        st.rerun()
    _draw(found)


def _draw(found: Check) -> None:
    result = found.result
    if result is None:
        if found.is_active:
            st.caption(f"**Check.** {found.stage} …")
        return
    rows, lengths, course, machine = st.columns(4)
    rows.markdown(_rows_words(result))
    lengths.markdown(_lengths_words(result, found))
    if result.lengths:
        with lengths:
            _histogram(result)
    course.markdown(_course_words(result))
    machine.markdown(_machine_words(found))
    if dropped := _dropped_words(result):
        st.caption(dropped)
    for warning in result.warnings:
        st.warning(escape(warning), icon=":material/info:")
    if not found.request.is_asked and not result.problems:
        encoder = found.request.config.encoder
        left, right = st.columns([4, 1], vertical_alignment="center")
        left.caption(
            f"'{escape(encoder)}' is not on this machine; the run fetches it from the hub. "
            "Lengths, time and memory are known once it is here."
        )
        if right.button("Fetch it now", key="train_fetch_now"):
            st.session_state[FETCH] = encoder
            st.rerun()


def _rows_words(result: DataCheck) -> str:
    lines = [f"**{result.rows:,} {result.unit}** to train on"]
    if result.rows_held_out:
        lines.append(f"{result.rows_held_out:,} held out")
    lost = result.rows_read - result.rows_kept
    lines.append(f"{lost:,} of {result.rows_read:,} left out")
    sets = ", ".join(escape(leak.name) for leak in result.leaks)
    lines.append(f"Leaks into: {sets}" if sets else "No leaks into evaluation sets")
    return "  \n".join(lines)


def _dropped_words(result: DataCheck) -> str:
    parts = [
        f"**{escape(each.reason)}: {each.count:,}.** {escape(' '.join(each.notes[:_SHOWN_NOTES]))}"
        for each in result.dropped
    ]
    return "Left out. " + " ".join(parts) if parts else ""


def _lengths_words(result: DataCheck, found: Check) -> str:
    lengths = result.lengths
    if lengths is None:
        wait = f"{found.stage} …" if found.is_active else "not known yet"
        return f"**Tokens a sentence**  \n{wait}"
    limit = f"limit {lengths.limit:,}" if lengths.limit else "no limit"
    cut = f", {lengths.truncated:,} cut" if lengths.truncated else ""
    return (
        f"**{lengths.median:.0f} tokens** a sentence  \n"
        f"95 % up to {lengths.high:.0f}, longest {lengths.most:,}  \n{limit}{cut}"
    )


def _histogram(result: DataCheck) -> None:
    """Draw how many sentences have how many tokens, as small bars in the text's own colour."""
    counts = result.lengths.counts
    high = max(counts)
    bars = "".join(
        f'<i style="height:{max(1, round(22 * count / high)) if count else 0}px"></i>'
        for count in counts
    )
    st.html(
        "<style>.lengths{display:flex;align-items:flex-end;gap:1px;height:22px;opacity:.55}"
        ".lengths i{flex:1;max-width:9px;background:currentColor}</style>"
        f'<div class="lengths" role="img" aria-label="Sentences by tokens, from '
        f'{result.lengths.least} to {result.lengths.most}">{bars}</div>'
    )


def _course_words(result: DataCheck) -> str:
    lines = [f"**{result.steps:,} steps**", f"{result.steps_an_epoch:,} an epoch"]
    false = result.false_negatives
    if false is not None:
        lines.append(f"{100 * false.share:.2f} % false negatives")
    return "  \n".join(lines)


def _machine_words(found: Check) -> str:
    estimate = found.estimate
    if estimate is None:
        wait = f"{found.stage} …" if found.is_active else "not known yet"
        return f"**On this machine**  \n{wait}"
    lines = [f"**About {duration(estimate.total_seconds)}** on this machine"]
    lines += [
        f"{_gigabytes(each.total)} of {_gigabytes(each.free)} free memory"
        + ("" if each.device == "cpu" else f" on {each.device}")
        for each in estimate.memory
    ]
    lines.append(f"{_gigabytes(estimate.disk)} on disk")
    return "  \n".join(lines)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"
