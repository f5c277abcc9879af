"""The only door from pages to models: loads them once, runs them one at a time, keeps results.

A page asks with plain values (names, sentences) and gets plain data back. Everything here is
shared by all sessions of the server.
"""

from __future__ import annotations

import contextlib
import gc
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from os.path import isdir
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

if TYPE_CHECKING:
    from lwap.analysis.comparison import Comparison
    from lwap.analysis.explanation import Explanation
    from lwap.analysis.searching import SearchResults
    from lwap.checkpoints.cached import CachedModel
    from lwap.encoding.bank import LayerBank

MAX_MODELS = 3
MAX_RESULTS = 64
MAX_COLLECTIONS = 2  # all states of up to 5,000 sentences each: 110 MB on the bundled encoder
MAX_SEARCHES = 16  # all states of what was found: 1 MB each

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ModelFacts:
    """What the sidebar says of a model.

    Attributes:
        encoder: Its encoder.
        num_states: S.
        dimension: D.
        max_tokens: Longest sentence in tokens; the rest is cut.
        pooling: What `encode` uses, in words.
        has_attention: Whether it has a trained pooling over layers to look at.
        trained_on: In words.
        dev_score: Spearman on its dev set in words, or "".
        strategies: The strategies that it gives, single layers included.
        default_strategies: Those that are compared by default.
    """

    encoder: str
    num_states: int
    dimension: int
    max_tokens: int
    pooling: str
    has_attention: bool
    trained_on: str
    dev_score: str
    strategies: tuple[str, ...]
    default_strategies: tuple[str, ...]


@dataclass
class _Loaded:
    model: CachedModel
    facts: ModelFacts
    # One at a time: threads that share a tokenizer get wrong truncation in silence.
    # Reentrant: computing one result may ask for another.
    lock: threading.RLock = field(default_factory=threading.RLock)
    results: OrderedDict = field(default_factory=OrderedDict)

    def once(self, key: tuple, compute: Callable[[], Any], at_most: int | None = None) -> Any:
        """Return the remembered result of `key`, or compute it; the same for two sessions.

        With `at_most`, no more results of its kind, the key's first entry, are remembered.
        """
        with self.lock:
            if key not in self.results:
                self.results[key] = compute()
                alike = [other for other in self.results if other[0] == key[0]]
                for oldest in alike[: -at_most if at_most else 0]:
                    del self.results[oldest]
                while len(self.results) > MAX_RESULTS:
                    self.results.popitem(last=False)
            self.results.move_to_end(key)
            return self.results[key]


def checkpoint_names() -> list[str]:
    """Return what the model picker offers: checkpoints first, then the plain encoder."""
    from lwap.encoding.sources import BUNDLED

    return [*trained_names(), BUNDLED]


def trained_names() -> list[str]:
    """Return the checkpoints, which have a trained pooling over layers."""
    from lwap.checkpoints.manifest import list_checkpoints

    return [info.name for info in list_checkpoints()]


def tuned_names() -> list[str]:
    """Return the checkpoints whose encoder was trained as well, which a run can start from."""
    from lwap.checkpoints.manifest import Contents, list_checkpoints

    return [info.name for info in list_checkpoints() if info.contains != Contents.HEAD]


def is_checkpoint(name: str) -> bool:
    """Return whether there is a checkpoint of that name or path, a damaged one included."""
    from lwap.checkpoints.manifest import find_checkpoint

    return find_checkpoint(name) is not None


def facts(name: str) -> ModelFacts:
    """Return a model's facts, loading it if need be.

    Raises:
        LwapError: If it cannot be loaded; the message is for the person.
    """
    return _loaded(name).facts


def cached(name: str) -> CachedModel:
    """Return a model with its cache, which all pages share; for work that holds no lock of it.

    Raises:
        LwapError: If it cannot be loaded; the message is for the person.
    """
    return _loaded(name).model


def fingerprint(name: str) -> str:
    """Return a hash of a loaded model's weights and settings.

    Raises:
        LwapError: If it cannot be loaded; the message is for the person.
    """
    return _loaded(name).model.fingerprint


def explain(
    name: str, texts: Sequence[str] | LayerBank, progress: Progress | None = None
) -> Explanation:
    """Return the layer attention and knock-out of sentences, or of a bank that has them already.

    Raises:
        LwapError: If a sentence or the model cannot be used.
    """
    from lwap.analysis.explanation import explain as run
    from lwap.encoding.bank import LayerBank

    loaded = _loaded(name)
    key = texts.texts if isinstance(texts, LayerBank) else tuple(texts)
    known = texts if isinstance(texts, LayerBank) else list(texts)
    return loaded.once(("explain", key), lambda: run(loaded.model, known, progress=progress))


def state_similarity(name: str, texts: Sequence[str]) -> np.ndarray:
    """Return the cosine between the states of each sentence, (N, S, S).

    Raises:
        LwapError: If a sentence or the model cannot be used.
    """
    from lwap.analysis.explanation import state_similarity as run

    loaded, texts = _loaded(name), tuple(texts)
    return loaded.once(
        ("states", texts), lambda: run(loaded.model.bank(texts, summaries=("mean",)))
    )


