"""What can be said of training data before a start: rows, leaks, lengths, steps.

A pure function of settings and data; the encoder is asked for its tokenizer alone.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from sentence_transformers import SentenceTransformer

from lwap.encoding.bank import default_prompt, layerwise_transformer
from lwap.encoding.encoder import TOKENIZER_LOCK
from lwap.errors import ConfigError, InputError, LwapError
from lwap.training.config import Mode, TrainConfig
from lwap.training.dev_evaluation import check_dev
from lwap.training.examples import Dropped, Examples, plain
from lwap.training.follower import world_size
from lwap.training.frozen import VIEWS
from lwap.training.loop import dataset_rows, planned_steps

MAX_TOKENISED = 20_000  # distinct sentences whose tokens are counted; an even sample above
BINS = 20  # of the histogram of lengths
EXAMPLES = 3  # sentences that a message quotes

# Shares above which there is a warning.
MANY_DROPPED = 0.1
MANY_TRUNCATED = 0.05
MANY_FALSE_NEGATIVES = 0.01


@dataclass(frozen=True)
class Leak:
    """Training sentences that stand in a dev or evaluation set, too.

    Attributes:
        name: The set's name.
        count: Distinct training sentences that are in it.
        share: Of the distinct training sentences, 0 to 1.
        share_of_set: Of the set's distinct sentences, 0 to 1.
        examples: The first of them, as the training data have them.
    """

    name: str
    count: int
    share: float
    share_of_set: float
    examples: tuple[str, ...]


@dataclass(frozen=True)
class FalseNegatives:
    """How often a candidate of a batch that counts as negative is, by the data, none.

    Attributes:
        share: Of the negatives of a random batch, 0 to 1: expected.
        a_batch: How many of them in a batch: expected.
        anchors: Distinct anchors.
        most_repeated: Rows of the anchor that stands in most.
    """

    share: float
    a_batch: float
    anchors: int
    most_repeated: int


@dataclass(frozen=True)
class Lengths:
    """Tokens a sentence, special tokens included, before anything is cut.

    Attributes:
        sentences: Distinct training sentences.
        counted: Of these, how many were tokenised; an even sample where there are more than
            `MAX_TOKENISED`.
        least, median, high, most: Tokens; `high` is the 95th percentile.
        mean: Tokens that are read of a sentence, on average: after cutting.
        limit: Tokens that are read of a sentence; None where the encoder has no limit.
        truncated: Sentences, of those counted, that are longer.
        counts: Sentences in each bin of a histogram.
        edges: Of its bins, in tokens; one more than there are counts.
    """

    sentences: int
    counted: int
    least: int
    median: float
    high: float
    most: int
    mean: float
    limit: int | None
    truncated: int
    counts: tuple[int, ...]
    edges: tuple[float, ...]


@dataclass(frozen=True)
class DataCheck:
    """What a run would be trained on.

    Attributes:
        unit: What a row is: "triplets", "pairs" or "sentences".
        rows_read: That were given.
        rows_kept: That can be used.
        rows_held_out: Of these, what the best step is chosen on where there are no dev pairs.
        dropped: Rows that cannot be used, by reason.
        leaks: Of sets that share sentences with the training data.
        false_negatives: In a batch of this size; None where there is nothing to train on.
        lengths: None without an encoder.
        steps_an_epoch, steps: Of the optimiser, `max_steps` counted in.
        problems: Why a run would be refused, a sentence each or more.
        warnings: What a person should know before the start.
        examples: The rows that are trained on; not part of `to_dict`.
    """

    unit: str
    rows_read: int
    rows_kept: int
    rows_held_out: int
    dropped: tuple[Dropped, ...]
    leaks: tuple[Leak, ...]
    false_negatives: FalseNegatives | None
    lengths: Lengths | None
    steps_an_epoch: int
    steps: int
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    examples: Examples = field(repr=False, compare=False)

    @property
    def rows(self) -> int:
        """Rows that are trained on."""
        return self.rows_kept - self.rows_held_out

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the rows themselves as plain values."""
        names = [name for name in self.__dataclass_fields__ if name != "examples"]
        return {name: _plain_value(getattr(self, name)) for name in names} | {"rows": self.rows}


