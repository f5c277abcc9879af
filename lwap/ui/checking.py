"""Checks of training data and estimates of runs, in threads: pages look at what there is so far."""

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
from lwap.ui.work import Registry, Work

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from lwap.training.check import DataCheck
    from lwap.training.config import TrainConfig
    from lwap.training.estimate import Estimate
    from lwap.ui.training_data import Source

KEPT = 6  # checks in memory
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
