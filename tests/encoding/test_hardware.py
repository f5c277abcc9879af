"""What a machine computes with, against what torch says of it."""

import pytest
import torch

from lwap.encoding.hardware import has_native_bfloat16, resolve_device
from lwap.errors import ConfigError


@pytest.mark.parametrize(
    ("has_cuda", "has_mps", "expected"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_the_fastest_device(monkeypatch, has_cuda, has_mps, expected):
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_cuda)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: has_mps)
    assert resolve_device() == resolve_device("auto") == expected


def test_a_device_that_is_there_is_taken():
    assert resolve_device("cpu") == "cpu"


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "", "meta"])
def test_refuses_a_device_that_is_not_there(device):
    with pytest.raises(ConfigError, match=rf"Device '{device}' cannot be used here \(.+\)\. Use"):
        resolve_device(device)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
        ({"bf16": True}, True),
        ({"avx512_bf16": False, "avx2": True}, False),
        ({}, False),
    ],
)
def test_bfloat16_on_a_cpu(monkeypatch, capabilities, expected):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: capabilities)
    assert has_native_bfloat16("cpu") is expected
    assert has_native_bfloat16(torch.device("cpu")) is expected


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True)])
def test_bfloat16_on_a_gpu(monkeypatch, capability, expected):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    assert has_native_bfloat16("cuda:0") is expected
    assert has_native_bfloat16("mps") is False
