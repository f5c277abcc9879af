"""The check of training data before a start: rows, leaks, lengths, false negatives, steps."""

import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lwap.datasets.readers import read_training
from lwap.errors import InputError
from lwap.training import TrainConfig, check, train
from lwap.training.check import check_data, comparable, count_tokens, expected_false_negatives
from lwap.training.examples import Examples, Reason

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def dev_pairs() -> pd.DataFrame:
    return pd.read_csv(ROOT / "assets/pairs.csv")[["sentence1", "sentence2", "score"]]


@pytest.fixture(scope="module")
def triplets() -> pd.DataFrame:
    return read_training(ROOT / "assets/triplets.csv")[:60]


@pytest.fixture(scope="module")
def settings(tiny_encoder_folder):
    def make(**changes) -> TrainConfig:
        small = {"encoder": str(tiny_encoder_folder), "batch_size": 16, "precision": "fp32"}
        return TrainConfig(**(small | {"eval_steps": 1} | changes))

    return make


def table_of(*rows: tuple) -> pd.DataFrame:
    names = ["sent0", "sent1", "hard_neg"][: len(rows[0])]
    return pd.DataFrame(rows, columns=names, dtype=object)  # as str, pandas refuses surrogates


# --- rows ---------------------------------------------------------------------------------------


def test_good_data_have_no_problems_and_no_warnings(settings, triplets, dev_pairs, tiny_model):
    found = check_data(settings(max_tokens=0), triplets, dev_pairs)
    assert (found.unit, found.rows_read, found.rows_kept, found.rows) == ("triplets", 60, 60, 60)
    assert (found.rows_held_out, found.dropped, found.leaks) == (0, (), ())
    assert (found.problems, found.warnings, found.lengths) == ((), (), None)
    assert found.false_negatives.share == 0


BROKEN = [
    ("one", "uno", "two", None),
    ("", "b", "c", Reason.EMPTY),
    ("a", " \t", "c", Reason.EMPTY),
    ("a", "b", None, Reason.EMPTY),
    ("a", "b", float("nan"), Reason.EMPTY),
    ("a", 7, "c", Reason.EMPTY),
    ("a \ud83d", "b", "c", Reason.BROKEN),
    ("same", "same", "c", Reason.NO_INFORMATION),
    ("same  words", " same words", "c", Reason.NO_INFORMATION),
    ("a", "b", "a", Reason.CONTRADICTION),
    ("a", "b", "b ", Reason.CONTRADICTION),
    ("one", "uno", "two", Reason.DUPLICATE),
    ("one", "uno ", "two", Reason.DUPLICATE),
    ("one", "uno", "three", None),
    ("One", "uno", "two", None),  # case may matter to the encoder
    ("uno", "one", "two", None),
]


def test_every_reason_has_its_rows(settings, dev_pairs):
    found = check_data(settings(batch_size=2), table_of(*(row[:3] for row in BROKEN)), dev_pairs)
    expected = {
        reason: [place for place, row in enumerate(BROKEN, start=1) if row[3] == reason]
        for reason in Reason
    }
    assert {each.reason: each.count for each in found.dropped} == {
        reason: len(rows) for reason, rows in expected.items()
    }
    for each in found.dropped:
        assert list(each.rows) == expected[each.reason][:5]
    assert found.rows_read == len(BROKEN)
    assert found.rows_kept == sum(row[3] is None for row in BROKEN)
    assert found.rows_read == found.rows_kept + sum(each.count for each in found.dropped)


def test_the_first_rows_are_explained(settings, dev_pairs):
    found = check_data(settings(batch_size=2), table_of(*(row[:3] for row in BROKEN)), dev_pairs)
    notes = {each.reason: each.notes for each in found.dropped}
    assert notes == {
        "empty cell": (
            "Row 2: sent0 is empty.",
            "Row 3: sent1 is empty.",
            "Row 4: hard_neg is empty.",
            "Row 5: hard_neg is empty.",
            "Row 6: sent1 is empty.",
        ),
        "half a character": ("Row 7: sent0 holds half a character, a lone surrogate.",),
        "sent0 is sent1": (
            "Row 8: sent0 and sent1 are the same ('same').",
            "Row 9: sent0 and sent1 are the same ('same words').",
        ),
        "hard_neg is sent0 or sent1": (
            "Row 10: hard_neg is sent0 ('a').",
            "Row 11: hard_neg is sent1 ('b').",
        ),
        "duplicate": ("Row 12: the same as row 1.", "Row 13: the same as row 1."),
    }
    assert found.warnings[0] == (
        "12 of 16 triplets are left out (empty cell 5, half a character 1, sent0 is sent1 2, "
        "hard_neg is sent0 or sent1 2, duplicate 2). Row 2: sent0 is empty."
    )


