"""The card "What did it change?" of a trained checkpoint: computed in a thread, then drawn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import streamlit as st

from lwap import figures
from lwap.checkpoints.manifest import model_fingerprint
from lwap.datasets.readers import data_folder, read_sentences
from lwap.datasets.tasks import available_tasks, fingerprint, read_task, sts_task
from lwap.errors import LwapError
from lwap.ui import cache, files, links, widgets
from lwap.ui.frame import escape, say_error
from lwap.ui.measures import about
from lwap.ui.state import ASSETS, sample_pairs, scored_pairs
from lwap.ui.work import Registry, Work

if TYPE_CHECKING:
    from lwap.analysis.change import Change

KEPT = 12
MOVED = 8  # pairs that are drawn
LISTED = 50  # sentences whose neighbours are listed
EXAMPLE, OWN = "Example pairs", "Your pairs"
TASKS = ("stsb", "stsb-dev")
RANK, PERCENTILE, COSINE = SCALES = ["Rank in this set", "Percentile", "Cosine"]


@dataclass(frozen=True, eq=False)
class PairSet:
    """Scored pairs that a checkpoint can be measured on.

    Attributes:
        title: What they are called.
        about: What to know of them.
        pairs: Columns sentence1, sentence2, score and perhaps subset.
        aggregation: How Spearman comes out of subsets.
    """

    title: str
    about: str
    pairs: pd.DataFrame
    aggregation: str = "all"


@dataclass(frozen=True)
class Request:
    """What is compared: plain values, by which the same request is recognised.

    Attributes:
        names: The encoder before, and the checkpoint.
        fingerprints: Hash of each: one trained anew under its name is another.
        title: What the pairs are called.
        data: Hash of the pairs.
    """

    names: tuple[str, str]
    fingerprints: tuple[str, str]
    title: str
    data: str


@dataclass(eq=False)
class Comparison(Work):
    """One comparison; its steps are sentences to encode.

    Attributes:
        request: What was asked for.
        on: The pairs.
        sentences: Whose neighbours are looked up.
        result: What changed, once that is known.
    """

    NAME = "the comparison"

    request: Request
    on: PairSet
    sentences: Sequence[str]
    result: Change | None = None

    def compute(self, models: dict[str, Any]) -> None:
        """Read both models, and compare them."""
        from lwap.analysis.changes import what_changed

        self.result = what_changed(
            self.request.names[1],
            self.on.pairs,
            self.sentences,
            pairs_name=self.request.title,
            aggregation=self.on.aggregation,
            cache=models[self.request.names[1]].cache,
            progress=self.advance,
            load=models.__getitem__,
        )


@st.cache_resource(show_spinner=False)
def _registry() -> Registry[Comparison]:
    return Registry(KEPT)


def card(name: str) -> None:
    """Draw what training changed in a checkpoint: against its encoder, untouched.

    Computed in a thread of the server and found again; what is wrong is said in the card.
    """
    try:
        on = _choose_pairs()
        request = _request(name, on)
        found = _registry().find(request) or _start(request, on)
    except LwapError as error:
        say_error(error)
        return
    if widgets.is_done(
        found,
        _registry().forget,
        what="Sentences encoded",
        key="change",
        before="Looking up what is known already.",
        stopped=widgets.ENCODED_IS_KEPT,
    ):
        _draw(found.result, on)


# --- what is compared ---------------------------------------------------------------------------


def _choose_pairs() -> PairSet:
    """Draw the choice of pairs, where there is one; return the chosen ones."""
    folder = data_folder()
    titles = {EXAMPLE: ""}
    titles |= {sts_task(key).title: key for key in TASKS if key in available_tasks(folder)}
    own = scored_pairs()
    if own is not None:
        titles[OWN] = ""
    if st.session_state.get("change_pairs", EXAMPLE) not in titles:
        del st.session_state["change_pairs"]
    chosen = EXAMPLE
    if len(titles) > 1:
        chosen = widgets.row("Measured on", list(titles), "change_pairs", bind=None)
    if chosen == OWN and own is not None:
        return PairSet(OWN, f"{len(own):,} scored pairs of the Pairs page", own)
    if key := titles[chosen]:
        task = sts_task(key)
        table = _read_task(str(folder), key, files.task_stamps(key))
        whose = "for reporting" if task.is_test else "for choosing"
        return PairSet(chosen, f"the {len(table):,} pairs of {chosen}, a set {whose}", table)
    table = sample_pairs()
    return PairSet(
        EXAMPLE,
        f"the {len(table):,} example pairs, the mean over their {table['subset'].nunique()} "
        "phenomena; too few to decide anything",
        table,
        aggregation="mean",
    )


@st.cache_data(show_spinner=False, max_entries=len(TASKS))
def _read_task(folder: str, key: str, changed: tuple) -> pd.DataFrame:
    return read_task(key, folder)


@st.cache_data(show_spinner=False)
def _sentences() -> list[str]:
    return read_sentences(ASSETS / "sentences.csv")


def _request(name: str, on: PairSet) -> Request:
    from lwap.analysis.changes import untouched

    names = (untouched(name), name)
    hashes = (model_fingerprint(names[0]), model_fingerprint(names[1]))
    return Request(names, hashes, on.title, fingerprint(on.pairs))


def _start(request: Request, on: PairSet) -> Comparison:
    with st.spinner("Loading both models."):
        models = {name: cache.cached(name) for name in request.names}
    return _registry().start(request, lambda: Comparison(request, on, _sentences()), models)


# --- what is drawn ------------------------------------------------------------------------------


def _draw(change: Change, on: PairSet) -> None:
    before, after = change.before, change.after
    st.markdown(_verdict(change))
    if change.warning:
        st.caption(escape(change.warning))
    _numbers(change)
    st.caption(
        f"Before: {escape(before.model)}, untouched, read by its own {escape(before.pooling)}. "
        f"After: {escape(after.model)}, {escape(after.pooling)}. Spearman × 100 on "
        f"{escape(on.about)}; 95 % paired bootstrap over pairs. Uniformity and alignment on their "
        f"sentences. Neighbours: the {change.k} nearest of each of the "
        f"{len(change.sentences):,} example sentences, exact."
    )
    _moved_and_weights(change)
    _neighbours(change)
    _ways_on(change)


def _verdict(change: Change) -> str:
    """Return the verdict with its difference in bold."""
    text = escape(change.verdict)
    numbers, colon, said = text.rpartition("\\: ")
    return f"**{numbers}**: {said}" if colon else f"**{text}**"


def _numbers(change: Change) -> None:
    before, after = change.before, change.after
    first, second = before.geometry, after.geometry
    with st.container(horizontal=True, key="change_numbers"):
        _number("Spearman ↑", before.spearman.value, after.spearman.value, ".2f")
        _number(
            "Uniformity ↓",
            first.uniformity.value,
            second.uniformity.value,
            ".3f",
            about("uniformity"),
        )
        _number(
            "Alignment ↓",
            first.alignment,
            second.alignment,
            ".3f",
            about("alignment") + " Those are of the highest fifth of the range of scores.",
        )
        kept = change.kept
        st.metric(
            "Neighbours kept",
            f"{kept.mean():.0%}",
            f"{int((kept == 0).sum()):,} sentences keep none",
            delta_color="off",
            delta_arrow="off",
            help=f"Share of a sentence's {change.k} nearest neighbours before that are among its "
            f"{change.k} nearest after. More is not necessarily better.",
        )


def _number(label: str, before: float, after: float, form: str, about: str = "") -> None:
    if np.isnan(before) or np.isnan(after):
        st.metric(label, "–", help=about or None)
        return
    old, new, gained = (
        f"{number:{sign}{form}}".replace("-", "−")
        for number, sign in ((before, ""), (after, ""), (after - before, "+"))
    )
    st.metric(
        label,
        new,
        f"{gained} from {old}",
        delta_color="off",
        delta_arrow="off",
        help=about or None,
    )


def _moved_and_weights(change: Change) -> None:
    weights = change.weights
    places = st.columns([3, 2], gap="large") if weights is not None else [st.container()]
    with places[0]:
        _moved(change)
    if weights is None:
        return
    with places[1]:
        widgets.draw(
            "change-weights",
            figures.weights_before_after,
            {"untrained": weights.before, "trained": weights.after},
        )
        said = f"Mean over the sentences of {escape(weights.measured_on)}."
        if weights.before is None:
            said += " The untrained head's weights were not recorded."
        st.caption(said)


def _moved(change: Change) -> None:
    names = SCALES if change.random_pairs else [RANK, COSINE]
    scale = widgets.views(
        "Scale",
        names,
        "change_scale",
        bind=None,
        help="Gold scores have a rank too; percentiles are among random pairs of these sentences.",
    )
    key, title, form = {
        RANK: ("rank", "rank among these pairs, 100 = most alike", ".0f"),
        PERCENTILE: ("percentile", f"percentile among {change.random_pairs:,} random pairs", ".1f"),
        COSINE: ("cosine", "cosine", ".3f"),
    }[scale]
    moved = int((change.moves(key) != 0).sum())
    if not moved:
        st.caption("No pair moved on this scale.")
        return
    widgets.draw(
        "change-moved",
        figures.moved_pairs,
        change.before.scores[key],
        change.after.scores[key],
        [f"{a} ↔ {b}" for a, b in zip(change.first, change.second, strict=True)],
        gold=change.gold_rank if scale == RANK else None,
        most=min(MOVED, moved),
        x_title=title,
        value_format=form,
    )


def _neighbours(change: Change) -> None:
    changed = change.changed(LISTED)
    if not changed:
        st.caption(f"Every sentence keeps its {change.k} nearest neighbours.")
        return
    count = int((change.kept < 1).sum())
    listed = f"; the {len(changed)} that changed most" if count > len(changed) else ""
    of_all = f"{count:,} of {len(change.sentences):,} sentences"
    st.markdown(f"**Neighbours gained and lost** by {of_all}{listed}")
    st.dataframe(
        pd.DataFrame(
            {
                "sentence": [each.sentence for each in changed],
                "kept": [each.kept for each in changed],
                "lost": [" · ".join(each.lost) for each in changed],
                "gained": [" · ".join(each.gained) for each in changed],
            }
        ),
        key="change_neighbours",
        hide_index=True,
        height=min(38 + 35 * len(changed), 290),
        column_config={
            "sentence": st.column_config.TextColumn(width=265),
            "kept": st.column_config.NumberColumn(format="percent", width=70),
            "lost": st.column_config.TextColumn("no longer near, nearest first", width=330),
            "gained": st.column_config.TextColumn("newly near, nearest first", width=330),
        },
    )


def _ways_on(change: Change) -> None:
    before, after = change.before, change.after
    has_more = after.pooling != after.strategy or before.pooling != before.strategy
    with st.container(horizontal=True, gap="xsmall", key="change_ways_on"):
        links.page_button(
            "See both maps",
            "space",
            links.to_spaces((before.model, after.model), (before.strategy, after.strategy)),
            icon=":material/scatter_plot:",
            key="change_to_space",
            help="The example sentences on the Space page, before and after."
            + (" Its maps leave out what follows the pooling." if has_more else ""),
        )
        links.page_button(
            "Full evaluation",
            "evaluate",
            links.to_evaluation(after.model, before.model),
            icon=":material/leaderboard:",
            key="change_to_evaluate",
            help="Every strategy and layer on the Evaluate page, with the encoder as second model.",
        )
        st.download_button(
            "All numbers (JSON)",
            lambda: json.dumps(change.to_dict(), ensure_ascii=False, indent=1),
            "lwap-change.json",
            "application/json",
            on_click="ignore",
            key="change_download",
        )
