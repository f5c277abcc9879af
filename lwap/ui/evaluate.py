"""The parts of the Evaluate page: data, run, grid, and the views below it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import streamlit as st
from scipy.stats import rankdata

from lwap import figures
from lwap.checkpoints.cached import WhitenOn
from lwap.datasets.catalogue import STS_TASKS, available_tasks, sts_task, task_file
from lwap.datasets.readers import FORMATS, MAX_MEGABYTES, data_folder, read_pairs, read_sentences
from lwap.errors import InputError, LwapError
from lwap.evaluation.benchmark import AVERAGE, Task, standard_tasks
from lwap.evaluation.bootstrap import percentile_interval
from lwap.evaluation.slices import MIN_PAIRS, slice_pairs
from lwap.evaluation.sts import COSINE_DECIMALS, Aggregation, correlations
from lwap.pooling.declarations import needs_training
from lwap.reports.report import html_report, latex_table, layer_names
from lwap.ui import cache, evaluations, pairs, widgets
from lwap.ui.evaluations import DONE, FAILED, STOPPED, Evaluation, Request
from lwap.ui.frame import escape, theme
from lwap.ui.state import phenomena, sample_pairs

if TYPE_CHECKING:
    from lwap.evaluation.benchmark import StsResult

SAMPLE, STANDARD_SETS, OWN = DATA = ["Sample", "Standard tasks", "Your file"]
CURVE, SPACE, ERRORS, SLICES, DIFFERENCES = VIEWS = [
    "Layer curve",
    "Alignment and uniformity",
    "Errors",
    "Slices",
    "Differences",
]
GOLD, OTHER = AGAINST = ["Gold scores", "Another strategy"]
NO_OTHER = "none"
TOGETHER = "all together"
DRAWN = 5000  # points of the scatter
LISTED = 200  # rows of the table below it
IN_SLICES = 8  # strategies
NOTHING_RANKED = (
    "No strategy tells these pairs apart: there is nothing to rank. Choose other strategies above, "
    "or pairs of sentences that differ."
)


# --- what is asked for --------------------------------------------------------------------------


def request(model: str) -> tuple[Request, list[Task], WhitenOn | None, list[str]]:
    """Draw the choice of data, second model and options; return what to evaluate and to show.

    Raises:
        InputError: If the data cannot be used; the message says why.
    """
    left, middle, right = st.columns([6, 6, 4], gap="large")
    with left:
        data = st.segmented_control(
            "Data",
            DATA,
            default=SAMPLE,
            key="data",
            bind="query-params",
            persist_state="session",
            required=True,
        )
    with right:
        others = [name for name in cache.checkpoint_names() if name != model]
        other = st.selectbox(
            "Second model",
            [NO_OTHER, *others],
            key="second",
            bind="query-params",
            persist_state="session",
            accept_new_options=True,
            help="Scored on the same resamples, so that the difference has an interval.",
        )
    with middle:
        tasks = {SAMPLE: _sample, STANDARD_SETS: _standard, OWN: _own}[data]()
    models = (model,) if other in (NO_OTHER, model, None) else (model, other)
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
        "scored 0–5 by a written rule. It is small: it raises questions and decides none."
    )
    table = sample_pairs()
    return [
        Task.from_pairs(table[table["subset"] == entry["id"]], entry["title"])
        for entry in phenomena()
    ]


def _standard() -> list[Task]:
    folder = data_folder()
    there = available_tasks(folder)
    if not there:
        raise InputError(
            f"There are no STS tasks in '{folder}'. Get them with `python -m lwap data download "
            "sts`, or name their folder in LWAP_DATA and start the app again. The sample and your "
            "own files need neither."
        )
    titles = {task.key: task.title for task in STS_TASKS if task.key in there}
    default = [task.key for task in STS_TASKS if task.is_test and task.key in there]
    chosen = st.multiselect(
        "Tasks",
        list(titles),
        default=default,
        format_func=titles.get,
        key="tasks",
        persist_state="session",
        help=f"From {folder}. Choose settings on the dev sets and report on the others.",
    )
    if not chosen:
        raise InputError("No task is chosen. Pick at least one.")
    files = [task_file(sts_task(key), folder).stat() for key in chosen]
    changed = tuple((file.st_mtime_ns, file.st_size) for file in files)
    return _read_standard(str(folder), tuple(chosen), changed)


@st.cache_data(show_spinner=False, max_entries=4)
def _read_standard(folder: str, keys: tuple[str, ...], changed: tuple) -> list[Task]:
    return standard_tasks(folder, keys)


def _own() -> list[Task]:
    uploaded = st.file_uploader(
        "Labelled pairs",
        help=f"{', '.join(FORMATS)} with the columns sentence1, sentence2, score and, if it has "
        "parts, subset. A score can be on any scale; higher is more similar.",
        key="evaluate_upload",
        max_upload_size=MAX_MEGABYTES,
    )
    if uploaded is not None and st.session_state.get("evaluate_upload_id") != uploaded.file_id:
        # Kept apart from the widget: that one forgets its file when the page changes.
        pairs_read = read_pairs(uploaded.getvalue(), uploaded.name)
        st.session_state["evaluate_task_of_file"] = Task.from_pairs(pairs_read, uploaded.name)
        st.session_state["evaluate_upload_id"] = uploaded.file_id
    task = st.session_state.get("evaluate_task_of_file")
    if task is None:
        raise InputError("There is no file yet. Upload labelled pairs, or choose the sample.")
    if uploaded is None:
        st.caption(f"{escape(task.name)}: {len(task):,} pairs")
    return [task]


def _whitening() -> WhitenOn | None:
    def forget_removed() -> None:
        if st.session_state["evaluate_whiten"] is None:
            st.session_state.pop("evaluate_corpus", None)

    uploaded = st.file_uploader(
        "Sentences to fit whitening on",
        help="Adds the whitened twin of every strategy. Take text like your own, but not the pairs "
        "that are scored; such sentences are left out of the fit. More sentences than dimensions.",
        key="evaluate_whiten",
        max_upload_size=MAX_MEGABYTES,
        on_change=forget_removed,
    )
    if uploaded is not None and st.session_state.get("evaluate_whiten_id") != uploaded.file_id:
        sentences = tuple(dict.fromkeys(read_sentences(uploaded.getvalue(), uploaded.name)))
        st.session_state["evaluate_corpus"] = WhitenOn(uploaded.name, sentences)
        st.session_state["evaluate_whiten_id"] = uploaded.file_id
    corpus = st.session_state.get("evaluate_corpus")
    if corpus is None:
        return None
    left, right = st.columns([4, 1], vertical_alignment="center")
    left.caption(
        f"Whitening is fitted on {escape(corpus.name)}: {len(corpus.sentences):,} sentences"
    )
    # A file that is still in the box is removed there.
    if uploaded is None and right.button("Remove", key="evaluate_no_whitening"):
        del st.session_state["evaluate_corpus"]
        st.rerun()
    return corpus


def run(asked: Request, tasks: list[Task], whiten_on: WhitenOn | None) -> Evaluation:
    """Draw the button; return the evaluation to show, ending the page where there is none yet.

    Raises:
        LwapError: If a model cannot be loaded.
    """
    found = evaluations.find(asked)
    if found is None and _is_sample(tasks) and not asked.whiten_on:
        found = evaluations.start(asked, tasks, whiten_on)
    if found is None or found.state in (FAILED, STOPPED):
        if found is not None and found.error:
            st.error(escape(found.error), icon=":material/error:")
        elif found is not None:
            st.info("Stopped. What was encoded is kept; a new run goes on from there.")
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


@st.fragment(run_every=1.0)
def follow(evaluation: Evaluation) -> None:
    """Draw progress and the tasks that are finished, anew every second, until it has ended."""
    if not evaluation.is_active:
        st.rerun()
    if evaluation.state == evaluations.WAITING:
        st.progress(0.0, text="Another evaluation is running; this one is next.")
    elif evaluation.total:
        share = evaluation.done / evaluation.total
        text = f"Sentences encoded: {evaluation.done:,} of {evaluation.total:,}"
        if evaluation.remaining is not None:
            text += f", about {evaluation.remaining:.0f} s more"
        st.progress(share, text=text)
    else:
        st.progress(0.0, text="Looking up what is known already.")
    if st.button("Stop", key="evaluate_stop"):
        evaluation.stop()
    if evaluation.result is not None:
        grid(evaluation.result, key="strategy-grid-so-far")


# --- the grid -----------------------------------------------------------------------------------


def chosen_columns(result: StsResult, model: str, strategies: list[str]) -> StsResult:
    """Return the result of the chosen strategies, their whitened twins, and every single layer.

    What two models on one encoder have in common stands once. Of models other than `model`, whose
    strategies were chosen from, their own one is there in any case.
    """
    others = [name for name in result.models if name != model]
    wanted = [
        place
        for place, column in enumerate(result.columns)
        if column.is_layer
        or column.strategy.removesuffix("+whiten") in strategies
        or (column.model in others and column.strategy == result.own[column.model])
    ]
    # Each model's strategies, then its layers.
    order = {model: place for place, model in enumerate(result.models)}
    key = [(order[column.model], column.is_layer) for column in result.columns]
    return result.select(sorted(wanted, key=lambda place: key[place])).distinct()


def grid(result: StsResult, *, key: str = "strategy-grid") -> None:
    """Draw strategies and layers × tasks."""
    low, high = result.bounds()
    widgets.show(
        figures.strategy_grid(
            result.values(),
            result.labels,
            result.task_names,
            low=low,
            high=high,
            tied=result.tied(),
            theme=theme(),
        ),
        key,
        on_select=lambda: _choose_clicked(key, result),
        selection_mode="points",
    )


def _choose_clicked(key: str, result: StsResult) -> None:
    place = widgets.clicked(key)
    if len(place) == 2:
        row, column = map(int, place)
        st.session_state["evaluate_strategy"] = result.labels[row]
        if result.task_names[column] != AVERAGE:
            st.session_state["evaluate_task"] = result.task_names[column]


def say_mismatch(result: StsResult) -> None:
    """Say what a model loses or gains by another pooling than it was trained with."""
    table = result.mismatch()
    for model, rows in table[table["significant"]].groupby("model", sort=False):
        parts = []
        for verb, some, sign in (
            ("loses with", rows[rows["cost"] > 0].sort_values("cost"), 1),
            ("gains with", rows[rows["cost"] < 0].sort_values("cost"), -1),
        ):
            found = ", ".join(
                "{} {:.2f} [{:.2f}, {:.2f}]".format(
                    escape(row["strategy"]),
                    sign * row["cost"],
                    *sorted((sign * row["low"], sign * row["high"])),
                )
                for _, row in some.iterrows()
            )
            if found:
                parts.append(f"it {verb} {found}")
        own = escape(rows["trained_with"].iloc[0])
        st.caption(
            f"**{escape(model)} was trained with {own}.** Read with another pooling, in Spearman "
            f"× 100: {'; '.join(parts)}."
        )


# --- the views ----------------------------------------------------------------------------------


def layer_curve(result: StsResult) -> None:
    """Draw Spearman by state with its interval, for one task or the average."""
    names = result.task_names
    task = names.index(_menu("Task", names, "evaluate_curve_task", default=names[-1]))
    values, (low, high) = result.values(), result.bounds()
    groups = _by_encoder(result)
    parts = st.columns(len(groups), gap="large")
    for number, (part, (encoder, rows)) in enumerate(zip(parts, groups.items(), strict=True)):
        place = {result.columns[row].strategy: row for row in rows if result.columns[row].is_layer}
        cls, mean = (
            [place[name] for name in layer_names(kind, place)]
            for kind in ("layer_cls", "layer_mean")
        )
        references = {
            result.labels[row]: float(values[row, task])
            for row in rows
            if not result.columns[row].is_layer
        }
        with part:
            if len(groups) > 1:
                st.caption(escape(encoder))
            widgets.show(
                figures.layer_curve(
                    values[cls, task],
                    values[mean, task],
                    cls_low=low[cls, task],
                    cls_high=high[cls, task],
                    mean_low=low[mean, task],
                    mean_high=high[mean, task],
                    references=references,
                    theme=theme(),
                ),
                f"layer-curve-{number}",
            )
    st.caption(
        f"Spearman × 100 of each state alone on {escape(names[task])}; bands are 95 % bootstrap "
        "intervals. Marks at the right edge are the strategies."
    )


def space(evaluation: Evaluation, result: StsResult) -> None:
    """Draw the alignment–uniformity plane of each model, and its numbers."""
    sets = _sets(result)
    default = "STS-B" if "STS-B" in sets else next(iter(sets))
    task, _ = sets[_menu("Task", list(sets), "evaluate_space_task", default=default)]
    groups = _by_encoder(result)
    parts = st.columns(len(groups), gap="large")
    for number, (part, (encoder, rows)) in enumerate(zip(parts, groups.items(), strict=True)):
        with part:
            tables = []
            for model in dict.fromkeys(result.columns[row].model for row in rows):
                own = [row for row in rows if result.columns[row].model == model]
                names = [result.columns[row].strategy for row in own]
                with widgets.progress("Strategies measured", len(names), least=2) as progress:
                    found = evaluations.geometry(evaluation, model, task, names, progress)
                label = dict(zip(names, (result.labels[row] for row in own), strict=True))
                tables.append(found.table.assign(strategy=found.table["strategy"].map(label)))
            table = pd.concat(tables, ignore_index=True)
            if len(groups) > 1:
                st.caption(escape(encoder))
            widgets.show(
                figures.alignment_uniformity(
                    table["alignment"].to_numpy(),
                    table["uniformity"].to_numpy(),
                    table["strategy"].tolist(),
                    theme=theme(),
                ),
                f"alignment-uniformity-{number}",
            )
            if not found.is_exact:
                widest = (table["high"] - table["low"]).max()
                st.caption(f"Uniformity is sampled here: its widest 95 % interval is {widest:.3f}.")
            with st.expander("Numbers"):
                st.dataframe(
                    table,
                    hide_index=True,
                    width="stretch",
                    column_config={
                        name: st.column_config.NumberColumn(label, format="%.3f", help=text)
                        for name, label, text in _GEOMETRY
                    },
                )
                st.download_button(
                    "Geometry (CSV)",
                    table.to_csv(index=False),
                    f"lwap-geometry-{encoder}.csv".replace("/", "-"),
                    "text/csv",
                    key=f"geometry-csv-{number}",
                )
    st.caption(
        f"{found.sentences:,} sentences of {escape(task.name)}; alignment over its "
        f"{found.positives:,} pairs with a score of {found.positive_at:g} or more. Towards the "
        "lower left, pairs that mean the same are near and the rest is spread out. Strategies "
        "that give every sentence the same vector have no place here."
    )


_GEOMETRY = (
    ("alignment", "alignment ↓", "Mean squared distance of positive pairs."),
    ("uniformity", "uniformity ↓", "Log of the mean Gaussian potential of all pairs."),
    ("low", "low", "Lower end of uniformity's interval, where it is sampled."),
    ("high", "high", "Upper end of it."),
    ("mean_random_cosine", "cosine → 0", "Mean cosine of all pairs of sentences."),
    ("effective_rank", "effective rank ↑", "How many directions are used."),
    ("isoscore", "IsoScore ↑", "How evenly variance spreads over the directions, 0–1."),
)


@st.fragment
def errors(result: StsResult) -> None:
    """Draw gold against predicted; the chosen pairs as a table; one pair layer by layer."""
    sets, values = _sets(result), result.values()
    usable = [label for row, label in enumerate(result.labels) if not np.isnan(values[row]).all()]
    if not usable:
        st.info(NOTHING_RANKED)
        return
    left, middle, right = st.columns(3)
    with left:
        name = _menu("Task", list(sets), "evaluate_task")
    with middle:
        of = dict(zip(result.labels, result.columns, strict=True))
        trained = (label for label in usable if needs_training(of[label].strategy))
        default = next(trained, usable[0])
        label = _menu("Strategy", usable, "evaluate_strategy", default=default)
    with right:
        against = st.segmented_control(
            "Against",
            AGAINST,
            default=GOLD,
            key="evaluate_against",
            persist_state="session",
            required=True,
        )
    (task, all_cosines), row = sets[name], result.labels.index(label)
    # Files may have the same name.
    cosines, shown = all_cosines[row], (name, label, task.sha256[:8])
    if against == OTHER:
        others = [name for name in usable if name != label]
        if not others:
            st.info("There is only one strategy here. Choose more above.")
            return
        with right:
            other = _menu("Other strategy", others, "evaluate_other")
        compared = all_cosines[result.labels.index(other)]
        title = f"cosine, {other}"
    else:
        compared, title = task.gold, "score"
    error = _rank_share(cosines) - _rank_share(compared)
    if against == GOLD:
        _scatter(task, cosines, label, shown)
    picked = st.session_state.get("evaluate_picked", {})
    chosen = np.array(picked.get(shown, ()) if against == GOLD else (), dtype=int)
    listed = chosen if len(chosen) else np.arange(len(task))
    listed = listed[np.argsort(-np.abs(error[listed]), kind="stable")][:LISTED]
    if len(chosen):
        left, right = st.columns([5, 1], vertical_alignment="center")
        left.caption(_chosen_in_words(len(chosen), len(listed)))
        # The figure forgets its selection when it is drawn anew, and cannot be asked to clear it.
        right.button(
            "All pairs",
            key="evaluate_all_pairs",
            on_click=picked.pop,
            args=(shown,),
            width="stretch",
        )
    elif against == GOLD:
        st.caption(
            f"The {len(listed):,} pairs with the largest difference in rank. Rank: share of the "
            f"{len(task):,} pairs that are below, in percent; positive: {escape(label)} puts it "
            "too high."
        )
    else:
        st.caption(
            f"The {len(listed):,} pairs that the two rank most differently, of {len(task):,}; "
            f"positive: {escape(label)} puts it higher."
        )
    table = pd.DataFrame(
        {
            "Δ rank": error[listed],
            "sentence1": [task.first[place] for place in listed],
            "sentence2": [task.second[place] for place in listed],
            title: compared[listed],
            f"cosine, {label}": cosines[listed],
            "score ": task.gold[listed],
        }
    )
    if against == GOLD:
        table = table.drop(columns="score ")
    event = st.dataframe(
        table,
        hide_index=True,
        width="stretch",
        height=320,
        on_select="rerun",
        selection_mode="single-row",
        key=f"evaluate_table_{name}_{label}_{against}",
        column_config={
            "Δ rank": st.column_config.NumberColumn(format="%+.1f", width="small"),
            title: st.column_config.NumberColumn(format="%.3f", width="small"),
            f"cosine, {label}": st.column_config.NumberColumn(format="%.3f", width="small"),
        },
    )
    rows = event["selection"]["rows"]
    pair = int(listed[rows[0] if rows and rows[0] < len(listed) else 0])
    st.subheader("One pair, layer by layer", anchor=False)
    st.markdown(
        f"{escape(task.first[pair])} ↔ {escape(task.second[pair])}  \n"
        f"score {task.gold[pair]:g}, cosine {cosines[pair]:.3f} under {escape(label)}, "
        f"rank difference {error[pair]:+.1f}"
    )
    column = result.columns[row]
    facts = cache.facts(column.model)
    strategies = [
        name
        for name in dict.fromkeys([*facts.default_strategies, column.strategy])
        if name in facts.strategies
    ]
    try:
        comparison = cache.compare(
            column.model, [(task.first[pair], task.second[pair])], strategies
        )
    except LwapError as problem:
        st.error(escape(str(problem)), icon=":material/error:")
        return
    pairs.pair_layers(column.model, comparison, 0)


def _chosen_in_words(chosen: int, listed: int) -> str:
    if chosen == 1:
        return "The pair that you chose in the figure."
    if listed < chosen:
        return f"The {listed:,} worst of the {chosen:,} pairs that you chose in the figure."
    return f"The {chosen:,} pairs that you chose in the figure, worst first."


def _scatter(task: Task, cosines: np.ndarray, label: str, key: tuple[str, str, str]) -> None:
    drawn = np.arange(len(task))
    if len(task) > DRAWN:
        drawn = np.sort(np.random.default_rng(0).choice(len(task), DRAWN, replace=False))
        st.caption(f"{DRAWN:,} of {len(task):,} pairs are drawn, chosen at random.")
    picked = st.session_state.setdefault("evaluate_picked", {})
    name = f"gold-scatter-{'-'.join(key)}"

    def take() -> None:
        points = widgets.clicked(name, every=True)
        rows = dict.fromkeys(int(point[0]) for point in points if point)  # a chosen one is twice
        picked[key] = tuple(int(drawn[row]) for row in rows)

    chosen = set(picked.get(key, ()))
    widgets.show(
        figures.gold_scatter(
            task.gold[drawn],
            cosines[drawn],
            labels=[f"{task.first[place]} ↔ {task.second[place]}" for place in drawn],
            selected=[row for row, place in enumerate(drawn) if int(place) in chosen] or None,
            y_title=f"Cosine, {label}",
            theme=theme(),
        ),
        name,
        lasso=True,
        on_select=take,
        selection_mode=("points", "box", "lasso"),
    )


def slices(result: StsResult) -> None:
    """Draw Spearman of slices of one task: by length, word overlap, negation and numbers."""
    sets = _sets(result)
    task, all_cosines = sets[_menu("Task", list(sets), "evaluate_task")]
    rows = [row for row, column in enumerate(result.columns) if not column.is_layer]
    if not rows:
        st.info("Slices compare strategies, not single layers. Choose some above.")
        return
    rows = [row for row in rows if np.ptp(np.round(all_cosines[row], COSINE_DECIMALS)) > 0]
    if not rows:
        st.info(NOTHING_RANKED)
        return
    if len(rows) > IN_SLICES:
        own = [row for row in rows if _is_own(result, row)]
        rows = sorted([*own, *(row for row in rows if row not in own)][:IN_SLICES])
        st.caption(f"{IN_SLICES} strategies are drawn; choose others above.")
    masks = slice_pairs(task.first, task.second)
    values, low, high = np.full((3, len(rows), len(masks)), np.nan)
    counts = [int(mask.sum()) for mask in masks.values()]
    for column, mask in enumerate(masks.values()):
        if counts[column] < MIN_PAIRS or np.ptp(task.gold[mask]) == 0:
            continue
        found = correlations(
            all_cosines[rows][:, mask],
            task.gold[mask],
            resamples=result.resamples,
            seed=result.seed,
        )
        for row in range(len(rows)):
            interval = percentile_interval(
                found.values[Aggregation.ALL][row], found.draws[Aggregation.ALL][row]
            )
            values[row, column] = interval.value
            low[row, column], high[row, column] = interval.low, interval.high
    widgets.show(
        figures.slice_strip(
            [result.labels[row] for row in rows],
            list(masks),
            values,
            low,
            high,
            counts,
            theme=theme(),
        ),
        "slices",
    )
    st.caption(
        "Spearman × 100 within each slice, lines are 95 % bootstrap intervals. A narrower range "
        "of scores lowers every correlation, so compare strategies within a slice rather than "
        f"slices with each other. Slices of fewer than {MIN_PAIRS} pairs are left empty; negation "
        "and numbers are found by English words."
    )


def differences(result: StsResult) -> None:
    """Draw the difference of every strategy to a baseline, with interval and Holm's correction."""
    names, labels = result.task_names, result.labels
    left, right = st.columns(2)
    with left:
        task = names.index(_menu("Task", names, "evaluate_curve_task", default=names[-1]))
    own = [label for row, label in enumerate(labels) if _is_own(result, row)]
    with right:
        baseline = _menu("Baseline", labels, "evaluate_baseline", default=(own or labels)[0])
    table = result.differences(labels.index(baseline))
    table = table[table["task"] == names[task]].assign(label=labels)
    table = table[(table["label"] != baseline) & table["difference"].notna()]
    table = table.sort_values("difference", ascending=False)
    if table.empty:
        st.info("There is nothing to compare with this baseline. Choose another one.")
        return
    widgets.show(
        figures.difference_strip(
            table["label"].tolist(),
            table["difference"].to_numpy(),
            table["low"].to_numpy(),
            table["high"].to_numpy(),
            table["p_holm"].to_numpy(),
            baseline=baseline,
            theme=theme(),
        ),
        "differences",
    )
    st.caption(
        f"Spearman × 100 on {escape(names[task])}, strategy minus {escape(baseline)}, by paired "
        f"bootstrap; filled where p < 0.05 after Holm's correction for {len(table)} comparisons."
    )


