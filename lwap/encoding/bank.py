"""LayerBank: the layer summaries of N sentences, filled by one pass of the encoder.

Everything that compares layers or poolings is afterwards a reduction of the bank, not another
pass. Knows nothing about strategies, scores or figures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from lwap.encoding.encoder import TOKENIZER_LOCK, LayerwiseTransformer
from lwap.encoding.hardware import in_precision, resolve_precision
from lwap.encoding.reductions import last_token, token_max
from lwap.errors import ConfigError, InputError, ModelError, check_choice
from lwap.names import state_names

Progress = Callable[[int, int], None]

BATCH_TOKENS = 1024  # padded tokens a batch; the best on two CPU cores (docs/experiments.md)


class Summary(StrEnum):
    """What a bank holds of each sentence. The query vector of causal decoders comes with CLS."""

    CLS = "cls"
    MEAN = "mean"
    MAX = "max"
    LAST_TOKEN = "last_token"


ALL_SUMMARIES = tuple(Summary)


@dataclass(frozen=True, eq=False)
class LayerBank:
    """The layer summaries of N sentences, in the caller's order, as float32 arrays.

    N sentences, S = L+1 hidden states (0 = embedding output), D hidden size.

    Attributes:
        texts: The N sentences.
        cls: First real token of each state, (N, S, D); None if not asked for.
        mean: Mean over real tokens of each state, (N, S, D); None if not asked for.
        max: Maximum over real tokens of the last state, (N, D); None if not asked for.
        last_token: Last real token of the last state, (N, D); None if not asked for.
        last_tokens: Last real token of each state, (N, S, D); causal decoders only.
        token_counts: Real tokens of each sentence after truncation, (N,).
        is_truncated: Whether the encoder saw only the beginning, (N,).
        max_tokens: The encoder's limit of tokens a sentence.
        encoder: Name of the encoder.
        heads: The model's trained poolings over layers, by strategy.
    """

    texts: tuple[str, ...]
    cls: np.ndarray | None
    mean: np.ndarray | None
    max: np.ndarray | None
    last_token: np.ndarray | None
    last_tokens: np.ndarray | None
    token_counts: np.ndarray
    is_truncated: np.ndarray
    max_tokens: int
    encoder: str
    heads: dict[str, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def num_states(self) -> int:
        """S = L+1."""
        return self._any_states().shape[1]

    @property
    def dimension(self) -> int:
        """D, the encoder's hidden size."""
        return self._any_states().shape[2]

    @property
    def state_names(self) -> list[str]:
        """The names of the S states: "embeddings", "layer 1", …"""
        return state_names(self.num_states)

    @property
    def query(self) -> np.ndarray | None:
        """The vector that stands for the sentence in each state, (N, S, D): CLS, or on a causal
        decoder the last real token."""
        return self.cls if self.last_tokens is None else self.last_tokens

    @property
    def query_name(self) -> str:
        """What `query` is, in words: "CLS" or "last token"."""
        return "CLS" if self.last_tokens is None else "last token"

    def _any_states(self) -> np.ndarray:
        states = self.mean if self.mean is not None else self.cls
        assert states is not None  # only a bank of states is asked
        return states

    def select(self, rows: Sequence[int] | np.ndarray) -> LayerBank:
        """Return the bank of some sentences: those at `rows` in that order, or a mask's."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(int)

        held = {name: getattr(self, name) for name in _ARRAYS}
        taken: dict[str, Any] = {
            name: array[rows] for name, array in held.items() if array is not None
        }
        return replace(
            self,
            texts=tuple(self.texts[row] for row in rows),
            token_counts=self.token_counts[rows],
            is_truncated=self.is_truncated[rows],
            **taken,
        )

    @classmethod
    def open(cls, directory: str | Path) -> LayerBank:
        """Open a bank that `encode_layers(…, directory=…)` wrote, memory-mapped and read-only.

        It has no heads: those belong to a model, not to sentences.

        Raises:
            InputError: If the folder holds no complete bank.
        """
        directory = Path(directory)
        try:
            facts = json.loads((directory / _FACTS).read_text(encoding="utf-8"))
            arrays = {
                name: np.load(directory / f"{name}.npy", mmap_mode="r") for name in facts["arrays"]
            }
            parts = [*arrays.values(), *(facts[name] for name in _COLUMNS)]
            held: dict[str, Any] = {name: arrays.get(name) for name in _ARRAYS}
            if len(counts := {len(part) for part in parts}) != 1:
                raise ValueError(f"its parts hold {sorted(counts)} sentences")
            return cls(
                texts=tuple(facts["texts"]),
                token_counts=np.array(facts["token_counts"]),
                is_truncated=np.array(facts["is_truncated"], dtype=bool),
                max_tokens=facts["max_tokens"],
                encoder=facts["encoder"],
                **held,
            )
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise InputError(
                f"'{directory}' holds no complete bank ({error}). Write it again with "
                "encode_layers(model, texts, directory=…)."
            ) from error


_ARRAYS = ("cls", "mean", "max", "last_token", "last_tokens")
_FACTS = "bank.json"
_COLUMNS = ("texts", "token_counts", "is_truncated")  # one entry a sentence


def encode_layers(
    model: SentenceTransformer,
    texts: Sequence[str],
    *,
    summaries: Sequence[str] = ALL_SUMMARIES,
    precision: str = "fp32",
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress | None = None,
    directory: str | Path | None = None,
) -> LayerBank:
    """Run the encoder once over the distinct sentences and keep every state's summaries.

    Sentences are tokenised once, sorted by token count, batched by a budget of tokens and reduced
    inside the forward pass; results come back in the caller's order.

    Args:
        model: From `lwap.load`, or any SentenceTransformer whose first module is a Transformer.
        texts: N sentences, none of them empty.
        summaries: What to keep: any of "cls", "mean" (every state), "max", "last_token" (the last
            state). Leave out what no strategy asks for when N is large.
        precision: "fp32", "bf16", or "auto" (bf16 where the hardware multiplies it natively).
        batch_tokens: Padded tokens a batch.
        progress: Called with (distinct sentences done, distinct sentences in all) after a batch.
        directory: A folder for memory-mapped arrays, for banks larger than memory.

    Raises:
        InputError: If there are no sentences, or one is empty or not a string.
        ModelError: If the model's first module is not a text transformer.
        ConfigError: If `summaries`, `precision` or `batch_tokens` is not allowed.
    """
    texts = check_texts(texts)
    wanted = {check_choice("summaries", name, Summary) for name in summaries}
    if not wanted & {Summary.CLS, Summary.MEAN}:
        raise ConfigError(f"summaries is {list(summaries)}; it needs 'cls' or 'mean' at least.")
    if batch_tokens < 1:
        raise ConfigError(f"batch_tokens is {batch_tokens}; it must be at least 1.")
    transformer = layerwise_transformer(model)
    prompt = default_prompt(model)

    first_row: dict[str, int] = {}
    for text in texts:
        first_row.setdefault(text, len(first_row))
    distinct = list(first_row)
    distinct_of_row = np.array([first_row[text] for text in texts])
    rows_by_distinct = np.argsort(distinct_of_row, kind="stable")
    row_starts = np.searchsorted(distinct_of_row[rows_by_distinct], np.arange(len(distinct) + 1))

    with TOKENIZER_LOCK:
        tokens = _tokenise(transformer, [prompt + text for text in distinct])
    num_states, dimension = transformer.num_states, transformer.get_embedding_dimension()
    shapes = {
        "cls": (num_states, dimension) if Summary.CLS in wanted else None,
        "mean": (num_states, dimension) if Summary.MEAN in wanted else None,
        "max": (dimension,) if Summary.MAX in wanted else None,
        "last_token": (dimension,) if Summary.LAST_TOKEN in wanted else None,
        "last_tokens": (num_states, dimension)
        if transformer.is_causal and Summary.CLS in wanted
        else None,
    }
    arrays = {
        name: _new_array(name, (len(texts), *shape), directory)
        for name, shape in shapes.items()
        if shape is not None
    }

    arithmetic = resolve_precision(precision, transformer.device)
    was_training = transformer.training
    transformer.eval()
    try:
        done = 0
        for batch in _batches(tokens.counts, batch_tokens):
            features = tokens.features(batch, transformer.device)
            with torch.inference_mode(), in_precision(arithmetic, transformer.device):
                reduced = _reduce(transformer(features), features.get("attention_mask"), wanted)
            # Each distinct sentence goes to every row that holds it.
            spans = [rows_by_distinct[row_starts[i] : row_starts[i + 1]] for i in batch]
            rows = np.concatenate(spans)
            source = np.repeat(np.arange(len(batch)), [len(span) for span in spans])
            for name, values in reduced.items():
                arrays[name][rows] = values.float().cpu().numpy()[source]
            done += len(batch)
            if progress is not None:
                progress(done, len(distinct))
    finally:
        transformer.train(was_training)

    bank = LayerBank(
        texts=tuple(texts),
        token_counts=tokens.counts[distinct_of_row],
        is_truncated=tokens.is_truncated[distinct_of_row],
        max_tokens=tokens.max_tokens,
        encoder=model_name(model),
        heads=model_heads(model),
        **{name: arrays.get(name) for name in _ARRAYS},
    )
    if directory is not None:
        _write_facts(bank, Path(directory), sorted(arrays))
    return bank


def check_texts(texts: Sequence[str]) -> list[str]:
    """Return the sentences as a list.

    Raises:
        InputError: If there are none, or one is empty or no string; the message names its place.
    """
    if isinstance(texts, str):
        raise InputError(
            f"Expected a list of sentences, got one string ({_shorten(texts)}). Pass [text]."
        )
    texts = list(texts)
    if not texts:
        raise InputError("No sentences were given. Give at least one.")
    for place, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise InputError(
                f"Sentence {place} of {len(texts)} is {text!r}, not text. Remove it or quote it."
            )
        if not text.strip():
            raise InputError(
                f"Sentence {place} of {len(texts)} is empty ({text!r}). "
                "Remove it or write something."
            )
        if not is_unicode(text):
            raise InputError(
                f"Sentence {place} of {len(texts)} holds half a character, a lone surrogate "
                f"({_shorten(text)}). Save its source as UTF-8, or write the sentence anew."
            )
    return texts


def is_unicode(text: str) -> bool:
    """Say whether a text can be written as UTF-8; a lone surrogate, half a character, cannot.

    >>> is_unicode("🙂"), is_unicode("\\ud83d")
    (True, False)
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def layerwise_transformer(model: SentenceTransformer) -> LayerwiseTransformer:
    """Return the layer-wise encoder of a model; weights are shared.

    Raises:
        ModelError: If the model's first module is not a text transformer.
    """
    from sentence_transformers.base.modules import Transformer

    first = model[0] if isinstance(model, SentenceTransformer) else model
    if not isinstance(first, Transformer):
        raise ModelError(
            f"The model starts with {type(first).__name__}; layers can be read from a Transformer "
            "only. Load an encoder with lwap.load(name)."
        )
    return LayerwiseTransformer.from_transformer(first)