def test_a_tenth_may_be_left_out_without_a_warning(settings, triplets, dev_pairs):
    table = pd.concat([triplets[:54], triplets[:6]])
    assert check_data(settings(), table, dev_pairs).warnings == ()
    table = pd.concat([triplets[:53], triplets[:7]])
    assert "7 of 60 triplets are left out" in check_data(settings(), table, dev_pairs).warnings[0]


def test_the_check_and_the_run_use_the_same_rows(settings, triplets, dev_pairs):
    table = triplets.copy()
    table.loc[3, "hard_neg"] = table.sent0[3]
    table.loc[7] = table.loc[6]
    for pairs in (dev_pairs, None):
        config = settings(epochs=1, learning_rate=1e-3)
        found = check_data(config, table, pairs)
        result = train(config, table, pairs)
        assert found.rows == result.triplets
        assert found.steps == result.history.steps.iloc[-1]


def test_a_file_with_some_empty_cells_is_trained_on_without_them(tmp_path, settings, dev_pairs):
    file = tmp_path / "x.csv"
    lines = [
        f"anchor {row},positive {row},{f'no {row}' if row != 14 else ''}" for row in range(1, 31)
    ]
    file.write_text("\n".join(["anchor,positive,negative", *lines]), "utf-8")
    found = check_data(settings(), read_training(file), dev_pairs)
    assert (found.rows_read, found.rows_kept, found.problems) == (30, 29, ())
    assert found.dropped[0].notes == ("Row 14: hard_neg is empty.",)


def test_sentences_of_every_column_are_examples_without_supervision(settings, dev_pairs):
    config = settings(objective="unsupervised", batch_size=2)
    found = check_data(
        config, table_of(("a", "b", "c"), ("a", "d", ""), ("e", "b", "f")), dev_pairs
    )
    assert found.unit == "sentences"
    assert found.examples.texts == ["a", "e", "b", "d", "c", "f"]
    assert [(each.reason, each.notes) for each in found.dropped] == [
        ("empty cell", ("Row 2: hard_neg is empty.",)),
        ("duplicate", ("Row 2: the same as row 1.", "Row 3: the same as row 1.")),
    ]
    found = check_data(config, ["a", "", "b", "a"], dev_pairs)
    assert (found.rows_read, found.rows_kept) == (4, 2)
    assert found.dropped[0].notes == ("Row 2: the sentence is empty.",)


def test_the_same_sentence_in_two_columns_of_a_row_counts_once(settings, dev_pairs):
    config = settings(objective="unsupervised", batch_size=2)
    found = check_data(config, table_of(("a", "a"), ("b", "c")), dev_pairs)
    assert found.examples.texts == ["a", "b", "c"]


# --- problems -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "changes", "message"),
    [
        (
            ["a", "b"],
            {},
            "The supervised objective needs pairs or triplets (sent0, sent1[, hard_neg]), not "
            "sentences. Choose objective 'unsupervised'.",
        ),
        (
            pd.DataFrame({"sent0": ["a"], "negative": ["b"]}),
            {},
            "The triplets have no column 'sent1'; they need sent0, sent1, hard_neg, or without "
            "the last for pairs, and have ['sent0', 'negative'].",
        ),
        (
            pd.DataFrame({"x": ["a"]}),
            {"objective": "unsupervised"},
            "The data have no column 'sentence'; they have ['x'].",
        ),
        (
            table_of(("a", "", "c"), ("a", "a", "c")),
            {},
            "None of the 2 triplets can be used (empty cell: 1; sent0 is sent1: 1). Row 1: sent1 "
            "is empty. Mend the file, or choose another.",
        ),
        (
            table_of(("a", "b")),
            {},
            "batch_size is 16, but there are only 1 pairs to train on. Use a smaller batch or "
            "more data.",
        ),
        (
            table_of(*((f"a{row}", f"b{row}", "") for row in range(9)), ("a", "b", "c")),
            {},
            "batch_size is 16, but there are only 1 triplets to train on (9 of 10 were left out). "
            "Use a smaller batch or more data.",
        ),
        (
            [],
            {"objective": "unsupervised"},
            "There are no sentences to train on. Give at least one batch of them.",
        ),
    ],
)
def test_data_that_would_be_refused(data, changes, message, settings, dev_pairs):
    config = settings(**changes)
    found = check_data(config, data, dev_pairs)
    assert found.problems == (message,)
    assert found.steps == 0
    with pytest.raises(Exception, match="^" + message[:40].replace("[", r"\[").replace("(", r"\(")):
        train(config, data, dev_pairs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda dev: dev.drop(columns="score"), "The dev pairs have no column 'score'; they need"),
        (lambda dev: dev.assign(score=3.0), "The dev pairs cannot be used. All 120 pairs have the"),
        (lambda dev: dev.assign(score="high"), "The dev pairs have scores that are no numbers ("),
        (lambda dev: dev.assign(sentence2=" "), "cannot be used. Sentence 1 of 120 is empty (' ')"),
        (lambda dev: dev[:0], "The dev pairs cannot be used. No sentences were given."),
    ],
)
def test_dev_pairs_that_would_be_refused(change, message, settings, triplets, dev_pairs):
    (problem,) = check_data(settings(), triplets, change(dev_pairs)).problems
    assert message in problem


