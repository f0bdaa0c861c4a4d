"""Where tasks run: processes of this machine, or a Ray cluster. Neither plans: tasks go in when they can run."""

from __future__ import annotations

import concurrent.futures
import importlib
import importlib.util
import logging
import multiprocessing
import os
from collections.abc import Callable, Collection
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol

from tokcodec.errors import IncompleteError, UsageError

Task = tuple[Callable[[Any], Any], Any]
"""A function of :mod:`tokcodec.bench.tasks`, and its job."""


OBJECT_STORE_BYTES = 100 * 2**20
"""Of a local Ray cluster, which would take a third of the memory otherwise."""


class Engine(Protocol):
    """Runs tasks; `jobs` of them at a time."""

    jobs: int

    def submit(self, task: Task) -> Any:
        """Begin a task; gives a handle."""

    def wait(self, handles: Collection[Any]) -> Any:
        """The handle of a task that has ended, of those given."""

    def result(self, handle: Any) -> Any:
        """What the task gave back; what it raised is raised."""

    def close(self) -> None:
        """Drop what has not begun, and let go of the workers."""


class ProcessEngine:
    """A pool of processes.

    Args:
        jobs: How many.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        # Not fork: threads of torch and FFmpeg do not live through it.
        context = multiprocessing.get_context("spawn")
        self._pool = concurrent.futures.ProcessPoolExecutor(jobs, mp_context=context)

    def submit(self, task: Task) -> Any:
        """See `Engine`."""
        function, job = task
        return self._pool.submit(function, job)

    def wait(self, handles: Collection[Any]) -> Any:
        """See `Engine`."""
        return next(iter(concurrent.futures.wait(handles, return_when=concurrent.futures.FIRST_COMPLETED).done))

    def result(self, handle: Any) -> Any:
        """See `Engine`; a worker that was killed ends the run.

        Raises:
            IncompleteError: A worker was killed.
        """
        try:
            return handle.result()
        except BrokenProcessPool as error:
            raise IncompleteError(
                "a worker process was killed", hint="is there enough memory? use fewer --jobs, and run it again"
            ) from error

    def close(self) -> None:
        """See `Engine`."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class RayEngine:
    """A Ray cluster: the one that RAY_ADDRESS names, else a local one.

    The results folder and the dataset must be on a disk that all its machines share.

    Args:
        jobs: Tasks at a time on a local cluster; on another, the cluster's cores decide.
        threads: Cores that a task takes.

    Raises:
        UsageError: Ray does not start, or there is no cluster at that address.
    """

    def __init__(self, jobs: int, threads: int) -> None:
        # Ray asks on the terminal, and then reports, unless it is told not to.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray: Any = importlib.import_module("ray")
        self._ray = ray
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if os.environ.get("RAY_ADDRESS"):
                ray.init(address="auto", runtime_env=_worker_environment(), **quiet)
            else:
                # Its workers get the environment of this process; tasks and results are small.
                ray.init(
                    num_cpus=jobs * threads, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet
                )
        except Exception as error:  # Ray raises no class of its own here
            raise UsageError(
                f"Ray did not start: {error}",
                hint="start a cluster while the machine is not busy and set RAY_ADDRESS, or use --engine local",
            ) from error
        self.jobs = max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
        self._threads = threads

    def submit(self, task: Task) -> Any:
        """See `Engine`."""
        function, job = task
        return self._ray.remote(num_cpus=self._threads, max_retries=0)(function).remote(job)

    def wait(self, handles: Collection[Any]) -> Any:
        """See `Engine`."""
        return self._ray.wait(list(handles), num_returns=1)[0][0]

    def result(self, handle: Any) -> Any:
        """See `Engine`; Ray wraps what a task raises, here it comes out as it was.

        Raises:
            IncompleteError: A worker or its machine was lost.
        """
        try:
            return self._ray.get(handle)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self._ray.exceptions.RayError as error:
            what = str(error).strip().partition("\n")[0]
            raise IncompleteError(
                f"Ray lost a task: {what}", hint="is there enough memory on every machine? run it again"
            ) from error

    def close(self) -> None:
        """See `Engine`."""
        self._ray.shutdown()


def _worker_environment() -> dict[str, Any]:
    """Where workers of a cluster find the package, if this process was told where."""
    path = os.environ.get("PYTHONPATH")
    return {"env_vars": {"PYTHONPATH": path}} if path else {}


def check_engine(name: str) -> None:
    """Refuse at once, and not after the clips were read.

    Raises:
        UsageError: There is no engine of this name, or its package is missing.
    """
    if name not in ("local", "ray"):
        raise UsageError(f"there is no engine {name!r}", hint="local or ray")
    if name == "ray" and importlib.util.find_spec("ray") is None:
        raise UsageError("the engine ray needs the package ray", hint="pip install 'tokcodec[cluster]'")


def make_engine(name: str, *, jobs: int, threads: int) -> Engine:
    """The engine of this name.

    Raises:
        UsageError: As :func:`check_engine`, or Ray does not start.
    """
    check_engine(name)
    return RayEngine(jobs, threads) if name == "ray" else ProcessEngine(jobs)
