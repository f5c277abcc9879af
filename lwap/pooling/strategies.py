"""Pooling strategies: one sentence vector out of a bank's layer summaries, by name.

Names are API (DESIGN: `cls`, `mean`, …, `layer_mean:K`, `lwap`, and any of them `+whiten`). Knows
banks and heads, nothing of text or scores.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling

from lwap.encoding.bank import LayerBank, Summary, model_heads, model_name
from lwap.errors import StrategyError
from lwap.pooling.head import LayerHead
from lwap.pooling.layer_attention import LayerwiseAttentionPooling
from lwap.pooling.scalar_mix import ScalarMix
from lwap.pooling.whitening import Whitening

WHITEN = "+whiten"
HEAD_ROWS = 4096  # sentences a chunk when a head runs over a bank; bounds memory


@dataclass(frozen=True)
class StrategyInfo:
    """What a strategy is.

    Attributes:
        name: The name to pass to `embed` and `compare`.
        formula: How the sentence vector is made; h_l,t is token t of state l, of L layers.
        needs_training: Whether it exists only where a checkpoint brings its weights.
        summaries: What of a bank it reads.
        reference: Who uses it.
    """

    name: str
    formula: str
    needs_training: bool
    summaries: tuple[Summary, ...]
    reference: str


def _info(name: str, formula: str, reads: tuple[Summary, ...], reference: str, trained=False):
    return StrategyInfo(name, formula, trained, reads, reference)


_FIXED: dict[str, tuple[StrategyInfo, Callable[[LayerBank], np.ndarray]]] = {
    info.name: (info, pool)
    for info, pool in [
        (
            _info("cls", "first token of state L", (Summary.CLS,), "BERT, SimCSE"),
            lambda bank: bank.cls[:, -1],
        ),
        (
            _info("mean", "mean over tokens of state L", (Summary.MEAN,), "Sentence-BERT"),
            lambda bank: bank.mean[:, -1],
        ),
        (
            _info("max", "maximum over tokens of state L", (Summary.MAX,), "Sentence-BERT"),
            lambda bank: bank.max,
        ),
        (
            _info("last_token", "last token of state L", (Summary.LAST_TOKEN,), "decoders"),
            lambda bank: bank.last_token,
        ),
        (
            _info(
                "first_last_mean",
                "average of the token means of states 1 and L",
                (Summary.MEAN,),
                "BERT-whitening, SimCSE",
            ),
            lambda bank: (bank.mean[:, 1] + bank.mean[:, -1]) / 2,
        ),
        (
            _info(
                "embed_last_mean",
                "average of the token means of states 0 and L",
                (Summary.MEAN,),
                "Oh et al. 2022, released code",
            ),
            lambda bank: (bank.mean[:, 0] + bank.mean[:, -1]) / 2,
        ),
        (
            _info(
                "last_two_mean",
                "average of the token means of states L-1 and L",
                (Summary.MEAN,),
                "BERT-flow",
            ),
            lambda bank: (bank.mean[:, -2] + bank.mean[:, -1]) / 2,
        ),
        (
            _info(
                "all_mean",
                "average of the token means of all states",
                (Summary.MEAN,),
                "WhiteningBERT",
            ),
            lambda bank: bank.mean.mean(axis=1),
        ),
    ]
}
_LAYER = {
    "layer_mean": (Summary.MEAN, "mean over tokens of state {}"),
    "layer_cls": (Summary.CLS, "first token of state {}"),
}
_TRAINED = {
    "scalar_mix": _info(
        "scalar_mix",
        "learned weights over the token means of all states, the same for every sentence",
        (Summary.CLS, Summary.MEAN),
        "ELMo, COMET",
        trained=True,
    ),
    "lwap": _info(
        "lwap",
        "layer-wise attention pooling: weights over all states, made for each sentence",
        (Summary.CLS, Summary.MEAN),
        "Oh et al. 2022",
        trained=True,
    ),
}
_HEAD_CLASSES = {head.strategy: head for head in (LayerwiseAttentionPooling, ScalarMix)}


def strategies(model=None) -> dict[str, StrategyInfo]:
    """Return the pooling strategies by name, in the order that they are shown in.

    Args:
        model: From `lwap.load`. With it: what this model gives, `layer_mean:K` and `layer_cls:K`
            spelled out for each of its states, trained strategies only where it has the weights.
            Without it: all of them, with `layer_mean:K` and `layer_cls:K` as patterns.

    Any name followed by "+whiten" is the same vector, whitened.

    >>> list(strategies())[:3]
    ['cls', 'mean', 'max']
    """
    found = {name: info for name, (info, _) in _FIXED.items()}
    if model is None:
        found |= {f"{kind}:K": _layer_info(kind, "K") for kind in _LAYER} | _TRAINED
        return found
    from lwap.encoding.bank import layerwise_transformer

    states = range(layerwise_transformer(model).num_states)
    found |= {f"{kind}:{state}": _layer_info(kind, state) for kind in _LAYER for state in states}
    heads = model_heads(model)
    return found | {name: info for name, info in _TRAINED.items() if name in heads}


def default_strategies(model) -> list[str]:
    """Return the strategies that are compared when nobody says which: all but single layers."""
    return [name for name in strategies(model) if not name.startswith(tuple(_LAYER))]


def own_strategy(model) -> str | None:
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
            return name if name in _FIXED else None
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


def describe(name: str) -> StrategyInfo:
    """Return what a strategy is, "+whiten" included.

    Raises:
        StrategyError: If there is no strategy of that name; the message lists them.
    """
    base, whitened = split_whitening(name)
    kind, colon, state = base.partition(":")
    if base in _FIXED:
        info = _FIXED[base][0]
    elif base in _TRAINED:
        info = _TRAINED[base]
    elif colon and kind in _LAYER and state.isdecimal():
        info = _layer_info(kind, int(state))
    else:
        raise StrategyError(
            f"There is no pooling strategy {name!r}. There are {', '.join(strategies())}, where K "
            "is a state (0 = embeddings); each can end in '+whiten'."
        )
    if not whitened:
        return info
    formula = f"{info.formula}; then whitened"
    return StrategyInfo(name, formula, info.needs_training, info.summaries, "BERT-whitening")


def needed_summaries(names) -> tuple[Summary, ...]:
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
    if base in _FIXED:
        vectors = _FIXED[base][1](bank)
    elif base in _TRAINED:
        vectors = run_head(bank, bank.heads[base])
    else:
        kind, _, state = base.partition(":")
        vectors = (bank.mean if kind == "layer_mean" else bank.cls)[:, int(state)]
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


def run_head(bank: LayerBank, head: LayerHead) -> np.ndarray:
    """Return a trained head's embeddings of a bank, (N, D) float32, as in eval mode."""
    weight = next(head.parameters())
    out = np.empty((len(bank), head.embedding_dimension), dtype=np.float32)
    with in_eval(head):
        for query, means, rows in head_chunks(bank, weight):
            features = head({"layer_cls": query, "layer_means": means})
            out[rows] = features["sentence_embedding"].float().cpu().numpy()
    return out


