"""Model cards: what a model is, its training, its scores. Knows text only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lwap import __version__
from lwap.checkpoints.manifest import CheckpointInfo
from lwap.names import state_names
from lwap.registry import OBJECTIVES, STRATEGIES
from lwap.training.config import TrainConfig
from lwap.training.run import TrainResult

BAR_WIDTH = 40


@dataclass(frozen=True)
class MergedPart:
    """One of the runs that a checkpoint merges.

    Attributes:
        name: Its checkpoint's.
        weight: Of its change.
        settings: As its manifest has them.
        dev: Its Spearman × 100 on its dev set, or None.
        command: That gives it again, or "".
    """

    name: str
    weight: float
    settings: Mapping[str, Any]
    dev: float | None
    command: str


def card_command(card: str) -> str:
    """Return the commands in a card's section on training, "" where there are none."""
    _, _, after = card.partition("\n## Training\n")
    _, _, block = after.partition("```bash\n")
    return block.partition("\n```")[0]


def write_card(
    name: str,
    result: TrainResult,
    *,
    command: str,
    data: str,
    data_sha256: str,
    dev_sha256: str,
    contains: str,
    start: CheckpointInfo | None = None,
) -> str:
    """Return the model card (Markdown).

    Args:
        name: The checkpoint's name.
        result: Of `train`.
        command: The command that reproduces it.
        data: What it was trained on, in words.
        data_sha256: Of the training file.
        dev_sha256: Of the dev file, or "" where triplets were held out.
        contains: What of the encoder the checkpoint holds.
        start: The checkpoint whose encoder it started from, if it was one.
    """
    config, results = result.config, result.results
    encoder, tuned_by = (config.encoder, "") if start is None else (start.encoder, start.name)
    lines = [
        *_front(name, encoder, _what(config.pooling, encoder, vars(config), tuned_by)),
        "## Training",
        "",
        f"- Data: {data}, {result.triplets} {result.unit}{_left_out(result.dropped)}. "
        f"SHA-256 of the file `{data_sha256[:16]}…`.",
        f"- {_how(config, _tuned(start))} through sentence-transformers' trainer.",
        f"- {config.epochs} epochs, batch {config.batch_size}, learning rate "
        f"{config.learning_rate:g}, temperature {config.temperature:g}, hard-negative weight "
        f"{config.hard_negative_weight:g}, weight decay {config.weight_decay:g}, seed "
        f"{config.seed}.",
        f"- Best step by {result.metric}: {result.best_step} of "
        f"{int(result.history.steps.iloc[-1])}.",
        f"- LWAP Explorer {__version__}.",
        "",
        "Reproduce (`LWAP_DATA` is the data folder):",
        "",
        "```bash",
        command,
        "```",
        "",
        "## Results",
        "",
        *_results(results, result.unit, dev_sha256, tuned_by),
    ]
    if "layer_weights" in results:
        lines += ["", "## Layer weights", "", *_weights(results["layer_weights"])]
    lines += ["", "## Files", "", _FILES[contains], ""]
    return "\n".join(lines)


