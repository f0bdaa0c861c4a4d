"""Compiled functions that do not end a run: where one cannot be compiled, all go on as they were written."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import torch

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Compiler:
    """Compiles functions by `torch.compile`, one graph for each shape, until one fails.

    Args:
        backend: Of `torch.compile`: its name, or a function.

    Attributes:
        failure: Why the functions are not compiled any more, in one line; None as long as they are.
    """

    def __init__(self, backend: str | Callable[..., object] = "inductor") -> None:
        self.failure: str | None = None
        self._backend = backend

    def compile(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        """A function that computes the same; it is compiled when it is first called."""
        compiled = cast("Callable[_P, _R]", torch.compile(function, dynamic=False, backend=self._backend))

        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            if self.failure is not None:
                return function(*args, **kwargs)
            try:
                return compiled(*args, **kwargs)
            except Exception as error:
                failure = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            # Outside of the handler, which holds memory. What the function itself raises, it raises again.
            result = function(*args, **kwargs)
            self.failure = failure
            return result

        return call
