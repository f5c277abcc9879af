"""Results to take away: tables for papers, and one HTML file with everything in it."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from lwap import figures
from lwap.datasets.readers import SentenceTable
from lwap.evaluation.benchmark import StsResult
from lwap.evaluation.spaces import GeometryResult
from lwap.projection.quality import Quality
from lwap.projection.space import Maps, Space, numbers_table


def markdown_table(result: StsResult, aggregation: str = "all") -> str:
    """Return the grid as a Markdown table; best of a column bold, ties with the best marked."""
    names = result.task_names
    lines = [
        f"| strategy | {' | '.join(map(_markdown, names))} | 95 % of {_markdown(names[-1])} |",
        "|---" * (len(names) + 2) + "|",
    ]
    for label, cells, interval in _rows(result, aggregation, best="**{}**", tie=r"{}\*"):
        lines.append(f"| `{_markdown(label)}` | {' | '.join(cells)} | {interval} |")
    return "\n".join([*lines, "", _caption(result, aggregation, r"with \*")]) + "\n"


def latex_table(result: StsResult, aggregation: str = "all") -> str:
    """Return the grid as a LaTeX table (booktabs); best of a column bold, ties underlined."""
    names = result.task_names
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\begin{{tabular}}{{l{'r' * len(names)}c}}",
        r"\toprule",
        "Strategy & " + " & ".join(map(_latex, names)) + rf" & 95\,\% of {_latex(names[-1])} \\",
        r"\midrule",
    ]
    marks = {"best": r"\textbf{{{}}}", "tie": r"\underline{{{}}}"}
    for label, cells, interval in _rows(result, aggregation, **marks):
        lines.append(rf"\texttt{{{_latex(label)}}} & {' & '.join(cells)} & {interval} \\")
    caption = _latex(_caption(result, aggregation, "underlined"))
    lines += [
        r"\bottomrule",
        r"\end{tabular}",
        rf"\caption{{{caption}}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _rows(
    result: StsResult, aggregation: str, *, best: str, tie: str
) -> Iterator[tuple[str, list[str], str]]:
    """Yield label, cells and the last column's interval of each row; `best`, `tie` mark a cell."""
    values, (low, high) = result.values(aggregation), result.bounds(aggregation)
    tied = result.tied(aggregation)
    highest = [result.best(column, aggregation) for column in range(values.shape[1])]
    for row, label in enumerate(result.labels):
        cells = []
        for column, value in enumerate(values[row]):
            text = _number(value)
            if highest[column] == row:
                text = best.format(text)
            elif tied[row, column]:
                text = tie.format(text)
            cells.append(text)
        yield label, cells, _interval(low, high, row)


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.2f}"


def _interval(low: np.ndarray, high: np.ndarray, row: int) -> str:
    if np.isnan(low[row, -1]):
        return "–"
    return f"[{low[row, -1]:.2f}, {high[row, -1]:.2f}]"


def in_words(fact: str | dict[str, str]) -> str:
    """Return a fact of `provenance()`, which is a text, or a text a model where these differ.

    >>> in_words({"mine": "all-MiniLM-L6-v2", "other": "bert-base"})
    'all-MiniLM-L6-v2 (mine), bert-base (other)'
    """
    if isinstance(fact, str):
        return fact
    return ", ".join(f"{text} ({model})" for model, text in fact.items())


def _caption(result: StsResult, aggregation: str, tied: str) -> str:
    facts = result.provenance()
    return (
        f"Spearman × 100, aggregation {aggregation}; encoder {in_words(facts['encoder'])}, "
        f"{in_words(facts['precision'])}. Best of a column in bold; those {tied} are not "
        f"significantly worse (paired bootstrap of {result.resamples} resamples, seed "
        f"{result.seed}, Holm)."
    )


def _markdown(text: str) -> str:
    return text.replace("|", r"\|")


def _latex(text: str) -> str:
    marks = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "×": r"$\times$",
        "·": r"$\cdot$",
        "–": "--",
    }
    return "".join(f"\\{c}" if c in "&%$#_{}" else marks.get(c, c) for c in text)


# --- the report ---------------------------------------------------------------------------------


def html_report(result: StsResult, geometries: Sequence[GeometryResult] = ()) -> str:
    """Return one self-contained HTML file: grid, layer curves, differences, planes, provenance.

    Figures are interactive and bring their script with them (about 5 MB): the file opens offline
    and asks no server for anything.

    Args:
        result: An `StsResult`.
        geometries: `GeometryResult`s of its models, for the plane of alignment and uniformity.
    """
    parts = [_heading(result), _grid(result), *_curves(result), _differences(result)]
    parts += [_plane(found) for found in geometries]
    parts += [_table(result), _provenance(result)]
    return _PAGE.format(
        title=html.escape(_title(result)), script=get_plotlyjs(), body="\n".join(parts)
    )