def take_away(evaluation: Evaluation, result: StsResult) -> None:
    """Draw the table of all numbers and the downloads."""
    with st.expander("Table and downloads"):
        rows = result.rows()
        st.dataframe(
            rows,
            hide_index=True,
            width="stretch",
            column_config={
                name: st.column_config.NumberColumn(format="%.2f")
                for name in ("spearman", "low", "high")
            },
        )
        for note in result.notes:
            st.caption(escape(note))
        places = st.columns(4)
        facts = result.provenance()
        names = {
            model: [column.strategy for column in result.columns if column.model == model]
            for model in result.models
        }
        places[0].download_button(
            "All numbers (CSV)", rows.to_csv(index=False), "lwap-evaluation.csv", "text/csv"
        )
        places[1].download_button(
            "With provenance (JSON)",
            lambda: json.dumps(
                {"rows": json.loads(rows.to_json(orient="records")), **facts}, ensure_ascii=False
            ),
            "lwap-evaluation.json",
            "application/json",
        )
        places[2].download_button(
            "Table (LaTeX)", lambda: latex_table(result), "lwap-evaluation.tex", "text/plain"
        )
        places[3].download_button(
            "Report (HTML)",
            lambda: html_report(
                result,
                [  # the planes that were drawn of what is shown now
                    found
                    for found in list(evaluation.geometries.values())
                    if found.table["strategy"].tolist() == names.get(found.model)
                ],
            ),
            "lwap-report.html",
            "text/html",
            help="One file with figures, tables, data hashes and versions; opens offline.",
        )


