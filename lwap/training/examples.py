"""What a run is trained on: columns of sentences, out of triplets, pairs or sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from lwap.errors import ConfigError, InputError
from lwap.training.config import Objective, TrainConfig

COLUMNS = ("sent0", "sent1", "hard_neg")
DEV_SHARE = 0.1  # of the rows, held out when there are no scored pairs to select on


@dataclass(frozen=True, eq=False)
class Examples:
    """Rows of anchor, positive and perhaps hard negative; of anchors alone without supervision.

    Attributes:
        table: Columns sent0[, sent1[, hard_neg]], distinct rows.
        duplicates: Rows left out because they stand above.
    """

    table: pd.DataFrame
    duplicates: int = 0

    def __len__(self) -> int:
        return len(self.table)

    @property
    def columns(self) -> list[list[str]]:
        """The columns as lists."""
        return [self.table[name].tolist() for name in self.table.columns]

    @property
    def texts(self) -> list[str]:
        """The distinct sentences."""
        return list(dict.fromkeys(text for column in self.columns for text in column))

    @classmethod
    def of(cls, data: pd.DataFrame | Sequence[str], objective: str) -> Examples:
        """Read what an objective needs out of triplets, pairs or sentences.

        Raises:
            InputError: If a column is missing or of no use, or a sentence is empty.
        """
        if objective == Objective.UNSUPERVISED:
            table = _sentences(data)
        else:
            if not isinstance(data, pd.DataFrame):
                raise InputError(
                    "The supervised objective needs pairs or triplets (sent0, sent1[, hard_neg]), "
                    "not sentences. Choose objective 'unsupervised'."
                )
            names = [name for name in COLUMNS if name in data]
            missing = [name for name in COLUMNS[:2] if name not in data]
            if not missing and len(names) == 2 and len(data.columns) > 2:
                missing = [COLUMNS[2]]  # a negative under another name would not be read
            if missing:
                raise InputError(
                    f"The triplets have no column '{missing[0]}'; they need {', '.join(COLUMNS)}, "
                    f"or without the last for pairs, and have {list(data.columns)}."
                )
            table = data[names]
        for name in table.columns:
            for row, text in enumerate(table[name], start=1):
                if not isinstance(text, str) or not text.strip():
                    raise InputError(
                        f"Row {row}: '{name}' is empty ({text!r}). Fill it in or remove the row."
                    )
        distinct = table.drop_duplicates().reset_index(drop=True)
        return cls(distinct, len(table) - len(distinct))

    def hold_out(self, seed: int) -> tuple[Examples, Examples]:
        """Return what is trained on and a tenth that is not, parted by anchor."""
        # By anchor: an anchor on both sides would be scored on what it was trained on.
        anchors = self.table["sent0"].drop_duplicates().sample(frac=1, random_state=seed)
        is_held_out = self.table["sent0"].isin(anchors[: max(1, int(len(anchors) * DEV_SHARE))])
        kept = self.table[~is_held_out].reset_index(drop=True)
        return replace(self, table=kept), Examples(self.table[is_held_out].reset_index(drop=True))

    def check_batch(self, config: TrainConfig) -> None:
        """Refuse a batch that the data do not fill.

        Raises:
            ConfigError: With both sizes.
        """
        if len(self) < config.batch_size:
            raise ConfigError(
                f"batch_size is {config.batch_size}, but there are only {len(self)} "
                f"{'sentences' if len(self.table.columns) == 1 else 'triplets'} to train on. Use "
                "a smaller batch or more data."
            )


def _sentences(data: pd.DataFrame | Sequence[str]) -> pd.DataFrame:
    if isinstance(data, pd.DataFrame):
        # Whatever sentences there are: the premises of triplets are sentences, too.
        names = [name for name in ("sentence", *COLUMNS) if name in data]
        if not names:
            raise InputError(f"The data have no column 'sentence'; they have {list(data.columns)}.")
        data = [text for name in names for text in data[name]]
    return pd.DataFrame({"sent0": list(data)})