def _title(result: StsResult) -> str:
    return f"{', '.join(result.models)} on {', '.join(task.name for task in result.tasks)}"


def _heading(result: StsResult) -> str:
    pairs = sum(map(len, result.tasks))
    lines = [f"<h1>{html.escape(_title(result))}</h1>"]
    lines.append(
        f"<p>Spearman × 100 between cosines and gold scores of {pairs:,} pairs, higher is better; "
        "intervals are 95 % percentile bootstrap over pairs.</p>"
    )
    task = len(result.task_names) - 1
    best = result.best(task)
    if best is not None:
        values, (low, high) = result.values(), result.bounds()
        ties = [
            label
            for place, label in enumerate(result.labels)
            if place != best and result.tied()[place, task]
        ]
        also = f" Not significantly worse: {', '.join(ties)}." if ties else ""
        lines.append(
            f"<p><b>Highest on {html.escape(result.task_names[task])}: "
            f"{html.escape(result.labels[best])}, {values[best, task]:.2f} "
            f"[{low[best, task]:.2f}, {high[best, task]:.2f}].</b>{html.escape(also)}</p>"
        )
    return "\n".join(lines)


def _grid(result: StsResult) -> str:
    low, high = result.bounds()
    figure = figures.strategy_grid(
        result.values(),
        result.labels,
        result.task_names,
        low=low,
        high=high,
        tied=result.tied(),
    )
    return _section("Strategies and layers on every task", figure)


def _curves(result: StsResult) -> Iterator[str]:
    values, (low, high) = result.values(), result.bounds()
    for model in result.models:
        place = {
            column.strategy: row
            for row, column in enumerate(result.columns)
            if column.model == model
        }
        cls, mean = (
            [place[name] for name in layer_names(kind, place)]
            for kind in ("layer_cls", "layer_mean")
        )
        if not cls or len(cls) != len(mean):
            continue
        figure = figures.layer_curve(
            values[cls, -1],
            values[mean, -1],
            cls_interval=(low[cls, -1], high[cls, -1]),
            mean_interval=(low[mean, -1], high[mean, -1]),
            references={
                name: float(values[row, -1])
                for name, row in place.items()
                if not result.columns[row].is_layer
            },
        )
        yield _section(f"Layer by layer: {model}, {result.task_names[-1]}", figure)


def layer_names(kind: str, names: Iterable[str]) -> list[str]:
    """Return the single-layer strategies of one kind among names, by state.

    >>> layer_names("layer_cls", ["mean", "layer_cls:10", "layer_cls:9"])
    ['layer_cls:9', 'layer_cls:10']
    """
    found = [name for name in names if name.startswith(f"{kind}:") and "+" not in name]
    return sorted(found, key=lambda name: int(name.partition(":")[2]))


def _differences(result: StsResult) -> str:
    if len(result.labels) < 2:
        return ""
    owns = [
        place
        for place, column in enumerate(result.columns)
        if column.strategy == result.own.get(column.model)
    ]
    baseline = owns[0] if owns else 0
    table = result.differences(baseline)
    table = table[table["task"] == result.task_names[-1]].assign(label=result.labels)
    table = table[table["difference"].notna()].drop(index=table.index[baseline], errors="ignore")
    if table.empty:
        return ""
    table = table.sort_values("difference", ascending=False)
    figure = figures.difference_strip(
        table["label"].tolist(),
        table["difference"].to_numpy(),
        table["low"].to_numpy(),
        table["high"].to_numpy(),
        table["p_holm"].to_numpy(),
        baseline=result.labels[baseline],
    )
    title = f"Differences to {result.labels[baseline]}, {result.task_names[-1]}"
    return _section(title, figure, "p is corrected by Holm for the number of comparisons.")


def _plane(found: GeometryResult) -> str:
    figure = figures.alignment_uniformity(
        found.table["alignment"].to_numpy(),
        found.table["uniformity"].to_numpy(),
        found.table["strategy"].tolist(),
    )
    note = (
        f"{found.sentences:,} sentences of {found.data}; alignment over {found.positives:,} pairs "
        f"with a score of {found.positive_at:g} or more."
    )
    numbers = found.table.to_html(index=False, float_format="{:.3f}".format, na_rep="–", border=0)
    return _section(f"Alignment and uniformity: {found.model}", figure, note) + numbers


def _table(result: StsResult) -> str:
    rows = result.rows()
    numbers = rows.to_html(index=False, float_format="{:.2f}".format, na_rep="–", border=0)
    return f"<h2>All numbers</h2><details><summary>{len(rows):,} rows</summary>{numbers}</details>"


