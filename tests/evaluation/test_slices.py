"""Slices of pairs by what their sentences are like, against pairs whose place is plain."""

import numpy as np
import pytest

from lwap.evaluation.slices import (
    has_negation,
    numbers,
    slice_pairs,
    word_overlap,
    words,
)

PAIRS = [
    ("A heron waits.", "A heron waits here."),
    ("The river is high.", "The river rose by 3 metres."),
    ("Nobody swims.", "They do not swim."),
    ("It rains.", "It doesn't rain in the mountains today."),
    ("Two boats left.", "2 boats left."),
    ("She paid 10 euros.", "She paid 1,000 euros for it."),
    ("", "!"),
]


def masks_of(pairs) -> dict[str, np.ndarray]:
    return slice_pairs(*zip(*pairs, strict=True)) if pairs else slice_pairs([], [])


def starting(masks: dict[str, np.ndarray], start: str) -> np.ndarray:
    """Return the mask whose name starts so."""
    (found,) = [mask for name, mask in masks.items() if name.startswith(start)]
    return found


# --- words --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It isn't 3.5 km.", ["it", "isn't", "3.5", "km"]),
        ("Isn’t it? Donʼt!", ["isn't", "it", "don't"]),
        ("At 10:30, 1,000 left.", ["at", "10:30", "1,000", "left"]),
        ("foo_bar twenty-five", ["foo", "bar", "twenty", "five"]),
        ("‘quoted’ 'too' dogs'", ["quoted", "too", "dogs"]),
        ("Café CAFE\u0301", ["café", "café"]),
        ("नमस्ते दुनिया।", ["नमस्ते", "दुनिया"]),  # its vowel signs are no letters to Python
        ("كِتَابٌ جديد", ["كِتَابٌ", "جديد"]),
        ("Привет, мир!", ["привет", "мир"]),
        ("我喜欢猫。她不喜欢。", ["我喜欢猫", "她不喜欢"]),
        ("🦩 … — !?", []),
        ("", []),
        ("\ud800 lone", ["lone"]),
    ],
)
def test_words_are_runs_of_letters_in_any_script(text, expected):
    assert words(text) == expected


def test_overlap_is_the_share_of_distinct_words():
    assert word_overlap("a red red car", "A car, red!") == 1
    assert word_overlap("a red car", "the blue sea") == 0
    assert word_overlap("one two three", "two three four") == pytest.approx(2 / 4)
    assert word_overlap("a b", "a b c d") == word_overlap("a b c d", "a b") == 0.5
    assert word_overlap("मेरा घर", "मेरा गाँव") == pytest.approx(1 / 3)


@pytest.mark.parametrize(("first", "second"), [("", ""), ("!", "…"), ("", "a word")])
def test_without_words_nothing_overlaps(first, second):
    assert word_overlap(first, second) == 0


# --- negation and numbers -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "She did not go.",
        "NOT ever.",
        "Nobody came.",
        "She didn't go.",
        "She didn’t go.",
        "She donʼt go.",
        "It cannot be.",
        "Neither of them.",
        "A never-ending story.",
        "Without me.",
    ],
)
def test_negation_is_found(text):
    assert has_negation(text)


@pytest.mark.parametrize(
    "text", ["She went.", "A knot, a note, nowadays.", "Another nothingness.", "Nicht so.", "", "!"]
)
def test_other_words_are_no_negation(text):
    assert not has_negation(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Two of 30 came.", {"2", "30"}),
        ("1,000 and 1000 are one number", {"1000", "1"}),
        ("1,000,000.50 or 3,5 at 10:30", {"1000000.50", "3,5", "10:30"}),
        ("Twenty-five dozen, half of a million", {"20", "5", "dozen", "half", "million"}),
        ("The 3rd of ten", {"3", "10"}),
        ("No number: someone, tenant, B", set()),
        ("", set()),
    ],
)
def test_numbers_are_digits_and_words(text, expected):
    assert numbers(text) == expected


# --- masks --------------------------------------------------------------------------------------


def test_every_pair_is_short_or_long_and_of_low_or_high_overlap():
    masks = masks_of(PAIRS)
    assert len(masks) == 8
    assert all(mask.dtype == bool and mask.shape == (len(PAIRS),) for mask in masks.values())
    for one, other in (("short", "long"), ("low word", "high word")):
        assert (starting(masks, one) ^ starting(masks, other)).all()
    one, both = starting(masks, "negation in one"), starting(masks, "negation in both")
    assert not (one & both).any()
    same, other = starting(masks, "same numbers"), starting(masks, "other numbers")
    assert not (same & other).any()


def test_each_pair_is_where_it_belongs():
    masks = masks_of(PAIRS)
    assert np.flatnonzero(starting(masks, "negation in one")).tolist() == [3]
    assert np.flatnonzero(starting(masks, "negation in both")).tolist() == [2]
    assert np.flatnonzero(starting(masks, "other numbers")).tolist() == [1, 5]
    assert np.flatnonzero(starting(masks, "same numbers")).tolist() == [4]
    overlaps = np.array([word_overlap(*pair) for pair in PAIRS])
    lengths = np.array([len(words(a)) + len(words(b)) for a, b in PAIRS])
    assert starting(masks, "high word").tolist() == (overlaps > np.median(overlaps)).tolist()
    assert starting(masks, "long").tolist() == (lengths > np.median(lengths)).tolist()


def test_the_cut_is_the_median_and_stands_in_the_name():
    pairs = [("a " * count, "b " * count) for count in (1, 2, 3, 4, 20)]
    masks = masks_of(pairs)
    assert list(masks)[:2] == ["short (up to 3 words)", "long"]
    assert masks["long"].tolist() == [False, False, False, True, True]
    pairs = [("a b c d", other) for other in ("a b c d", "a b c d e", "x", "a x")]
    masks = masks_of(pairs)
    assert list(masks)[2:4] == ["low word overlap (up to 50 %)", "high word overlap"]
    assert masks["high word overlap"].tolist() == [True, True, False, False]


def test_where_all_pairs_are_alike_the_upper_halves_are_empty():
    masks = masks_of([("A heron waits.", "A heron flies.")] * 4)
    assert starting(masks, "short").all()
    assert starting(masks, "low word").all()
    assert not starting(masks, "long").any()
    assert not starting(masks, "high word").any()


def test_order_and_side_decide_nothing():
    masks, turned = masks_of(PAIRS), masks_of([pair[::-1] for pair in PAIRS[::-1]])
    assert list(masks) == list(turned)
    for name, mask in masks.items():
        assert mask.tolist() == turned[name][::-1].tolist(), name


def test_no_pairs_give_empty_masks():
    masks = masks_of([])
    assert len(masks) == 8
    for mask in masks.values():
        assert (mask.dtype, mask.shape) == (bool, (0,))


def test_sides_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        slice_pairs(["a", "b"], ["a"])
