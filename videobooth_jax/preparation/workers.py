"""Worker processes that may die or hang on a task without taking the others along.

Each worker has a pipe of its own and one task at a time, so that it is always known what a dead one
was at.
"""

import contextlib
import functools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

START_SECONDS = 300.0
"""A worker that takes longer to import its libraries and load its models is broken."""
STOP_SECONDS = 10.0
"""What an idle worker has to end."""

Work = Callable[[Any], Any]


class Failed(NamedTuple):
    """A task that ended its worker: ``reason`` "crashed" or "timed_out", and a sentence."""

    reason: str
    why: str


def run_pool(
    make_work: Callable[[], Work], tasks: Iterable[tuple[int, Any]], workers: int, timeout: float
) -> Iterator[tuple[int, Any]]:
    """Results of numbered tasks as they are done, or `Failed`.

    Args:
        make_work: called once in each worker; makes the function that does a task. Both are
            pickled, as are tasks and results.
        tasks: (number, task); taken one by one as workers get free.
        workers: number of processes.
        timeout: seconds for a task.

    Raises:
        RuntimeError: workers cannot be started.
        OSError: a task met a failure of the machine, such as a full disk.
    """
    left = iter(tasks)
    team = [_Worker(make_work) for _ in range(workers)]
    try:
        while team:
            for worker in [w for w in team if w.idle]:
                if (task := next(left, None)) is None:
                    worker.stop()
                    team.remove(worker)
                else:
                    worker.give(*task, timeout)
            if not team:
                return
            wait([w.pipe for w in team], max(0.0, min(w.deadline for w in team) - time.monotonic()))
            for place, worker in enumerate(team):
                if (result := worker.look()) is None:
                    continue
                if isinstance(result[1], Failed):
                    worker.stop()
                    team[place] = _Worker(make_work)
                yield result
    finally:
        for worker in team:
            worker.stop()


class _Worker:
    """One process and what it is at: starting (task -1), idle (None), or a numbered task."""

    def __init__(self, make_work: Callable[[], Work]):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make_work), daemon=True)
        self._process.start()
        theirs.close()
        self._task: int | None = -1
        self._seconds = START_SECONDS
        self.deadline = time.monotonic() + START_SECONDS

    @property
    def idle(self) -> bool:
        return self._task is None

    def give(self, number: int, task: Any, timeout: float) -> None:
        self._task, self._seconds = number, timeout
        self.deadline = time.monotonic() + timeout
        with contextlib.suppress(OSError):  # it died idle: the next look finds it dead
            self.pipe.send(task)

    def look(self) -> tuple[int, Any] | None:
        """The result of its task if that is finished, however it ended; None otherwise."""
        number = self._task
        if number is None:
            return None
        try:
            if not self.pipe.poll():
                if time.monotonic() < self.deadline:
                    return None
                return self._lost(number, "timed_out", f"not done after {self._seconds:g} s")
            kind, value = self.pipe.recv()
        except (EOFError, OSError):
            self._process.join(10)
            return self._lost(number, "crashed", f"the worker {_ending(self._process.exitcode)}")
        if kind == "failed":
            raise value
        self._task = None
        return None if kind == "ready" else (number, value)

    def _lost(self, number: int, reason: str, why: str) -> tuple[int, Failed]:
        if number < 0:
            raise RuntimeError(f"a worker could not be started: {why}")
        return number, Failed(reason, why)

    def stop(self) -> None:
        """End it: an idle one may tidy up, one at a task is killed."""
        self.pipe.close()
        if self.idle:
            self._process.join(STOP_SECONDS)
        self._process.kill()
        self._process.join()


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with status {code}"


def _serve(pipe: Connection, make_work: Callable[[], Work]) -> None:
    """In the worker: do tasks until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops its workers
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # as many threads as workers, and sums in one order
    with contextlib.suppress(EOFError, BrokenPipeError):
        try:
            work = make_work()
            pipe.send(("ready", None))
            while True:
                pipe.send(("done", work(pipe.recv())))
        except EOFError:
            return
        except Exception as error:  # no input can cause this: the machine has
            pipe.send(("failed", _portable(error)))


@functools.singledispatch
def _portable(error: Exception) -> Exception:
    """An error that certainly can be pickled."""
    return RuntimeError(f"{type(error).__name__}: {error}")


@_portable.register(OSError)
@_portable.register(ImportError)
@_portable.register(ValueError)
def _(error: Exception) -> Exception:
    kind = next(k for k in (OSError, ImportError, ValueError) if isinstance(error, k))
    return kind(str(error))
