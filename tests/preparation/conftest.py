"""Preparing in this process: starting workers takes seconds."""

import pytest

from videobooth_jax.preparation import prepare as prepare_module


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """`prepare` without worker processes; what it returns lists the inputs worked on."""
    worked = []

    def run_here(make_work, tasks, workers, timeout):
        work = make_work()
        for number, task in tasks:
            worked.append(number)
            yield number, work(task)

    monkeypatch.setattr(prepare_module, "run_pool", run_here)
    return worked
