"""The numbers of one commit, to be met by every later one: `golden.json` and how it is made.

    python -m tests.golden            compare with golden.json, and say how far each part is off
    python -m tests.golden --write    write it anew, when a number is meant to change

Through public names alone, on bundled data and data made here, so that the same script runs on an
old commit and on a new one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
FILE = Path(__file__).with_suffix(".json")
MODELS = ("lwap-minilm", "lwap-minilm-paper")
DECIMALS = 9

Plain = dict[str, Any]


def pairs() -> pd.DataFrame:
    """Return the example pairs: subset, sentence1, sentence2, score."""
    return pd.read_csv(ROOT / "assets/pairs.csv")


def sentences() -> pd.DataFrame:
    """Return the first 200 example sentences with their groups."""
    return pd.read_csv(ROOT / "assets/sentences.csv").head(200)


# --- what is measured ---------------------------------------------------------------------------


def cosines() -> Plain:
    """Every strategy and every layer on the example pairs: one comparison, one ranking."""
    import lwap

    found = {}
    for name in MODELS:
        model = lwap.load(name, device="cpu")
        table = lwap.compare(model, pairs(), list(lwap.strategies(model)))
        found[name] = {each: plain(table[each]) for each in lwap.strategies(model)}
    return found


def correlations() -> Plain:
    """Spearman × 100 of the same, with intervals and the difference to mean pooling."""
    import lwap

    task = lwap.Task.from_pairs(pairs(), "pairs")
    found = lwap.evaluate_sts(list(MODELS), [task], resamples=200)
    rows, differences = found.rows(), found.differences(0)
    return {
        part: {name: plain(table[name]) for name in table if table[name].dtype.kind in "fiu"}
        for part, table in (("rows", rows), ("differences", differences))
    }


def geometry() -> Plain:
    """Alignment, uniformity and isotropy of every strategy on the example pairs."""
    import lwap

    task = lwap.Task.from_pairs(pairs(), "pairs")
    table = lwap.evaluate_geometry(MODELS[0], task).table.set_index("strategy")
    return {name: plain(table[name]) for name in table}


def retrieval() -> Plain:
    """A search in the example sentences: the first of each group asks, the others answer."""
    import lwap

    table = sentences()
    asking = table[~table.group.duplicated()]
    documents = table[table.group.duplicated()]
    with tempfile.TemporaryDirectory() as folder:
        corpus = [{"_id": f"d{row}", "text": text} for row, text in documents.sentence.items()]
        queries = [{"_id": f"q{row}", "text": text} for row, text in asking.sentence.items()]
        for name, rows in (("corpus", corpus), ("queries", queries)):
            lines = "\n".join(map(json.dumps, rows))
            Path(folder, f"{name}.jsonl").write_text(lines, encoding="utf-8")
        judged = asking.reset_index().merge(documents.reset_index(), on="group")
        lines = [f"q{row.index_x}\td{row.index_y}\t1" for row in judged.itertuples()]
        head = "query-id\tcorpus-id\tscore"
        Path(folder, "qrels.tsv").write_text("\n".join([head, *lines]), encoding="utf-8")
        found = lwap.evaluate_retrieval(MODELS[0], lwap.read_retrieval(folder))
    rows = found.table.assign(key=found.table.strategy + " " + found.table.measure).set_index("key")
    return {name: plain(rows[name]) for name in ("value", "low", "high")}


def explanation() -> Plain:
    """What the paper's head listens to in eight sentences, and the knock-outs."""
    import lwap

    found = lwap.explain(lwap.load(MODELS[1], device="cpu"), sentences().sentence.head(8).tolist())
    names = ("attention", "weights", "knockout", "embeddings")
    return {name: plain(getattr(found, name)) for name in names}


def comparison() -> Plain:
    """Percentiles, and the similarity in each state, of the example pairs."""
    import lwap

    model = lwap.load(MODELS[0], device="cpu")
    found = lwap.compare_pairs(model, pairs()[["sentence1", "sentence2"]])
    return {
        "percentiles": plain(found.percentiles),
        "disagreement": plain(found.disagreement),
        "query": plain(found.layers.query),
        "mean": plain(found.layers.mean),
    }