def _provenance(result: StsResult) -> str:
    facts = json.dumps(result.provenance(), indent=2, ensure_ascii=False)
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in result.notes)
    return (
        f"<h2>What these numbers must be read with</h2><ul>{notes}</ul>"
        f"<pre>{html.escape(facts)}</pre>"
    )


# --- the maps -----------------------------------------------------------------------------------

MAP_POINTS = 20_000  # points of a map in a file; above it their density, and so many on top
CHANGED_LISTED = 100


def map_report(
    spaces: Sequence[Space],
    names: Sequence[str],
    maps: Maps,
    quality: Sequence[Quality],
    change: pd.DataFrame,
    table: SentenceTable,
    colour: str | None = None,
) -> str:
    """Return one self-contained HTML file: two maps, their measures, and what changed most.

    Args:
        spaces: Two `Space`s of the same sentences.
        names: What they are called.
        maps: Their `Maps`.
        quality: The `Quality` of both.
        change: From `neighbourhood_change`.
        table: The `SentenceTable`.
        colour: A column of it that colours the points; None for the change of neighbourhoods.
    """
    kept = change.sort_values("row")["kept"].to_numpy()
    colors = figures.PointColors(1 - kept, "Neighbours changed")
    if colour in table.labels:
        colors = figures.PointColors(categories=table.labels[colour])
    elif colour in table.numbers:
        colors = figures.PointColors(table.numbers[colour], colour)
    drawn = None
    if len(table) > MAP_POINTS:
        drawn = np.random.default_rng(0).choice(len(table), MAP_POINTS, replace=False)
    drawings = [
        figures.space_map(
            coordinates,
            table.sentences,
            colors=colors,
            marks=figures.PointMarks(drawn=drawn),
            span=figures.map_span(maps.first, maps.second),
            title=name,
            note=f"{str(maps.method).upper()}, keeps {found.knn_recall:.0%} of the nearest "
            "neighbours",
        )
        for coordinates, name, found in zip((maps.first, maps.second), names, quality, strict=True)
    ]
    numbers = numbers_table(names, spaces, quality)
    shown = change.head(CHANGED_LISTED).drop(columns="row")
    shown["kept"] = shown["kept"].map("{:.0%}".format)
    title = f"{names[0]} and {names[1]}"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{len(table):,} sentences in two spaces. The second map is turned onto the first and "
        "starts from the same places, so what moves has changed.</p>",
        "<div class='two'>" + "".join(f"<div>{_drawn(figure)}</div>" for figure in drawings),
        "</div>",
        f"<p class='note'>{html.escape(MAP_WARNINGS[str(maps.method)])}</p>",
        numbers.to_html(index=False, float_format="{:.3f}".format, na_rep="–", border=0),
        "<p class='note'>Uniformity and alignment: lower is better. Mean cosine: near 0 is "
        "isotropic. Trustworthiness and k-NN recall are those of the maps.</p>",
        "<h2>What changed most</h2>",
        f"<p>On average {kept.mean():.0%} of a sentence's 10 nearest neighbours in the full space "
        "are the same in both.</p>",
        shown.to_html(index=False, border=0, classes="left"),
    ]
    return _PAGE.format(title=html.escape(title), script=get_plotlyjs(), body="\n".join(parts))


MAP_WARNINGS = {
    "umap": "In a UMAP map only nearness means something. How far two groups lie apart, how large "
    "a group is and how empty the space between groups: none of that is in the data.",
    "pca": "PCA shows the two directions of the largest variance and drops all others: points that "
    "lie together here may be far apart.",
}
"""What a map does not say, by method."""


def _section(title: str, figure: go.Figure, note: str = "") -> str:
    heading = f"<h2>{html.escape(title)}</h2>"
    return f"{heading}{_drawn(figure)}<p class='note'>{html.escape(note)}</p>"


def _drawn(figure: go.Figure) -> str:
    return figure.to_html(
        full_html=False, include_plotlyjs=False, config={"displaylogo": False, "responsive": True}
    )


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 "Source Sans 3", "Segoe UI", "Helvetica Neue", Arial, sans-serif;
  color: #1d2b2e; background: #fff; max-width: 1000px; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; }} h2 {{ font-size: 1.2rem; margin-top: 2.5rem; }}
.note {{ color: #57676b; font-size: .9rem; }}
table {{ border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #e6ecec; }}
.left th, .left td {{ text-align: left; vertical-align: top; }}
.two {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); gap: 1rem; }}
.two > div {{ min-width: 0; }}
pre {{ background: #f4f7f7; padding: 1rem; overflow-x: auto; font-size: .8rem; }}
</style>
<script>{script}</script>
</head>
<body>
{body}
</body>
</html>
"""
