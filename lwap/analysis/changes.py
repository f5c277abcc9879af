"""What training changed: a checkpoint against the untouched encoder that it was trained from.

Each side is read with its own pooling, as its `encode` would, on the same pairs and sentences; a
sentence is encoded once an encoder. Knows models and banks, no figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sentence_transformers import SentenceTransformer

from lwap.analysis.change import COSINE, PERCENTILE, RANK, READ_HERE, Change, K, Side, Weights
from lwap.analysis.comparison import random_rows, split_pairs
from lwap.checkpoints.cached import CachedModel, Count
from lwap.checkpoints.manifest import (
    CheckpointInfo,
    checkpoint_names,
    find_checkpoint,
    read_info,
    read_manifest,
)
from lwap.encoding.bank import Progress, check_texts
from lwap.encoding.diskcache import DiskCache
from lwap.encoding.sources import BUNDLED, is_bundled_name, resolve_encoder
from lwap.encoding.store import join_stores
from lwap.errors import InputError, ModelError, check_choice
from lwap.evaluation import geometry
from lwap.evaluation.bootstrap import paired_difference, percentile_interval
from lwap.evaluation.spaces import positive_rows
from lwap.evaluation.sts import (
    COSINE_DECIMALS,
    Aggregation,
    correlations,
)
from lwap.evaluation.tasks import Task
from lwap.jobs import Followed, Run
from lwap.jobs.folder import DEV, MODEL
from lwap.library.results import layer_weights as recorded_weights
from lwap.pooling.declarations import needs_training
from lwap.pooling.strategies import needed_summaries, own_vectors, readable_strategy
from lwap.pooling.trained import layer_weights
from lwap.projection.maps import is_constant
from lwap.projection.neighbours import neighbours, overlap
from lwap.scores import cosine, percentile_among, rank_among

FEWEST = 5  # sentences with neighbourhoods to speak of
CHUNK = 4096  # sentences whose summaries are in memory at once


def what_changed(
    name: str,
    pairs: pd.DataFrame,
    sentences: Sequence[str],
    *,
    before: str | None = None,
    pairs_name: str = "",
    aggregation: str = Aggregation.ALL,
    cache: DiskCache | None = None,
    progress: Progress | None = None,
    load: Callable[[str], CachedModel] | None = None,
) -> Change:
    """Compare a trained checkpoint with the untouched encoder that it was trained from.

    Args:
        name: The checkpoint.
        pairs: Columns sentence1, sentence2, score and, where the pairs have parts, subset.
        sentences: Whose neighbours are looked up; 5 different ones or more.
        before: Another model to compare with; by default `untouched(name)`.
        pairs_name: What the pairs are called, by which they are known as the dev set where the
            run's own copy of that is not there.
        aggregation: How Spearman comes out of subsets: "all" is one correlation over all pairs.
        cache: Where summaries and neighbours are kept; None keeps nothing.
        progress: Called with (sentences encoded, sentences to encode), where there are any.
        load: Gives a model by its name; by default a `CachedModel` with this cache.

    Raises:
        ModelError: If there is no such checkpoint, or a model cannot be had.
        InputError: If there are too few pairs or sentences, one is empty, or a side gives the same
            vector for every sentence.
        StrategyError: If a model's own pooling cannot be read from layer summaries.
    """
    aggregation = check_choice("aggregation", aggregation, Aggregation)
    split_pairs(pairs)
    task = Task.from_pairs(pairs, pairs_name or "the pairs")
    texts, positives, _ = positive_rows(task)
    sentences = list(dict.fromkeys(check_texts(sentences)))
    if len(sentences) < FEWEST:
        raise InputError(
            f"Neighbours need {FEWEST} different sentences or more; there "
            f"{'is' if len(sentences) == 1 else 'are'} {len(sentences)}. Add some."
        )
    names = (untouched(name) if before is None else before, name)
    recorded = _recorded_weights(read_info(_folder(name), name)) if before is None else None
    load = load or partial(CachedModel, cache=cache)
    models = {each: load(each) for each in dict.fromkeys(names)}
    every = list(dict.fromkeys([*texts, *sentences]))
    row_of = {text: row for row, text in enumerate(every)}
    own = [row_of[text] for text in sentences]
    read = _read(
        [models[each] for each in names],
        every,
        weighed=own if recorded is None else [],
        cache=cache,
        progress=progress,
    )
    for model, found in zip(names, read, strict=True):
        if not np.isfinite(found.vectors).all() or is_constant(geometry.normalise(found.vectors)):
            raise InputError(
                f"'{model}' gives every sentence the same vector, or numbers that are not finite: "
                "there is nothing to compare. Train it again with a lower learning rate."
            )
    rows = np.array([[row_of[a], row_of[b]] for a, b in zip(task.first, task.second, strict=True)])
    random = random_rows(len(texts), rows, seed=0)
    scores = [_scores(found.vectors, rows, random) for found in read]
    correlated = correlations(
        np.stack([found[COSINE] for found in scores]), task.gold, task.subsets
    )
    values, draws = correlated.values[aggregation], correlated.draws[aggregation]
    sides = [
        Side(
            model=names[place],
            pooling=_pooling_words(models[names[place]].model),
            strategy=readable_strategy(models[names[place]].model),
            spearman=percentile_interval(values[place], draws[place]),
            geometry=geometry.measure(
                found.vectors[: len(texts)], positives if len(positives) else None
            ),
            scores=scores[place],
        )
        for place, found in enumerate(read)
    ]
    near = [neighbours(geometry.normalise(found.vectors[own]), cache=cache) for found in read]
    k = max(1, min(K, (len(sentences) - 1) // 2))
    return Change(
        before=sides[0],
        after=sides[1],
        difference=paired_difference(values[1] - values[0], draws[1], draws[0]),
        aggregation=aggregation,
        pairs_name=pairs_name,
        first=task.first,
        second=task.second,
        gold=task.gold,
        gold_rank=rank_among(task.gold),
        random_pairs=len(random),
        chosen_on=_chosen_on(name, task, pairs_name),
        sentences=tuple(sentences),
        near=(near[0], near[1]),
        k=k,
        kept=overlap(near[0].indices[:, :k], near[1].indices[:, :k]),
        weights=recorded or _measured_weights(read),
    )


def untouched(name: str) -> str:
    """Return the name by which the encoder that a checkpoint was trained from is loaded.

    Raises:
        ModelError: If there is no such checkpoint, or its encoder cannot be had.
        CheckpointError: If it cannot be read.
    """
    encoder = read_manifest(_folder(name))["encoder"]
    if is_bundled_name(encoder["id"]):
        return BUNDLED
    revision = encoder.get("revision")
    return encoder["id"] if revision is None else str(resolve_encoder(encoder["id"], revision))


@dataclass(frozen=True, eq=False)
class _Read:
    """What a model makes of sentences: vectors (N, D), and perhaps mean layer weights (S,)."""

    vectors: np.ndarray
    weights: np.ndarray | None


def _read(
    models: Sequence[CachedModel],
    texts: Sequence[str],
    *,
    weighed: Sequence[int],
    cache: DiskCache | None,
    progress: Progress | None,
) -> list[_Read]:
    """Read sentences with each model; the layer weights are means over the rows `weighed`."""
    stores = [model.store for model in models]
    join_stores(stores)  # a frozen encoder is the same on both sides
    shared = {store.key: store for store in stores}
    count = Count(progress, sum(len(store.missing(texts)) for store in shared.values()))
    is_weighed = np.isin(np.arange(len(texts)), weighed)
    vectors: list[list[np.ndarray]] = [[] for _ in models]
    weights: list[list[np.ndarray]] = [[] for _ in models]
    for start in range(0, len(texts), CHUNK):
        rows = slice(start, start + CHUNK)
        for place, model in enumerate(models):
            summaries = needed_summaries([readable_strategy(model.model)])
            bank = model.bank(texts[rows], summaries=summaries, progress=count.advance)
            count.close()
            vectors[place].append(own_vectors(bank, model.model))
            if bank.heads and is_weighed[rows].any():
                weights[place].append(layer_weights(bank.select(is_weighed[rows])))
    return [
        _Read(
            np.concatenate(found),
            np.concatenate(weight).mean(axis=0, dtype=np.float64) if weight else None,
        )
        for found, weight in zip(vectors, weights, strict=True)
    ]


def _scores(vectors: np.ndarray, rows: np.ndarray, random: np.ndarray) -> dict[str, np.ndarray]:
    """Return the scores of pairs (P, 2) of rows by scale, see `Side`."""
    # As they are ranked everywhere here: identical sentences must tie.
    found = cosine(vectors[rows[:, 0]], vectors[rows[:, 1]]).round(COSINE_DECIMALS)
    among = np.full(len(found), math.nan)
    if len(random):
        reference = cosine(vectors[random[:, 0]], vectors[random[:, 1]])
        among = percentile_among(found, reference.round(COSINE_DECIMALS))
    return {RANK: rank_among(found), PERCENTILE: among, COSINE: found}


def _pooling_words(model: SentenceTransformer) -> str:
    """Return a model's pooling, and what follows it and changes directions."""
    after = [type(each).__name__.lower() for each in list(model)[2:]]
    kept = [each for each in after if each not in ("normalize", "dropout")]
    return ", ".join([readable_strategy(model), *kept])


