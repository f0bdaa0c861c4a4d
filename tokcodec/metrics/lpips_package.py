"""The package `lpips` itself, which the tests hold :mod:`tokcodec.metrics.lpips_network` against."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

_libraries: list[Any] = []
"""Operators live as long as the object that defined them."""


def import_lpips() -> ModuleType:
    """Import `lpips`, which imports torchvision.

    A torchvision built for CUDA cannot load its operators beside a CPU-only torch, and then fails where it describes
    two of them ("operator torchvision::nms does not exist"). Neither is part of LPIPS: it is enough that both have a
    schema before torchvision is imported once more.

    Raises:
        ImportError: One of the packages is not installed.
        RuntimeError: torchvision does not import for another reason.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        define_operators()
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        importlib.import_module("torchvision")
    return importlib.import_module("lpips")


def define_operators() -> None:
    """Give torchvision's two operators their schemas, where they have none."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        if not hasattr(torch.ops.torchvision, schema.partition("(")[0]):
            library.define(schema)
    _libraries.append(library)
