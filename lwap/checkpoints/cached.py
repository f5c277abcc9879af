"""A model with its cache: sentences to vectors and cosines, loaded only when it must be.

Everything is looked up by content first: cosines of a strategy on some pairs, then summaries of
sentences. A measure that was taken before needs neither torch nor the model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias, TypedDict, Unpack

import numpy as np

from lwap import __version__
from lwap.checkpoints.manifest import find_checkpoint, model_fingerprint, read_manifest
from lwap.encoding.diskcache import DiskCache
from lwap.encoding.sources import BUNDLED, is_bundled_name
from lwap.errors import ConfigError, StrategyError
from lwap.pooling.declarations import CLS, LAST_TOKEN, MAX, MEAN
from lwap.scores import cosine

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from lwap.encoding.bank import LayerBank
    from lwap.encoding.store import LayerStore
    from lwap.pooling.whitening import Whitening

Progress = Callable[[int, int], None]
AnyModel: TypeAlias = "str | SentenceTransformer | CachedModel"  # what `CachedModel.of` takes

SCORES, FACTS = "scores", "facts"
FORMAT = 1  # of what is kept under these two
SUMMARIES = (CLS, MEAN, MAX, LAST_TOKEN)
CHUNK = 2048  # pairs or sentences whose summaries are in memory at once
VECTOR_BYTES = 400_000_000  # embeddings in memory at once


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model without its weights.

    Attributes:
        name: The name that it was loaded by.
        encoder: Its encoder's name.
        num_states: S.
        dimension: D.
        strategies: The strategies that it gives, single layers included.
        own: The strategy that it was trained with; None where it is none of ours.
    """

    name: str
    encoder: str
    num_states: int
    dimension: int
    strategies: tuple[str, ...]
    own: str | None


@dataclass(frozen=True)
class WhitenOn:
    """The corpus that "…+whiten" strategies are fitted on."""

    name: str
    sentences: tuple[str, ...]

    @property
    def digest(self) -> str:
        """A hash of the sentences."""
        return text_digest(*self.sentences)


class ModelOptions(TypedDict, total=False):
    """How a model is run, where a function takes it by name: see `CachedModel`."""

    precision: str
    device: str
    cache: DiskCache | None
    whiten_on: WhitenOn | None