def compare(
    name: str,
    pairs: Sequence[tuple[str, str]],
    strategies: Sequence[str],
    progress: Progress | None = None,
) -> Comparison:
    """Return the scores of pairs under strategies; the summaries are not kept.

    Raises:
        LwapError: If a pair, a strategy or the model cannot be used.
    """
    from lwap.analysis.comparison import compare_pairs

    loaded, pairs, strategies = _loaded(name), tuple(pairs), tuple(strategies)
    return loaded.once(
        ("compare", pairs, strategies),
        lambda: replace(
            compare_pairs(loaded.model, pairs, strategies, progress=progress), bank=None
        ),
    )


def vectors(name: str, texts: Sequence[str], strategy: str) -> np.ndarray:
    """Return the embeddings of a few sentences under one strategy, (N, D).

    Raises:
        LwapError: If a sentence, the strategy or the model cannot be used.
    """
    loaded, texts = _loaded(name), tuple(texts)
    return loaded.once(
        ("vectors", texts, strategy),
        lambda: dict(loaded.model.vectors(texts, [strategy]))[strategy],
    )


def spearman(name: str, comparison: Comparison, rows: Sequence[int], gold: Sequence[float]) -> dict:
    """Return Spearman × 100 with its interval per strategy, over the rows that have scores.

    Raises:
        LwapError: If there are too few scores, or all are the same.
    """
    loaded, rows, gold = _loaded(name), tuple(rows), tuple(gold)
    key = ("spearman", comparison.first, comparison.second, comparison.strategies, rows, gold)
    return loaded.once(key, lambda: comparison.select(rows).spearman(gold))


def search(
    name: str,
    sentences: Sequence[str],
    query: str,
    strategies: Sequence[str],
    k: int,
    progress: Progress | None = None,
) -> SearchResults:
    """Return what a query finds among sentences, which are encoded once for all queries.

    Raises:
        LwapError: If a sentence, the query, a strategy or the model cannot be used.
    """
    from lwap.analysis.searching import Collection

    loaded, sentences, strategies = _loaded(name), tuple(sentences), tuple(strategies)

    def run() -> SearchResults:
        collection = loaded.once(
            ("collection", sentences),
            lambda: Collection.of(loaded.model, sentences, progress=progress),
            at_most=MAX_COLLECTIONS,
        )
        return collection.search(query, strategies, k=k)

    return loaded.once(("search", sentences, query, strategies, k), run, at_most=MAX_SEARCHES)


def _loaded(name: str) -> _Loaded:
    from lwap.checkpoints.manifest import MANIFEST, find_checkpoint

    folder = find_checkpoint(name)
    # A run that is trained anew under the same name is another model, and so is a folder whose
    # files were replaced.
    if folder is not None:
        return _load(name, (folder / MANIFEST).stat().st_mtime_ns)
    path = os.path.expanduser(name)
    changed = 0
    if isdir(path):
        with contextlib.suppress(OSError):  # what is wrong with the folder, loading says
            changed = max((entry.stat().st_mtime_ns for entry in os.scandir(path)), default=0)
    return _load(name, changed)


def _spare_the_collector() -> None:
    """Let garbage collection pass over what stays: libraries and models.

    Streamlit collects after every run of a script, which takes 0.3 s with torch in memory.
    What was passed over before, such as a model that was pushed out, is collected first.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


@st.cache_resource(max_entries=MAX_MODELS, show_spinner=False)
def _load(name: str, changed: int) -> _Loaded:
    from lwap.checkpoints.cached import CachedModel
    from lwap.checkpoints.load import load
    from lwap.checkpoints.manifest import find_checkpoint, read_info
    from lwap.encoding.bank import layerwise_transformer, model_heads
    from lwap.encoding.diskcache import DiskCache
    from lwap.pooling.declarations import needs_training
    from lwap.registry import STRATEGIES

    model = load(name)
    cached = CachedModel(model, cache=DiskCache(), name=name)
    _spare_the_collector()
    transformer = layerwise_transformer(model)
    checkpoint = find_checkpoint(name)
    pooling, trained_on, dev_score = cached.facts.own or "one of its own", "", ""
    encoder, has_attention = name, bool(model_heads(model))
    if checkpoint is not None:
        info = read_info(checkpoint, name)
        encoder = info.encoder
        trained_on = info.trained_on
        scores = info.results.get("dev_spearman", {})
        score = scores.get("trained") or scores.get(info.pooling)
        if score:
            dev_score = (
                f"{score['value']:.2f} [{score['low']:.2f}, {score['high']:.2f}] on "
                f"{info.results['dev_set']}"
            )
        if needs_training(info.pooling):
            pooling = STRATEGIES[info.pooling].in_words(info.options)
    return _Loaded(
        model=cached,
        facts=ModelFacts(
            encoder=encoder.removeprefix("sentence-transformers/"),
            num_states=transformer.num_states,
            dimension=transformer.get_embedding_dimension(),
            max_tokens=transformer.max_seq_length,
            pooling=pooling,
            has_attention=has_attention,
            trained_on=trained_on or "as published, nothing of ours",
            dev_score=dev_score,
            strategies=cached.facts.strategies,
            default_strategies=tuple(cached.default_strategies),
        ),
    )
