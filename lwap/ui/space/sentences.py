"""Where the Space page's sentences come from: the example, a box, a file, a data set."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from lwap.checkpoints.cached import text_digest
from lwap.datasets.readers import FORMATS, SentenceTable, data_folder, read_sentence_table
from lwap.errors import InputError
from lwap.evaluation.spaces import positive_rows
from lwap.evaluation.tasks import standard_tasks
from lwap.projection.neighbours import content_hash
from lwap.ui import files, links, widgets
from lwap.ui.frame import escape
from lwap.ui.state import ASSETS, lines_of

MAX_SENTENCES = 100_000
FEWEST = 5
EXAMPLE, TYPED, FILE, BENCHMARK = KINDS = ["Example", "Typed", "File", "Benchmark"]
_TEXT = "space_text"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Sentences to map.

    Attributes:
        title: What they are, in words.
        table: The sentences with labels and positive pairs.
        digest: A hash of sentences and pairs.
    """

    title: str
    table: SentenceTable
    digest: str

    @classmethod
    def of(cls, title: str, table: SentenceTable) -> Dataset:
        """Make a data set; the hash is over what is measured, not over labels."""
        digest = text_digest(*table.sentences)
        if table.positives is not None:
            digest += content_hash(table.positives)
        return cls(title, table, digest)


def data_box(link: str) -> Dataset:
    """Draw where the sentences come from (closed); return them.

    Raises:
        InputError: If there are too few or too many, or a file cannot be read.
    """
    label = st.session_state.get("space_title", "the example")
    with st.expander(f"Sentences: {escape(label)}", icon=":material/notes:", key="space_sentences"):
        # A default, not a value that is set: Streamlit warns of one beside the other.
        kind = widgets.views(
            "Sentences from", KINDS, "space_data", default=TYPED if links.values(link) else EXAMPLE
        )
        chosen = {
            EXAMPLE: _example,
            TYPED: lambda: _typed(link),
            FILE: _file,
            BENCHMARK: _benchmark,
        }[kind]()
    if kind != TYPED:
        links.put(link, [])
    _say(chosen)
    return chosen


def _say(data: Dataset) -> None:
    table = data.table
    title = f"{data.title}, {len(table):,}"
    if st.session_state.get("space_title") != title:
        st.session_state["space_title"] = title
        st.rerun()  # the box was named before its content was known
    left_out = []
    if table.repeated:
        left_out.append(f"{table.repeated:,} repeated sentences are counted once")
    if table.empty:
        left_out.append(f"{table.empty:,} empty rows are left out")
    if left_out:
        st.caption("; ".join(left_out) + ".")
    if len(table) < FEWEST:
        raise InputError(
            f"A map needs {FEWEST} different sentences or more; there "
            f"{'is' if len(table) == 1 else 'are'} {len(table)}. Open *Sentences* above and add "
            "some, or take the example."
        )
    if len(table) > MAX_SENTENCES:
        raise InputError(
            f"'{data.title}' has {len(table):,} different sentences; this page maps up to "
            f"{MAX_SENTENCES:,}. Take a sample of them."
        )


@st.cache_data(show_spinner=False)
def _read_example() -> Dataset:
    return Dataset.of("the example", read_sentence_table(ASSETS / "sentences.csv"))


def _example() -> Dataset:
    st.caption(
        "204 messages of 12 topics, each said three times: plainly, formally and casually. "
        "Written for this project. The three ways to say one thing are the pairs of the alignment; "
        "many messages use a word that means something else in another topic."
    )
    return _read_example()


def _typed(link: str) -> Dataset:
    if _TEXT not in st.session_state:
        given = links.values(link) or _read_example().table.sentences[:60]
        st.session_state[_TEXT] = "\n".join(given)
    text = st.text_area("Sentences, one a line", key=_TEXT, height=240, persist_state="session")
    lines = lines_of(text)
    if not links.put(link, lines):
        st.caption(links.TOO_LONG.format("These sentences are"))
    return Dataset.of("typed", SentenceTable.of(lines))


def _file() -> Dataset:
    found, _ = files.kept_upload(
        "Your sentences",
        "space_upload",
        lambda content, name: Dataset.of(name, read_sentence_table(content, name)),
        help=f".txt with one sentence a line, or {', '.join(FORMATS)} with a column sentence or "
        "text. Every other column can colour the map; sentences of the same `group` count as "
        f"meaning the same. Up to {MAX_SENTENCES:,} sentences.",
    )
    if found is None:
        raise InputError("There is no file yet. Upload one, or choose the example.")
    return found


def _benchmark() -> Dataset:
    titles = files.sts_titles("The example and your own sentences need neither.")
    folder = str(data_folder())
    key = st.selectbox(
        "Task",
        list(titles),
        format_func=titles.get,
        key="space_task",
        help=f"From {folder}. Its distinct sentences are mapped; its best scored pairs are the "
        "pairs of the alignment.",
        **links.BOUND,
    )
    return _read_benchmark(folder, key, titles[key], files.task_stamps(key))


@st.cache_data(show_spinner=False, max_entries=3)
def _read_benchmark(folder: str, key: str, title: str, changed: tuple) -> Dataset:
    (task,) = standard_tasks(folder, [key])
    texts, positives, _ = positive_rows(task)
    subset_of: dict[str, str] = {}
    if task.subsets is not None:
        for a, b, subset in zip(task.first, task.second, task.subsets, strict=True):
            subset_of.setdefault(a, subset)
            subset_of.setdefault(b, subset)
    labels = {"subset": tuple(subset_of[text] for text in texts)} if subset_of else {}
    pairs = positives if len(positives) else None  # all may be of a sentence with itself
    return Dataset.of(title, SentenceTable(tuple(texts), labels, {}, pairs, 0, 0))
