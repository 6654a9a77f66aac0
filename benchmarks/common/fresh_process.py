"""Runs a measurement in a process of its own, since OpenMP reads its wait policy once, when torch is imported."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Literal, ParamSpec, TypeVar

__all__ = ["WaitPolicy", "in_fresh_process"]

Parameters = ParamSpec("Parameters")
ResultT = TypeVar("ResultT")

WaitPolicy = Literal["passive", "unset"]
"""`passive` threads sleep while they wait; `unset` is what the server and any Python program have that do not care."""

_NAME = "OMP_WAIT_POLICY"


def in_fresh_process(
    wait_policy: WaitPolicy,
    function: Callable[Parameters, ResultT],
    *arguments: Parameters.args,
    **options: Parameters.kwargs,
) -> ResultT:
    """Call a function there, and return what it returns.

    Args:
        wait_policy: of OpenMP's threads.
        function: of a module; it imports torch itself, so that this process need not.
        arguments: the function's.
        options: the function's.
    """
    with _environment(wait_policy), ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments, **options).result()


@contextlib.contextmanager
def _environment(wait_policy: WaitPolicy) -> Iterator[None]:
    before = os.environ.pop(_NAME, None)
    if wait_policy != "unset":
        os.environ[_NAME] = wait_policy
    try:
        yield
    finally:
        os.environ.pop(_NAME, None)
        if before is not None:
            os.environ[_NAME] = before