def _is_own(result: StsResult, row: int) -> bool:
    column = result.columns[row]
    return column.strategy == result.own.get(column.model)


def _by_encoder(result: StsResult) -> dict[str, list[int]]:
    """Return the columns of each encoder, whose states two models may share."""
    groups: dict[str, list[int]] = {}
    for row, column in enumerate(result.columns):
        groups.setdefault(result.encoders[column.model], []).append(row)
    return groups


def _is_sample(tasks: Sequence[Task]) -> bool:
    return [task.name for task in tasks] == [entry["title"] for entry in phenomena()]


def _sets(result: StsResult) -> dict[str, tuple[Task, np.ndarray]]:
    """Return what can be explored by name: pairs, and their cosines (K, P) under each column.

    The sample's phenomena are small, and can be looked at together as well.
    """
    sets = {
        task.name: (task, cosines)
        for task, cosines in zip(result.tasks, result.cosines, strict=True)
    }
    if not _is_sample(result.tasks):
        return sets
    together = Task(
        name=TOGETHER,
        first=tuple(text for task in result.tasks for text in task.first),
        second=tuple(text for task in result.tasks for text in task.second),
        gold=np.concatenate([task.gold for task in result.tasks]),
        subsets=tuple(task.name for task in result.tasks for _ in task.first),
        sha256="",
    )
    return {TOGETHER: (together, np.concatenate(result.cosines, axis=1)), **sets}


def _menu(label: str, options: list[str], key: str, default: str | None = None) -> str:
    """Draw a menu whose choice is kept as long as it is an option."""
    if st.session_state.get(key) not in options:
        st.session_state[key] = default if default in options else options[0]
    return st.selectbox(label, options, key=key, persist_state="session")


def _rank_share(values: np.ndarray) -> np.ndarray:
    return 100 * (rankdata(values) - 1) / max(1, len(values) - 1)