def check_data(
    config: TrainConfig,
    data: pd.DataFrame | Sequence[str],
    dev_pairs: pd.DataFrame | None = None,
    *,
    evaluation: Mapping[str, Sequence[str]] | None = None,
    encoder: SentenceTransformer | None = None,
    dev_name: str = "dev",
) -> DataCheck:
    """Look at what a run would be trained on, with the code that the run itself reads it with.

    Raises nothing about the data: what would be refused is in `problems`.

    Args:
        config: The settings.
        data, dev_pairs, dev_name: As for `train`.
        evaluation: Sentences of sets that the model will be evaluated on, by the set's name.
        encoder: From `lwap.load`, for the lengths; without it they are not known.
    """
    problems: list[str] = []
    try:
        examples = Examples.read_from(data, config.objective)
        if not len(examples):
            problems.append(examples.nothing_left())
    except InputError as error:
        examples = Examples(pd.DataFrame({"sent0": []}), 0)
        problems.append(str(error))
    kept, held_out = len(examples), None
    problems += _dev_problems(config, dev_pairs)
    if dev_pairs is None and kept and config.has_positives:
        examples, held_out = examples.hold_out(config.seed)
    if kept:
        try:
            examples.check_batch(config)
        except ConfigError as error:
            problems.append(str(error))
    sets = dict(evaluation or {})
    if dev_pairs is not None:
        columns = [name for name in ("sentence1", "sentence2") if name in dev_pairs]
        sets = {dev_name: [text for name in columns for text in dev_pairs[name]], **sets}
    leaks = find_leaks(examples.texts, sets)
    lengths = count_lengths(config, examples.texts, encoder) if encoder and kept else None
    false_negatives = expected_false_negatives(config, examples) if len(examples) else None
    steps = planned_steps(config, dataset_rows(config, len(examples)), world_size())
    return DataCheck(
        unit=examples.unit,
        rows_read=examples.read,
        rows_kept=kept,
        rows_held_out=0 if held_out is None else len(held_out),
        dropped=examples.dropped,
        leaks=leaks,
        false_negatives=false_negatives,
        lengths=lengths,
        steps_an_epoch=planned_steps(
            replace(config, epochs=1, max_steps=0),
            dataset_rows(config, len(examples)),
            world_size(),
        ),
        steps=steps,
        problems=tuple(problems),
        warnings=tuple(_warnings(config, examples, kept, leaks, false_negatives, lengths, steps)),
        examples=examples,
    )


# --- leaks --------------------------------------------------------------------------------------


