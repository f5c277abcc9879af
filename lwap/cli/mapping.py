"""The command `map`: two spaces of the same sentences as one HTML file, or a table."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from lwap.cli.shared import PAPER_MODEL, output_path, print_json, show_progress, writing
from lwap.errors import InputError, check_choice

LISTED = 20  # sentences that changed most, of the JSON


def _map(options: argparse.Namespace) -> None:
    from lwap.checkpoints.cached import CachedModel
    from lwap.datasets.readers import read_sentence_table
    from lwap.encoding.diskcache import DiskCache
    from lwap.evaluation.spaces import plain_rows
    from lwap.projection.maps import MapConfig, Method
    from lwap.projection.process import UmapProcess
    from lwap.projection.space import (
        draw_maps,
        map_quality,
        measure_spaces,
        neighbourhood_change,
        numbers_table,
    )
    from lwap.reports.report import map_report

    outputs = [output_path(name, ".html", ".csv") for name in options.output or ()]
    if not outputs and not options.json:
        raise InputError("Name a file: --output map.html, or map.csv for a table; or --json.")
    method = check_choice("--method", options.method, Method)
    settings = vars(MapConfig(options.neighbours, options.min_dist, options.seed))
    table = read_sentence_table(options.file)
    colour = _colour(options, table)
    cache = None if options.no_cache else DiskCache()
    names = [options.model, options.second_model or options.model]
    known: dict[str, CachedModel] = {}
    for name in names:
        if name not in known:
            known[name] = CachedModel(
                name, precision=options.precision, device=options.device, cache=cache
            )
    sources = [known[name] for name in names]
    strategies = list(options.strategies or _default_strategies(sources[1]))
    if len(strategies) == 1:
        strategies *= 2
    if len(strategies) != 2:
        raise InputError(f"{len(strategies)} strategies are named; a map compares one or two.")
    for source, strategy in zip(sources, strategies, strict=True):
        source.check([strategy])
    with show_progress("sentences encoded", options) as progress:
        first, second = spaces = measure_spaces(
            sources,
            strategies,
            table.sentences,
            positives=table.positives,
            cache=cache,
            progress=progress,
        )
    process = UmapProcess()
    try:
        with show_progress("steps", options) as progress:
            maps = draw_maps(
                first,
                second,
                method,
                cache=cache,
                process=process,
                progress=progress,
                **settings,
            )
    finally:
        process.close()
    quality = [
        map_quality(space, coordinates)
        for space, coordinates in zip(spaces, (maps.first, maps.second), strict=True)
    ]
    change = neighbourhood_change(first, second, table.sentences)
    titles = strategies
    if names[0] != names[1]:
        titles = [f"{n} · {s}" for n, s in zip(names, strategies, strict=True)]
    for path in outputs:
        with writing(path):
            if path.suffix == ".csv":
                _frame(table, maps, quality, change).to_csv(path, index=False)
            else:
                page = map_report(spaces, titles, maps, quality, change, table, colour)
                path.write_text(page, encoding="utf-8")
    numbers = numbers_table(titles, spaces, quality)
    if options.json:
        print_json(
            {
                "sentences": len(table),
                "method": str(maps.method),
                "settings": settings if maps.method == "umap" else {},
                "spaces": plain_rows(numbers),
                "neighbours_kept": float(change["kept"].mean()),
                "changed_most": change.head(LISTED).drop(columns="row").to_dict(orient="records"),
            }
        )
        return
    _print(numbers.to_dict(orient="records"), change, table)
    for path in outputs:
        print(f"Written: {path}")


def _colour(options: argparse.Namespace, table) -> str | None:
    """Return the column that colours the map: as asked for, else the first label."""
    columns = [*table.labels, *table.numbers]
    if options.colour is None:
        return columns[0] if columns else None
    if options.colour not in columns:
        has = f"the columns {', '.join(columns)}" if columns else "no other column"
        raise InputError(f"--colour is '{options.colour}'; '{options.file}' has {has}.")
    return options.colour


def _default_strategies(source) -> tuple[str, str]:
    own = source.facts.own
    return "mean", own if own and own != "mean" else "cls"


def _frame(table, maps, quality, change):
    import pandas as pd

    columns: dict[str, Any] = {"sentence": table.sentences, **table.labels, **table.numbers}
    for side, coordinates, found in zip(
        ("first", "second"), (maps.first, maps.second), quality, strict=True
    ):
        columns[f"{side} x"], columns[f"{side} y"] = coordinates.T
        columns[f"{side} k-NN recall"] = found.point_recall
    columns["movement"] = maps.moved
    columns["neighbours kept"] = change.sort_values("row")["kept"].to_numpy()
    return pd.DataFrame(columns)


def _print(numbers: list[dict[str, Any]], change, table) -> None:
    width = max(len(row["space"]) for row in numbers) + 2
    heads = [name for name in numbers[0] if name != "space"]
    print(f"{len(table):,} sentences")
    print(" " * width + "".join(f"{name:>17}" for name in heads))
    for row in numbers:
        cells = ("–" if row[name] != row[name] else f"{row[name]:.3f}" for name in heads)
        print(f"{row['space']:<{width}}" + "".join(f"{cell:>17}" for cell in cells))
    print(f"\n{change['kept'].mean():.0%} of the 10 nearest neighbours are the same in both.")


def add_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands of this module to the parser of `python -m lwap`."""
    command = add(
        "map",
        _map,
        "Draw two spaces of the same sentences as maps, with what changed between them.",
        "Examples:\n"
        "  python -m lwap map assets/sentences.csv --output map.html\n"
        "  python -m lwap map FILE --strategies cls lwap --method pca --output map.html\n"
        "  python -m lwap map FILE --model A --second-model B --strategies lwap -o map.csv\n\n"
        "FILE is a text file, one sentence a line, or a table with a column sentence; its other\n"
        "columns can colour the map, and sentences of the same group count as meaning the same.\n"
        "The HTML file opens offline (5 MB).",
    )
    command.add_argument("file", help="sentences: .txt, or a table with a column sentence or text")
    command.add_argument("--model", "-m", default=PAPER_MODEL, help=f"default {PAPER_MODEL}")
    command.add_argument("--second-model", help="of the second map (default: the same)")
    command.add_argument(
        "--strategies",
        nargs="+",
        metavar="NAME",
        help="of both maps, one or two (default: mean and the model's own)",
    )
    command.add_argument("--method", default="umap", help="umap (default) or pca")
    command.add_argument(
        "--neighbours", type=int, default=15, help="of UMAP: few show detail (default 15)"
    )
    command.add_argument(
        "--min-dist", type=float, default=0.1, help="of UMAP: how tight, 0-1 (default 0.1)"
    )
    command.add_argument("--seed", type=int, default=0, help="of UMAP (default 0)")
    command.add_argument("--colour", metavar="COLUMN", help="default: the first label")
    command.add_argument("--output", "-o", action="append", metavar="FILE", help=".html or .csv")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default auto)")
    command.add_argument("--precision", default="fp32", help="fp32 (default), bf16, or auto")
    command.add_argument("--no-cache", action="store_true", help="neither read nor write the cache")
    command.add_argument("--json", action="store_true", help="print one JSON object")