def write_merge_card(
    name: str,
    encoder: str,
    parts: Sequence[MergedPart],
    *,
    is_average: bool,
    pooling: str,
    options: Mapping[str, Any],
    training: Mapping[str, Any],
    contains: str,
    results: Mapping[str, Any],
    dev_sha256: str,
    command: str,
) -> str:
    """Return the model card (Markdown) of several runs as one.

    Args:
        name: The checkpoint's name.
        encoder: Id of the encoder that all runs started from.
        parts: The runs.
        is_average: Whether all weights are one over their number.
        pooling: Their pooling.
        options: Of the pooling.
        training: For the manifest: what the runs have in common, `rank` and `held`.
        contains: "head", "adapter" or "encoder".
        results: Measured on the dev set; empty if none was.
        dev_sha256: Of the dev file.
        command: The command that merges the runs.
    """
    differing = [key for key in _TOLD if len({str(part.settings.get(key)) for part in parts}) > 1]
    same = [
        f"{key.replace('_', ' ')} {_plain(parts[0].settings[key])}"
        for key in _TOLD
        if key not in differing and parts[0].settings.get(key) not in (None, "", 0)
    ]
    data = ""
    if "data" in training and "data" not in differing:
        rows = f", {training['triplets']} rows" if "triplets" in training else ""
        data = f" Data: {training['data']}{rows}."
    how = (
        f"The average of the weights of {len(parts)} runs from the same encoder (Wortsman et al. "
        "2022, Model soups)."
        if is_average
        else f"What {len(parts)} runs changed in the same encoder, each times its weight, added up "
        "(Ilharco et al. 2023, Editing models with task arithmetic); the weights of their poolings "
        "are averaged in the same proportions."
    )
    columns = [key.replace("_", " ") for key in differing]
    columns = ["run", *([] if is_average else ["weight"]), *columns, "dev"]
    lines = [
        *_front(name, encoder, _what(pooling, encoder, options)),
        "## Training",
        "",
        f"{how}{data}" + (f" All: {', '.join(same)}." if same else ""),
        "",
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
    ]
    for part in parts:
        cells = [] if is_average else [_plain(part.weight)]
        cells += [_plain(part.settings.get(key)) for key in differing]
        dev = "–" if part.dev is None else f"{part.dev:.2f}"
        lines.append(f"| {' | '.join([part.name, *cells, dev])} |")
    if "rank" in training:
        lines += [
            "",
            f"What this changed in the encoder's linear layers is kept as adapters of rank "
            f"{training['rank']}, the nearest matrices of that rank, which hold "
            f"{training['held']:.0%} of the squared change; its other weights are the encoder's "
            "own.",
        ]
    commands = [part.command for part in parts if part.command] + ([command] if command else [])
    if commands:
        lines += [
            "",
            "Reproduce (`LWAP_DATA` is the data folder):",
            "",
            "```bash",
            "\n\n".join(commands),
            "```",
        ]
    lines += ["", f"LWAP Explorer {__version__}.", "", "## Results", ""]
    lines += _results(dict(results), "pairs", dev_sha256) if results else ["None were measured."]
    if "layer_weights" in results:
        lines += ["", "## Layer weights", "", *_weights(results["layer_weights"])]
    lines += ["", "## Files", "", _FILES[contains], ""]
    return "\n".join(lines)


# What a card tells of the runs that it merges.
_TOLD = (
    "data",
    "objective",
    "mode",
    "seed",
    "temperature",
    "epochs",
    "batch_size",
    "learning_rate",
    "head_learning_rate",
    "dropout",
    "max_tokens",
    "hard_negative_weight",
    "lora_rank",
)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _front(name: str, encoder: str, what: str) -> list[str]:
    """Return a card's beginning: metadata, what the model is, how it is loaded."""
    return [
        "---",
        "library_name: sentence-transformers",
        f"base_model: {json.dumps(encoder)}",  # a path may hold what YAML reads otherwise
        "tags: [sentence-transformers, layer-wise-attention-pooling]",
        "---",
        "",
        f"# {name}",
        "",
        what,
        "",
        "```python",
        "import lwap",
        f'model = lwap.load("{name}")',
        'model.encode(["A sentence."])',
        "```",
        "",
    ]


_FILES = {
    "head": "The head only, in safetensors; the encoder is named in `lwap.json` by id and SHA-256 "
    "and is not part of the folder. `python -m lwap models verify` checks both.",
    "adapter": "The pooling and low-rank adapters of the encoder, in safetensors; the encoder "
    "itself is named in `lwap.json` by id and SHA-256 and is not part of the folder. "
    "`python -m lwap models verify` checks both.",
    "encoder": "A complete model, in safetensors; `python -m lwap models verify` checks it.",
}


