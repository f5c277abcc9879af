"""The command `changes`: what training changed, a checkpoint against its untouched encoder."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from lwap.cli.shared import cut, print_json, show_progress

ASSETS = Path(__file__).parents[2] / "assets"
EXAMPLE = "the example pairs"
LISTED = 5  # pairs and sentences that are printed


def _changes(options: argparse.Namespace) -> None:
    from lwap.analysis.changes import what_changed
    from lwap.checkpoints.cached import CachedModel
    from lwap.datasets.readers import read_pairs, read_sentences
    from lwap.encoding.diskcache import DiskCache

    # The examples are eight small tasks: one correlation over all of them would mix them.
    aggregation = options.aggregation or ("all" if options.pairs else "mean")
    pairs = read_pairs(options.pairs or ASSETS / "pairs.csv")
    sentences = read_sentences(options.sentences or ASSETS / "sentences.csv")
    cache = None if options.no_cache else DiskCache()
    with show_progress("sentences encoded", options) as progress:
        found = what_changed(
            options.name,
            pairs,
            sentences,
            before=options.before,
            pairs_name=options.pairs_name
            or (Path(options.pairs).stem if options.pairs else EXAMPLE),
            aggregation=aggregation,
            cache=cache,
            progress=progress,
            load=partial(CachedModel, device=options.device, cache=cache),
        )
    if options.json:
        print_json(found.to_dict())
        return
    _print(found)


def _print(found) -> None:
    from lwap.names import state_names

    sides = (found.before, found.after)
    print(f"{len(found.first):,} pairs ({found.pairs_name}), {len(found.sentences):,} sentences")
    print(found.verdict)
    if found.warning:
        print(found.warning)
    width = max(len(side.model) for side in sides) + 2
    print(
        f"\n{'':8}{'model':<{width}}{'pooling':<14}{'Spearman':>9}{'uniformity':>12}{'alignment':>11}"
    )
    for place, side in zip(("before", "after"), sides, strict=True):
        measured = side.geometry
        print(
            f"{place:<8}{side.model:<{width}}{side.pooling:<14}{side.spearman.value:>9.2f}"
            f"{measured.uniformity.value:>12.3f}{measured.alignment:>11.3f}"
        )
    print(f"\n{found.kept.mean():.0%} of the {found.k} nearest neighbours are the same.")
    for each in found.changed(LISTED):
        print(f"  {each.kept:.0%} kept: {cut(each.sentence)}")
        print(f"     lost    {cut(each.lost[0])}\n     gained  {cut(each.gained[0])}")
    if (found.moves() != 0).any():
        print("\nPairs that moved most, by their rank among these pairs (0-100):")
    for row in found.moved(LISTED).itertuples():
        moved = f"{row[4]:>3.0f} -> {row[5]:>3.0f}, score {row.score:g}"
        print(f"  {moved}  {cut(row.sentence1, 60)} | {cut(row.sentence2, 60)}")
    if (weights := found.weights) is not None:
        print(f"\nMean layer weights on {weights.measured_on}")
        before = weights.before or (None,) * len(weights.after)
        for name, one, two in zip(state_names(len(before)), before, weights.after, strict=True):
            print(f"  {name:<12}{'' if one is None else f'{one:.3f} -> '}{two:.3f}")


def add_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command of this module to the parser of `python -m lwap`."""
    command = add(
        "changes",
        _changes,
        "Show what training changed: a checkpoint against the encoder that it was trained from.",
        "Examples:\n"
        "  python -m lwap changes lwap-minilm\n"
        "  python -m lwap changes NAME --pairs pairs.csv --sentences sentences.txt --json\n\n"
        "Each side is read with its own pooling: Spearman with a paired bootstrap, uniformity\n"
        "and alignment, the pairs that moved most, neighbours kept, layer weights. A gain on the\n"
        "pairs that the step was chosen on is no evidence of one elsewhere.",
    )
    command.add_argument("name", help="the checkpoint, or a run")
    command.add_argument(
        "--pairs", metavar="FILE", help="scored pairs (default: the example pairs)"
    )
    command.add_argument(
        "--pairs-name",
        help="what they are called, such as the dev set's name (default: the file's)",
    )
    command.add_argument(
        "--sentences", metavar="FILE", help="whose neighbours count (default: the examples)"
    )
    command.add_argument(
        "--before", metavar="MODEL", help="compare with it (default: the untouched encoder)"
    )
    command.add_argument(
        "--aggregation",
        choices=("all", "mean", "wmean"),
        help="of pairs with subsets (default all; of the examples mean)",
    )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default auto)")
    command.add_argument("--no-cache", action="store_true", help="neither read nor write the cache")
    command.add_argument("--json", action="store_true", help="print one JSON object")
