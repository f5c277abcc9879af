"""Results to take away: tables for papers, and one HTML file with everything in it."""

from __future__ import annotations

import numpy as np


def markdown_table(result, aggregation: str = "all") -> str:
    """Return the grid as a Markdown table; best of a column bold, ties with the best marked."""
    names = result.task_names
    values, (low, high) = result.values(aggregation), result.bounds(aggregation)
    tied = result.tied(aggregation)
    lines = [
        "| strategy | " + " | ".join(names) + f" | 95 % of {names[-1]} |",
        "|---" * (len(names) + 2) + "|",
    ]
    for row, label in enumerate(result.labels):
        cells = []
        for column in range(len(names)):
            text = _number(values[row, column])
            if result.best(column, aggregation) == row:
                text = f"**{text}**"
            elif tied[row, column]:
                text = f"{text}\\*"
            cells.append(text)
        lines.append(f"| `{label}` | {' | '.join(cells)} | {_interval(low, high, row)} |")
    return "\n".join([*lines, "", _caption(result, aggregation)]) + "\n"


def latex_table(result, aggregation: str = "all") -> str:
    """Return the grid as a LaTeX table (booktabs); best of a column bold, ties underlined."""
    names = result.task_names
    values, (low, high) = result.values(aggregation), result.bounds(aggregation)
    tied = result.tied(aggregation)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\begin{{tabular}}{{l{'r' * len(names)}c}}",
        r"\toprule",
        "Strategy & " + " & ".join(map(_latex, names)) + rf" & 95\,\% of {_latex(names[-1])} \\",
        r"\midrule",
    ]
    for row, label in enumerate(result.labels):
        cells = []
        for column in range(len(names)):
            text = _number(values[row, column])
            if result.best(column, aggregation) == row:
                text = rf"\textbf{{{text}}}"
            elif tied[row, column]:
                text = rf"\underline{{{text}}}"
            cells.append(text)
        interval = _interval(low, high, row)
        lines.append(rf"\texttt{{{_latex(label)}}} & {' & '.join(cells)} & {interval} \\")
    caption = _latex(_caption(result, aggregation).replace("*", ""))
    lines += [
        r"\bottomrule",
        r"\end{tabular}",
        rf"\caption{{{caption}}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.2f}"


def _interval(low: np.ndarray, high: np.ndarray, row: int) -> str:
    if np.isnan(low[row, -1]):
        return "–"
    return f"[{low[row, -1]:.2f}, {high[row, -1]:.2f}]"


def _caption(result, aggregation: str) -> str:
    facts = result.provenance()
    return (
        f"Spearman × 100, aggregation {aggregation}; encoder {facts['encoder']}, "
        f"{facts['precision']}. Best of a column marked; others so marked are not significantly "
        f"worse (paired bootstrap of {result.resamples} resamples, seed {result.seed}, Holm)."
    )


def _latex(text: str) -> str:
    marks = {"\\": r"\textbackslash{}", "×": r"$\times$", "·": r"$\cdot$", "–": "--"}
    return "".join(f"\\{c}" if c in "&%$#_{}" else marks.get(c, c) for c in text)


def html_report(result, geometries) -> str:
    raise NotImplementedError
