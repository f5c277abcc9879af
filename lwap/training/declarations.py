"""Every contrastive objective: what it pulls together, what it reads, and its loss.

The one place where an objective is declared. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lwap.registry import OBJECTIVES


@dataclass(frozen=True)
class Objective:
    """What a run pulls together.

    Attributes:
        name: What settings, commands and files call it.
        label: What it is called on a page.
        explanation: One sentence: what is pulled to what, against what.
        has_positives: Whether rows bring their positives (pairs or triplets); else they are
            sentences, each its own positive under another dropout mask.
        loss: "module:function" that gives the loss of (model, settings, whether the candidates of
            other processes are negatives); or the function.
        card: How a model card says it, behind "trained".
        unused: Settings of `TrainConfig` without an effect under it.
        unused_because: Why.
    """

    name: str
    label: str
    explanation: str
    has_positives: bool
    loss: str | Callable
    card: str
    unused: tuple[str, ...] = ()
    unused_because: str = ""


OBJECTIVES.add(
    Objective(
        name="supervised",
        label="Supervised",
        explanation="A sentence and one that means the same, against all others of the batch.",
        has_positives=True,
        loss="lwap.training.objectives:contrastive",
        card="with the supervised contrastive objective (InfoNCE over in-batch positives and all "
        "hard negatives)",
    )
)
OBJECTIVES.add(
    Objective(
        name="unsupervised",
        label="Unsupervised",
        explanation="A sentence and itself under another dropout mask, against all others.",
        has_positives=False,
        loss="lwap.training.objectives:contrastive",
        card="with the unsupervised contrastive objective (two dropout masks, InfoNCE)",
        unused=("hard_negative_weight",),
        unused_because="the unsupervised objective has no hard negatives",
    )
)
DEFAULT_OBJECTIVE = next(iter(OBJECTIVES))


def objective_of(has_positives: bool) -> str:
    """Return the first objective for rows that bring their positives, or do not."""
    return next(each.name for each in OBJECTIVES.values() if each.has_positives == has_positives)