def _left_out(dropped: dict[str, int]) -> str:
    if not dropped:
        return ""
    return f" ({', '.join(f'{count} left out: {why}' for why, count in dropped.items())})"


def _tuned(start: CheckpointInfo | None) -> str:
    """Return the name of what a run started from, and what that was trained on; "" without any."""
    if start is None:
        return ""
    return f"`{start.name}`" + (f" (trained on {start.trained_on})" if start.trained_on else "")


def _how(config: TrainConfig, tuned_by: str) -> str:
    """Return what was trained with which objective, in words."""
    whose = f"Encoder of {tuned_by}" if tuned_by else "Encoder"
    what = {
        "head": f"{whose} frozen; the head was trained on its cached layer summaries",
        "lora": f"Low-rank adapters (rank {config.lora_rank}, alpha {config.lora_alpha}) and the "
        f"pooling were trained{f', on the encoder of {tuned_by},' if tuned_by else ''}",
        "full": f"{whose} and pooling were trained",
    }[config.mode]
    return f"{what} {OBJECTIVES[config.objective].card},"


def _what(pooling: str, encoder: str, options: Mapping[str, Any], tuned_by: str = "") -> str:
    entry = STRATEGIES[pooling]
    settings = [
        f"{name.replace('_', ' ')} {_setting(options[name])}" for name in entry.training.options
    ]
    said = f" Options: {', '.join(settings)}." if settings else ""
    changed = f" as `{tuned_by}` changed it" if tuned_by else ""
    return f"{entry.describe(options)}, on top of `{encoder}`{changed}.{said}"


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"`{value}`"


def _results(results: dict, unit: str, dev_sha256: str, tuned_by: str = "") -> list[str]:
    if "dev_accuracy" in results:
        return [
            f"In-batch accuracy on {results['dev_triplets']} held-out {unit}: "
            f"{results['dev_accuracy']:.2f} %.",
        ]
    lines = [
        f"Spearman × 100 of the cosine on {results['dev_set']} ({results['dev_pairs']} pairs, "
        f"SHA-256 of the file `{dev_sha256[:16]}…`), the set that the step and the settings were "
        "chosen on; 95 % bootstrap intervals over pairs.",
        "",
        "| | Spearman × 100 | 95 % interval |",
        "|---|---|---|",
    ]
    titles = {
        "mean": "encoder, mean",
        "cls": "encoder, CLS",
        "start": f"`{tuned_by}`, which it started from",
    }
    for key, score in results["dev_spearman"].items():
        interval = f"[{score['low']:.2f}, {score['high']:.2f}]"
        lines.append(f"| {titles.get(key, '**this model**')} | {score['value']:.2f} | {interval} |")
    for key, what in (
        ("dev_difference_to_start", f"`{tuned_by}`"),
        ("dev_difference_to_mean", "the encoder's own mean"),
    ):
        if difference := results.get(key):
            lines += ["", f"Against {what}: {_difference(difference)}"]
    lines[-1] += (
        " Step and settings were chosen on these pairs, so a gain here is no evidence of one "
        "elsewhere."
    )
    return lines


def _difference(difference: Mapping[str, float]) -> str:
    verdict = (
        "The interval spans zero: on this set the two cannot be told apart."
        if difference["low"] <= 0 <= difference["high"]
        else "The interval excludes zero."
    )
    p = difference["p_value"]
    return (
        f"{difference['value']:+.2f} [{difference['low']:+.2f}, {difference['high']:+.2f}], "
        f"paired bootstrap, {'p < 0.001' if p < 0.001 else f'p = {p:.3f}'}. {verdict}"
    )


def _weights(weights: list[float]) -> list[str]:
    longest = max(weights)
    names = state_names(len(weights))
    width = max(map(len, names))
    bars = [
        f"{name:<{width}}  {weight:.3f}  {'█' * round(BAR_WIDTH * weight / longest)}"
        for name, weight in zip(names, weights, strict=True)
    ]
    return ["Mean layer attention over the dev sentences:", "", "```text", *bars, "```"]