def model_heads(model: SentenceTransformer) -> dict[str, Any]:
    """Return the trained poolings over layers of a model, by the strategy that each one names."""
    if not isinstance(model, SentenceTransformer):
        return {}
    named = ((getattr(module, "strategy", None), module) for module in model)
    return {name: module for name, module in named if isinstance(name, str)}


def model_name(model: SentenceTransformer) -> str:
    """Return the name that `lwap.load` gave the model, or its architecture's."""
    return getattr(model, "lwap_name", None) or type(layerwise_transformer(model).model).__name__


def default_prompt(model: SentenceTransformer) -> str:
    """Return the text that the model puts before each sentence, as `encode` does; usually "".

    Raises:
        ModelError: If the model leaves prompt tokens out of its pooling, which a bank cannot.
    """
    if not isinstance(model, SentenceTransformer):
        return ""
    name = model.default_prompt_name
    prompt = (model.prompts.get(name) or "") if name else ""
    excludes = any(getattr(module, "include_prompt", True) is False for module in model)
    if prompt and excludes:
        raise ModelError(
            f"The model puts the prompt {prompt!r} before each sentence and leaves it out of its "
            "pooling; layer summaries cannot. Set model.default_prompt_name = None."
        )
    return prompt


# --- tokens and batches -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tokens:
    """Token ids of each distinct sentence, not yet padded."""

    columns: dict[str, list[list[int]]]  # e.g. input_ids, token_type_ids
    counts: np.ndarray
    is_truncated: np.ndarray
    max_tokens: int
    padding: dict[str, int]

    def features(self, rows: np.ndarray, device: torch.device) -> dict[str, Tensor]:
        """Return the padded tensors of a batch; no attention mask where nothing is padded.

        Padding is on the right, whatever the tokenizer says: on the left it would shift the
        absolute positions (BERT, GPT-2), so that a vector depended on the rest of its batch.
        """
        width = int(self.counts[rows].max())
        features: dict[str, Tensor] = {}
        for name, column in self.columns.items():
            padded = np.full((len(rows), width), self.padding[name], dtype=np.int64)
            for place, row in enumerate(rows):
                padded[place, : self.counts[row]] = column[row]
            features[name] = torch.from_numpy(padded).to(device)
        if int(self.counts[rows].min()) < width:
            real = torch.arange(width) < torch.from_numpy(self.counts[rows])[:, None]
            features["attention_mask"] = real.long().to(device)
        return features


