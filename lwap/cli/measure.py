"""The commands that measure: sts, evaluate, geometry, retrieval; and cache and data beside them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lwap.cli.data import cache_clear, cache_prune, cache_show, data_download, data_list
from lwap.cli.shared import (
    DEFAULT_MODEL,
    output_path,
    print_json,
    show_progress,
    writing,
)
from lwap.errors import InputError

OUTPUTS = (".csv", ".parquet", ".json", ".md", ".tex", ".html")
AGGREGATIONS = ("all", "mean", "wmean")


def _sts(options: argparse.Namespace) -> None:
    from lwap.datasets.readers import data_folder
    from lwap.datasets.tasks import STANDARD, available_tasks
    from lwap.evaluation.tasks import standard_tasks

    folder = options.data or data_folder()
    keys = options.tasks
    if not keys:
        # The seven; where some are missing, the error of the first one says what there is.
        keys = STANDARD
        if not options.data and not available_tasks(folder):
            raise InputError(
                f"There are no STS tasks in '{folder}'. Name their folder (--data FOLDER, or "
                "LWAP_DATA), get them (python -m lwap data download sts), or measure pairs of your "
                "own (python -m lwap evaluate FILE)."
            )
    _run_sts(options, standard_tasks(folder, keys))


def _evaluate(options: argparse.Namespace) -> None:
    from lwap.evaluation.result import AVERAGE
    from lwap.evaluation.tasks import Task

    low, high = options.range or (None, None)
    if options.range and not options.range[0] < options.range[1]:
        raise InputError(f"--range is {low:g} {high:g}; give the lowest score, then the highest.")
    if len(options.files) > 1 and AVERAGE in [Path(file).stem for file in options.files]:
        raise InputError(
            f"'{AVERAGE}' is what the mean over all files is called. Rename the file of that name."
        )
    _run_sts(options, [Task.from_file(file, low=low, high=high) for file in options.files])


def _run_sts(options: argparse.Namespace, tasks) -> None:
    from lwap.evaluation.benchmark import evaluate_sts
    from lwap.reports.report import html_report, latex_table, markdown_table

    _check_seed(options)
    outputs = [output_path(name, *OUTPUTS) for name in options.output or ()]
    if len(options.model) > 2:
        raise InputError(f"{len(options.model)} models are named; compare one or two at a time.")
    cache = _cache(options)

    def check_baseline(result) -> None:
        if options.baseline and options.baseline not in result.labels:
            raise InputError(
                f"--baseline is '{options.baseline}'; the strategies of this run are "
                f"{', '.join(result.labels)}."
            )

    with show_progress("sentences encoded", options) as progress:
        result = evaluate_sts(
            options.model,
            tasks,
            options.strategies,
            resamples=options.resamples,
            **_shared(options, cache),
            progress=progress,
            on_task=check_baseline,  # after the first task, not after all
        )
    baseline = result.labels.index(options.baseline) if options.baseline else None
    geometries = _geometries(options, result, cache) if options.geometry else []
    for path in outputs:
        with writing(path):
            if path.suffix == ".csv":
                result.rows().to_csv(path, index=False)
            elif path.suffix == ".parquet":
                _write_parquet(result, path)
            elif path.suffix == ".json":
                import json

                content = _sts_dict(result, options.aggregation, baseline, geometries)
                path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
            elif path.suffix == ".md":
                table = markdown_table(result, options.aggregation)
                path.write_text(table, encoding="utf-8")
            elif path.suffix == ".tex":
                path.write_text(latex_table(result, options.aggregation), encoding="utf-8")
            else:
                path.write_text(html_report(result, geometries), encoding="utf-8")
    if options.json:
        print_json(_sts_dict(result, options.aggregation, baseline, geometries))
        return
    _print_sts(result, options.aggregation, baseline)
    for found in geometries:
        print()
        _print_geometry(found)
    for path in outputs:
        print(f"Written: {path}")


def _geometries(options: argparse.Namespace, result, cache) -> list:
    from lwap.evaluation.spaces import evaluate_geometry

    with show_progress("sentences encoded", options) as progress:
        return [
            evaluate_geometry(
                model,
                task,
                [column.strategy for column in result.columns if column.model == name],
                **_shared(options, cache),
                progress=progress,
            )
            for model, name in zip(options.model, result.models, strict=True)
            for task in result.tasks
        ]


def _sts_dict(result, aggregation: str, baseline: int | None, geometries: Sequence) -> dict:
    from lwap.evaluation.spaces import plain_rows

    return {
        "rows": plain_rows(result.rows()),
        "aggregation": aggregation,  # of the differences
        "differences": plain_rows(result.differences(baseline, aggregation)),
        "mismatch": plain_rows(result.mismatch()),
        "geometry": [found.to_dict() for found in geometries],
        "notes": list(result.notes),
        **result.provenance(),
    }


def _write_parquet(result, path: Path) -> None:
    import json

    import pyarrow as pa
    import pyarrow.parquet as parquet

    table = pa.Table.from_pandas(result.rows(), preserve_index=False)
    facts = {b"lwap": json.dumps(result.provenance(), ensure_ascii=False).encode()}
    parquet.write_table(table.replace_schema_metadata({**table.schema.metadata, **facts}), path)


def _print_sts(result, aggregation: str, baseline: int | None) -> None:
    import numpy as np

    from lwap.reports.report import in_words

    names = result.task_names
    values, (low, high) = result.values(aggregation), result.bounds(aggregation)
    tied = result.tied(aggregation) & (len(result.labels) > 1)
    width = _width(result.labels)
    columns = [max(10, len(name) + 1) for name in names]
    print(f"Spearman × 100, aggregation '{aggregation}', higher is better")
    heads = (f"{name:>{size}} " for name, size in zip(names, columns, strict=True))
    print(f"{'':<{width}}{''.join(heads)}   95 % of {names[-1]}")
    for row, label in enumerate(result.labels):
        cells = [
            f"{'–' if np.isnan(value) else format(value, '.2f'):>{size}}{'*' if mark else ' '}"
            for value, mark, size in zip(values[row], tied[row], columns, strict=True)
        ]
        ends = low[row, -1], high[row, -1]
        interval = "" if np.isnan(ends[0]) else f"   [{ends[0]:.2f}, {ends[1]:.2f}]"
        print(f"{label:<{width}}{''.join(cells)}{interval}")
    if len(result.labels) > 1:
        print("* the best of its column, or not significantly worse (paired bootstrap, Holm)")
    if baseline is not None:
        print(f"\nDifference to {result.labels[baseline]} on {names[-1]}, p adjusted by Holm")
        table = result.differences(baseline, aggregation)
        table = table[table["task"] == names[-1]].reset_index(drop=True)
        for place, row in table.iterrows():
            if place != baseline and row["difference"] == row["difference"]:
                print(
                    f"  {result.labels[place]:<{width}}{row['difference']:+8.2f}  "
                    f"[{row['low']:+.2f}, {row['high']:+.2f}]  p {_p(row['p_holm'])}"
                )
    mismatch = result.mismatch()
    for model, rows in mismatch.groupby("model", sort=False):
        own = rows["trained_with"].iloc[0]
        print(f"\n{model} was trained with {own}. Read with another pooling it loses:")
        for _, row in rows.iterrows():
            mark = "" if row["significant"] else "  (not significant)"
            print(
                f"  {row['strategy']:<{width}}{row['cost']:8.2f}  "
                f"[{row['low']:.2f}, {row['high']:.2f}]{mark}"
            )
    facts = result.provenance()
    print(
        f"\n{sum(map(len, result.tasks)):,} pairs; encoder {in_words(facts['encoder'])}, "
        f"{in_words(facts['precision'])}; {result.resamples:,} resamples, seed {result.seed}"
    )
    for task in result.tasks:
        print(f"  {task.name}: {len(task):,} pairs, SHA-256 {task.sha256[:16]}…")
    _print_notes(result.notes)


def _width(labels: Sequence[str]) -> int:
    return max(18, *(len(label) + 2 for label in labels))


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _geometry(options: argparse.Namespace) -> None:
    from lwap.datasets.readers import data_folder
    from lwap.evaluation.spaces import evaluate_geometry
    from lwap.evaluation.tasks import Task, standard_tasks

    _check_seed(options)
    if options.file and options.task:
        raise InputError("Give either a file of scored pairs or --task, not both.")
    if options.file:
        task = Task.from_file(options.file)
    else:
        task = standard_tasks(options.data or data_folder(), [options.task or "stsb"])[0]
    output = output_path(options.output, ".csv") if options.output else None
    with show_progress("sentences encoded", options) as progress:
        result = evaluate_geometry(
            options.model,
            task,
            options.strategies,
            positive_at=options.positive_at,
            **_shared(options, _cache(options)),
            progress=progress,
        )
    if output:
        with writing(output):
            result.table.to_csv(output, index=False)
    if options.json:
        print_json(result.to_dict())
        return
    _print_geometry(result)
    if output:
        print(f"Written: {output}")


def _print_geometry(result) -> None:
    print(
        f"{result.model} on {result.sentences:,} sentences of {result.data}, alignment over "
        f"{result.positives:,} pairs with a score of {result.positive_at:g} or more"
    )
    heads = ("alignment ↓", "uniformity ↓", "cosine →0", "eff. rank ↑", "IsoScore ↑")
    width = _width(result.table["strategy"])
    print(f"{'':<{width}}" + "".join(f"{name:>14}" for name in heads))
    for _, row in result.table.iterrows():
        numbers = (
            f"{row['alignment']:.3f}",
            f"{row['uniformity']:.3f}",
            f"{row['mean_random_cosine']:.3f}",
            f"{row['effective_rank']:.1f}",
            f"{row['isoscore']:.3f}",
        )
        shown = ("–" if number == "nan" else number for number in numbers)
        print(f"{row['strategy']:<{width}}" + "".join(f"{number:>14}" for number in shown))
    if not result.is_exact:
        widest = (result.table["high"] - result.table["low"]).max()
        print(f"Uniformity is sampled; its widest 95 % interval is {widest:.3f}.")
    _print_notes(result.notes)


def _retrieval(options: argparse.Namespace) -> None:
    from lwap.datasets.readers import read_retrieval
    from lwap.evaluation.spaces import evaluate_retrieval

    _check_seed(options)
    output = output_path(options.output, ".csv") if options.output else None
    data = read_retrieval(options.folder)
    with show_progress("texts encoded", options) as progress:
        result = evaluate_retrieval(
            options.model,
            data,
            options.strategies,
            **_shared(options, _cache(options)),
            progress=progress,
        )
    if output:
        with writing(output):
            result.table.to_csv(output, index=False)
    if options.json:
        print_json(result.to_dict())
        return
    wide = result.wide()
    bounds = result.table.set_index(["strategy", "measure"])
    first = wide.columns[0]
    print(
        f"{result.model} on {result.data}: {result.documents:,} documents, "
        f"{result.table['queries'].iloc[0]:,} queries; MAP over the first {result.depth:,}"
    )
    width = _width(wide.index)
    heads = "".join(f"{name:>12}" for name in wide.columns)
    print(f"{'':<{width}}{heads}   95 % of {first}")
    for strategy, row in wide.iterrows():
        ends = bounds.loc[(strategy, first)]
        print(
            f"{strategy:<{width}}"
            + "".join(f"{100 * value:>12.2f}" for value in row)
            + f"   [{100 * ends['low']:.2f}, {100 * ends['high']:.2f}]"
        )
    _print_notes(result.notes)
    if output:
        print(f"Written: {output}")


def _cache(options: argparse.Namespace):
    from lwap.encoding.diskcache import DiskCache

    return None if options.no_cache else DiskCache()


def _shared(options: argparse.Namespace, cache) -> dict[str, Any]:
    """Return the options that every measure takes."""
    return {
        "whiten_on": _whiten_on(options),
        "precision": options.precision,
        "device": options.device,
        "seed": options.seed,
        "cache": cache,
    }


def _whiten_on(options: argparse.Namespace):
    from lwap.checkpoints.cached import WhitenOn
    from lwap.datasets.readers import read_sentences

    whitened = [name for name in options.strategies or () if name.endswith("+whiten")]
    if not options.whiten_on:
        return None  # the source says what is missing, where a strategy needs it
    if not whitened:
        raise InputError("--whiten-on has no effect: no strategy ends in '+whiten'.")
    path = Path(options.whiten_on)
    return WhitenOn(path.name, tuple(dict.fromkeys(read_sentences(path))))


def _check_seed(options: argparse.Namespace) -> None:
    if options.seed < 0:
        raise InputError(f"--seed is {options.seed}; it must be 0 or more.")


def _print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        print(f"Note: {note}", file=sys.stderr)


def add_commands(add: Callable, commands, formatter) -> None:
    """Add the commands of this module to the parser of `python -m lwap`."""
    sts = add(
        "sts",
        _sts,
        "Score every strategy and every layer on the standard STS tasks.",
        "Examples:\n"
        "  python -m lwap sts --data FOLDER\n"
        "  python -m lwap sts --tasks stsb sickr --strategies mean lwap --baseline mean\n"
        "  python -m lwap sts --output results.parquet --output table.tex --output report.html\n\n"
        "FOLDER holds sts12.csv … sts16.csv, stsb-test.csv, sick-test.csv, or a folder sts with\n"
        "them. Summaries are kept (python -m lwap cache): the next run takes seconds.",
    )
    sts.add_argument("--data", metavar="FOLDER", help="default: LWAP_DATA")
    sts.add_argument(
        "--tasks",
        nargs="+",
        metavar="KEY",
        help="sts12 … sts16, stsb, sickr (default: these seven), stsb-dev, sick-dev",
    )
    _sts_options(sts)

    evaluate = add(
        "evaluate",
        _evaluate,
        "Score every strategy and every layer on labelled pairs of your own.",
        "Example:\n  python -m lwap evaluate pairs.csv --output report.html\n\n"
        "The file has sentence1, sentence2, score and, if it has parts, subset.",
    )
    evaluate.add_argument("files", nargs="+", metavar="FILE", help="CSV, TSV, JSONL or Parquet")
    evaluate.add_argument(
        "--range", nargs=2, type=float, metavar=("LOW", "HIGH"), help="refuse scores outside"
    )
    _sts_options(evaluate)

    geometry = add(
        "geometry",
        _geometry,
        "Measure alignment, uniformity and isotropy of every strategy and layer.",
        "Examples:\n  python -m lwap geometry --task stsb\n  python -m lwap geometry pairs.csv",
    )
    geometry.add_argument("file", nargs="?", help="scored pairs (default: a task)")
    geometry.add_argument("--data", metavar="FOLDER", help="default: LWAP_DATA")
    geometry.add_argument("--task", metavar="KEY", help="an STS task (default stsb)")
    geometry.add_argument(
        "--positive-at",
        type=float,
        metavar="SCORE",
        help="lowest score of a positive pair (default: four fifths of the range)",
    )
    geometry.add_argument("--output", "-o", help="write the table to this CSV file")
    _common(geometry)

    retrieval = add(
        "retrieval",
        _retrieval,
        "Measure semantic search in a BEIR folder under every strategy and layer.",
        "Example:\n  python -m lwap retrieval FOLDER --strategies mean lwap\n\n"
        "FOLDER holds corpus.jsonl, queries.jsonl and qrels.tsv.",
    )
    retrieval.add_argument("folder", help="a folder in the format of BEIR")
    retrieval.add_argument("--output", "-o", help="write the table to this CSV file")
    _common(retrieval)

    def group(name: str, summary: str, example: str):
        command = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=f"Example:\n  python -m lwap {example}",
            formatter_class=formatter,
        )
        return command.add_subparsers(metavar="ACTION", required=True)

    def action(actions, name: str, run: Callable, summary: str, example: str):
        command = actions.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=f"Example:\n  python -m lwap {example}",
            formatter_class=formatter,
        )
        command.set_defaults(run=run)
        command.add_argument("--json", action="store_true", help="print one JSON object")
        return command

    cache = group("cache", "Show or empty the cache of evaluations.", "cache show")
    action(cache, "show", cache_show, "Show what the cache holds.", "cache show")
    prune = action(
        cache,
        "prune",
        cache_prune,
        "Remove the oldest entries beyond a limit.",
        "cache prune --limit 1",
    )
    prune.add_argument("--limit", type=float, metavar="GB", help="default: the cache's own")
    action(cache, "clear", cache_clear, "Remove every entry.", "cache clear")

    data = group("data", "List and download public data sets.", "data list")
    listing = action(
        data, "list", data_list, "Show which sets are there and which can be got.", "data list"
    )
    download = action(
        data, "download", data_download, "Download a public set from the hub.", "data download sts"
    )
    download.add_argument("name", help="e.g. sts; `data list` shows all")
    download.add_argument("--revision", help="of the hub's repository")
    download.add_argument("--overwrite", action="store_true", help="replace files that differ")
    for command in (listing, download):
        command.add_argument("--folder", help="default: LWAP_DATA")


def _sts_options(command: argparse.ArgumentParser) -> None:
    _common(command, models=True)
    command.add_argument(
        "--aggregation", choices=AGGREGATIONS, default="all", help="what is printed (default all)"
    )
    command.add_argument("--baseline", metavar="NAME", help="print differences to this strategy")
    command.add_argument(
        "--resamples", type=int, default=1000, help="of the bootstrap (default 1000)"
    )
    command.add_argument("--geometry", action="store_true", help="alignment, uniformity, … too")
    command.add_argument(
        "--output",
        "-o",
        action="append",
        metavar="FILE",
        help=f"write results; ends in {', '.join(OUTPUTS)}; repeatable",
    )


def _common(command: argparse.ArgumentParser, models: bool = False) -> None:
    if models:
        command.add_argument(
            "--model",
            "-m",
            nargs="+",
            default=[DEFAULT_MODEL],
            metavar="MODEL",
            help=f"one or two models (default {DEFAULT_MODEL})",
        )
    else:
        command.add_argument(
            "--model", "-m", default=DEFAULT_MODEL, help=f"model (default {DEFAULT_MODEL})"
        )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default auto)")
    command.add_argument(
        "--strategies", nargs="+", metavar="NAME", help="default: all, and every layer alone"
    )
    command.add_argument(
        "--whiten-on", metavar="FILE", help="sentences that NAME+whiten is fitted on"
    )
    command.add_argument(
        "--precision",
        default="fp32",
        help="fp32 (default), bf16, or auto: bf16 where the hardware has it, about 3 × as fast",
    )
    command.add_argument("--seed", type=int, default=0, help="of bootstrap and samples (default 0)")
    command.add_argument("--no-cache", action="store_true", help="neither read nor write the cache")
    command.add_argument("--json", action="store_true", help="print one JSON object")
