"""What is evaluated: data, models, whitening; and the run."""

from __future__ import annotations

import streamlit as st

from lwap.checkpoints.cached import WhitenOn
from lwap.datasets.readers import FORMATS, data_folder, read_pairs, read_sentences
from lwap.datasets.tasks import sts_task
from lwap.errors import InputError
from lwap.evaluation.tasks import Task, standard_tasks
from lwap.ui import cache, files, frame, widgets
from lwap.ui.evaluate import evaluations
from lwap.ui.evaluate.evaluations import Evaluation, Request
from lwap.ui.evaluate.grid import grid
from lwap.ui.evaluate.sets import is_sample
from lwap.ui.frame import escape, say_error
from lwap.ui.state import phenomena, sample_pairs
from lwap.ui.work import DONE, FAILED, STOPPED

SAMPLE, STANDARD_SETS, OWN = DATA = ["Sample", "Standard tasks", "Your file"]


def request(model: str) -> tuple[Request, list[Task], WhitenOn | None, list[str]]:
    """Draw the choice of data, second model and options; return what to evaluate and to show.

    Raises:
        InputError: If the data cannot be used; the message says why.
    """
    left, middle, right = st.columns([6, 6, 4], gap="large")
    with left:
        data = widgets.row("Data", DATA, "data")
    with right:
        second = frame.second_model(
            "Second model",
            "second",
            none="none",
            help="Scored on the same resamples, so that the difference has an interval.",
        )
    with middle:
        tasks = {SAMPLE: _sample, STANDARD_SETS: _standard, OWN: _own}[data]()
    models = (model,) if second == model else (model, second)
    for name in models:
        cache.facts(name)  # loads it, or says why it cannot be
    with st.expander("Strategies and whitening"):
        strategies = widgets.strategy_menu("evaluate_strategies", cache.facts(model))
        whiten_on = _whitening()
    return (
        Request(
            models=models,
            data=tuple(task.sha256 for task in tasks),
            titles=tuple(task.name for task in tasks),
            whiten_on=whiten_on.digest if whiten_on else "",
            fingerprints=tuple(map(cache.fingerprint, models)),
        ),
        tasks,
        whiten_on,
        strategies,
    )


def _sample() -> list[Task]:
    st.caption(
        "120 pairs written for this project, 15 on each of the 8 phenomena of the Pairs page, "
        "scored 0–5 by a written rule. It is too small to decide "
        "anything; it shows what to look for."
    )
    table = sample_pairs()
    return [
        Task.from_pairs(table[table["subset"] == entry["id"]], entry["title"])
        for entry in phenomena()
    ]


def _standard() -> list[Task]:
    titles = files.sts_titles("The sample and your own files need neither.")
    folder = data_folder()
    chosen = st.multiselect(
        "Tasks",
        list(titles),
        default=[key for key in titles if sts_task(key).is_test],
        format_func=titles.get,
        key="tasks",
        persist_state="session",
        help=f"From {folder}. Choose settings on the dev sets and report on the others.",
    )
    if not chosen:
        raise InputError("No task is chosen. Pick at least one.")
    return _read_standard(str(folder), tuple(chosen), files.task_stamps(*chosen))


@st.cache_data(show_spinner=False, max_entries=4)
def _read_standard(folder: str, keys: tuple[str, ...], changed: tuple) -> list[Task]:
    return standard_tasks(folder, keys)


def _own() -> list[Task]:
    task, is_in_box = files.kept_upload(
        "Labelled pairs",
        "evaluate_upload",
        lambda content, name: Task.from_pairs(read_pairs(content, name), name),
        help=f"{', '.join(FORMATS)} with the columns sentence1, sentence2, score and, if it has "
        "parts, subset. A score can be on any scale; higher is more similar.",
    )
    if task is None:
        raise InputError("There is no file yet. Upload labelled pairs, or choose the sample.")
    if not is_in_box:
        st.caption(f"{escape(task.name)}: {len(task):,} pairs")
    return [task]


def _whitening() -> WhitenOn | None:
    key = "evaluate_whiten"

    def forget_removed() -> None:
        if st.session_state[key] is None:
            files.forget_upload(key)

    corpus, is_in_box = files.kept_upload(
        "Sentences to fit whitening on",
        key,
        _read_corpus,
        help="Adds a whitened version of every strategy. Take text like your own, more sentences "
        "than dimensions. Sentences of the scored pairs are left out of the fit.",
        on_change=forget_removed,
    )
    if corpus is None:
        return None
    left, right = st.columns([4, 1], vertical_alignment="center")
    left.caption(
        f"Whitening is fitted on {escape(corpus.name)}: {len(corpus.sentences):,} sentences"
    )
    # A file that is still in the box is removed there.
    if not is_in_box and right.button("Remove", key="evaluate_no_whitening"):
        files.forget_upload(key)
        st.rerun()
    return corpus


def _read_corpus(content: bytes, name: str) -> WhitenOn:
    return WhitenOn(name, tuple(dict.fromkeys(read_sentences(content, name))))


def run(asked: Request, tasks: list[Task], whiten_on: WhitenOn | None) -> Evaluation:
    """Draw the button; return the evaluation to show, ending the page where there is none yet.

    Raises:
        LwapError: If a model cannot be loaded.
    """
    found = evaluations.find(asked)
    if found is None and is_sample(tasks) and not asked.whiten_on:
        found = evaluations.start(asked, tasks, whiten_on)
    if found is None or found.state in (FAILED, STOPPED):
        if found is not None and found.error:
            say_error(found.error)
        elif found is not None:
            st.info(widgets.ENCODED_IS_KEPT)
        count = sum(map(len, tasks))
        sets = f"{len(tasks)} tasks, " if len(tasks) > 1 else ""
        if st.button(f"Evaluate ({sets}{count:,} pairs)", type="primary", key="evaluate_run"):
            evaluations.start(asked, tasks, whiten_on)
            st.rerun()
        if found is not None and found.result is not None:
            finished = len(found.result.tasks)
            st.info(f"Below are the {finished} of {len(tasks)} tasks that were finished.")
            return found
        shown = st.session_state.get("evaluate_shown")
        earlier = evaluations.find(shown) if shown is not None else None
        if earlier is None or earlier.result is None:
            st.stop()
        st.info(
            f"Below is the result of an earlier choice: {escape(', '.join(shown.models))} on "
            f"{escape(', '.join(shown.titles))}. Press the button for the one above.",
            icon=":material/history:",
        )
        return earlier
    if found.state == DONE:
        st.session_state["evaluate_shown"] = asked
    return found


def follow(evaluation: Evaluation) -> None:
    """Draw progress and the tasks that are finished until it has ended; end the page."""

    def so_far() -> None:
        if evaluation.result is not None:
            grid(evaluation.result, key="strategy-grid-so-far")

    widgets.follow(
        evaluation,
        "Sentences encoded:",
        "Looking up what is known already.",
        "evaluate_stop",
        so_far,
    )
    st.stop()
