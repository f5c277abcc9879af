"""Slices of a set of pairs by what their sentences are like. Knows text and arrays only."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np

MIN_PAIRS = 15  # in a slice; below this an interval says nothing

_APOSTROPHES = str.maketrans("’ʼ", "''")
_LETTERS, _NUMBER = r"[^\W\d_]", r"\d+(?:[.,:]\d+)*"
_NEGATIONS = set(
    re.findall(r"\w+", "no not none nobody nothing nowhere never neither nor without cannot hardly")
)
_UP_TO_TWENTY = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
)
_TENS = "ten twenty thirty forty fifty sixty seventy eighty ninety"
_NUMBER_WORDS = (
    {word: word for word in ("hundred", "thousand", "million", "billion", "dozen", "half", "twice")}
    | {word: str(value) for value, word in enumerate(_UP_TO_TWENTY.split(), start=1)}
    | {word: str(10 * value) for value, word in enumerate(_TENS.split(), start=1)}
)


def words(text: str) -> list[str]:
    """Return the words and numbers of a text, in lower case.

    Scripts without spaces between words, such as Chinese, give one word a run of letters.

    >>> words("It isn't 3.5 km.")
    ['it', "isn't", '3.5', 'km']
    """
    is_ascii = text.isascii()
    if not is_ascii:
        text = unicodedata.normalize("NFC", text).translate(_APOSTROPHES)
    return _word(not is_ascii).findall(text.lower())


@cache
def _word(with_marks: bool) -> re.Pattern:
    """Return what a word looks like; the vowel signs of many scripts are no letters to Python."""
    letters = f"{_LETTERS}+"
    if with_marks:
        codes = range(0x300, 0x1F000)
        marks = "".join(chr(code) for code in codes if unicodedata.category(chr(code))[0] == "M")
        letters = f"{letters}(?:[{marks}]+{_LETTERS}*)*"
    return re.compile(f"{letters}(?:'{letters})?|{_NUMBER}")


def word_overlap(first: str, second: str) -> float:
    """Return the share of distinct words that two sentences have in common (Jaccard), 0–1.

    >>> word_overlap("a red car", "a blue car")
    0.5
    """
    a, b = set(words(first)), set(words(second))
    return len(a & b) / len(a | b) if a | b else 0.0


def has_negation(text: str) -> bool:
    """Say whether an English sentence holds a word of negation.

    >>> has_negation("She didn't go."), has_negation("She went.")
    (True, False)
    """
    return any(word in _NEGATIONS or word.endswith("n't") for word in words(text))


def numbers(text: str) -> frozenset[str]:
    """Return the numbers of an English sentence; "two" is "2".

    >>> sorted(numbers("Two of 1,000 came."))
    ['1000', '2']
    """
    return frozenset(
        _NUMBER_WORDS.get(word) or re.sub(r",(?=\d{3}\b)", "", word)
        for word in words(text)
        if word[0].isdigit() or word in _NUMBER_WORDS
    )


def slice_pairs(first: Sequence[str], second: Sequence[str]) -> dict[str, np.ndarray]:
    """Return masks (P,) of the pairs by length, word overlap, negation and numbers.

    Lengths and overlaps are cut at their medians in this set, so both halves hold about as many
    pairs. A slice may be empty.
    """
    pairs = list(zip(first, second, strict=True))
    length = np.array([len(words(a)) + len(words(b)) for a, b in pairs], dtype=float)
    overlap = np.array([word_overlap(a, b) for a, b in pairs], dtype=float)
    negated = np.array([[has_negation(a), has_negation(b)] for a, b in pairs]).reshape(-1, 2)
    counted = [(numbers(a), numbers(b)) for a, b in pairs]
    has_number = np.array([bool(a or b) for a, b in counted], dtype=bool)
    other_number = np.array([a != b for a, b in counted], dtype=bool)
    middle_length, middle_overlap = (
        np.median(values) if len(values) else 0.0 for values in (length, overlap)
    )
    return {
        f"short (up to {middle_length / 2:.0f} words)": length <= middle_length,
        "long": length > middle_length,
        f"low word overlap (up to {100 * middle_overlap:.0f} %)": overlap <= middle_overlap,
        "high word overlap": overlap > middle_overlap,
        "negation in one sentence": negated.any(axis=1) & ~negated.all(axis=1),
        "negation in both": negated.all(axis=1),
        "other numbers": has_number & other_number,
        "same numbers": has_number & ~other_number,
    }
