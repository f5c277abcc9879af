"""Train the poolings that are compared, measure them, and keep one line a run.

A run that is already in the results file is skipped, so the script goes on where it was ended. Data
are read from LWAP_DATA (or ../shared/data): SNLI triplets, WikiText sentences, the STS sets,
Cranfield. Nothing of STS is trained on; the best step is chosen on STS-B dev. Runs that are merged
into others keep their checkpoints under runs/experiments/models.

    python bench/experiments.py                  # every run
    python bench/experiments.py --only full      # those with "full" in their name
    python bench/experiments.py --list           # what there is, and what is done
    python bench/experiments.py --table          # the tables, from the results
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "experiments.jsonl"
KEPT = ROOT / "runs" / "experiments"  # cosines of each run, for paired intervals
TRIPLETS, SENTENCES = "nli/snli-triplets.csv", "wiki/wikitext2-sentences.txt"
DEV = "sts/stsb-dev.csv"
UNTOUCHED = "untouched mean"
OBJECTIVES = ("supervised", "unsupervised")
DATA = {  # how it is read, the file, what a card calls it
    "supervised": ("triplets", TRIPLETS, "SNLI triplets, no STS data"),
    "unsupervised": ("sentences", SENTENCES, "WikiText sentences, no STS data"),
}
POOLINGS: dict[str, dict[str, Any]] = {
    "cls+dense": {"pooling": "cls"},
    "mean": {"pooling": "mean"},
    "scalar_mix": {"pooling": "scalar_mix"},
    "lwap paper": {"pooling": "lwap"},
    "lwap residual": {"pooling": "lwap", "residual": "last_mean"},
}
DECIDING = ("mean", "lwap paper", "lwap residual")  # three seeds in full, too
KEPT_POOLINGS = ("mean", "lwap residual")  # whose full runs are merged
SEEDS = (0, 1, 2)
RANK = 32  # of the adapters that are kept of a merged encoder's change
# The unsupervised half of the default checkpoint.
RECIPE = {
    "objective": "unsupervised",
    "mode": "full",
    "batch_size": 128,
    "learning_rate": 4e-5,
    "temperature": 0.1,
    "max_tokens": 64,
    "eval_steps": 6,
}
# What was tried around it, on mean pooling, one seed.
TRIED: dict[str, dict[str, Any]] = {
    "temperature 0.05": {"temperature": 0.05},
    "temperature 0.15": {"temperature": 0.15},
    "temperature 0.2": {"temperature": 0.2},
    "dropout 0.2": {"dropout": 0.2},
    "2 epochs": {"epochs": 2},
    "batch 64, learning rate 3e-5": {"batch_size": 64, "learning_rate": 3e-5},
}
# Learning rates of adapters, by which the default of mode "lora" is chosen.
LORA_RATES = (1e-4, 2e-4, 5e-4)


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        name: Objective, mode and pooling.
        settings: Of `TrainConfig`, seed included.
        is_kept: Whether its checkpoint is kept, to be merged with others.
        parts: Runs that are merged, instead of a training; `settings` are then those of the merge.
        start: The run whose checkpoint's encoder it starts from; None is the bundled encoder.
    """

    name: str
    settings: dict[str, Any] = field(hash=False)
    is_kept: bool = False
    parts: tuple[Run, ...] = ()
    start: Run | None = None

    @property
    def needs(self) -> tuple[Run, ...]:
        """Runs whose checkpoints it needs."""
        return self.parts if self.start is None else (self.start,)

    @property
    def key(self) -> str:
        """The run's name with its seed."""
        return f"{self.name}, seed {self.settings['seed']}"

    @property
    def file(self) -> Path:
        """Where the run's cosines are kept."""
        return KEPT / f"{_slug(self.key)}.npz"

    @property
    def model(self) -> Path:
        """Where the run's checkpoint is kept, if it is."""
        return KEPT / "models" / _slug(self.key)


def _slug(key: str) -> str:
    return re.sub(r"[^\w.+]+", "-", key)


