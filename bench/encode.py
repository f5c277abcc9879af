"""Our bank (CLS and mean of every state) against sentence-transformers' encode (one pooling).

Both sides take the same distinct sentences of the STS 2012–2016 sets (LWAP_DATA or ../shared/data)
with the bundled encoder, in turn in one process; peak memory in a process of its own each. Without
the data folder the project's own example sentences are used and said so.

    python bench/encode.py --json
"""

from __future__ import annotations

import argparse
import random
import sys

import numpy as np
from _measure import alternate, machine, own_peak_megabytes, peak_megabytes, ratio, report


def sentences(count: int) -> tuple[list[str], str]:
    """Return `count` distinct sentences in random order, and where they are from."""
    from lwap.datasets.readers import data_folder, read_pairs

    files = sorted((data_folder() / "sts").glob("sts1*.csv"))
    if not files:
        from pathlib import Path

        files = [Path(__file__).parents[1] / "assets" / "pairs.csv"]
    found: dict[str, None] = {}
    for file in files:
        pairs = read_pairs(file)
        found.update(dict.fromkeys([*pairs["sentence1"], *pairs["sentence2"]]))
    texts = list(found)
    random.Random(0).shuffle(texts)
    return texts[:count], ", ".join(file.stem for file in files)


def main() -> None:
    """Measure, or run one side alone for its memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=8000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    parser.add_argument("--side", choices=["ours", "peer"], help="run one side once and stop")
    options = parser.parse_args()

    from sentence_transformers import SentenceTransformer

    import lwap
    from lwap.encoding.sources import resolve_encoder

    texts, source = sentences(options.sentences)
    summaries = ("cls", "mean")
    if options.side != "ours":
        peer = SentenceTransformer(str(resolve_encoder("bundled")))
    if options.side == "peer":
        peer.encode(texts)
        print(own_peak_megabytes())
        return
    model = lwap.load()
    if options.side == "ours":
        lwap.encode_layers(model, texts, summaries=summaries)
        print(own_peak_megabytes())
        return

    warm = texts[:256]
    peer.encode(warm)
    lwap.encode_layers(model, warm, summaries=summaries)
    lwap.encode_layers(model, warm, summaries=summaries, precision="auto")
    kept = {}

    def run(name, precision):
        def side() -> None:
            kept[name] = lwap.encode_layers(model, texts, summaries=summaries, precision=precision)

        return side

    seconds = alternate(
        {
            "peer": lambda: kept.update(peer=peer.encode(texts)),
            "fp32": run("fp32", "fp32"),
            "auto": run("auto", "auto"),
        },
        options.repeats,
    )

    def cosines(first, second):
        unit = [a / np.linalg.norm(a, axis=-1, keepdims=True) for a in (first, second)]
        return (unit[0] * unit[1]).sum(axis=-1)

    fp32, auto = kept["fp32"], kept["auto"]
    figures = {
        "sentences": len(texts),
        "source": source,
        "repeats": options.repeats,
        "ratio_fp32": ratio(seconds["peer"], seconds["fp32"])["median"],
        "ratio_auto": ratio(seconds["peer"], seconds["auto"])["median"],
        "ratio_fp32_range": ratio(seconds["peer"], seconds["fp32"]),
        "ratio_auto_range": ratio(seconds["peer"], seconds["auto"]),
        "min_cosine_fp32": round(float(cosines(kept["peer"], fp32.mean[:, -1]).min()), 7),
        "min_cosine_auto": round(
            float(min(cosines(getattr(fp32, a), getattr(auto, a)).min() for a in summaries)), 6
        ),
        "peak_mb_ours": peak_megabytes(sys.argv[0], "--side", "ours"),
        "peak_mb_peer": peak_megabytes(sys.argv[0], "--side", "peer"),
        "sentences_per_second": {
            name: round(len(texts) / float(np.median(values))) for name, values in seconds.items()
        },
        "machine": machine(),
    }
    report(figures, options.json)


if __name__ == "__main__":
    main()