def _tokenise(transformer: LayerwiseTransformer, texts: list[str]) -> _Tokens:
    tokenizer = transformer.tokenizer
    if set(transformer.modality_config) != {"text"} or transformer.processing_kwargs:
        raise ModelError(
            "This model formats its input as chat messages or with processing options of its own; "
            "layers are read from plain text. Load its transformer alone with lwap.load(folder)."
        )
    if transformer.do_lower_case:
        texts = [text.lower() for text in texts]
    max_tokens = transformer.max_seq_length
    encoded = tokenizer(
        texts,
        truncation="longest_first",
        max_length=max_tokens,
        padding=False,
        return_attention_mask=False,
    )
    columns = {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}
    counts = np.array([len(ids) for ids in columns["input_ids"]])
    if (counts == 0).any():
        text = texts[int(np.argmin(counts))]
        raise InputError(f"{_shorten(text)} has no token in this encoder's vocabulary. Remove it.")
    if tokenizer.is_fast:
        is_truncated = np.array([bool(encoding.overflowing) for encoding in encoded.encodings])
    else:
        full = np.flatnonzero(counts >= max_tokens)
        is_truncated = np.zeros(len(texts), dtype=bool)
        if len(full):
            whole = tokenizer([texts[row] for row in full], verbose=False)["input_ids"]
            is_truncated[full] = [len(ids) > max_tokens for ids in whole]
    return _Tokens(
        columns=columns,
        counts=counts,
        is_truncated=is_truncated,
        max_tokens=max_tokens,
        padding={"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": 0},
    )