def table_runs() -> Iterator[Run]:
    """Return the runs of the table, in the order in which they matter."""
    for seed in SEEDS:
        for mode in ("full", "head"):
            for pooling, options in POOLINGS.items():
                for objective in OBJECTIVES:
                    if mode == "head" and pooling == "mean":
                        continue  # nothing to train
                    if mode == "full" and seed and pooling not in DECIDING:
                        continue
                    settings = {"objective": objective, "mode": mode, "seed": seed, **options}
                    if mode == "full":
                        settings["max_tokens"] = 64
                    is_kept = f"{objective} / {mode}" == "supervised / full"
                    is_kept = is_kept and pooling in KEPT_POOLINGS
                    yield Run(f"{objective} / {mode} / {pooling}", settings, is_kept)


def recipe_runs() -> Iterator[Run]:
    """Return the steps to the default checkpoint, and what was tried around the first.

    The encoder is trained with both objectives, apart; what they changed is added up; a pooling is
    trained on what came out. Beside it the same with layer attention from the beginning.
    """
    supervised = {run.key: run for run in table_runs() if run.is_kept}
    for seed in SEEDS:
        for pooling in KEPT_POOLINGS:
            settings = {**RECIPE, **POOLINGS[pooling], "seed": seed}
            first = Run(f"recipe / unsupervised / {pooling}", settings, is_kept=True)
            yield first
            parts = (first, supervised[f"supervised / full / {pooling}, seed {seed}"])
            for rank in (None, RANK):
                settings = {"weights": [1.0, 1.0], "rank": rank, "seed": seed}
                small = "" if rank is None else f", rank {rank}"
                merged = Run(f"recipe / merged{small} / {pooling}", settings, rank == RANK, parts)
                yield merged
            if pooling != "mean":
                continue
            for other in ("scalar_mix", "lwap paper", "lwap residual"):
                settings = {**POOLINGS[other], "seed": seed}
                yield Run(f"recipe / head on merged / {other}", settings, start=merged)
    for what, changes in TRIED.items():
        settings = {**RECIPE, **POOLINGS["mean"], **changes, "seed": 0}
        yield Run(f"recipe / unsupervised, {what} / mean", settings)


def lora_runs() -> Iterator[Run]:
    """Return runs with adapters: both objectives, several learning rates, one seed."""
    for objective in OBJECTIVES:
        for rate in LORA_RATES:
            settings = {
                "objective": objective,
                "mode": "lora",
                **POOLINGS["lwap residual"],
                "learning_rate": rate,
                "temperature": RECIPE["temperature"] if objective == "unsupervised" else 0.05,
                "max_tokens": 64,
                "eval_steps": 10,
                "seed": 0,
            }
            yield Run(f"{objective} / lora, learning rate {rate:g} / lwap residual", settings)


def every_run() -> Iterator[Run]:
    """Return all runs, each after those that it needs."""
    yield from (*table_runs(), *recipe_runs(), *lora_runs())


# --- measuring ----------------------------------------------------------------------------------


