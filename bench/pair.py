"""One pair on the Pairs page, warm model: everything that the page shows, in milliseconds.

Scores under all default strategies, similarity in every state, layer weights and knock-out, and
the figures. Each repeat is another pair, so that nothing comes from a cache.

    python bench/pair.py --json
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from _measure import machine, report


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="lwap-minilm-residual")
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    options = parser.parse_args()

    import lwap
    from lwap import figures
    from lwap.datasets.readers import read_pairs

    model = lwap.load(options.model)
    table = read_pairs(Path(__file__).parents[1] / "assets" / "pairs.csv")
    pairs = list(zip(table["sentence1"], table["sentence2"], strict=True))

    def page(pair: tuple[str, str]) -> None:
        found = lwap.compare_pairs(model, [pair])
        explanation = lwap.explain(model, list(pair))
        references = dict(zip(found.strategies, found.cosines[0].tolist(), strict=True))
        label = [" ↔ ".join(pair)]
        figures.pair_scores(found.cosines, found.strategies, label, x_title="cosine")
        figures.pair_heatmap(found.cosines, found.strategies, label, color_title="cosine")
        layers = found.layers
        figures.layer_similarity(layers.query[0], layers.mean[0], references=references)
        figures.pair_weights(*explanation.weights, label_a=pair[0], label_b=pair[1])
        figures.knockout_bars(explanation.pair_knockout(0, 1), title="Δ cosine")
        found.to_frame()

    for pair in pairs[:10]:
        page(pair)
    milliseconds = []
    for pair in pairs[10:]:
        started = time.perf_counter()
        page(pair)
        milliseconds.append(1000 * (time.perf_counter() - started))
    report(
        {
            "pairs": len(milliseconds),
            "median_ms": round(statistics.median(milliseconds), 1),
            "min_ms": round(min(milliseconds), 1),
            "max_ms": round(max(milliseconds), 1),
            "machine": machine(),
        },
        options.json,
    )


if __name__ == "__main__":
    main()