def test_dev_pairs_are_needed_without_supervision(settings, triplets):
    (problem,) = check_data(settings(objective="unsupervised"), triplets).problems
    assert problem.startswith("The unsupervised objective has no positives to hold out")


def test_a_tenth_is_held_out_without_dev_pairs(settings, triplets):
    found = check_data(settings(), triplets)
    assert (found.rows_kept, found.rows_held_out, found.rows) == (60, 6, 54)
    assert len(found.examples) == 54
    (problem,) = check_data(settings(batch_size=55), triplets).problems
    assert problem.startswith("batch_size is 55, but there are only 54 triplets to train on.")


# --- leaks --------------------------------------------------------------------------------------


def test_sentences_of_the_dev_set_are_found(settings, triplets, dev_pairs):
    table = triplets.copy()
    table.loc[0, "sent0"] = dev_pairs.sentence1[3]
    table.loc[1, "hard_neg"] = f"  {dev_pairs.sentence2[5].upper()}  "
    found = check_data(settings(), table, dev_pairs, dev_name="examples")
    (leak,) = found.leaks
    looked_at = {
        comparable(text) for name in ("sentence1", "sentence2") for text in dev_pairs[name]
    }
    assert (leak.name, leak.count) == ("examples", 2)
    assert leak.examples == (table.sent0[0], table.hard_neg[1])
    assert leak.share == pytest.approx(2 / 180)
    assert leak.share_of_set == pytest.approx(2 / len(looked_at))
    (warning,) = found.warnings
    assert warning.startswith("2 training sentences (1.1 %) are also in 'examples', ")
    assert "Scores on that set will be too high; take them out of the training data" in warning


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("ﬁne  weather", "Fine weather"),
        ("STRASSE", "straße"),
        ("e\u0301te\u0301", "ÉTÉ"),
        ("ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
        ("שלום עולם", " שלום\tעולם "),
        ("🙂 ok", "🙂 OK"),
    ],
)
def test_leaks_are_compared_as_a_person_reads(ours, theirs, settings, dev_pairs):
    table = table_of((ours, "positive", "negative"), ("a", "b", "c"))
    found = check_data(
        settings(batch_size=2),
        table,
        dev_pairs,
        evaluation={"clean": ["something else"], "mine": [theirs, "x", ""]},
    )
    (leak,) = found.leaks
    assert (leak.name, leak.count, leak.share_of_set) == ("mine", 1, 0.5)
    assert leak.examples == (ours,)


def test_no_more_than_three_are_quoted(settings, triplets, dev_pairs):
    found = check_data(settings(), triplets, dev_pairs, evaluation={"all": triplets.sent0.tolist()})
    assert found.leaks[0].count == 60
    assert found.leaks[0].share_of_set == 1
    assert found.leaks[0].examples == tuple(triplets.sent0[:3])


# --- false negatives ----------------------------------------------------------------------------


def slow_false_negatives(table: pd.DataFrame, batch: int) -> float:
    """Return the false negatives of a batch, on average over all batches that there are."""
    rows = list(table.itertuples(index=False, name=None))
    counts = []
    for chosen in itertools.combinations(rows, batch):
        count = 0
        for i, j in itertools.permutations(chosen, 2):
            means_the_same = set(i[:2]) & set(j[:2])
            count += bool(means_the_same)
            count += len(j) == 3 and j[2] in i[:2]
        counts.append(count)
    return float(np.mean(counts))


REPEATED = [
    ("a", "b", "x"),
    ("a", "b", "y"),
    ("a", "c", "x"),
    ("d", "b", "a"),
    ("b", "a", "z"),
    ("e", "a", "c"),
    ("f", "g", "h"),
]