class Measure:
    """Seven STS tasks, STS-B dev, geometry on STS-B test, Cranfield; of any model."""

    def __init__(self, precision: str = "auto", has_search: bool = True) -> None:
        from lwap.datasets.readers import data_folder, read_retrieval
        from lwap.datasets.tasks import STANDARD, read_task

        self.precision = precision
        folder = data_folder()
        self.tasks = {key: read_task(key, folder) for key in (*STANDARD, "stsb-dev")}
        self.standard = STANDARD
        self.search = read_retrieval(folder / "retrieval" / "cranfield") if has_search else None
        texts: dict[str, None] = {}
        for pairs in self.tasks.values():
            texts.update(dict.fromkeys([*pairs["sentence1"], *pairs["sentence2"]]))
        if self.search is not None:
            texts.update(dict.fromkeys([*self.search.documents, *self.search.queries]))
        self.row_of = {text: row for row, text in enumerate(texts)}
        self._untouched = None

    def untouched(self):
        """Return the summaries of the encoder as it comes, made once."""
        import lwap
        from lwap.encoding.bank import encode_layers

        if self._untouched is None:
            self._untouched = encode_layers(
                lwap.load(),
                list(self.row_of),
                summaries=("cls", "mean"),
                precision=self.precision,
            )
        return self._untouched

    def vectors(self, model, is_frozen: bool = False) -> np.ndarray:
        """Return the vectors of every sentence that is needed, (N, D).

        Args:
            model: A trained one.
            is_frozen: Whether its encoder is the untouched one.
        """
        from sentence_transformers.sentence_transformer.modules import Pooling

        from lwap.encoding.bank import encode_layers
        from lwap.pooling.strategies import own_vectors

        if is_frozen:
            return own_vectors(self.untouched(), model)
        summaries = ("cls", "mean")
        if isinstance(list(model)[1], Pooling):
            summaries = (list(model)[1].pooling_mode,)
        bank = encode_layers(
            model, list(self.row_of), summaries=summaries, precision=self.precision
        )
        return own_vectors(bank, model)

    def cosines(self, vectors: np.ndarray) -> dict[str, np.ndarray]:
        """Return the cosines of each task's pairs."""
        from lwap.scores import cosine

        found = {}
        for key, pairs in self.tasks.items():
            first, second = (
                [self.row_of[text] for text in pairs[side]] for side in ("sentence1", "sentence2")
            )
            found[key] = cosine(vectors[first], vectors[second])
        return found

    def scores(self, vectors: np.ndarray, cosines: dict[str, np.ndarray]) -> dict[str, Any]:
        """Return Spearman × 100 of each task, their average, geometry and nDCG@10."""
        from lwap.evaluation import geometry, retrieval
        from lwap.evaluation.sts import spearman

        gold = {key: self.gold(key) for key in self.tasks}
        sts = {key: round(spearman(cosines[key], gold[key]), 3) for key in self.tasks}
        found: dict[str, Any] = {
            "dev": sts.pop("stsb-dev"),
            "sts": sts,
            "average": round(float(np.mean(list(sts.values()))), 3),
        }
        pairs = self.tasks["stsb"]
        texts = list(dict.fromkeys([*pairs["sentence1"], *pairs["sentence2"]]))
        unit = geometry.normalise(vectors[[self.row_of[text] for text in texts]])
        place = {text: row for row, text in enumerate(texts)}
        good = pairs[(pairs["score"] >= 4) & (pairs["sentence1"] != pairs["sentence2"])]
        first, second = ([place[text] for text in good[s]] for s in ("sentence1", "sentence2"))
        found["uniformity"] = round(geometry.uniformity(unit).value, 4)
        found["alignment"] = round(geometry.alignment(unit[first], unit[second]), 4)
        if self.search is not None:
            documents = vectors[[self.row_of[text] for text in self.search.documents]]
            queries = vectors[[self.row_of[text] for text in self.search.queries]]
            ranking = retrieval.search(queries, documents, min(1000, len(documents)))
            measured = retrieval.evaluate(ranking.indices, self.search.relevance)
            found["ndcg10"] = round(measured.means["ndcg_at_10"].value, 3)
        return found

    def gold(self, key: str) -> np.ndarray:
        """Return a task's scores."""
        return self.tasks[key]["score"].to_numpy(dtype=float, copy=True)


def training_data(objective: str):
    """Return triplets or sentences."""
    from lwap.datasets.readers import data_folder, read_sentences, read_training

    if objective == "supervised":
        return read_training(data_folder() / TRIPLETS)
    return read_sentences(data_folder() / SENTENCES)


def dev_pairs():
    """Return STS-B dev."""
    from lwap.datasets.readers import data_folder, read_pairs

    return read_pairs(data_folder() / DEV)


# --- one run ------------------------------------------------------------------------------------


def untouched(measure: Measure) -> dict[str, Any]:
    """Measure the encoder with its own mean pooling."""
    from lwap.pooling.strategies import embed

    vectors = embed(measure.untouched(), "mean")
    return _measured(measure, vectors, KEPT / "untouched-mean.npz")


