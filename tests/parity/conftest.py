"""One test per case and precision of the folder given by --goldens."""

from pathlib import Path

import pytest

from parity.cases import load_cases

SLOW = {"unet", "unet_guided", "sample_loop", "train_step"}
"""Kinds whose programs take long to compile."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "precision" not in metafunc.fixturenames:
        return
    folder = Path(metafunc.config.getoption("--goldens"))
    parameters = [
        pytest.param(
            case,
            precision,
            id=f"{case.name}-{precision}",
            marks=[pytest.mark.slow] if case.kind in SLOW else [],
        )
        for case in load_cases(folder)
        for precision in case.precisions
    ]
    metafunc.parametrize(("case", "precision"), parameters)