@pytest.mark.parametrize("columns", [2, 3])
@pytest.mark.parametrize("batch", [2, 3, 5, 7])
def test_false_negatives_are_those_of_all_batches_on_average(batch, columns, settings):
    table = table_of(*REPEATED).iloc[:, :columns].drop_duplicates()
    batch = min(batch, len(table))
    found = expected_false_negatives(settings(batch_size=batch), Examples.of(table, "supervised"))
    expected = slow_false_negatives(table, batch)
    negatives = batch * (batch - 1) + (batch * batch if columns == 3 else 0)
    assert found.a_batch == pytest.approx(expected)
    assert found.share == pytest.approx(expected / negatives)
    assert (found.anchors, found.most_repeated) == (5, 3 if columns == 3 else 2)


def test_different_sentences_are_no_false_negatives(settings, triplets):
    for table in (triplets, triplets[["sent0", "sent1"]]):
        found = expected_false_negatives(settings(), Examples.of(table, "supervised"))
        assert (found.share, found.a_batch, found.anchors, found.most_repeated) == (0, 0, 60, 1)


def test_views_of_one_sentence_meet_in_a_batch(settings):
    texts = [f"sentence {row}" for row in range(10)]
    examples = Examples.of(texts, "unsupervised")
    found = expected_false_negatives(settings(objective="unsupervised", batch_size=4), examples)
    # 20 rows, two of each sentence: 10 pairs of the same in 190 pairs, 12 ordered pairs a batch.
    assert found.share == pytest.approx(10 / 190)
    assert found.a_batch == pytest.approx(12 * 10 / 190)
    config = settings(objective="unsupervised", mode="full", batch_size=4)
    assert expected_false_negatives(config, examples).share == 0


def test_repeated_anchors_are_warned_of(settings, dev_pairs):
    rows = [(f"anchor {row // 5}", f"positive {row}", f"negative {row}") for row in range(100)]
    found = check_data(settings(), table_of(*rows), dev_pairs)
    (warning,) = found.warnings
    assert warning.startswith(
        "2.0 % of the negatives in a batch say what their anchor says, 9.7 in"
    )
    assert "The most repeated anchor stands in 5 rows: keep fewer rows of each anchor" in warning
    unsupervised = settings(objective="unsupervised")
    texts = [f"sentence {row}" for row in range(20)]
    assert "Bring more sentences" in check_data(unsupervised, texts, dev_pairs).warnings[0]


# --- lengths ------------------------------------------------------------------------------------


def test_lengths_are_the_tokenizers(settings, triplets, dev_pairs, tiny_model):
    table = pd.concat(
        [triplets, triplets[["sent1", "sent0", "hard_neg"]].set_axis(triplets.columns, axis=1)]
    )
    found = check_data(settings(), table, dev_pairs, encoder=tiny_model).lengths
    texts = list(dict.fromkeys(text for name in triplets for text in triplets[name]))
    counts = [len(tiny_model[0].tokenizer(text)["input_ids"]) for text in texts]
    assert (found.sentences, found.counted) == (180, 180)
    assert (found.least, found.most) == (min(counts), max(counts))
    assert found.median == np.median(counts)
    assert found.high == np.percentile(counts, 95)
    assert found.limit == 64
    assert found.truncated == sum(count > 64 for count in counts)
    assert found.mean == pytest.approx(np.mean([min(count, 64) for count in counts]))
    assert sum(found.counts) == 180
    assert len(found.edges) == len(found.counts) + 1
    assert (found.edges[0], found.edges[-1]) == (min(counts), max(counts))


def test_long_sentences_are_counted_and_kept(settings, triplets, dev_pairs, tiny_model):
    table = triplets.copy()
    table.loc[0, "sent0"] = "word " * 10_000
    found = check_data(settings(), table, dev_pairs, encoder=tiny_model)
    assert found.rows_kept == 60
    assert found.lengths.most == 10_000 * 4 + 2  # a letter is a token, and CLS and SEP
    assert found.lengths.truncated >= 1
    # Counting left the tokenizer as it was.
    assert tiny_model[0].preprocess([table.sent0[0]])["input_ids"].shape[1] == 64


@pytest.mark.parametrize(
    ("max_tokens", "limit", "advice"),
    [(7, 7, "or raise max_tokens"), (0, 64, "or choose an encoder that reads more")],
)
def test_truncation_is_warned_of(
    max_tokens, limit, advice, settings, triplets, dev_pairs, tiny_model
):
    config = settings(mode="full", max_tokens=max_tokens)
    table = triplets.assign(sent0=[f"{text} and so on" * 9 for text in triplets.sent0])
    found = check_data(config, table, dev_pairs, encoder=tiny_model)
    assert found.lengths.limit == limit
    assert found.lengths.truncated > 50
    (warning,) = found.warnings
    assert f"are longer than {limit} tokens and are cut there; the longest has" in warning
    assert advice in warning


