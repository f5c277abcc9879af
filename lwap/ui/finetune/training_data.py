"""Where the Fine-tune page's rows come from, and the pairs on which a run's best step is chosen."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from lwap.datasets.download import download
from lwap.datasets.public import PUBLIC_SETS, PublicSet, public_set
from lwap.datasets.readers import FORMATS, data_folder, read_pairs, read_sentences, read_training
from lwap.datasets.tasks import available_tasks, check_scored, read_task, sts_task, task_file
from lwap.encoding.sources import file_sha256
from lwap.errors import InputError, LwapError
from lwap.registry import OBJECTIVES
from lwap.training.declarations import DEFAULT_OBJECTIVE, objective_of
from lwap.ui import files, links, widgets
from lwap.ui.frame import escape
from lwap.ui.state import ASSETS, sample_pairs
from lwap.ui.work import FAILED, Registry, Work

EXAMPLE_TRIPLETS, EXAMPLE_SENTENCES, UPLOAD = (
    "Example: triplets",
    "Example: sentences",
    "A file of yours",
)
HUB = "Hub: "
STSB, EXAMPLE_PAIRS, HELD_OUT, OWN_PAIRS = (
    "STS-B dev",
    "The 120 example pairs",
    "A tenth of the rows, held out",
    "Scored pairs of yours",
)
EXAMPLE_PAIRS_TITLE = "the example pairs"
_STSB_KEY = "stsb-dev"
_NOT_FOR_TRAINING = ("sts", "retrieval")  # folders of what models are evaluated on


@dataclass(frozen=True, eq=False)
class Source:
    """The content of a file: rows to train on, or scored pairs.

    Attributes:
        title: What it is, for the model card.
        shown: How a command names the file.
        sha256: Of the file.
        content: Triplets or pairs as a table, or sentences as a list. Not to be changed.
    """

    title: str
    shown: str
    sha256: str
    content: Any

    @property
    def has_positives(self) -> bool:
        """Whether its rows are triplets or pairs, which can be trained on with supervision."""
        return isinstance(self.content, pd.DataFrame)


# --- rows to train on ---------------------------------------------------------------------------


def data_box() -> tuple[Source, str]:
    """Draw what is trained on, and how; return the rows and the objective.

    Raises:
        InputError: If there is nothing to train on yet, or it cannot be read.
    """
    folder = data_folder()
    found = training_files(folder)
    wanted = [each for each in PUBLIC_SETS if each.kind in ("triplets", "sentences")]
    missing = [each for each in wanted if not (folder / each.files[0].path).is_file()]
    options = [EXAMPLE_TRIPLETS, EXAMPLE_SENTENCES, UPLOAD, *found]
    options += [f"{HUB}{each.name}" for each in missing]
    chosen = _menu(
        "Data",
        options,
        "train_data",
        help="Triplets (sent0, sent1, hard_neg), pairs (sent0, sent1) or sentences: the example, a "
        f"file of yours, files in {folder}, or a public set from the hub.",
    )
    if chosen == UPLOAD:
        source = _uploaded("train_upload", read_any, "Triplets, pairs or sentences", _DATA_HELP)
    elif chosen.startswith(HUB):
        source = _from_hub(public_set(chosen.removeprefix(HUB)), folder)
    elif chosen in (EXAMPLE_TRIPLETS, EXAMPLE_SENTENCES):
        source = _example(chosen)
    else:
        source = _read(str(folder / chosen), files.stamp(folder / chosen), f"$LWAP_DATA/{chosen}")
    return source, _objective(source)


_DATA_HELP = (
    f"{', '.join(FORMATS)} with the columns sent0, sent1 and, for triplets, hard_neg (or anchor, "
    "positive, negative); or sentences: .txt with one a line, or a column sentence."
)


def _example(chosen: str) -> Source:
    name = "triplets.csv" if chosen == EXAMPLE_TRIPLETS else "sentences.csv"
    file = ASSETS / name
    return _read(str(file), files.stamp(file), f"assets/{name}", f"the example {file.stem}")


def _objective(source: Source) -> str:
    """Draw the choice of the objective where there is one."""
    if not source.has_positives:
        st.caption(
            f"{len(source.content):,} sentences: trained without labels (unsupervised), a "
            "sentence and itself under another dropout mask."
        )
        return objective_of(False)
    return widgets.row(
        "Objective",
        list(OBJECTIVES),
        "train_objective",
        default=DEFAULT_OBJECTIVE,
        format_func=lambda name: OBJECTIVES[name].label,
        help=" ".join(f"{each.label}: {each.explanation}" for each in OBJECTIVES.values()),
    )


def training_files(folder: Path) -> list[str]:
    """Return the files in the data folder that can be trained on, as paths below it."""
    found = []
    for pattern in ("*", "*/*"):
        for file in folder.glob(pattern):
            below = file.relative_to(folder)
            is_hidden = any(part.startswith(".") for part in below.parts)
            if (
                file.suffix.lower() in (*FORMATS, ".txt")
                and below.parts[0] not in _NOT_FOR_TRAINING
                and not is_hidden
                and file.is_file()
            ):
                found.append(below.as_posix())
    return sorted(found)


def read_any(content: str | Path | bytes, name: str | None = None) -> Any:
    """Read triplets or pairs as a table, or sentences as a list, whichever the file holds.

    Raises:
        InputError: If it holds neither; the message is about what its ending promises.
    """
    title: Any = name or os.fspath(content)  # bytes come with their name
    if Path(title).suffix.lower() in ("", ".txt"):
        return read_sentences(content, name)
    try:
        return read_training(content, name)
    except InputError as error:
        try:
            return read_sentences(content, name)
        except InputError:
            raise error from None


# --- the pairs that the best step is chosen on --------------------------------------------------


def dev_box(objective: str) -> Source | None:
    """Draw what the best step is chosen on; return the scored pairs, None to hold out rows.

    Raises:
        InputError: If they are not there yet, or cannot be used.
    """
    folder = data_folder()
    options = [STSB] if _STSB_KEY in available_tasks(folder) else []
    options.append(EXAMPLE_PAIRS)
    options += [HELD_OUT] if OBJECTIVES[objective].has_positives else []
    options.append(OWN_PAIRS)
    chosen = _menu(
        "Best step chosen on",
        options,
        "train_dev",
        help="Scored pairs that are like what the model is for. The step with the highest Spearman "
        "on them is kept, so that score is optimistic: judge the model on another set.",
    )
    if chosen == HELD_OUT:
        st.caption("Without scores: how often the right sentence comes first among all others.")
        return None
    if chosen == OWN_PAIRS:
        return _uploaded(
            "train_dev_upload",
            _read_scored,
            "Scored pairs",
            f"{', '.join(FORMATS)} with the columns sentence1, sentence2, score.",
        )
    if chosen == EXAMPLE_PAIRS:
        st.caption("120 pairs are a coarse measure: their interval is several points wide.")
        file = ASSETS / "pairs.csv"
        return _read(
            str(file), files.stamp(file), "assets/pairs.csv", EXAMPLE_PAIRS_TITLE, is_dev=True
        )
    file = task_file(sts_task(_STSB_KEY), folder)
    shown = f"$LWAP_DATA/{file.relative_to(folder).as_posix()}"
    return _read(str(file), files.stamp(file), shown, STSB, is_dev=True)


def _read_scored(content: bytes, name: str) -> pd.DataFrame:
    pairs = read_pairs(content, name)
    check_scored(pairs, name)
    return pairs


def evaluation_sets() -> dict[str, list[str]]:
    """Return the sentences of sets that models are evaluated on, by name: for the check on leaks.

    Not to be changed. A set that cannot be read is left out; the Evaluate page says why.
    """
    folder = data_folder()
    keys = [key for key in available_tasks(folder) if sts_task(key).is_test]
    stamps = files.task_stamps(*keys)
    return _evaluation_sets(str(folder), tuple(zip(keys, stamps, strict=True)))


@st.cache_resource(show_spinner=False, max_entries=2)
def _evaluation_sets(folder: str, files: tuple) -> dict[str, list[str]]:
    sets = {EXAMPLE_PAIRS_TITLE: sample_pairs()}
    for key, _ in files:
        with contextlib.suppress(LwapError):
            sets[sts_task(key).title] = read_task(key, folder)
    return {name: [*pairs["sentence1"], *pairs["sentence2"]] for name, pairs in sets.items()}


# --- files --------------------------------------------------------------------------------------


def _menu(label: str, options: list[str], key: str, **more: Any) -> str:
    if st.session_state.get(key, options[0]) not in options:
        del st.session_state[key]  # a file that is gone, or does not go with the objective
    return st.selectbox(label, options, key=key, **links.BOUND, **more)


# Not cache_data, which would copy half a million rows on every run of the script.
@st.cache_resource(show_spinner=False, max_entries=4)
def _read(
    path: str, stamp: tuple[int, int], shown: str, title: str = "", *, is_dev: bool = False
) -> Source:
    file = Path(path)
    content = read_pairs(file) if is_dev else read_any(file)
    return Source(title or file.name, shown, file_sha256(file), content)


def _uploaded(key: str, read: Callable[[bytes, str], Any], label: str, help_text: str) -> Source:
    def read_source(content: bytes, name: str) -> Source:
        sha256 = hashlib.sha256(content).hexdigest()
        return Source(name, shlex.quote(name), sha256, read(content, name))

    found, is_in_box = files.kept_upload(label, key, read_source, help=help_text)
    if found is None:
        raise InputError(f"There is no file yet. Upload one ({help_text.rstrip('.')}).")
    if not is_in_box:
        st.caption(f"{escape(found.title)}, {len(found.content):,} rows")
    return found


# --- public sets --------------------------------------------------------------------------------


@dataclass(eq=False)
class Download(Work):
    """A public set on its way from the hub; its steps are files."""

    NAME = "the download"

    name: str
    folder: Path
    files: list[Path] = field(default_factory=list)

    def compute(self, models: dict[str, Any]) -> None:
        """Fetch it."""
        self.files = download(self.name, self.folder, progress=self.advance)


@st.cache_resource(show_spinner=False)
def _downloads() -> Registry[Download]:
    return Registry(4)


def _from_hub(chosen: PublicSet, folder: Path) -> Source:
    """Draw a set that is not here yet, and fetch it when asked to.

    Raises:
        InputError: As long as it is not here.
    """
    st.caption(escape(" ".join([chosen.about, *chosen.notes, f"{chosen.licence}."])))
    asked = (chosen.name, str(folder))
    found = _downloads().find(asked)
    if found is not None and found.is_active:
        _follow(found)
    elif st.button(f"Download {chosen.name}", key="train_download"):
        _downloads().start(asked, lambda: Download(chosen.name, folder), {})
        st.rerun()
    if found is not None and found.state == FAILED:
        raise InputError(found.error)
    raise InputError(
        f"'{chosen.name}' is not on this machine yet. Download it, or choose other data."
    )


@st.fragment(run_every=1.0)
def _follow(found: Download) -> None:
    if not found.is_active:
        st.rerun()
    share = found.done / found.total if found.total else 0.0
    st.progress(share, text=f"Fetching {escape(found.name)} from the hub; this can take minutes.")