@contextlib.contextmanager
def in_eval(module: torch.nn.Module) -> Iterator[None]:
    """Put a module into eval mode without gradients, and back into its own mode afterwards."""
    was_training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        module.train(was_training)


def head_chunks(bank: LayerBank, like: torch.Tensor):
    """Yield (query vectors, means, rows) of a bank in chunks, (n, S, D) tensors like `like`."""
    for start in range(0, len(bank), HEAD_ROWS):
        rows = slice(start, start + HEAD_ROWS)
        query, means = (
            # np.array copies: a memory-mapped bank is read-only, which torch warns about.
            torch.from_numpy(np.array(array[rows])).to(like.device, like.dtype)
            for array in (bank.query, bank.mean)
        )
        yield query, means, rows


def check_summaries(bank: LayerBank, summaries: Iterable[Summary], reader: str) -> None:
    """Refuse a bank that does not hold what `reader`, a strategy or a function, reads.

    Raises:
        StrategyError: With the first summary that is missing.
    """
    for summary in summaries:
        if getattr(bank, summary) is None:
            raise StrategyError(
                f"'{reader}' needs the summary '{summary}', which this bank does not hold. Make "
                f"it with encode_layers(model, texts, summaries=[…, '{summary}'])."
            )


def _layer_info(kind: str, state: int | str) -> StrategyInfo:
    summary, formula = _LAYER[kind]
    return _info(f"{kind}:{state}", formula.format(state), (summary,), "layer probing")


def _check_bank(bank: LayerBank, info: StrategyInfo, base: str) -> None:
    check_summaries(bank, info.summaries, info.name)
    if base in _TRAINED and base not in bank.heads:
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
