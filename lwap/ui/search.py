"""The parts of the Search page: query, sentences, two ranked lists, one result, all ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from lwap import figures
from lwap.datasets.readers import FORMATS, read_sentences
from lwap.errors import InputError
from lwap.ui import cache, files, layerwise, links, widgets
from lwap.ui.frame import escape, say_error, theme
from lwap.ui.links import SEARCH_TEXT, put_sentences
from lwap.ui.state import collection, lines_of

if TYPE_CHECKING:
    from lwap.analysis.searching import SearchResults

MAX_SENTENCES = links.MOST["search"]
FEWEST, USUAL, MOST = 5, 10, 20  # results in a list
_QUERY, _EXAMPLE, _RESULT = "search_query", "search_example", "result"


# --- what is asked ------------------------------------------------------------------------------


def query_box(link: str):
    """Draw the query and the menu of example queries; return the query and a place for a note."""
    queries = _example_queries()
    if _QUERY not in st.session_state:
        st.session_state[_QUERY] = (links.values(link) or list(queries))[0]
    typed = st.session_state[_QUERY].strip()
    st.session_state[_EXAMPLE] = typed if typed in queries else None

    def fill() -> None:
        if chosen := st.session_state[_EXAMPLE]:
            st.session_state[_QUERY] = chosen

    left, right = st.columns([3, 2])
    query = left.text_input(
        "Query",
        key=_QUERY,
        icon=":material/search:",
        placeholder="What would you look for?",
        persist_state="session",
    ).strip()
    right.selectbox(
        "Example query",
        list(queries),
        index=None,
        key=_EXAMPLE,
        on_change=fill,
        placeholder="Choose one, or write your own",
        help="Fills the query. Each has an answer in other words among the example sentences, and "
        "sentences that repeat its words and mean something else.",
    )
    note = st.empty()
    if not links.put(link, [] if query == next(iter(queries)) else [query]):
        note.caption(links.TOO_LONG.format("This query is"))
    return query, note


def say_what_to_look_for(note, query: str, sentences: list[str]) -> None:
    """Say what an example query shows, if it is asked of the example sentences."""
    look_for = _example_queries().get(query)
    if look_for and sentences == collection()["sentences"]:
        note.caption(f"**What to look for.** {look_for}")


def _example_queries() -> dict[str, str]:
    return {entry["text"]: entry["look_for"] for entry in collection()["queries"]}


def sentence_box(link: str) -> list[str]:
    """Draw the sentences to search in, one a line, and the upload (closed); return them."""
    example = collection()["sentences"]
    if SEARCH_TEXT not in st.session_state:
        put_sentences(SEARCH_TEXT, links.values(link) or example)
    known = lines_of(st.session_state[SEARCH_TEXT])
    whose = "the example" if known == example else "your own"
    with st.expander(
        f"Sentences to search in: {whose}, {len(known):,}",
        icon=":material/notes:",
        key="search_sentences",
    ):
        left, right = st.columns([2, 1], gap="large")
        text = left.text_area(
            "Sentences, one a line", key=SEARCH_TEXT, height=260, persist_state="session"
        )
        with right:
            wrong = files.upload_into(
                "search_upload",
                _fill,
                help=f".txt with one sentence a line, or {', '.join(FORMATS)} with a column "
                f"sentence or text; up to {MAX_SENTENCES:,} sentences.",
            )
        right.button(
            "Back to the example",
            key="search_reset",
            on_click=put_sentences,
            args=(SEARCH_TEXT, example),
            disabled=known == example,
        )
    if wrong:
        say_error(f"{wrong} The sentences are unchanged.")
    sentences = lines_of(text)
    if not links.put(link, [] if sentences == example else sentences):
        st.caption(links.TOO_LONG.format("These sentences are"))
    return sentences


def _fill(content: bytes, name: str) -> None:
    sentences = read_sentences(content, name)
    _check_count(len(sentences), f"'{name}'")
    put_sentences(SEARCH_TEXT, sentences)


def check_request(query: str, sentences: list[str]) -> None:
    """Refuse what cannot be searched.

    Raises:
        InputError: If there is no query or no sentence, or more sentences than the limit.
    """
    if not sentences:
        raise InputError(
            "There is no sentence to search in. Write one a line in the box above, upload a file, "
            "or go back to the example sentences."
        )
    _check_count(len(sentences), "The box")
    if not query:
        raise InputError("There is no query yet. Write one above, or choose an example.")


def _check_count(count: int, source: str) -> None:
    if count > MAX_SENTENCES:
        raise InputError(
            f"{source} has {count:,} sentences; this page searches up to {MAX_SENTENCES:,}. Remove "
            "some, or use lwap.search(model, sentences, query, strategies), which has no limit."
        )


def choices(facts: cache.ModelFacts) -> tuple[str, str, int]:
    """Draw the menus of strategies and the number of results, bound to the link; return them."""
    first = widgets.own_strategy(facts, "mean")
    left, middle, right = st.columns([3, 3, 4], gap="medium")
    with left:
        first = widgets.strategy_choice("First list", "first_strategy", first, facts)
    with middle:
        second = widgets.strategy_choice("Second list", "second_strategy", "cls", facts)
    count = right.slider(
        "Results in a list",
        FEWEST,
        MOST,
        USUAL,
        key="results",
        bind="query-params",
        persist_state="session",
    )
    return first, second, count


# --- what is found ------------------------------------------------------------------------------


def say_what_was_read(results: SearchResults, facts: cache.ModelFacts) -> None:
    """Say what the encoder did not see, and what was counted once."""
    if results.is_query_truncated:
        st.warning(
            f"The query is longer than the encoder's limit of {facts.max_tokens} tokens, so only "
            "its beginning was read.",
            icon=":material/content_cut:",
        )
    widgets.say_truncated(results.is_truncated, facts.max_tokens, "Sentence")
    if results.is_repeated.any():
        st.caption(
            f"Repeated sentences are counted once: {results.num_distinct:,} of the "
            f"{len(results.sentences):,} are ranked."
        )


@dataclass(frozen=True, eq=False)
class Lists:
    """What two strategies find, and which of it was chosen.

    Attributes:
        names: The two strategies; they may be the same.
        places: Their places among the K strategies of the results.
        indices: Rows of the sentences in each list, (2, k).
        shown: Rows that are in a list, those of the first before what the second adds.
        row: The row of the chosen sentence.
    """

    names: tuple[str, str]
    places: tuple[int, int]
    indices: np.ndarray
    shown: list[int]
    row: int


def lists_of(results: SearchResults, first: str, second: str, count: int) -> Lists:
    """Return the first `count` results of two strategies, and the sentence that is chosen."""
    places = results.strategies.index(first), results.strategies.index(second)
    indices = results.indices[list(places), :count]
    shown = list(dict.fromkeys(indices.ravel().tolist()))
    return Lists((first, second), places, indices, shown, _chosen(results, shown))


def _chosen(results: SearchResults, shown: list[int]) -> int:
    """Return the row of the chosen sentence: the best of the first list by default.

    Another one stays chosen as long as it is found by the same query.
    """
    places = [str(row + 1) for row in shown]
    last = st.session_state.get("result_last", {})
    chosen = st.session_state.get(_RESULT) or st.query_params.get(_RESULT)
    if chosen in places:
        of = [results.query, results.sentences[int(chosen) - 1]]
        is_outdated = chosen == last.get("place") and of != last.get("of")
    if chosen not in places or is_outdated or chosen == last.get("default"):
        chosen = places[0]
    of = [results.query, results.sentences[int(chosen) - 1]]
    st.session_state[_RESULT] = chosen
    st.session_state["result_last"] = {"place": chosen, "default": places[0], "of": of}
    return int(chosen) - 1


def rank_changes(results: SearchResults, lists: Lists) -> None:
    """Draw both lists with a line for each change of rank; a click chooses a sentence."""
    scores = results.cosines[np.array(lists.places)[:, None], lists.indices]
    first, second = lists.indices
    figure = figures.rank_changes(
        first,
        second,
        results.sentences,
        names=lists.names,
        scores=(scores[0], scores[1]),
        selected=int(lists.row),
        theme=theme(),
    )
    widgets.show(figure, "rank-changes", on_select=_choose_clicked, selection_mode="points")
    if lists.names[0] == lists.names[1]:
        st.caption("Both lists are ranked by one strategy. Choose another to see what it changes.")
    else:
        shared = len(np.intersect1d(*lists.indices))
        st.caption(
            f"{shared} of the first {lists.indices.shape[1]} stand in both lists; "
            f"{results.num_distinct:,} sentences were searched. Click one to look into it."
        )


def _choose_clicked() -> None:
    if clicked := widgets.clicked("rank-changes"):
        st.session_state[_RESULT] = str(int(clicked[0]) + 1)


def query_attention(model: str, results: SearchResults) -> None:
    """Draw which layers the model listens to for the query."""
    st.markdown("**Layers that the query is read from**")
    if cache.facts(model).has_attention:
        layerwise.sentence(cache.explain(model, results.pairs.bank.select([0])), 0)
        return
    layerwise.say_no_attention("attention, weights and knock-out of the query")


def one_result(model: str, results: SearchResults, lists: Lists) -> None:
    """Draw the chosen sentence with the query layer by layer, and say how it is ranked."""
    st.subheader("One result, layer by layer", anchor=False)
    places = [str(row + 1) for row in lists.shown]
    chosen = st.selectbox(
        "Result",
        places,
        key=_RESULT,
        format_func=lambda place: results.sentences[int(place) - 1][:200],
        persist_state="session",
        label_visibility="collapsed",
    )
    links.put(_RESULT, [] if chosen == places[0] else [chosen])
    known = dict(zip(lists.names, lists.places, strict=True))  # one of a strategy
    st.markdown(
        " · ".join(
            f"**{escape(name)}** rank {results.ranks[place, lists.row]:,} of "
            f"{results.num_distinct:,}, cosine {results.cosines[place, lists.row]:.3f}"
            for name, place in known.items()
        )
    )
    layerwise.pair(model, results.pairs, results.found.tolist().index(lists.row))


def all_ranks(results: SearchResults) -> None:
    """Draw rank and cosine of every sentence as a table to download."""
    frame = results.to_frame()
    with st.expander("Table and download"):
        st.dataframe(
            frame,
            hide_index=True,
            width="stretch",
            column_config={
                name: st.column_config.NumberColumn(format="%.3f")
                for name in frame.columns
                if name.endswith(" cosine")
            },
        )
        files.csv_button("All ranks and scores (CSV)", frame, "lwap-search.csv")
