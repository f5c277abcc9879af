"""Pooling strategies by name: one sentence vector out of a bank's layer summaries.

What strategies there are is declared in `declarations`. Knows banks and heads, nothing of text or
scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling

from lwap.encoding.bank import (
    LayerBank,
    Summary,
    layerwise_transformer,
    model_heads,
    model_name,
)
from lwap.errors import StrategyError
from lwap.pooling.declarations import Strategy
from lwap.pooling.head import LayerHead
from lwap.pooling.trained import check_summaries, run_head
from lwap.pooling.whitening import Whitening
from lwap.registry import STRATEGIES

WHITEN = "+whiten"


def strategies(model: SentenceTransformer | None = None) -> dict[str, Strategy]:
    """Return the pooling strategies by name, in the order that they are shown in.

    Args:
        model: From `lwap.load`. With it: what this model gives, `layer_mean:K` and `layer_cls:K`
            spelled out for each of its states, trained strategies only where it has the weights.
            Without it: all of them, with `layer_mean:K` and `layer_cls:K` as patterns.

    Any name followed by "+whiten" is the same vector, whitened.

    >>> list(strategies())[:3]
    ['cls', 'mean', 'max']
    """
    states = ["K"] if model is None else range(layerwise_transformer(model).num_states)
    heads = STRATEGIES if model is None else model_heads(model)
    found: dict[str, Strategy] = {}
    for entry in STRATEGIES.values():
        if entry.is_per_state:
            found |= {f"{entry.name}:{state}": _of_state(entry, state) for state in states}
        elif not entry.needs_training or entry.name in heads:
            found[entry.name] = entry
    return found


def default_strategies(model: SentenceTransformer) -> list[str]:
    """Return the strategies that are compared when nobody says which: all but single layers."""
    return [name for name, entry in strategies(model).items() if not entry.is_per_state]


def own_strategy(model: SentenceTransformer) -> str | None:
    """Return the strategy that the model's own `encode` uses, None where it is none of ours.

    Sentence-transformers also has poolings without a strategy here: weighted means, and several
    poolings side by side.
    """
    heads = model_heads(model)
    if heads:
        return next(iter(heads))
    for module in model:
        mode = getattr(module, "pooling_mode", None)
        if mode is not None:
            name = {"lasttoken": "last_token"}.get(mode, mode) if isinstance(mode, str) else ""
            return name if is_untrained(name) else None
    return None


def readable_strategy(model: SentenceTransformer) -> str:
    """Return the strategy by which a model's own vectors are read out of layer summaries.

    Raises:
        StrategyError: If its pooling is none of ours, or does not come next to the encoder.
    """
    strategy = own_strategy(model)
    second = list(model)[1] if len(model) > 1 else None
    if strategy is None or not isinstance(second, LayerHead | Pooling):
        raise StrategyError(
            f"The pooling of '{model_name(model)}' is none of those that are read from layer "
            f"summaries ({', '.join(strategies())}), so what it changed cannot be shown."
        )
    return strategy


def describe(name: str) -> Strategy:
    """Return what a strategy is, "+whiten" included.

    Raises:
        StrategyError: If there is no strategy of that name; the message lists them.
    """
    base, whitened = split_whitening(name)
    kind, colon, state = base.partition(":")
    entry = STRATEGIES.get(kind)
    if entry is not None and entry.is_per_state and state.isdecimal():
        entry = _of_state(entry, int(state))
    elif entry is None or colon or entry.is_per_state:
        raise StrategyError(
            f"There is no pooling strategy {name!r}. There are {', '.join(strategies())}, where K "
            "is a state (0 = embeddings); each can end in '+whiten'."
        )
    if not whitened:
        return entry
    formula = f"{entry.formula}; then whitened"
    return replace(entry, name=name, formula=formula, reference="BERT-whitening")


def needed_summaries(names: Iterable[str]) -> tuple[Summary, ...]:
    """Return what a bank must hold for these strategies ("mean" at least, which all banks need)."""
    needed = {summary for name in names for summary in describe(name).summaries}
    return tuple(summary for summary in Summary if summary in needed | {Summary.MEAN})


def split_whitening(name: str) -> tuple[str, bool]:
    """Split a strategy's name into its base and whether it is whitened.

    >>> split_whitening("mean+whiten")
    ('mean', True)
    """
    return name.removesuffix(WHITEN), name.endswith(WHITEN)


def embed(
    bank: LayerBank, strategy: str, *, whitening: Whitening | Mapping[str, Whitening] | None = None
) -> np.ndarray:
    """Return the sentence embeddings of a bank under one strategy, (N, D) float32, unnormalised.

    Args:
        bank: From `encode_layers`.
        strategy: A name from `strategies()`.
        whitening: For "…+whiten" strategies: from `fit_whitening`, on a named corpus; or a mapping
            from the strategy without "+whiten" to its whitening.

    Raises:
        StrategyError: If the strategy does not exist, needs weights that the model does not have,
            a state beyond the encoder's, a summary that the bank does not hold, or a whitening.
    """
    info = describe(strategy)
    base, whitened = split_whitening(strategy)
    _check_bank(bank, info, base)
    if info.needs_training:
        vectors = run_head(bank, bank.heads[base])
    else:
        assert info.pool is not None  # where nothing is trained
        state = base.partition(":")[2]
        vectors = info.pool(bank, int(state)) if state else info.pool(bank)
    if whitened:
        if isinstance(whitening, Mapping):
            whitening = whitening.get(base)
        if whitening is None:
            raise StrategyError(
                f"'{strategy}' needs a whitening that was fitted on a named corpus other than what "
                f"is scored: embed(bank, {strategy!r}, whitening=lwap.fit_whitening(corpus_bank, "
                f"{base!r}, corpus='name')), or --whiten-on FILE on the command line."
            )
        vectors = whitening.apply(vectors)
    # A copy: whoever normalises it in place must not change the bank.
    return np.array(vectors, dtype=np.float32, order="C")


def own_vectors(bank: LayerBank, model: SentenceTransformer) -> np.ndarray:
    """Return what a model's modules after its encoder make of a bank of it, (N, D) float32.

    That is what `encode` gives.

    Raises:
        StrategyError: If its pooling is none of ours, or does not come next to the encoder.
    """
    vectors = embed(replace(bank, heads=model_heads(model)), readable_strategy(model))
    with torch.inference_mode():
        for module in list(model)[2:]:
            like = next(module.parameters(), torch.empty(0))
            given = {"sentence_embedding": torch.from_numpy(vectors).to(like.device, like.dtype)}
            vectors = module(given)["sentence_embedding"].float().cpu().numpy()
    return vectors if model.truncate_dim is None else vectors[:, : model.truncate_dim]


def fit_whitening(bank: LayerBank, strategy: str, *, corpus: str) -> Whitening:
    """Fit BERT-whitening of one strategy on a bank of sentences of a named corpus.

    Raises:
        StrategyError: If the bank has no more different embeddings than dimensions, or they are
            all alike.
    """
    return Whitening.fit(embed(bank, strategy), corpus=corpus)


def is_untrained(name: str) -> bool:
    """Say whether a name is a strategy that any model gives, single states not counted."""
    entry = STRATEGIES.get(name)
    return entry is not None and not entry.needs_training and not entry.is_per_state


def _of_state(entry: Strategy, state: int | str) -> Strategy:
    name, formula = f"{entry.name}:{state}", entry.formula.format(state)
    return replace(entry, name=name, formula=formula)


def _check_bank(bank: LayerBank, info: Strategy, base: str) -> None:
    check_summaries(bank, info.summaries, info.name)
    if info.needs_training and base not in bank.heads:
        raise StrategyError(
            f"'{base}' needs trained weights, and '{bank.encoder}' has none. Load a checkpoint "
            "that has them (python -m lwap models list), or train one (python -m lwap train)."
        )
    kind, colon, state = base.partition(":")
    if colon and int(state) >= bank.num_states:
        raise StrategyError(
            f"'{base}' asks for state {state}; '{bank.encoder}' has states 0 (embeddings) to "
            f"{bank.num_states - 1}. Use {kind}:0 … {kind}:{bank.num_states - 1}."
        )
