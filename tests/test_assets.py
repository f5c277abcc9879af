"""The example data to train on: `assets/triplets.csv`."""

import re
from pathlib import Path

import pandas as pd
import pytest

from lwap.datasets.readers import read_training
from lwap.training.check import comparable
from lwap.training.examples import Examples

ASSETS = Path(__file__).resolve().parents[1] / "assets"


@pytest.fixture(scope="module")
def triplets() -> pd.DataFrame:
    return read_training(ASSETS / "triplets.csv")


def test_there_are_300_triplets_and_all_can_be_used(triplets):
    assert list(triplets.columns) == ["sent0", "sent1", "hard_neg"]
    examples = Examples.of(triplets, "supervised")
    assert (len(examples), examples.read, examples.dropped) == (300, 300, ())


def test_no_sentence_stands_in_two_places(triplets):
    texts = [comparable(text) for name in triplets for text in triplets[name]]
    assert len(set(texts)) == len(texts) == 900


def test_sentences_have_3_to_25_words(triplets):
    counts = [len(text.split()) for name in triplets for text in triplets[name]]
    assert min(counts) >= 3 and max(counts) <= 25


def test_no_sentence_is_an_example_pairs(triplets):
    pairs = pd.read_csv(ASSETS / "pairs.csv")
    looked_at = {comparable(text) for name in ("sentence1", "sentence2") for text in pairs[name]}
    assert not looked_at & {comparable(text) for name in triplets for text in triplets[name]}


def test_the_two_that_mean_the_same_come_from_one_group(triplets):
    table = pd.read_csv(ASSETS / "sentences.csv")
    group_of = dict(zip(table.sentence, table.group, strict=True))
    groups = [
        (group_of.get(anchor), group_of.get(positive), group_of.get(negative))
        for anchor, positive, negative in triplets.itertuples(index=False)
    ]
    from_table = [each for each in groups if each != (None, None, None)]
    assert len(from_table) == 204
    assert all(anchor == positive for anchor, positive, _ in from_table)
    assert len({anchor for anchor, _, _ in from_table}) == 204
    assert all(negative is None for _, _, negative in from_table)


def test_a_hard_negative_is_nearer_in_words_than_the_positive(triplets):
    def words(text: str) -> set[str]:
        return set(re.findall(r"\w+", text.lower()))

    def shared(first: str, second: str) -> float:
        return len(words(first) & words(second)) / len(words(first) | words(second))

    means = triplets.apply(
        lambda row: [shared(row.sent0, row.sent1), shared(row.sent0, row.hard_neg)],
        axis=1,
        result_type="expand",
    ).mean()
    assert means[0] < 0.25 < 0.5 < means[1]
    negations = re.compile(r"\b(not|no|never|nobody|nothing|none)\b|n't")
    is_negated = [bool(negations.search(text.lower())) for text in triplets.hard_neg]
    assert sum(is_negated) < 100  # by no rule such as a "not" put in


def test_the_readme_names_the_file_with_its_rows():
    readme = (ASSETS / "README.md").read_text("utf-8")
    assert re.search(r"\| `triplets\.csv` \| 300 triplets", readme)
