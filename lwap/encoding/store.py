"""Layer summaries of sentences, kept on disk by content: a sentence is encoded once, ever.

What a summary depends on is its key: the encoder's weights, its tokenizer and limits, the prompt,
the precision, and the sentence. Another head, other strategies or a file with a few new rows on
the same encoder find everything again. Knows nothing of strategies or scores.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import cached_property
from weakref import WeakValueDictionary

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from lwap.encoding.bank import (
    LayerBank,
    Progress,
    Summary,
    check_texts,
    default_prompt,
    encode_layers,
    layerwise_transformer,
    model_heads,
    model_name,
)
from lwap.encoding.diskcache import DiskCache
from lwap.encoding.hardware import resolve_precision

KIND = "banks"
FORMAT = 1  # of what is kept; a change gives every sentence another key
SHARD = 4096  # sentences a file
MEMORY = 600_000_000  # bytes of summaries kept in memory where the disk takes none
AT_HAND = 64_000_000  # bytes of the latest ones kept in memory beside the disk
_COLUMNS = ("token_counts", "is_truncated")
_NAMES_AND_VERSIONS = {"_name_or_path", "architectures", "transformers_version"}
_STATES: dict[str, tuple[str, ...]] = {
    Summary.CLS: ("cls", "last_tokens"),
    Summary.MEAN: ("mean",),
    Summary.MAX: ("max",),
    Summary.LAST_TOKEN: ("last_token",),
}


class LayerStore:
    """The summaries of one model's encoder in one precision.

    Args:
        model: From `lwap.load`.
        precision: As in `encode_layers`.
        cache: Where the summaries are kept; None keeps the latest in memory only.
    """

    def __init__(
        self, model: SentenceTransformer, *, precision: str = "fp32", cache: DiskCache | None = None
    ) -> None:
        self.model = model
        self.cache = cache
        transformer = layerwise_transformer(model)
        self.precision = resolve_precision(precision, transformer.device)
        self.first: LayerStore | None = None  # whose memory it shares
        self._memory: OrderedDict[str, dict[str, np.ndarray]] = OrderedDict()
        self._on_disk: set[str] = set()  # of what is in memory
        self._place: dict[bytes, tuple[str, int]] = {}
        self._lock = threading.RLock()  # of the two above; nothing is encoded under it
        if cache is not None:
            for name in cache.names(self._kind):
                self._index(name)

    @cached_property
    def key(self) -> str:
        """A hash of all that a sentence's summaries depend on but the sentence itself."""
        return encoder_key(self.model, self.precision)

    @property
    def _kind(self) -> str:
        return f"{KIND}/{self.key}"

    def join(self, other: LayerStore) -> None:
        """Keep summaries where another store of the same key keeps them."""
        if other is self:
            return
        with other._lock:
            for name, arrays in self._memory.items():
                other._memory.setdefault(name, arrays)
            for key, place in self._place.items():
                other._place.setdefault(key, place)
            other._on_disk |= self._on_disk
        self._memory, self._on_disk = other._memory, other._on_disk
        self._place, self._lock = other._place, other._lock

    @property
    def _row_bytes(self) -> int:
        """What the states of a sentence take."""
        transformer = layerwise_transformer(self.model)
        vectors = transformer.num_states * (3 if transformer.is_causal else 2)
        return 4 * vectors * transformer.get_embedding_dimension()

    def missing(self, texts: Sequence[str]) -> list[str]:
        """Return the distinct sentences that are not kept yet."""
        return [text for text in dict.fromkeys(texts) if _digest(text) not in self._place]

    def bank(
        self,
        texts: Sequence[str],
        *,
        summaries: Sequence[str] = tuple(Summary),
        progress: Progress | None = None,
    ) -> LayerBank:
        """Return the bank of some sentences, encoding those that are not kept.

        Args:
            texts: N sentences; what comes back is in their order.
            summaries: What the bank should hold; what is kept is always everything.
            progress: Called with (sentences encoded, sentences to encode).

        Raises:
            InputError: If a sentence is empty or no text.
        """
        texts = check_texts(texts)
        names = [name for summary in summaries for name in _STATES[summary]]
        arrays = None
        # Without a disk, more than the memory keeps would only be held twice.
        if self.cache is not None or len(self.missing(texts)) * self._row_bytes <= MEMORY:
            for _ in range(3):  # an entry may turn out to be damaged, or be removed meanwhile
                self._encode(self.missing(texts), progress)
                with self._lock:
                    arrays = self._gather(texts, [*names, *_COLUMNS])
                    self._free()
                if arrays is not None:
                    break
        if arrays is None:
            return encode_layers(
                self.model,
                texts,
                summaries=summaries or tuple(Summary),
                precision=self.precision,
                progress=progress,
            )
        return LayerBank(
            texts=tuple(texts),
            max_tokens=layerwise_transformer(self.model).max_seq_length,
            encoder=model_name(self.model),
            heads=model_heads(self.model),
            **{name: arrays.get(name) for name in ("cls", "mean", "max", "last_token")},
            last_tokens=arrays.get("last_tokens"),
            token_counts=arrays["token_counts"],
            is_truncated=arrays["is_truncated"].astype(bool),
        )

    def _encode(self, texts: list[str], progress: Progress | None) -> None:
        for start in range(0, len(texts), SHARD):
            some = texts[start : start + SHARD]

            def advance(done: int, total: int, start: int = start) -> None:
                if progress is not None:
                    progress(start + done, len(texts))

            bank = encode_layers(self.model, some, precision=self.precision, progress=advance)
            self._keep(bank)

    def _keep(self, bank: LayerBank) -> None:
        arrays = {
            name: getattr(bank, name)
            for names in _STATES.values()
            for name in names
            if getattr(bank, name) is not None
        }
        arrays["token_counts"] = bank.token_counts.astype(np.int32)
        arrays["is_truncated"] = bank.is_truncated.astype(np.uint8)
        keys = b"".join(map(_digest, bank.texts))
        arrays["keys"] = np.frombuffer(keys, dtype=np.uint8).reshape(len(bank), -1)
        # Two processes that encode the same sentences write the same file.
        name = hashlib.sha256(keys).hexdigest()[:32]
        facts = {"encoder": bank.encoder, "precision": str(self.precision)}
        is_on_disk = self.cache is not None and self.cache.write(self._kind, name, arrays, facts)
        with self._lock:
            if not is_on_disk or _bytes([arrays]) <= AT_HAND:
                self._memory[name] = arrays
                (self._on_disk.add if is_on_disk else self._on_disk.discard)(name)
            self._add(name, arrays["keys"])

    def _free(self) -> None:
        """Let the oldest summaries in memory go; never in the midst of a bank."""
        for names, limit in (
            ([name for name in self._memory if name in self._on_disk], AT_HAND),
            ([name for name in self._memory if name not in self._on_disk], MEMORY),
        ):
            while len(names) > 1 and _bytes(self._memory[name] for name in names) > limit:
                oldest = names.pop(0)
                del self._memory[oldest]
                if oldest not in self._on_disk:
                    self._forget(oldest)

    def _read(
        self, name: str, only: Sequence[str]
    ) -> tuple[dict[str, np.ndarray], dict[str, str]] | None:
        return None if self.cache is None else self.cache.read(self._kind, name, only=only)

    def _index(self, name: str) -> None:
        found = self._read(name, ("keys",))
        if found is not None and "keys" in found[0]:
            self._add(name, found[0]["keys"])

    def _add(self, name: str, keys: np.ndarray) -> None:
        for row, key in enumerate(keys):
            self._place.setdefault(key.tobytes(), (name, row))

    def _forget(self, name: str) -> None:
        for key in [key for key, place in self._place.items() if place[0] == name]:
            del self._place[key]

    def _gather(self, texts: list[str], names: Sequence[str]) -> dict[str, np.ndarray] | None:
        """Return the arrays of sentences that are kept; None where an entry is gone or damaged."""
        rows: dict[str, tuple[list[int], list[int]]] = {}
        for row, text in enumerate(texts):
            shard, source = self._place[_digest(text)]
            target = rows.setdefault(shard, ([], []))
            target[0].append(row)
            target[1].append(source)
        out: dict[str, np.ndarray] = {}
        is_complete = True
        for shard, (targets, sources) in rows.items():
            arrays = self._memory.get(shard)
            if arrays is None:
                found = self._read(shard, names)
                if found is None:
                    self._forget(shard)
                    is_complete = False
                    continue
                arrays = found[0]
            for name in names:
                if name in arrays:
                    values = arrays[name]
                    if name not in out:
                        out[name] = np.empty((len(texts), *values.shape[1:]), values.dtype)
                    out[name][targets] = values[sources]
        return out if is_complete else None


