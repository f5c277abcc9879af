"""Layer summaries of sentences, kept on disk by content: a sentence is encoded once, ever.

What a summary depends on is its key: the encoder's weights, its tokenizer and limits, the prompt,
the precision, and the sentence. Another head, other strategies or a file with a few new rows on
the same encoder find everything again. Knows nothing of strategies or scores.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch

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
_COLUMNS = ("token_counts", "is_truncated")
_NAMES_AND_VERSIONS = {"_name_or_path", "architectures", "transformers_version"}
_STATES = {
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

    def __init__(self, model, *, precision: str = "fp32", cache: DiskCache | None = None) -> None:
        self.model = model
        self.cache = cache
        transformer = layerwise_transformer(model)
        self.precision = resolve_precision(precision, transformer.device)
        self.key = encoder_key(model, self.precision)
        self._kind = f"{KIND}/{self.key}"
        self._memory: OrderedDict[str, dict[str, np.ndarray]] = OrderedDict()
        self._place: dict[bytes, tuple[str, int]] = {}
        if cache is not None:
            for name in cache.names(self._kind):
                self._index(name)

    def join(self, other: LayerStore) -> None:
        """Keep summaries where another store of the same key keeps them."""
        self._memory, self._place = other._memory, other._place

    def missing(self, texts: Sequence[str]) -> list[str]:
        """Return the distinct sentences that are not kept yet."""
        return [text for text in dict.fromkeys(texts) if _digest(text) not in self._place]

    def bank(
        self,
        texts: Sequence[str],
        *,
        summaries: Sequence[Summary] = tuple(Summary),
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
        for _ in range(3):  # an entry may turn out to be damaged, or be removed meanwhile
            self._encode(self.missing(texts), progress)
            arrays = self._gather(texts, [*names, *_COLUMNS])
            self._free()
            if arrays is not None:
                break
        else:  # entries are removed as fast as they are written
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
        if self.cache is None or not self.cache.write(self._kind, name, arrays, facts):
            self._memory[name] = arrays
        self._add(name, arrays["keys"])

    def _free(self) -> None:
        """Let the oldest summaries in memory go beyond `MEMORY`; never in the midst of a bank."""
        while len(self._memory) > 1 and self._memory_bytes() > MEMORY:
            oldest, _ = self._memory.popitem(last=False)
            self._forget(oldest)

    def _memory_bytes(self) -> int:
        return sum(array.nbytes for arrays in self._memory.values() for array in arrays.values())

    def _index(self, name: str) -> None:
        found = self.cache.read(self._kind, name, only=("keys",))
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
                found = self.cache.read(self._kind, shard, only=names)
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


def encoder_key(model, precision: str) -> str:
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
