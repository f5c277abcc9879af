"""What this machine computes with. Imports torch, but no models."""

from __future__ import annotations

import contextlib
from enum import StrEnum

import torch

from lwap.errors import ConfigError, check_choice


class Precision(StrEnum):
    """fp32 for what a person looks at; auto takes bf16 where the hardware has it; or say which."""

    FP32 = "fp32"
    BF16 = "bf16"
    AUTO = "auto"


def resolve_device(device: str = "auto") -> str:
    """Return the torch device for `device`: "auto" takes cuda, then mps, then cpu.

    Raises:
        ConfigError: If the named device is not on this machine.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        if torch.empty(0, device=device).is_meta:
            raise RuntimeError("it holds shapes without values")
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]  # torch lists all its backends after it
        raise ConfigError(
            f"Device '{device}' cannot be used here ({reason}). "
            "Use 'auto', 'cpu', 'cuda', 'cuda:0' … or 'mps'."
        ) from error
    return device


def has_native_bfloat16(device: torch.device | str) -> bool:
    """Say whether `device` multiplies bfloat16 in hardware; elsewhere fp32 is far faster."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if kind == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(
            capabilities.get("avx512_bf16")
            or capabilities.get("amx_bf16")
            or capabilities.get("bf16")
        )
    return False


def resolve_precision(precision: str, device: torch.device | str) -> Precision:
    """Return the arithmetic that a precision means on a device: fp32 or bf16.

    Raises:
        ConfigError: If it is none of "fp32", "bf16", "auto".
    """
    choice = check_choice("precision", precision, Precision)
    if choice == Precision.AUTO:
        return Precision.BF16 if has_native_bfloat16(device) else Precision.FP32
    return choice


def in_precision(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager:
    """Return the context of a forward pass: autocast for bf16, nothing for fp32.

    Autocast multiplies in bf16 and keeps the residual stream and the norms in fp32. With bf16
    throughout, the first tokens of early layers, which differ little, lose their order.
    """
    if precision == Precision.FP32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