def _folder(name: str) -> Path:
    folder = find_checkpoint(name)
    if folder is None:
        raise ModelError(
            f"'{name}' is no checkpoint, so there is no encoder that it was trained from. There "
            f"are: {', '.join(checkpoint_names()) or 'none'}. Or name another model to compare "
            "with (before, --before)."
        )
    return folder


def _recorded_weights(info: CheckpointInfo) -> Weights | None:
    """Return the weights on the dev set, before training where its run has noted them."""
    after = recorded_weights(info)
    if after is None or not needs_training(info.pooling):
        return None
    looks = []
    if info.folder.name == MODEL:
        looks = Followed(Run(info.folder.parent)).read().looks
    first, best = (
        _weights_at(looks, step, len(after)) for step in (0, info.results.get("best_step"))
    )
    if first is not None and best is not None:
        after = list(best)  # as exact as the first: less digits would be taken for a change
    return Weights(
        before=first,
        after=tuple(after),
        measured_on=f"the dev set '{info.results.get('dev_set') or 'of the run'}'",
    )


def _weights_at(
    looks: Sequence[dict[str, Any]], step: int | None, states: int
) -> tuple[float, ...] | None:
    """Return the layer weights (S,) that a run noted at a step; None where it did not."""
    for look in looks:
        found = look.get("layer_weights")
        if look["step"] != step or not isinstance(found, list) or len(found) != states:
            continue
        if all(isinstance(each, int | float) and math.isfinite(each) for each in found):
            return tuple(map(float, found))
    return None


def _measured_weights(read: Sequence[_Read]) -> Weights | None:
    before, after = (found.weights for found in read)
    if after is None:
        return None
    return Weights(
        before=None if before is None else tuple(before.tolist()),
        after=tuple(after.tolist()),
        measured_on=READ_HERE,
    )


def _chosen_on(name: str, task: Task, pairs_name: str) -> int:
    """Return how many of a task's pairs the best step of a checkpoint was chosen on."""
    folder = find_checkpoint(name)
    if folder is None:
        return 0
    dev = folder.parent / DEV
    if folder.name == MODEL and dev.is_file():
        with suppress(OSError, ValueError, KeyError):
            seen = pd.read_parquet(dev, columns=["sentence1", "sentence2"])
            known = set(zip(seen["sentence1"], seen["sentence2"], strict=True))
            return sum(pair in known for pair in zip(task.first, task.second, strict=True))
    is_named = bool(pairs_name) and read_info(folder).results.get("dev_set") == pairs_name
    return len(task) if is_named else 0