def work(run: Run, measure: Measure) -> dict[str, Any]:
    """Train and measure."""
    from lwap.training import TrainConfig, train

    started = time.perf_counter()
    start = {} if run.start is None else {"encoder": str(run.start.model)}
    config = TrainConfig(**run.settings, **start)
    result = train(config, training_data(config.objective), dev_pairs(), dev_name="STS-B dev")
    trained = time.perf_counter()
    if run.is_kept:
        _keep(run, result)
    is_frozen = config.mode == "head" and run.start is None
    vectors = measure.vectors(result.model, is_frozen=is_frozen)
    found = _measured(measure, vectors, run.file)
    return {
        **found,
        "best_step": result.best_step,
        "steps": int(result.history.steps.iloc[-1]),
        "diverged_at": result.diverged_at,
        "train_seconds": round(trained - started),
        "measure_seconds": round(time.perf_counter() - trained),
    }


def merge(run: Run, measure: Measure) -> dict[str, Any]:
    """Merge runs that are kept, and measure."""
    from lwap.training.merge import merge_checkpoints, save_merged

    made = merge_checkpoints(
        [str(part.model) for part in run.parts],
        weights=run.settings["weights"],
        rank=run.settings["rank"],
    )
    if run.is_kept:
        save_merged(made, run.model, name=run.model.name)
    found = _measured(measure, measure.vectors(made.model), run.file)
    held = None if made.held is None else round(made.held, 4)
    return {**found, "held": held, "parts": [part.key for part in run.parts]}


def _keep(run: Run, result) -> None:
    from lwap.checkpoints.load import identify_encoder
    from lwap.datasets.readers import data_folder
    from lwap.encoding.sources import file_sha256
    from lwap.training.save import command_of, save_result

    kind, file, data_name = DATA[result.config.objective]
    names = {"data_name": data_name, "dev_name": "STS-B dev"}
    save_result(
        result,
        run.model,
        name=run.model.name,
        encoder=identify_encoder(result.config.encoder),
        data_name=data_name,
        data_sha256=file_sha256(data_folder() / file),
        dev_sha256=file_sha256(data_folder() / DEV),
        command=command_of(
            result.config,
            f"$LWAP_DATA/{file}",
            f"$LWAP_DATA/{DEV}",
            kind=kind,
            **names,
            name=run.model.name,
        ),
    )


def _measured(measure: Measure, vectors: np.ndarray, file: Path) -> dict[str, Any]:
    cosines = measure.cosines(vectors)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, **{key: values.astype(np.float32) for key, values in cosines.items()})
    return measure.scores(vectors, cosines)


# --- the table ----------------------------------------------------------------------------------


def read_results() -> dict[str, dict[str, Any]]:
    """Return what is done, by key; the last line of a key counts."""
    if not RESULTS.exists():
        return {}
    rows = [json.loads(line) for line in RESULTS.read_text("utf-8").splitlines() if line.strip()]
    return {row["key"]: row for row in rows}


def write_result(key: str, name: str, settings: dict[str, Any], found: dict[str, Any]) -> None:
    """Append one run."""
    from _measure import machine

    row = {"key": key, "name": name, "settings": settings, **found, "machine": machine()}
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def averages(files: list[Path], measure: Measure, resamples: int = 1000) -> np.ndarray:
    """Return the seven-task average of each file's cosines in each resample, (F, R).

    Resamples are over pairs, the same ones for every file.
    """
    from lwap.evaluation.bootstrap import spearman_draws

    kept = [np.load(file) for file in files]
    draws = [
        spearman_draws(
            np.stack([cosines[key] for cosines in kept]).astype(np.float64).round(6),
            measure.gold(key),
            resamples=resamples,
            seed=[0, place],
        )
        for place, key in enumerate(measure.standard)
    ]
    return np.mean(draws, axis=0)


def results_by_name() -> dict[str, list[tuple[Run, dict[str, Any]]]]:
    """Return what is done, a list of seeds a name."""
    done, groups = read_results(), {}
    for run in every_run():
        if run.key in done:
            groups.setdefault(run.name, []).append((run, done[run.key]))
    return groups


def task_table() -> str:
    """Return Spearman × 100 of each task, the mean over seeds."""
    first = read_results()[UNTOUCHED]
    names = {"dev": "STS-B dev", **{key: key for key in first["sts"]}}
    lines = [
        f"| objective / trained / pooling | {' | '.join(names.values())} |",
        f"|{'---|' * (len(names) + 1)}",
    ]
    rows = {name: [row for _, row in each] for name, each in results_by_name().items()}
    for name, each in {UNTOUCHED: [first], **rows}.items():
        scores = [{"dev": row["dev"], **row["sts"]} for row in each]
        cells = [f"{np.mean([score[key] for score in scores]):.2f}" for key in names]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines)