def comparable(text: str) -> str:
    """Return what two sentences share that a person would call the same.

    >>> comparable("  Straße,\\tﬁne ") == comparable("STRASSE, fine")
    True
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def find_leaks(texts: Sequence[str], sets: Mapping[str, Iterable[object]]) -> tuple[Leak, ...]:
    """Return which sets share sentences with the training data, those that share none left out.

    Sentences are compared after Unicode NFKC, without case, with single spaces.
    """
    own: dict[str, str] = {}
    for text in texts:
        own.setdefault(comparable(text), text)
    leaks = []
    for name, sentences in sets.items():
        theirs = {comparable(text) for text in sentences if isinstance(text, str)} - {""}
        shared = [text for key, text in own.items() if key in theirs]
        if shared:
            leaks.append(
                Leak(
                    name=name,
                    count=len(shared),
                    share=len(shared) / len(own),
                    share_of_set=len(shared) / len(theirs),
                    examples=tuple(shared[:EXAMPLES]),
                )
            )
    return tuple(leaks)


# --- false negatives ----------------------------------------------------------------------------


def expected_false_negatives(config: TrainConfig, examples: Examples) -> FalseNegatives:
    """Return how many negatives of a random batch the data themselves say are none.

    An anchor and its positive mean the same. So another row's candidate is no negative of a row

    - where the two rows share an anchor, a positive, or the one's anchor is the other's positive:
      the other's positive then means the same;
    - where the other's hard negative is the row's anchor or positive.

    A batch is drawn without replacement, so every other row is in it with the same probability.
    Exact, in time that grows with the number of rows.
    """
    columns = [list(map(plain, column)) for column in examples.columns]
    rows, batch = len(examples), min(config.batch_size, len(examples))
    repeated = Counter(columns[0])
    facts = {"anchors": len(repeated), "most_repeated": max(repeated.values())}
    if len(columns) == 1:
        # A frozen encoder's views come in pairs, each a row: VIEWS / 2 rows say the same.
        same = VIEWS // 2 - 1 if config.mode == Mode.HEAD else 0
        share = same / (rows * (same + 1) - 1) if rows > 1 else 0.0
        return FalseNegatives(share, batch * (batch - 1) * share, **facts)
    anchors, positives, *negatives = columns
    by_anchor, by_positive = repeated, Counter(positives)
    by_pair = Counter(zip(anchors, positives, strict=True))
    by_negative = Counter(negatives[0]) if negatives else Counter()
    false = 0
    for pair in zip(anchors, positives, strict=True):
        anchor, positive = pair
        # No row has the same sentence twice, so that only these two can hold at once.
        false += by_anchor[anchor] + by_positive[positive] - by_pair[pair] - 1  # 1: the row itself
        false += by_positive[anchor] + by_anchor[positive] - by_pair[(positive, anchor)]
        false += by_negative[anchor] + by_negative[positive]
    pairs = rows * (rows - 1)
    expected = false / pairs * (batch - 1) if pairs else 0.0  # of one row
    candidates = batch - 1 + (batch if negatives else 0)
    return FalseNegatives(expected / candidates if candidates else 0.0, batch * expected, **facts)


# --- lengths ------------------------------------------------------------------------------------


def count_tokens(texts: Sequence[str], encoder: SentenceTransformer) -> np.ndarray:
    """Return the tokens of each sentence as the encoder would read it, uncut, (N,)."""
    transformer, prompt = layerwise_transformer(encoder), default_prompt(encoder)
    lowered = str.lower if transformer.do_lower_case else str
    with TOKENIZER_LOCK:
        encoded = transformer.tokenizer(
            [lowered(prompt + text) for text in texts],
            truncation=False,
            padding=False,
            return_attention_mask=False,
            verbose=False,  # it would warn of sentences above its limit, which are counted here
        )
    return np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int64)


def token_limit(config: TrainConfig, encoder: SentenceTransformer) -> int | None:
    """Return how many tokens are read of a training sentence; None where there is no limit."""
    limit = layerwise_transformer(encoder).max_seq_length
    return min(config.max_tokens, limit or config.max_tokens) if config.max_tokens else limit


def count_lengths(
    config: TrainConfig, texts: Sequence[str], encoder: SentenceTransformer
) -> Lengths:
    """Count the tokens of the distinct sentences, or of an even sample of them."""
    counted = sample(texts, MAX_TOKENISED)
    tokens = count_tokens(counted, encoder)
    limit = token_limit(config, encoder)
    counts, edges = np.histogram(tokens, bins=min(BINS, int(tokens.max() - tokens.min()) + 1))
    return Lengths(
        sentences=len(texts),
        counted=len(counted),
        least=int(tokens.min()),
        median=float(np.median(tokens)),
        high=float(np.percentile(tokens, 95)),
        most=int(tokens.max()),
        mean=float(tokens.clip(0, limit).mean()),
        limit=limit,
        truncated=0 if limit is None else int((tokens > limit).sum()),
        counts=tuple(counts.tolist()),
        edges=tuple(edges.tolist()),
    )


def sample(texts: Sequence[str], most: int) -> list[str]:
    """Return the sentences, or as many as are allowed at even distances.

    >>> sample(list("abcdefg"), 3)
    ['a', 'd', 'g']
    """
    if len(texts) <= most:
        return list(texts)
    return [texts[row] for row in np.linspace(0, len(texts) - 1, most).round().astype(int)]


# --- in words -----------------------------------------------------------------------------------


def _dev_problems(config: TrainConfig, pairs: pd.DataFrame | None) -> list[str]:
    try:
        check_dev(config, pairs)
    except LwapError as error:
        return [str(error)]
    return []


def _warnings(
    config: TrainConfig,
    examples: Examples,
    kept: int,
    leaks: Sequence[Leak],
    false_negatives: FalseNegatives | None,
    lengths: Lengths | None,
    steps: int,
) -> list[str]:
    found = []
    if kept and examples.read - kept > MANY_DROPPED * examples.read:
        reasons = ", ".join(f"{each.reason} {each.count}" for each in examples.dropped)
        found.append(
            f"{examples.read - kept} of {examples.read} {examples.unit} are left out ({reasons}). "
            f"{examples.dropped[0].notes[0]}"
        )
    for leak in leaks:
        found.append(
            f"{leak.count} training sentences ({100 * leak.share:.1f} %) are also in "
            f"'{leak.name}', {100 * leak.share_of_set:.1f} % of its sentences, "
            f"{_quoted(leak.examples[0])} for one. Scores on that set will be too high; take them "
            "out of the training data, or choose another set."
        )
    if false_negatives and false_negatives.share > MANY_FALSE_NEGATIVES:
        advice = (
            f"The most repeated anchor stands in {false_negatives.most_repeated} rows: keep fewer "
            "rows of each anchor, or use a smaller batch."
            if config.has_positives
            else "Bring more sentences, or use a smaller batch."
        )
        found.append(
            f"{100 * false_negatives.share:.1f} % of the negatives in a batch say what their "
            f"anchor says, {false_negatives.a_batch:.1f} in a batch of {config.batch_size}, and "
            f"are pushed away all the same. {advice}"
        )
    if lengths and lengths.truncated > MANY_TRUNCATED * lengths.counted:
        found.append(
            f"{lengths.truncated} of {lengths.counted} sentences are longer than "
            f"{lengths.limit} tokens and are cut there; the longest has {lengths.most}. Split "
            + (
                "them, or raise max_tokens."
                if config.max_tokens and lengths.limit == config.max_tokens
                else "them, or choose an encoder that reads more."
            )
        )
    if 0 < steps < config.eval_steps:
        found.append(
            f"The run has {steps} steps, and eval_steps is {config.eval_steps}: the best step is "
            "chosen from the start and the end alone. Lower eval_steps."
        )
    return found


def _quoted(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")


def _plain_value(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain_value(each) for each in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain_value(each) for name, each in vars(value).items()}
    return value
