"""Where networks run, in which arithmetic, and the errors where there is no memory for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import nn

from tokcodec.errors import DeviceError, LimitError


def choose_device(name: str) -> torch.device:
    """The device called "auto", "cpu" or "cuda" ("cuda:1" too); auto takes CUDA where there is one.

    Raises:
        DeviceError: CUDA was asked for and is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceError("no CUDA device is available", hint="use --device cpu, or install a CUDA build of torch")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError(name)
        torch.empty(1, device=device)
    except RuntimeError as error:
        raise DeviceError(f"cannot use device {name!r}", hint="use auto, cpu, cuda or cuda:N") from error
    return device


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it natively, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    native = bool(torch.backends.mkldnn.is_available()) and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if native else torch.float32


_Network = TypeVar("_Network", bound=nn.Module)


def prepare(model: _Network, device: torch.device, dtype: torch.dtype | None = None) -> _Network:
    """A network on a device, ready for inference: channels last, `dtype` or the fastest."""
    dtype = fast_dtype(device) if dtype is None else dtype
    model.eval().requires_grad_(False).to(device=device, dtype=dtype)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Running out of memory, on a device or off it, as errors that say what to do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceError("the device ran out of memory", hint="use --device cpu, or a smaller picture") from error
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and "can't allocate memory" not in str(error):
            raise
        raise LimitError("there is not enough memory for this picture", hint="scale it down") from error