def table() -> str:
    """Return the table, with paired intervals against mean and CLS of the same objective."""
    measure = Measure(has_search=False)
    done, groups = read_results(), results_by_name()
    lines = [
        "| objective / trained / pooling | seeds | average | uniformity ↓ | alignment ↓ | "
        "nDCG@10 × 100 | against trained mean | against trained cls+dense | against untouched |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    first = done.get(UNTOUCHED)
    if first:
        lines.append(
            f"| {UNTOUCHED} | – | {first['average']:.2f} | {first['uniformity']:.2f} | "
            f"{first['alignment']:.3f} | {100 * first['ndcg10']:.1f} | – | – | – |"
        )
    for name, rows in groups.items():
        prefix = name.rpartition(" / ")[0]
        cells = [name, str(len(rows))]
        for key, digits, factor in (
            ("average", 2, 1),
            ("uniformity", 2, 1),
            ("alignment", 3, 1),
            ("ndcg10", 1, 100),
        ):
            values = [factor * row[key] for _, row in rows]
            spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.{digits}f}{spread}")
        # A head has no peer that trains nothing but a mean; mean pooling in full is put beside it.
        mean = f"{prefix.replace('/ head', '/ full')} / mean"
        if prefix == "recipe / head on merged":
            mean = f"recipe / merged, rank {RANK} / mean"
        for peer in (mean, f"{prefix} / cls+dense"):
            peers = {run.settings["seed"]: run for run, _ in groups.get(peer, []) if name != peer}
            pairs = [
                (run.file, peers[seed].file)
                for run, _ in rows
                if (seed := run.settings["seed"]) in peers
            ]
            cells.append(_difference(pairs, measure))
        own = [(run.file, KEPT / "untouched-mean.npz") for run, _ in rows]
        cells.append(_difference(own, measure))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _difference(pairs: list[tuple[Path, Path]], measure: Measure) -> str:
    """Return the mean difference over seeds, with its interval over pairs of sentences."""
    pairs = [pair for pair in pairs if all(file.exists() for file in pair)]
    if not pairs:
        return "–"
    files = sorted({file for pair in pairs for file in pair})
    draws = averages(files, measure)
    kept = [np.load(file) for file in files]
    from lwap.evaluation.sts import spearman

    values = [
        float(np.mean([spearman(each[key], measure.gold(key)) for key in measure.standard]))
        for each in kept
    ]
    place = {file: row for row, file in enumerate(files)}
    value = np.mean([values[place[a]] - values[place[b]] for a, b in pairs])
    differences = np.mean([draws[place[a]] - draws[place[b]] for a, b in pairs], axis=0)
    low, high = np.percentile(differences, [2.5, 97.5])
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def main() -> None:
    """Do what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="runs with this in their name")
    parser.add_argument("--list", action="store_true", help="what there is, and what is done")
    parser.add_argument("--table", action="store_true", help="the table, from the results")
    options = parser.parse_args()
    if options.table:
        print(re.sub(r"-(?=\d)", "−", f"{table()}\n\n{task_table()}"))
        return
    done = read_results()
    wanted = [run for run in every_run() if options.only in run.key]
    if options.list:
        for run in wanted:
            print(f"{'done' if run.key in done else '    '}  {run.key}")
        return
    measure = Measure()
    if UNTOUCHED not in done:
        write_result(UNTOUCHED, UNTOUCHED, {}, untouched(measure))
    for run in wanted:
        if run.key in read_results():  # by another process, meanwhile
            continue
        if any(not each.model.is_dir() for each in run.needs):
            print(f"{run.key}: what it needs is not there", flush=True)
            continue
        print(run.key, flush=True)
        found = merge(run, measure) if run.parts else work(run, measure)
        start = {} if run.start is None else {"start": run.start.key}
        write_result(run.key, run.name, {**run.settings, **start}, found)
        print(f"  average {found['average']}, dev {found['dev']}", flush=True)


if __name__ == "__main__":
    main()
