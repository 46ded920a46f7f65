"""The device and the precision that are asked for, and batches that come to it in order."""

import os
from contextlib import nullcontext

import pytest
import torch

from viralbert_utils.base import devices
from viralbert_utils.base.errors import DataError


def test_the_device_is_the_one_that_was_asked_for(monkeypatch):
    assert devices.default("cpu") == torch.device("cpu")
    monkeypatch.setenv(devices.DEVICE, "cuda:7")
    with pytest.raises(DataError, match="device 'cuda:7' is not on this machine; use cpu"):
        devices.default()
    for unknown in ("gpu", "cuda:x"):
        with pytest.raises(DataError, match=f"device '{unknown}' is not on this machine"):
            devices.default(unknown)
    monkeypatch.setenv(devices.DEVICE, "")
    assert devices.default().type in ("cpu", "cuda")


def test_a_wrong_choice_changes_nothing(monkeypatch):
    monkeypatch.setenv(devices.DEVICE, "cpu")
    monkeypatch.setenv(devices.PRECISION, "auto")  # what is chosen below ends with this test
    with pytest.raises(DataError, match="'cuda:9' is not on this machine"):
        devices.choose("cuda:9")
    with pytest.raises(
        DataError, match="precision 'half' is not known; use auto, float32, bfloat16, float16"
    ):
        devices.choose("cpu", "half")
    assert (os.environ[devices.DEVICE], os.environ[devices.PRECISION]) == ("cpu", "auto")
    devices.choose(None, "bfloat16")
    assert devices.describe() == "cpu, bfloat16"


@pytest.mark.parametrize(
    ("native", "capability", "expected"),
    [
        (True, (9, 0), torch.bfloat16),
        (False, (7, 5), torch.float16),
        (False, (6, 1), torch.float32),
    ],
)
def test_precision_follows_the_card(monkeypatch, native, capability, expected):
    """An H100 has bfloat16; a T4 only emulates it and has float16; a Pascal card has neither."""
    asked = []

    def supported(including_emulation: bool = True) -> bool:
        asked.append(including_emulation)
        return native or including_emulation

    monkeypatch.delenv(devices.PRECISION, raising=False)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla")
    card = torch.device("cuda", 0)
    assert devices.precision(card) == expected
    assert devices.precision(card, "float32") == torch.float32
    assert asked == [False, False]
    if not native:
        with pytest.raises(DataError, match="Tesla has no bfloat16; use float16, float32 or auto"):
            devices.precision(card, "bfloat16")
    assert devices.precision(torch.device("cpu")) == torch.float32
    monkeypatch.setenv(devices.PRECISION, "float32")
    assert devices.precision(card) == torch.float32


def test_batches_come_in_order_and_errors_come_through():
    def fail() -> torch.Tensor:
        raise ValueError("no such text")

    for device in (torch.device("cpu"), torch.device("meta")):
        made = [lambda k=k: (torch.full((2,), k), (torch.zeros(k + 1),)) for k in range(9)]
        found = list(devices.ahead(made, device))
        assert [len(nested[0]) for _, nested in found] == list(range(1, 10))
        assert {tensor.device.type for tensor, _ in found} == {device.type}
        with pytest.raises(ValueError, match="no such text"):
            list(devices.ahead([*made, fail], device))
