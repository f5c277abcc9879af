"""The public sets: what the hub has of them, under which licence, how each is checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lwap.errors import InputError


@dataclass(frozen=True)
class PublicFile:
    """One file that a download writes, and what of the hub it is made from.

    Attributes:
        path: Below the data folder.
        hub_id: The data set on the Hugging Face hub.
        splits: Name and rows (None: not known) of each split that goes in.
        licence: Of the content, as its publishers state it.
        config: The hub's configuration of the data set, where it has several.
        data_file: The one file to read, where the hub has no configurations.
        revision: The commit that is read unless another is asked for; None is the newest.
        rows: Rows of the written file, None where the hub's texts must be seen first.
        sha256: Of the written file, None where it is not known: that takes the hub's very texts.
            SICK's are the published ones; those of STS12–16 and STS-B differ from SentEval's by a
            few characters, though not in scores or in what repeats.
        block_starts: Where the file's rows may start among the split's, which has more.
        is_tokenised: Whether the text is WikiText's, with spaces around punctuation.
    """

    path: str
    hub_id: str
    splits: tuple[tuple[str, int | None], ...]
    licence: str
    config: str | None = None
    data_file: str | None = None
    revision: str | None = None
    rows: int | None = None
    sha256: str | None = None
    block_starts: tuple[int, ...] = ()
    is_tokenised: bool = False


@dataclass(frozen=True)
class PublicSet:
    """What one download gets.

    Attributes:
        name: What `python -m lwap data download` takes.
        about: What it is and what it serves.
        kind: "pairs", "triplets", "sentences" or "retrieval"; see `FORMATS`.
        files: What is written.
        notes: What to bear in mind.
    """

    name: str
    about: str
    kind: str
    files: tuple[PublicFile, ...]
    notes: tuple[str, ...] = ()

    @property
    def hub_ids(self) -> tuple[str, ...]:
        """The data sets on the hub that it is made from."""
        return tuple(dict.fromkeys(file.hub_id for file in self.files))

    @property
    def licence(self) -> str:
        """The licences of its files."""
        return "; ".join(dict.fromkeys(file.licence for file in self.files))


# What a person can bring instead of a download.
FORMATS = {
    "pairs": "CSV with the columns sentence1, sentence2, score",
    "triplets": "CSV with the columns sent0, sent1, hard_neg",
    "sentences": "text with one sentence a line",
    "retrieval": "a BEIR folder with corpus.jsonl, queries.jsonl, qrels.tsv",
}
_SEMEVAL_LICENCE = "STS12–16: not stated"
_STSB_LICENCE = "STS-B: CC BY-SA 4.0"
_SICK_LICENCE = "SICK: CC BY-NC-SA 3.0"
_NLI_LICENCE = "SNLI: CC BY-SA 4.0; MultiNLI: mostly the OANC's licence"
_SICK_REVISION = "20a6d6f312dd54037fe07a32d58e5e168867909d"
_STSB_REVISION = "b0fddb56ed78048fa8b90373c8a3cfc37b684831"


def _semeval(year: int, rows: int, revision: str) -> PublicFile:
    return PublicFile(
        f"sts/sts{year}.csv",
        f"mteb/sts{year}-sts",
        (("test", rows),),
        _SEMEVAL_LICENCE,
        revision=revision,
        rows=rows,
    )


def _stsb(name: str, split: str, rows: int) -> PublicFile:
    return PublicFile(
        f"sts/stsb-{name}.csv",
        "mteb/stsbenchmark-sts",
        ((split, rows),),
        _STSB_LICENCE,
        revision=_STSB_REVISION,
        rows=rows,
    )


def _sick(name: str, rows: int, sha256: str, block_starts: tuple[int, ...]) -> PublicFile:
    """The hub's "test" is all of SICK: 4,500 pairs of train, 500 of dev, 4,927 of test.

    Train comes first; which rows are which part is told by the SHA-256 of each possible block.
    """
    return PublicFile(
        f"sts/sick-{name}.csv",
        "mteb/sickr-sts",
        (("test", 9927),),
        _SICK_LICENCE,
        revision=_SICK_REVISION,
        rows=rows,
        sha256=sha256,
        block_starts=block_starts,
    )


def _beir(
    name: str, licence: str, revision: str, documents: int, all_queries: int, test: tuple[int, int]
) -> tuple[PublicFile, ...]:
    """BeIR's own copies need a loading script, which `datasets` no longer runs; MTEB's do not."""
    queries, judgements = test
    common: dict[str, Any] = {"hub_id": f"mteb/{name}", "licence": licence, "revision": revision}
    folder = f"retrieval/{name}"
    return (
        PublicFile(
            f"{folder}/corpus.jsonl",
            splits=(("corpus", documents),),
            config="corpus",
            rows=documents,
            **common,
        ),
        PublicFile(
            f"{folder}/queries.jsonl",
            splits=(("queries", all_queries),),
            config="queries",
            rows=queries,
            **common,
        ),
        PublicFile(
            f"{folder}/qrels.tsv",
            splits=(("test", judgements),),
            config="default",
            rows=judgements,
            **common,
        ),
    )


_JUDGED_ONLY = (
    "Only the queries with judgements in the test split are kept, as MTEB evaluates them."
)
PUBLIC_SETS = (
    PublicSet(
        "sts",
        "The seven STS tasks that papers report, and the dev sets of STS-B and SICK to choose on.",
        "pairs",
        (
            _semeval(12, 3108, "a0d554a64d88156834ff5ae9920b964011b16384"),
            _semeval(13, 1500, "7e90230a92c190f1bf69ae9002b8cea547a64cca"),
            _semeval(14, 3750, "6031580fec1f6af667f0bd2da0a551cf4f0b2375"),
            _semeval(15, 3000, "ae752c7c21bf194d8b67fd573edf7ae58183cbe3"),
            _semeval(16, 1186, "4d8694f8f0e0100860b497b999b3dbed754a0513"),
            _stsb("test", "test", 1379),
            _stsb("dev", "validation", 1500),
            _sick(
                "test",
                4927,
                "1f3aae5c75e9e1e082bb4753095b3716c4e14bd60f215cfaa3168939fd6262a1",
                (5000, 4500, 500, 0),
            ),
            _sick(
                "dev",
                500,
                "3a6e9c038117fafe49fc3e0b3e6c79f751491fef089828e09b825c8726b3552d",
                (4500, 9427, 4927, 0),
            ),
        ),
        (
            "The hub's copies of STS12–16 carry no subset names: only the aggregation 'all' can be "
            "computed on them, not 'mean' and 'wmean'.",
            "SICK-R here is the test set, 4,927 pairs, as SentEval and SimCSE report it. The hub's "
            "copy joins train, dev and test, and MTEB's SICK-R is over all 9,927: the two differ "
            "(bundled encoder, mean pooling: 77.15 and 77.58).",
        ),
    ),
    PublicSet(
        "nli",
        "Triplets of SNLI and MultiNLI (premise, entailed, contradicted) for supervised training.",
        "triplets",
        (
            PublicFile(
                "nli/all-nli-triplets.csv",
                "sentence-transformers/all-nli",
                (("train", 557_850),),
                _NLI_LICENCE,
                config="triplet",
            ),
            PublicFile(
                "nli/all-nli-dev-triplets.csv",
                "sentence-transformers/all-nli",
                (("dev", 6584),),
                _NLI_LICENCE,
                config="triplet",
            ),
        ),
        ("About 100 MB. Rows with an empty text are left out.",),
    ),
    PublicSet(
        "nli-simcse",
        "The NLI triplets of SimCSE, as republished with the training data of BGE-M3.",
        "triplets",
        (
            PublicFile(
                "nli/simcse-triplets.csv",
                "sentence-transformers/nli-for-simcse",
                (("train", 274_951),),
                _NLI_LICENCE,
                config="triplet",
            ),
        ),
        ("About 50 MB. Rows with an empty text are left out.",),
    ),
    PublicSet(
        "wiki",
        "Sentences of WikiText-2, validation and test, for whitening and unsupervised training.",
        "sentences",
        (
            PublicFile(
                "wiki/wikitext2-sentences.txt",
                "Salesforce/wikitext",
                (("validation", 3760), ("test", 4358)),
                "CC BY-SA 3.0 and GFDL",
                config="wikitext-2-raw-v1",
                is_tokenised=True,
            ),
        ),
        (
            "Headings are left out, spaces around punctuation removed, paragraphs cut into "
            "sentences of 4 to 60 words, repeats dropped.",
        ),
    ),
    PublicSet(
        "wiki1m",
        "The million Wikipedia sentences that SimCSE trains on without labels.",
        "sentences",
        (
            PublicFile(
                "wiki/wiki1m-sentences.txt",
                "princeton-nlp/datasets-for-simcse",
                (("train", None),),
                "Wikipedia: CC BY-SA",
                data_file="wiki1m_for_simcse.txt",
            ),
        ),
        ("About 120 MB. Blank lines are left out.",),
    ),
    PublicSet(
        "beir-scifact",
        "Scientific claims and the abstracts that support or refute them.",
        "retrieval",
        _beir(
            "scifact",
            "stated differently: CC BY-NC 4.0 by MTEB, CC BY-SA 4.0 by BEIR",
            "d56462d0e63a25450459c4f213e49ffdb866f7f9",
            5183,
            1109,
            (300, 339),
        ),
        (_JUDGED_ONLY,),
    ),
    PublicSet(
        "beir-nfcorpus",
        "Questions of lay people on nutrition, and medical articles.",
        "retrieval",
        _beir(
            "nfcorpus",
            "not stated by MTEB; CC BY-SA 4.0 by BEIR",
            "ec0fa4fe99da2ff19ca1214b7966684033a58814",
            3633,
            3237,
            (323, 12_334),
        ),
        (_JUDGED_ONLY,),
    ),
    PublicSet(
        "beir-fiqa",
        "Questions on finance, and answers from forums.",
        "retrieval",
        _beir(
            "fiqa",
            "not stated by MTEB; CC BY-SA 4.0 by BEIR",
            "27a168819829fe9bcd655c2df245fb19452e8e06",
            57_638,
            6648,
            (648, 1706),
        ),
        (_JUDGED_ONLY, "Some documents are empty; a search leaves them out."),
    ),
)


def public_set(name: str) -> PublicSet:
    """Return the public set of a name.

    >>> public_set("wiki").hub_ids
    ('Salesforce/wikitext',)

    Raises:
        InputError: If there is no such set.
    """
    for found in PUBLIC_SETS:
        if found.name == name:
            return found
    known = ", ".join(found.name for found in PUBLIC_SETS)
    raise InputError(f"There is no public set '{name}'. Sets: {known}.")
