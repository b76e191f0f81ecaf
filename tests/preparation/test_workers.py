"""Workers that die and hang take only their own task along."""

import os
import signal
import time

import pytest

from videobooth_jax.preparation.workers import Failed, run_pool


def squares():
    def work(task):
        kind, number = task
        if kind == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "leave":
            os._exit(3)
        if kind == "hang":
            time.sleep(1000)
        if kind == "full":
            raise OSError(28, "No space left on device")
        return number**2

    return work


def broken():
    raise ValueError("the model is damaged")


def test_the_others_go_on():
    kinds = ["", "die", "", "hang", "leave", "", ""]
    tasks = [(number, (kind, number)) for number, kind in enumerate(kinds)]
    found = dict(run_pool(squares, iter(tasks), 2, timeout=3))
    assert {n: r for n, r in found.items() if not kinds[n]} == {0: 0, 2: 4, 5: 25, 6: 36}
    assert found[1] == Failed("crashed", "the worker was killed by SIGKILL")
    assert found[3] == Failed("timed_out", "not done after 3 s")
    assert found[4] == Failed("crashed", "the worker ended with status 3")


def test_a_full_disk_is_nobodys_clip():
    with pytest.raises(OSError, match="No space left"):
        list(run_pool(squares, [(0, ("full", 0)), (1, ("", 1))], 1, timeout=60))


def test_workers_that_cannot_start_end_the_run():
    with pytest.raises(ValueError, match="the model is damaged"):
        list(run_pool(broken, [(0, ("", 0))], 1, timeout=60))


def test_no_tasks_need_no_workers():
    assert list(run_pool(squares, [], 0, timeout=1)) == []