_SHARED: WeakValueDictionary[tuple[str, str], LayerStore] = WeakValueDictionary()
_SHARED_LOCK = threading.Lock()


def shared_store(model: SentenceTransformer, precision: str, cache: DiskCache) -> LayerStore:
    """Return a store that shares what is in memory with all others of its key and folder.

    Models in one process that have the same encoder encode each sentence once between them.
    """
    store = LayerStore(model, precision=precision, cache=cache)
    with _SHARED_LOCK:
        first = _SHARED.setdefault((str(cache.folder), store.key), store)
    store.join(first)
    store.first = first  # as long as one is in use
    return store


def join_stores(stores: Iterable[LayerStore]) -> None:
    """Let stores on the same encoder share what they keep."""
    first: dict[str, LayerStore] = {}
    for store in stores:
        store.join(first.setdefault(store.key, store))


def _bytes(entries: Iterable[dict[str, np.ndarray]]) -> int:
    return sum(array.nbytes for arrays in entries for array in arrays.values())


def encoder_key(model: SentenceTransformer, precision: str) -> str:
    """Return a hash of all that a sentence's summaries depend on but the sentence itself.

    Weights, configuration, tokenizer, longest input, casing, prompt and precision; taken from the
    model in memory, so that a change to it gives another key.
    """
    transformer = layerwise_transformer(model)
    digest = hashlib.sha256()
    for name, tensor in sorted(transformer.model.state_dict().items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().data)
    tokenizer = transformer.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        # Padding and truncation are the last caller's; what an encoding depends on is below.
        state = json.loads(backend.to_str())
        words = json.dumps({**state, "padding": None, "truncation": None}, sort_keys=True)
    else:
        words = repr(sorted(tokenizer.get_vocab().items()))
    config = transformer.model.config.to_dict()  # heads, activation, …: the same weights otherwise
    facts = [
        FORMAT,
        type(transformer.model).__name__,
        {name: config[name] for name in config.keys() - _NAMES_AND_VERSIONS},
        type(tokenizer).__name__,
        tokenizer.truncation_side,
        tokenizer.model_input_names,
        transformer.max_seq_length,
        bool(transformer.do_lower_case),
        default_prompt(model),
        str(precision),
    ]
    digest.update(json.dumps([words, *facts], sort_keys=True, default=str).encode())
    return digest.hexdigest()[:32]


def _digest(text: str) -> bytes:
    # Half a character is refused by whoever encodes it, with the place where it stands.
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