def _batches(counts: np.ndarray, batch_tokens: int) -> Iterator[np.ndarray]:
    """Yield rows, longest first (memory fails at once or never), with little padding a batch."""
    order = np.argsort(-counts, kind="stable")
    start = 0
    while start < len(order):
        width = counts[order[start]]
        size = max(1, batch_tokens // int(width))
        batch = order[start : start + size]
        yield batch
        start += len(batch)


def _reduce(
    features: dict[str, Tensor], attention_mask: Tensor | None, wanted: set[Summary]
) -> dict[str, Tensor]:
    reduced = {}
    if Summary.CLS in wanted:
        reduced["cls"] = features["layer_cls"]
        if "layer_query" in features:
            reduced["last_tokens"] = features["layer_query"]
    if Summary.MEAN in wanted:
        reduced["mean"] = features["layer_means"]
    if Summary.MAX in wanted:
        reduced["max"] = token_max(features["token_embeddings"], attention_mask)
    if Summary.LAST_TOKEN in wanted:
        reduced["last_token"] = last_token(features["token_embeddings"], attention_mask)
    return reduced


# --- storage ------------------------------------------------------------------------------------


def _new_array(name: str, shape: tuple[int, ...], directory: str | Path | None) -> np.ndarray:
    if directory is None:
        return np.empty(shape, dtype=np.float32)
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _FACTS).unlink(missing_ok=True)  # an unfinished bank does not open
    return np.lib.format.open_memmap(
        folder / f"{name}.npy", mode="w+", dtype=np.float32, shape=shape
    )


def _write_facts(bank: LayerBank, directory: Path, arrays: list[str]) -> None:
    for name in arrays:
        getattr(bank, name).flush()
    facts = {
        "arrays": arrays,
        "encoder": bank.encoder,
        "max_tokens": bank.max_tokens,
        "texts": list(bank.texts),
        "token_counts": bank.token_counts.tolist(),
        "is_truncated": bank.is_truncated.tolist(),
    }
    (directory / _FACTS).write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")


def _shorten(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")
