"""A model as a measure sees it: vectors and cosines of sentences, loaded only when it must be.

Everything is looked up by content first: cosines of a strategy on some pairs, then summaries of
sentences. A measure that was taken before needs neither torch nor the model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lwap import __version__
from lwap.checkpoints.manifest import find_checkpoint, model_fingerprint, read_manifest
from lwap.encoding.diskcache import DiskCache
from lwap.encoding.sources import BUNDLED, is_bundled_name
from lwap.errors import StrategyError
from lwap.scores import cosine

if TYPE_CHECKING:
    from lwap.encoding.store import LayerStore
    from lwap.pooling.whitening import Whitening

Progress = Callable[[int, int], None]

SCORES, FACTS = "scores", "facts"
FORMAT = 1  # of what is kept under these two
CHUNK = 2048  # pairs or sentences whose summaries are in memory at once
VECTOR_BYTES = 400_000_000  # embeddings in memory at once


@dataclass(frozen=True)
class SourceFacts:
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


class Source:
    """A model by name, or one in memory.

    Args:
        model: A name for `lwap.load`, or what it returned.
        precision: "fp32", "bf16" or "auto".
        device: As in `lwap.load`; ignored for a model in memory.
        cache: Where summaries and cosines are kept; None keeps nothing.
        whiten_on: For strategies that end in "+whiten".
        load: How a named model is loaded, by default `lwap.load` on `device`.
        stores: By key; models on the same encoder that are given the same mapping share what
            they encode.

    Raises:
        ModelError: If there is no such model.
    """

    def __init__(
        self,
        model: Any,
        *,
        precision: str = "fp32",
        device: str = "auto",
        cache: DiskCache | None = None,
        whiten_on: WhitenOn | None = None,
        load: Callable[[str], Any] | None = None,
        stores: dict[str, LayerStore] | None = None,
    ) -> None:
        self._named = model if isinstance(model, str) else None
        self._model = None if isinstance(model, str) else model
        if self._named is not None and load is not None:
            self._model = load(self._named)
        self._precision = precision
        self._device = device
        self._store: LayerStore | None = None
        self._stores = {} if stores is None else stores
        self._whitenings: dict[tuple[str, str], Whitening] = {}
        self.cache = cache
        self.whiten_on = whiten_on
        self.notes: list[str] = []
        # Of a model in memory its own content: its files may have been replaced since.
        self.fingerprint = (
            model_fingerprint(self._named) if self._model is None else live_fingerprint(self._model)
        )
        self.precision = self._resolved_precision()
        self.facts = self._read_facts()

    @property
    def model(self):
        """The model; loaded now if it was not."""
        if self._model is None:
            from lwap.checkpoints.load import load

            self._model = load(self._named, device=self._device)
        return self._model

    @property
    def store(self) -> LayerStore:
        """The summaries of this model's sentences."""
        if self._store is None:
            from lwap.encoding.store import LayerStore

            self._store = LayerStore(self.model, precision=self.precision, cache=self.cache)
            self._store.join(self._stores.setdefault(self._store.key, self._store))
        return self._store

    def check(self, strategies: Sequence[str]) -> None:
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
            if base != name and self.whiten_on is None:
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
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Return the cosine of each pair under each strategy, (K, P) float64.

        Args:
            first, second: The sentences of the P pairs.
            strategies: K names.
            progress: Called with (sentences encoded, sentences to encode), where there are any.

        Raises:
            StrategyError: If this model has no such strategy, or a whitening cannot be fitted.
        """
        self.check(strategies)
        # `mean` is `layer_mean:L`, and `cls` is `layer_cls:L`.
        same = {name: self._canonical(name) for name in strategies}
        corpus = self._corpus_of(strategies, [*first, *second])
        found = self._kept_cosines(first, second, strategies)
        wanted = [name for name in dict.fromkeys(same.values()) if name not in found]
        if wanted:
            from lwap.pooling.strategies import embed, needed_summaries

            whitening = self._whitening_of(wanted, corpus)
            summaries = needed_summaries(wanted)
            new = np.empty((len(wanted), len(first)))
            count = Count(progress, len(self.store.missing([*first, *second])))
            for start in range(0, len(first), CHUNK):
                rows = slice(start, start + CHUNK)
                texts = dict.fromkeys([*first[rows], *second[rows]])
                row_of = {text: row for row, text in enumerate(texts)}
                bank = self.store.bank(list(texts), summaries=summaries, progress=count.advance)
                count.close()
                a, b = ([row_of[text] for text in side[rows]] for side in (first, second))
                for place, name in enumerate(wanted):
                    vectors = embed(bank, name, whitening=whitening)
                    new[place, rows] = cosine(vectors[a], vectors[b])
            for place, name in enumerate(wanted):
                found[name] = new[place]
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
                bank = self.store.bank(
                    list(texts[rows]), summaries=summaries, progress=count.advance
                )
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
                layer_weights(self.store.bank(list(texts[begin : begin + 2 * CHUNK])))
                for begin in range(0, len(texts), 2 * CHUNK)
            ]
        )

    def truncated(self, texts: Sequence[str]) -> tuple[int, int]:
        """Return how many of the sentences were cut, and the encoder's limit in tokens."""
        cut, limit = 0, 0
        for begin in range(0, len(texts), 2 * CHUNK):
            some = list(texts[begin : begin + 2 * CHUNK])
            bank = self.store.bank(some, summaries=())
            cut, limit = cut + int(bank.is_truncated.sum()), bank.max_tokens
        return cut, limit

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
        corpus = self.whiten_on.digest if strategy.endswith("+whiten") else ""
        return text_digest(str(FORMAT), strategy, corpus, text_digest(*first), text_digest(*second))

    def _keep(self, name: str, cosines: np.ndarray) -> None:
        if self.cache is not None:
            self.cache.write(self._scores, name, {"cosines": cosines})

    def _corpus_of(self, strategies: Sequence[str], scored: Sequence[str]) -> list[str]:
        """Return what whitening is fitted on, the corpus without what is scored; else nothing."""
        if not any(name.endswith("+whiten") for name in strategies):
            return []
        left_out = set(scored)
        texts = [text for text in dict.fromkeys(self.whiten_on.sentences) if text not in left_out]
        dropped = len(set(self.whiten_on.sentences)) - len(texts)
        if dropped:
            note = (
                f"{dropped} sentences of '{self.whiten_on.name}' are also scored; the whitening "
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
            self._whitenings[base, key] = Whitening.fit(vectors, corpus=self.whiten_on.name)
        return {base: self._whitenings[base, key] for base in bases}

    def _resolved_precision(self) -> str:
        if self._precision == "fp32":
            return "fp32"  # asked without torch
        from lwap.encoding.hardware import resolve_device, resolve_precision

        if self._model is None:
            device = resolve_device(self._device)
        else:
            from lwap.encoding.bank import layerwise_transformer

            device = layerwise_transformer(self._model).device
        return str(resolve_precision(self._precision, device))

    def _read_facts(self) -> SourceFacts:
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
        return SourceFacts(**facts | {"name": self._named, "encoder": _encoder_of(self._named)})

    def _facts_of_model(self) -> SourceFacts:
        from lwap.encoding.bank import layerwise_transformer, model_name
        from lwap.pooling.strategies import own_strategy, strategies

        transformer = layerwise_transformer(self.model)
        name = self._named or model_name(self.model)
        return SourceFacts(
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


def live_fingerprint(model) -> str:
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
