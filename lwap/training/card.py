"""The model card of a trained head: what it is, its training, its scores. Knows text only."""

from __future__ import annotations

import json

from lwap import __version__
from lwap.names import state_names
from lwap.training.run import TrainResult

BAR_WIDTH = 40


def write_card(
    name: str, result: TrainResult, *, command: str, data: str, data_sha256: str, dev_sha256: str
) -> str:
    """Return the model card (Markdown).

    Args:
        name: The checkpoint's name.
        result: Of `train`.
        command: The command that reproduces it.
        data: What it was trained on, in words.
        data_sha256: Of the training file.
        dev_sha256: Of the dev file, or "" where triplets were held out.
    """
    config, results = result.config, result.results
    lines = [
        "---",
        "library_name: sentence-transformers",
        f"base_model: {json.dumps(config.encoder)}",  # a path may hold what YAML reads otherwise
        "tags: [sentence-transformers, layer-wise-attention-pooling]",
        "---",
        "",
        f"# {name}",
        "",
        _what(result),
        "",
        "```python",
        "import lwap",
        f'model = lwap.load("{name}")',
        'model.encode(["A sentence."])',
        "```",
        "",
        "## Training",
        "",
        f"- Data: {data}, {result.triplets} {result.unit}{_left_out(result.dropped)}. "
        f"SHA-256 of the file `{data_sha256[:16]}…`.",
        f"- {_how(config)} through sentence-transformers' trainer.",
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
        *_results(results, result.unit, dev_sha256),
    ]
    if "layer_weights" in results:
        lines += ["", "## Layer weights", "", *_weights(results["layer_weights"])]
    lines += ["", "## Files", "", _FILES[config.mode], ""]
    return "\n".join(lines)


_FILES = {
    "head": "The head only, in safetensors; the encoder is named in `lwap.json` by id and SHA-256 "
    "and is not part of the folder. `python -m lwap models verify` checks both.",
    "lora": "The pooling and low-rank adapters of the encoder, in safetensors; the encoder itself "
    "is named in `lwap.json` by id and SHA-256 and is not part of the folder. `python -m lwap "
    "models verify` checks both.",
    "full": "A complete model, in safetensors; `python -m lwap models verify` checks it.",
}


def _left_out(dropped: dict[str, int]) -> str:
    if not dropped:
        return ""
    return f" ({', '.join(f'{count} left out: {why}' for why, count in dropped.items())})"


def _how(config) -> str:
    """Return what was trained with which objective, in words."""
    what = {
        "head": "Encoder frozen; the head was trained on its cached layer summaries",
        "lora": f"Low-rank adapters (rank {config.lora_rank}, alpha {config.lora_alpha}) and the "
        "pooling were trained",
        "full": "Encoder and pooling were trained",
    }[config.mode]
    if config.objective == "unsupervised":
        return f"{what} with the unsupervised contrastive objective (two dropout masks, InfoNCE),"
    return (
        f"{what} with the supervised contrastive objective (InfoNCE over in-batch positives and "
        "all hard negatives),"
    )


def _what(result: TrainResult) -> str:
    config = result.config
    if config.pooling == "mean":
        kind = "Mean pooling"
    elif config.pooling == "cls":
        kind = "The first token's vector through a dense layer and tanh (SimCSE's)"
    elif config.pooling == "scalar_mix":
        kind = "A scalar mix (one learned weight a layer, ELMo's)"
    elif config.residual == "last_mean":
        kind = (
            "Layer-wise attention pooling (Oh et al., COLING 2022) plus the last layer's mean "
            "vector at a learned scale"
        )
    else:
        kind = (
            "Layer-wise attention pooling (Oh et al., COLING 2022) as in the authors' released code"
        )
    options = ""
    if config.pooling == "lwap":
        options = (
            f" Options: query `{config.query}`, scale `{config.scale}`, residual "
            f"`{config.residual}`, layer norm {'on' if config.layer_norm else 'off'}."
        )
    return f"{kind}, on top of `{config.encoder}`.{options}"


def _results(results: dict, unit: str, dev_sha256: str) -> list[str]:
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
    titles = {"mean": "encoder, mean", "cls": "encoder, CLS"}
    for key, score in results["dev_spearman"].items():
        interval = f"[{score['low']:.2f}, {score['high']:.2f}]"
        lines.append(f"| {titles.get(key, '**this model**')} | {score['value']:.2f} | {interval} |")
    difference = results["dev_difference_to_mean"]
    verdict = (
        "The interval spans zero: on this set the two cannot be told apart."
        if difference["low"] <= 0 <= difference["high"]
        else "The interval excludes zero."
    ) + (
        " Step and settings were chosen on these pairs, so a gain here is no evidence of one "
        "elsewhere."
    )
    lines += [
        "",
        f"Against the encoder's own mean: {difference['value']:+.2f} "
        f"[{difference['low']:+.2f}, {difference['high']:+.2f}], paired bootstrap, "
        f"p = {difference['p_value']:.3f}. {verdict}",
    ]
    return lines


def _weights(weights: list[float]) -> list[str]:
    longest = max(weights)
    names = state_names(len(weights))
    width = max(map(len, names))
    bars = [
        f"{name:<{width}}  {weight:.3f}  {'█' * round(BAR_WIDTH * weight / longest)}"
        for name, weight in zip(names, weights, strict=True)
    ]
    return ["Mean layer attention over the dev sentences:", "", "```text", *bars, "```"]