def training() -> Plain:
    """The losses and dev scores of ten steps of each pooling's head on the bundled encoder."""
    import lwap

    triplets = pd.read_csv(ROOT / "assets/triplets.csv").head(160)
    found = {}
    for pooling in ("lwap", "scalar_mix"):
        config = lwap.TrainConfig(
            pooling=pooling, epochs=2, batch_size=32, eval_steps=2, precision="fp32"
        )
        history = lwap.train(config, triplets, pairs().head(60)).history
        found[pooling] = {name: plain(history[name]) for name in ("step", "loss", "dev")}
    return found


def maps() -> Plain:
    """Two maps of 200 random vectors: coordinates of PCA, and a hash of UMAP's.

    UMAP is the same to the bit on one machine and another map on the next, so the hash goes with
    what it was made on.
    """
    import lwap

    random = np.random.default_rng(0)
    vectors = random.normal(size=(200, 16)) + 4 * random.integers(0, 3, size=(200, 1))
    umap = lwap.project(vectors, "umap", seed=0)
    return {
        "pca": plain(lwap.project(vectors, "pca").coordinates),
        "umap": hashlib.sha256(np.ascontiguousarray(umap.coordinates).tobytes()).hexdigest(),
        "made on": processor(),
    }


PARTS: dict[str, Callable[[], Plain]] = {
    part.__name__: part
    for part in (
        cosines,
        correlations,
        geometry,
        retrieval,
        explanation,
        comparison,
        training,
        maps,
    )
}


# --- comparing ----------------------------------------------------------------------------------


def plain(values) -> list:
    """Return numbers as nested lists, rounded; None where one is undefined.

    >>> plain(np.array([[0.5, np.nan]]))
    [[0.5, None]]
    """
    found = np.asarray(values)
    if found.dtype.kind not in "fiub":
        return found.tolist()
    rounded = found.astype(float).round(DECIMALS).astype(object)
    return np.where(np.isnan(found.astype(float)), None, rounded).tolist()


def processor() -> str:
    """Return what a map's last bits depend on: the processor's model and abilities, and numba."""
    import llvmlite.binding as llvm
    import numba

    features = hashlib.sha256(llvm.get_host_cpu_features().flatten().encode()).hexdigest()[:12]
    return f"{platform.machine()} {llvm.get_host_cpu_name()} {features} numba {numba.__version__}"


def differences(found: Any, expected: Any, path: str = "") -> list[tuple[str, float]]:
    """Return the path and size of every difference; infinite where the two cannot be compared.

    >>> differences({"a": [1.0, None]}, {"a": [1.5, None]})
    [('/a/0', 0.5)]
    >>> differences([1.0], [1.0, 2.0])
    [('', inf)]
    """
    if isinstance(expected, dict) and isinstance(found, dict) and found.keys() == expected.keys():
        inner = [(f"{path}/{key}", found[key], expected[key]) for key in expected]
    elif isinstance(expected, list) and isinstance(found, list) and len(found) == len(expected):
        inner = [
            (f"{path}/{place}", *both)
            for place, both in enumerate(zip(found, expected, strict=True))
        ]
    elif isinstance(expected, int | float) and isinstance(found, int | float):
        return [(path, abs(found - expected))] if found != expected else []
    else:
        return [] if found == expected else [(path, float("inf"))]
    return [each for where, one, other in inner for each in differences(one, other, where)]


def comparable(found: Plain, expected: Plain) -> tuple[Plain, Plain]:
    """Leave UMAP's hash out where the two were made on different machines."""
    if found.get("made on") == expected.get("made on"):
        return found, expected
    left_out = ("umap", "made on")
    return tuple(  # type: ignore[return-value]
        {name: value for name, value in each.items() if name not in left_out}
        for each in (found, expected)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write golden.json anew")
    parser.add_argument("--file", type=Path, default=FILE, help="another file than golden.json")
    options = parser.parse_args()
    if options.write:
        numbers = {name: part() for name, part in PARTS.items()}
        options.file.write_text(json.dumps(numbers, indent=None) + "\n", encoding="utf-8")
        print(f"Written: {options.file.name}, {options.file.stat().st_size:,} bytes")
        return
    expected = json.loads(options.file.read_text("utf-8"))
    for name, part in PARTS.items():
        # Through JSON, as what it is compared with.
        found = json.loads(json.dumps(part()))
        off = differences(*comparable(found, expected[name]))
        where, size = max(off, key=lambda each: each[1], default=("", 0.0))
        print(f"{name:<14}largest difference {size:.1e}  {where}")


if __name__ == "__main__":
    main()
