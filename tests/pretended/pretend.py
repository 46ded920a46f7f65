"""A second device without any hardware: tensors on `pretend:0` are computed by the CPU and refuse
to meet its tensors.

PyTorch lets a backend be written in Python. This one keeps, for each of its tensors, a plain one
with the values, so everything runs to the end and gives real numbers; but a tensor of the CPU
beside one of `pretend:0` is an error, as it is on a GPU. Nothing needs to be told of it but the
name: `VIRALBERT_DEVICE=pretend:0`.
"""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from typing import Any

import torch
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

NAME = "pretend:0"
# Operations after which a program has waited for the device: it has read values from it.
WAITS: Counter[str] = Counter()
_READS = {"_local_scalar_dense", "nonzero", "masked_select", "equal"}
_LIBRARY = torch.library.Library("_", "IMPL")


class Pretend(torch.Tensor):
    """A tensor on the pretended device, and the plain one that has its values."""

    raw: torch.Tensor

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> Pretend:
        layout: dict[str, Any] = {"layout": raw.layout}
        if raw.layout == torch.strided:
            layout |= {"strides": raw.stride(), "storage_offset": raw.storage_offset()}
        # A view that is made inside inference mode belongs to a tensor that was made outside.
        with torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext():
            found = torch.Tensor._make_wrapper_subclass(
                cls, raw.shape, dtype=raw.dtype, device=NAME, **layout
            )
        found.raw = raw
        return found

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Any, given: tuple = (), named: dict | None = None
    ) -> Any:
        return _compute(function, *given, **(named or {}))

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"{str(self.detach().cpu()).removesuffix(')')}, device='{NAME}')"

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def __format__(self, spec: str) -> str:
        return format(self.item() if self.ndim == 0 else str(self), spec)


class _Operation:
    """What is asked of an operation before it is computed."""

    def __init__(self, function: Any) -> None:
        self.name = function._schema.name.removeprefix("aten::")
        # Made of others; inference mode alone lets such an operation come here whole.
        self.is_composite = torch._C._dispatch_has_kernel_for_dispatch_key(
            function.name(), "CompositeImplicitAutograd"
        )
        # As on a GPU, the positions at which a tensor of the device is read may come from the CPU.
        self.takes_positions = self.name.startswith("index")
        self.copies = self.name == "copy_"


_operations: dict[Any, _Operation] = {}


def _compute(function: Any, *given: Any, **named: Any) -> Any:
    operation = _operations.get(function)
    if operation is None:
        operation = _operations[function] = _Operation(function)
    if operation.is_composite:
        return function.decompose(*given, **named)
    if operation.name == "_fused_sdp_choice":
        return 0  # attention as plain matrix products: the fast forms belong to real devices
    tensors: list[torch.Tensor] = []
    plain = [_plain(value, tensors) for value in given]
    ours = [tensor for tensor in tensors if type(tensor) is Pretend]
    device = named.get("device")
    to_the_cpu = (
        type(given[0]) is not Pretend
        if operation.copies
        else device is not None and device.type == "cpu"
    )
    if ours and len(ours) < len(tensors) and not operation.copies:
        _refuse_a_mixture(operation, given, tensors)
    if ours and (
        to_the_cpu or operation.name in _READS or (operation.name == "index" and _has_mask(ours))
    ):
        WAITS[operation.name] += 1
    found = function(*plain, **{name: _plain(value, tensors) for name, value in named.items()})

    def back(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            for tensor in tensors:  # what works in place gives back what it was given
                if value is tensor or value is getattr(tensor, "raw", None):
                    return tensor
            return value if to_the_cpu else Pretend(value)
        return type(value)(map(back, value)) if isinstance(value, list | tuple) else value

    return back(found)


def _plain(value: Any, tensors: list[torch.Tensor]) -> Any:
    """The value as the CPU computes with it; its tensors are noted."""
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return value.raw if type(value) is Pretend else value
    if isinstance(value, list | tuple):
        return [_plain(part, tensors) for part in value]
    return torch.device("cpu") if isinstance(value, torch.device) else value


def _has_mask(tensors: list[Pretend]) -> bool:
    return any(tensor.dtype == torch.bool for tensor in tensors[1:])


def _refuse_a_mixture(operation: _Operation, given: tuple, tensors: list[torch.Tensor]) -> None:
    positions = given[1] if operation.takes_positions and type(given[0]) is Pretend else ()
    for tensor in tensors:
        # A number may come from the CPU.
        if (
            type(tensor) is Pretend
            or not tensor.ndim
            or any(tensor is position for position in positions)
        ):
            continue
        raise RuntimeError(
            f"expected all tensors to be on the same device, but found {NAME} and cpu "
            f"{tuple(tensor.shape)} in "
            f"{operation.name}"
        )


class _Module(_DummyBackendModule):
    """What stands at `torch.pretend`."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


_usual_apply = torch.nn.Module._apply


def _apply(module: torch.nn.Module, *given: Any) -> torch.nn.Module:
    """A module keeps its parameters when it is moved, as between real devices: whoever shares them
    moves along."""
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        return _usual_apply(module, *given)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)


def install() -> None:
    """Make the device known to PyTorch, once in a process."""
    _setup_privateuseone_for_python_backend("pretend", _Module())
    _LIBRARY.fallback(_compute, "PrivateUse1")
    torch.nn.Module._apply = _apply
    # Threads of the backward pass for this device could not be ended.
    torch.autograd.set_multithreading_enabled(False)