class CachedModel:
    """A model with its cache: the one way from sentences to numbers.

    Prompt, tokens, one pass, a bank by way of the store, strategies, cosines: pages, commands and
    measures all ask here, so a sentence that was encoded for one of them is there for the next.

    Args:
        model: A name for `lwap.load`, or what it returned.
        precision: "fp32", "bf16" or "auto".
        device: As in `lwap.load`; ignored for a model in memory.
        cache: Where summaries and cosines are kept; None keeps the latest in memory.
        whiten_on: For strategies that end in "+whiten".
        name: What a model in memory is called; by default its own name.

    Raises:
        ModelError: If there is no such model.
    """

    def __init__(
        self,
        model: str | SentenceTransformer,
        *,
        precision: str = "fp32",
        device: str = "auto",
        cache: DiskCache | None = None,
        whiten_on: WhitenOn | None = None,
        name: str = "",
    ) -> None:
        self._named = model if isinstance(model, str) else name
        self._model = None if isinstance(model, str) else model
        self._device = device
        self._stores: list[LayerStore] = []  # none or one; with another whitening the same
        self._whitenings: dict[tuple[str, str], Whitening] = {}
        self.cache = cache
        self.whiten_on = whiten_on
        self.notes: list[str] = []
        self.precision = self._resolved(precision)
        if self._model is None:
            self.fingerprint  # noqa: B018 (there is no such model: said here, not at first use)

    @classmethod
    def of(cls, model: AnyModel, **options: Unpack[ModelOptions]) -> CachedModel:
        """Return a model with its cache: itself if it is one, perhaps with another whitening.

        Raises:
            ConfigError: If it is one, and an option other than `whiten_on` is given.
            ModelError: If there is no such model.
        """
        if not isinstance(model, CachedModel):
            return cls(model, **options)
        if fixed := sorted(options.keys() - {"whiten_on"}):
            raise ConfigError(
                f"{', '.join(fixed)} cannot be given beside a CachedModel, which has its own. Make "
                "it with them."
            )
        whiten_on = options.get("whiten_on")
        if whiten_on is None:
            return model
        twin = copy(model)
        twin.whiten_on, twin.notes = whiten_on, []
        return twin

    @property
    def model(self) -> SentenceTransformer:
        """The model; loaded now if it was not."""
        if self._model is None:
            from lwap.checkpoints.load import load

            self._model = load(self._named, device=self._device)
        return self._model

    @property
    def store(self) -> LayerStore:
        """The summaries of this model's sentences."""
        if not self._stores:
            from lwap.encoding.store import LayerStore, shared_store

            self._stores.append(
                LayerStore(self.model, precision=self.precision)
                if self.cache is None
                else shared_store(self.model, self.precision, self.cache)
            )
        return self._stores[0]

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that this model's numbers depend on."""
        # Of a model in memory its own content: its files may have been replaced since.
        if self._model is None:
            return model_fingerprint(self._named)
        return live_fingerprint(self._model)

    @cached_property
    def facts(self) -> ModelFacts:
        """What is known of the model without its weights."""
        return self._read_facts()

    @property
    def default_strategies(self) -> list[str]:
        """The strategies that are compared when nobody says which: all but single layers."""
        return [name for name in self.facts.strategies if ":" not in name]

    def bank(
        self,
        texts: Sequence[str],
        *,
        summaries: Sequence[str] = SUMMARIES,
        progress: Progress | None = None,
    ) -> LayerBank:
        """Return the layer summaries of sentences, with this model's trained poolings.

        Args:
            texts: N sentences; what comes back is in their order.
            summaries: What the bank should hold.
            progress: Called with (sentences encoded, sentences to encode), where there are any.

        Raises:
            InputError: If there are no sentences, or one is empty or no text.
        """
        from lwap.encoding.bank import model_heads

        bank = self.store.bank(texts, summaries=summaries, progress=progress)
        return replace(bank, heads=model_heads(self.model))

    def check(
        self, strategies: Sequence[str], whitening: Mapping[str, Whitening] | None = None
    ) -> None:
        """Refuse strategies that this model cannot give.

        Raises:
            StrategyError: With the first one, and what there is.
        """
        for name in strategies:
            base = name.removesuffix("+whiten")
            if base not in self.facts.strategies:
                raise StrategyError(
                    f"'{self.facts.name}' has no strategy '{base}'. It has "
                    f"{', '.join(self.facts.strategies)}; each can end in '+whiten'."
                )
            if base != name and self.whiten_on is None and base not in (whitening or {}):
                raise StrategyError(
                    f"'{name}' needs a corpus to fit the whitening on, other than what is scored: "
                    "--whiten-on FILE on the command line."
                )

    def missing(
        self, first: Sequence[str], second: Sequence[str], strategies: Sequence[str]
    ) -> list[str]:
        """Return the sentences that must be encoded before these pairs can be scored."""
        kept = self._kept_cosines(first, second, strategies)
        if kept.keys() >= set(map(self._canonical, strategies)):
            return []
        return self.store.missing([*first, *second])

    def cosines(
        self,
        first: Sequence[str],
        second: Sequence[str],
        strategies: Sequence[str],
        *,
        whitening: Mapping[str, Whitening] | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Return the cosine of each pair under each strategy, (K, P) float64.

        Args:
            first, second: The sentences of the P pairs.
            strategies: K names.
            whitening: For "…+whiten" strategies, by strategy without "+whiten", in the place of
                what `whiten_on` gives.
            progress: Called with (sentences encoded, sentences to encode), where there are any.

        Raises:
            StrategyError: If this model has no such strategy, or a whitening cannot be fitted.
        """
        self.check(strategies, whitening)
        # `mean` is `layer_mean:L`, and `cls` is `layer_cls:L`.
        same = {name: self._canonical(name) for name in strategies}
        corpus, found = [], {}
        if whitening is None:
            corpus = self._corpus_of(strategies, [*first, *second])
            found = self._kept_cosines(first, second, strategies)
        wanted = [name for name in dict.fromkeys(same.values()) if name not in found]
        if wanted:
            from lwap.pooling.strategies import embed, needed_summaries

            known = whitening or self._whitening_of(wanted, corpus)
            summaries = needed_summaries(wanted)
            new = np.empty((len(wanted), len(first)))
            count = Count(progress, len(self.store.missing([*first, *second])))
            for start in range(0, len(first), CHUNK):
                rows = slice(start, start + CHUNK)
                texts = dict.fromkeys([*first[rows], *second[rows]])
                row_of = {text: row for row, text in enumerate(texts)}
                bank = self.bank(list(texts), summaries=summaries, progress=count.advance)
                count.close()
                a, b = ([row_of[text] for text in side[rows]] for side in (first, second))
                for place, name in enumerate(wanted):
                    vectors = embed(bank, name, whitening=known)
                    new[place, rows] = cosine(vectors[a], vectors[b])
            for place, name in enumerate(wanted):
                found[name] = new[place]
                if whitening is None:
                    self._keep(self._score_name(first, second, name), new[place])
        return np.stack([found[same[name]] for name in strategies])

    def vectors(
        self,
        texts: Sequence[str],
        strategies: Sequence[str],
        *,
        progress: Progress | None = None,
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Yield (strategy, embeddings (N, D) float32, unnormalised), in bounded memory.

        Raises:
            StrategyError: As `cosines`.
        """
        self.check(strategies)
        from lwap.pooling.strategies import embed, needed_summaries

        count = Count(progress, len(self.store.missing(texts)))
        whitening = self._whitening_of(strategies, self._corpus_of(strategies, texts))
        size = max(1, int(VECTOR_BYTES // max(1, 4 * len(texts) * self.facts.dimension)))
        for start in range(0, len(strategies), size):
            some = strategies[start : start + size]
            summaries = needed_summaries(some)
            out = {
                name: np.empty((len(texts), self.facts.dimension), dtype=np.float32)
                for name in some
            }
            for begin in range(0, len(texts), 2 * CHUNK):
                rows = slice(begin, begin + 2 * CHUNK)
                bank = self.bank(list(texts[rows]), summaries=summaries, progress=count.advance)
                count.close()
                for name in some:
                    out[name][rows] = embed(bank, name, whitening=whitening)
            yield from out.items()

    def layer_weights(self, texts: Sequence[str]) -> np.ndarray:
        """Return the weight of each state in each sentence under the model's head, (N, S).

        Raises:
            StrategyError: If the model has no trained pooling over layers.
        """
        from lwap.pooling.trained import layer_weights

        return np.concatenate(
            [
                layer_weights(self.bank(list(texts[begin : begin + 2 * CHUNK])))
                for begin in range(0, len(texts), 2 * CHUNK)
            ]
        )

    def truncated(self, texts: Sequence[str]) -> tuple[int, int]:
        """Return how many of the sentences were cut, and the encoder's limit in tokens."""
        cut, limit = 0, 0
        for begin in range(0, len(texts), 2 * CHUNK):
            some = list(texts[begin : begin + 2 * CHUNK])
            bank = self.bank(some, summaries=())
            cut, limit = cut + int(bank.is_truncated.sum()), bank.max_tokens
        return cut, limit

    @property
    def _corpus(self) -> WhitenOn:
        assert self.whiten_on is not None  # `check` was asked
        return self.whiten_on

    def _canonical(self, name: str) -> str:
        base, plus, _ = name.partition("+")
        last = self.facts.num_states - 1
        base = {f"layer_mean:{last}": "mean", f"layer_cls:{last}": "cls"}.get(base, base)
        return f"{base}+whiten" if plus else base

    def _kept_cosines(
        self, first: Sequence[str], second: Sequence[str], strategies: Sequence[str]
    ) -> dict[str, np.ndarray]:
        if self.cache is None:
            return {}
        found = {}
        for name in dict.fromkeys(map(self._canonical, strategies)):
            entry = self.cache.read(self._scores, self._score_name(first, second, name))
            if entry is not None and len(entry[0].get("cosines", ())) == len(first):
                found[name] = entry[0]["cosines"]
        return found

    @property
    def _scores(self) -> str:
        return f"{SCORES}/{self.fingerprint}-{self.precision}"

    def _score_name(self, first: Sequence[str], second: Sequence[str], strategy: str) -> str:
        corpus = self._corpus.digest if strategy.endswith("+whiten") else ""
        return text_digest(str(FORMAT), strategy, corpus, text_digest(*first), text_digest(*second))

    def _keep(self, name: str, cosines: np.ndarray) -> None:
        if self.cache is not None:
            self.cache.write(self._scores, name, {"cosines": cosines})

    def _corpus_of(self, strategies: Sequence[str], scored: Sequence[str]) -> list[str]:
        """Return what whitening is fitted on, the corpus without what is scored; else nothing."""
        if not any(name.endswith("+whiten") for name in strategies):
            return []
        left_out = set(scored)
        texts = [text for text in dict.fromkeys(self._corpus.sentences) if text not in left_out]
        dropped = len(set(self._corpus.sentences)) - len(texts)
        if dropped:
            note = (
                f"{dropped} sentences of '{self._corpus.name}' are also scored; the whitening "
                "was fitted without them."
            )
            if note not in self.notes:
                self.notes.append(note)
        return texts

    def _whitening_of(
        self, strategies: Sequence[str], texts: Sequence[str]
    ) -> Mapping[str, Whitening] | None:
        """Return the whitening of each base, fitted on these sentences."""
        bases = [name.removesuffix("+whiten") for name in strategies if name.endswith("+whiten")]
        if not bases:
            return None
        from lwap.pooling.whitening import Whitening

        key = text_digest(*texts)
        wanted = [base for base in bases if (base, key) not in self._whitenings]
        for base, vectors in self.vectors(texts, wanted):
            self._whitenings[base, key] = Whitening.fit(vectors, corpus=self._corpus.name)
        return {base: self._whitenings[base, key] for base in bases}

    def _resolved(self, precision: str) -> str:
        if precision == "fp32":
            return "fp32"  # asked without torch
        from lwap.encoding.hardware import resolve_device, resolve_precision

        if self._model is None:
            device = resolve_device(self._device)
        else:
            from lwap.encoding.bank import layerwise_transformer

            device = layerwise_transformer(self._model).device
        return str(resolve_precision(precision, device))

    def _read_facts(self) -> ModelFacts:
        name = f"{self.fingerprint}-{__version__}"
        kept = self.cache.read(FACTS, name) if self.cache is not None else None
        if kept is None or self._model is not None:
            facts = self._facts_of_model()
            if self.cache is not None and kept is None:
                written = {key: json.dumps(value) for key, value in vars(facts).items()}
                self.cache.write(FACTS, name, {"none": np.zeros(1)}, written)
            return facts
        facts = {key: json.loads(value) for key, value in kept[1].items()}
        facts["strategies"] = tuple(facts["strategies"])
        # The same files may lie elsewhere under another name.
        return ModelFacts(**facts | {"name": self._named, "encoder": _encoder_of(self._named)})

    def _facts_of_model(self) -> ModelFacts:
        from lwap.encoding.bank import layerwise_transformer, model_name
        from lwap.pooling.strategies import own_strategy, strategies

        transformer = layerwise_transformer(self.model)
        name = self._named or model_name(self.model)
        return ModelFacts(
            name=name,
            encoder=_encoder_of(name),
            num_states=transformer.num_states,
            dimension=transformer.get_embedding_dimension(),
            strategies=tuple(strategies(self.model)),
            own=own_strategy(self.model),
        )


def _encoder_of(name: str) -> str:
    """Return the name of a model's encoder: its own, unless it is a checkpoint with a head."""
    checkpoint = find_checkpoint(name)
    encoder = name if checkpoint is None else read_manifest(checkpoint)["encoder"]["id"]
    return BUNDLED if is_bundled_name(encoder) else encoder


def live_fingerprint(model: SentenceTransformer) -> str:
    """Return a hash of a model in memory: its encoder and its heads."""
    from lwap.encoding.bank import model_heads
    from lwap.encoding.store import encoder_key

    digest = hashlib.sha256(encoder_key(model, "").encode())
    for name, head in sorted(model_heads(model).items()):
        digest.update(f"{name}|{json.dumps(head.get_config_dict(), sort_keys=True)}".encode())
        for key, tensor in sorted(head.state_dict().items()):
            digest.update(key.encode() + tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:32]


def text_digest(*texts: str) -> str:
    """Return a hash of texts and of where one ends."""
    digest = hashlib.sha256()
    for text in texts:
        content = text.encode(errors="backslashreplace")
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()[:32]


class Count:
    """Adds the progress of several passes up to one."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._before = self._now = 0

    def advance(self, done: int, _: int) -> None:
        """Report how far a pass is; a `progress` callback."""
        self._now = done
        if self._progress is not None:
            self._progress(min(self._before + done, self._total), self._total)

    def close(self) -> None:
        """End a pass; the next one begins at 0."""
        self._before += self._now
        self._now = 0
