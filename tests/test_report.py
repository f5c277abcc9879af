"""The tables to take away, against ones written by hand."""

import numpy as np
import pandas as pd
import pytest

from lwap.evaluation.benchmark import Column, StsResult, Task
from lwap.evaluation.sts import Aggregation, Correlations
from lwap.report import latex_table, markdown_table

STRATEGIES = ("lwap", "mean", "layer_cls:1", "layer_cls:0")
SWING = np.linspace(-1, 1, 200)  # its middle 95 % are ± 0.95


def correlations_of(values: list[float], swings: list[float]) -> Correlations:
    """Return the same values and draws under each aggregation, each draw a value plus a swing."""
    values = np.array(values)
    draws = values[:, None] + np.outer(swings, SWING)
    return Correlations(dict.fromkeys(Aggregation, values), dict.fromkeys(Aggregation, draws), 3)


def task(name: str, **options) -> Task:
    pairs = {"sentence1": list("abc"), "sentence2": list("def"), "score": [0, 2, 5]}
    return Task.from_pairs(pd.DataFrame(pairs), name, **options)


@pytest.fixture
def make_result():
    """Return a function that makes a result of four strategies on two tasks.

    The second strategy swings against the first, so that no difference between them is certain;
    the third moves with the first, and is always below or always above; the last is undefined.
    """

    def make(names=("plain", "other"), encoders=None, **options) -> StsResult:
        models = ["mine"] * 4 if encoders is None else ["mine", "mine", "mine", "yours"]
        return StsResult(
            columns=tuple(map(Column, models, STRATEGIES)),
            tasks=tuple(task(name, **options) for name in names),
            correlations=(
                correlations_of([80.126, 79.5, 50, np.nan], [1, -1, 1, 0]),
                correlations_of([60, 61, 70.004, np.nan], [1, 1, 1, 0]),
            )[: len(names)],
            cosines=(np.zeros((4, 3)),) * len(names),
            own={"mine": "lwap", "yours": None},
            encoders=encoders or {"mine": "all-MiniLM-L6-v2"},
            precision=dict.fromkeys(set(models), "fp32"),
            resamples=200,
            seed=4,
        )

    return make


def test_markdown_marks_the_best_and_what_ties_with_it(make_result):
    assert markdown_table(make_result()) == (
        "| strategy | plain | other | average | 95 % of average |\n"
        "|---|---|---|---|---|\n"
        "| `lwap` | **80.13** | 60.00 | 70.06\\* | [69.11, 71.01] |\n"
        "| `mean` | 79.50\\* | 61.00 | **70.25** | [70.25, 70.25] |\n"
        "| `layer_cls:1` | 50.00 | **70.00** | 60.00 | [59.05, 60.95] |\n"
        "| `layer_cls:0` | – | – | – | – |\n"
        "\n"
        "Spearman × 100, aggregation all; encoder all-MiniLM-L6-v2, fp32. Best of a column in "
        "bold; those with \\* are not significantly worse (paired bootstrap of 200 resamples, "
        "seed 4, Holm).\n"
    )


def test_latex_marks_the_best_and_what_ties_with_it(make_result):
    assert latex_table(make_result(["my_set & 5%", "other"])).splitlines() == [
        r"\begin{table}",
        r"\centering",
        r"\begin{tabular}{lrrrc}",
        r"\toprule",
        r"Strategy & my\_set \& 5\% & other & average & 95\,\% of average \\",
        r"\midrule",
        r"\texttt{lwap} & \textbf{80.13} & 60.00 & \underline{70.06} & [69.11, 71.01] \\",
        r"\texttt{mean} & \underline{79.50} & 61.00 & \textbf{70.25} & [70.25, 70.25] \\",
        r"\texttt{layer\_cls:1} & 50.00 & \textbf{70.00} & 60.00 & [59.05, 60.95] \\",
        r"\texttt{layer\_cls:0} & – & – & – & – \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\caption{Spearman $\times$ 100, aggregation all; encoder all-MiniLM-L6-v2, fp32. Best "
        r"of a column in bold; those underlined are not significantly worse (paired bootstrap of "
        r"200 resamples, seed 4, Holm).}",
        r"\end{table}",
    ]


def test_names_break_no_table(make_result):
    result = make_result([r"a|b~c^d\e#{f}$"])
    assert r"| a\|b~c^d\e#{f}$ | 95 % of a\|b~c^d\e#{f}$ |" in markdown_table(result)
    escaped = r"a|b\textasciitilde{}c\textasciicircum{}d\textbackslash{}e\#\{f\}\$"
    assert rf"Strategy & {escaped} & 95\,\% of {escaped} \\" in latex_table(result)


def test_one_task_has_no_average_and_two_models_are_named(make_result):
    encoders = {"mine": "all-MiniLM-L6-v2", "yours": "bert_base"}
    table = markdown_table(make_result(["plain"], encoders))
    assert table.splitlines()[:3] == [
        "| strategy | plain | 95 % of plain |",
        "|---|---|---|",
        "| `mine · lwap` | **80.13** | [79.18, 81.08] |",
    ]
    assert "encoder all-MiniLM-L6-v2 (mine), bert_base (yours), fp32." in table
    table = latex_table(make_result(["plain"], encoders))
    assert r"\texttt{yours $\cdot$ layer\_cls:0} & – & – \\" in table
    assert r"encoder all-MiniLM-L6-v2 (mine), bert\_base (yours), fp32." in table


def test_what_a_task_does_not_have_is_a_dash(make_result):
    result = make_result(has_hidden_subsets=True)
    lines = markdown_table(result, "wmean").splitlines()
    assert lines[2:6] == [f"| `{name}` | – | – | – | – |" for name in STRATEGIES]
    assert "aggregation wmean;" in lines[-1]
    for row, name in enumerate(STRATEGIES):
        label = name.replace("_", r"\_")
        line = latex_table(result, "wmean").splitlines()[6 + row]
        assert line == rf"\texttt{{{label}}} & – & – & – & – \\"