def test_a_limit_above_the_encoders_changes_nothing(settings, triplets, dev_pairs, tiny_model):
    found = check_data(settings(mode="full", max_tokens=999), triplets, encoder=tiny_model)
    assert found.lengths.limit == 64


def test_above_a_number_of_sentences_a_sample_is_counted(
    settings, triplets, dev_pairs, tiny_model, monkeypatch
):
    monkeypatch.setattr(check, "MAX_TOKENISED", 50)
    found = check_data(settings(), triplets, dev_pairs, encoder=tiny_model).lengths
    assert (found.sentences, found.counted, sum(found.counts)) == (180, 50, 50)


def test_any_script_is_counted(settings, dev_pairs, tiny_model):
    rows = [
        ("שלום עולם, מה שלומך?", "مرحبا كيف حالك", "👩‍👩‍👧‍👦 family"),
        ("\u202eright to left\u202c", "你好世界", "नमस्ते दुनिया"),
        ("a\u0000b", "tab\there", "Zeile 1\nZeile 2"),
    ]
    found = check_data(settings(batch_size=2), table_of(*rows), dev_pairs, encoder=tiny_model)
    assert (found.rows_kept, found.problems) == (3, ())
    assert found.lengths.counted == 9
    assert found.lengths.least >= 3


def test_a_prompt_counts(model):
    plain = count_tokens(["one two"], model)
    model.prompts, model.default_prompt_name = {"ask": "a b c "}, "ask"
    assert count_tokens(["one two"], model) == plain + 3


# --- steps --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "an_epoch", "steps"),
    [
        ({}, 3, 9),  # 60 rows, 3 epochs
        ({"batch_size": 20}, 3, 9),
        ({"batch_size": 60, "epochs": 1}, 1, 1),
        ({"max_steps": 4}, 3, 4),
        ({"max_steps": 40}, 3, 9),
        ({"mode": "full", "accumulation": 2}, 2, 2),
        ({"objective": "unsupervised"}, 22, 66),  # 180 sentences, each in two pairs of views
        ({"objective": "unsupervised", "mode": "lora"}, 11, 11),
    ],
)
def test_steps_are_counted(changes, an_epoch, steps, settings, triplets, dev_pairs):
    found = check_data(settings(**changes), triplets, dev_pairs)
    assert (found.steps_an_epoch, found.steps) == (an_epoch, steps)


def test_looks_that_never_come_are_warned_of(settings, triplets, dev_pairs):
    (warning,) = check_data(settings(eval_steps=10), triplets, dev_pairs).warnings
    assert warning == (
        "The run has 9 steps, and eval_steps is 10: the best step is chosen from the start and "
        "the end alone. Lower eval_steps."
    )
    assert check_data(settings(eval_steps=9), triplets, dev_pairs).warnings == ()


# --- as a whole ---------------------------------------------------------------------------------


def test_a_check_is_plain_values(settings, triplets, dev_pairs, tiny_model):
    table = pd.concat([triplets, triplets[:3]])
    evaluation = {"mine": [triplets.sent1[0]]}
    found = check_data(settings(), table, dev_pairs, evaluation=evaluation, encoder=tiny_model)
    written = found.to_dict()
    assert json.loads(json.dumps(written)) == written
    assert written["rows"] == 60
    assert written["dropped"][0]["count"] == 3
    assert written["leaks"][0]["examples"] == [triplets.sent1[0]]
    assert written["lengths"]["counted"] == 180
    assert "examples" not in written


def test_nothing_that_was_given_is_changed(settings, triplets, dev_pairs, tiny_model):
    before = triplets.copy(), dev_pairs.copy()
    check_data(settings(), triplets, dev_pairs, encoder=tiny_model)
    pd.testing.assert_frame_equal(triplets, before[0])
    pd.testing.assert_frame_equal(dev_pairs, before[1])


def test_a_hundred_thousand_rows_are_checked(settings, dev_pairs):
    rows = [
        (f"anchor {row % 50_000}", f"positive {row}", f"negative {row}") for row in range(100_000)
    ]
    found = check_data(settings(), table_of(*rows), dev_pairs)
    assert found.rows == 100_000
    assert (
        Counter(found.examples.columns[0])["anchor 7"] == found.false_negatives.most_repeated == 2
    )


def test_examples_of_nothing_are_an_error():
    with pytest.raises(InputError, match="There are no pairs to train on"):
        Examples.of(pd.DataFrame({"sent0": [], "sent1": []}), "supervised")
