"""What a checkpoint says of itself, in words."""

from __future__ import annotations

from lwap.checkpoints.manifest import CheckpointInfo, Contents
from lwap.library.results import Score, dev_score, gain, gain_on_start
from lwap.registry import STRATEGIES
from lwap.ui.frame import escape

_TRAINED = {"head": "head", "lora": "LoRA", "full": "full"}
_CONTENTS = {Contents.HEAD: "head", Contents.ADAPTER: "LoRA", Contents.ENCODER: "full"}


def pooling_words(info: CheckpointInfo) -> str:
    """Return a checkpoint's pooling in words, with what differs from the paper's."""
    entry = STRATEGIES.get(info.pooling)
    return entry.in_words(info.options) if entry else info.pooling.replace("_", " ") or "none"


def trained(info: CheckpointInfo) -> str:
    """Return what of a checkpoint was trained: "head", "LoRA", "full", or that none is recorded.

    And how many runs were merged into it, or which checkpoint it started from, if any.
    """
    if not info.training:
        return "not recorded"
    mode = info.training.get("mode")
    what = _TRAINED.get(mode) if isinstance(mode, str) and mode in _TRAINED else _held(info)
    merged, start = info.training.get("merged"), info.training.get("start")
    if isinstance(merged, list):
        return f"{what}, {len(merged)} runs merged"
    return f"{what}, from {start}" if isinstance(start, str) else what


def _held(info: CheckpointInfo) -> str:
    return _CONTENTS[Contents(info.contains)]


def in_words(score: Score | None, sign: str = "") -> str:
    """Return a score with its interval, "" without one; with sign "+" as a difference."""
    if score is None:
        return ""
    value, low, high = (
        f"{number:{sign}.2f}".replace("-", "−") for number in (score.value, score.low, score.high)
    )
    return f"{value} [{low}, {high}]"


def gains(info: CheckpointInfo) -> list[str]:
    """Return the recorded differences to the encoder and to the start, and what they mean."""
    start = escape(str(info.training.get("start", "")))
    return [
        f"**Against {what}** {_against(difference)}"
        for what, difference in (
            ("the encoder's mean", gain(info)),
            (f"{start}, where it started,", gain_on_start(info)),
        )
        if difference is not None
    ]


def _against(difference: Score) -> str:
    verdict = "the two cannot be told apart"
    if not difference.low <= 0 <= difference.high:
        verdict = "better on this set" if difference.value > 0 else "worse on this set"
    return f"{in_words(difference, '+')}: {verdict}"


def dev_score_line(info: CheckpointInfo) -> list[str]:
    """Return the dev score in a line of Markdown; no line without one."""
    score = dev_score(info)
    dev_set = escape(str(info.results.get("dev_set", "its dev set")))
    return [f"**Dev score** {in_words(score)} on {dev_set}"] if score else []
