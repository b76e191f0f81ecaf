"""The command `videobooth compile`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from videobooth_jax.aot.advice import advice
from videobooth_jax.aot.compilation import compile_report
from videobooth_jax.outputs import written_whole
from videobooth_jax.training.config import TrainConfig


def compile_run(
    config: TrainConfig, topology: str, what: str, out: str | None, overrides: Sequence[str]
) -> int:
    """Compile, print the report, write it to ``out`` unless None; say what helps if it is too big.

    Returns the exit status: 0, or 1 where the program does not fit.

    Raises:
        FileNotFoundError: the folder of ``out`` is missing. ValueError, ImportError: see
        `compile_report`; all before anything is compiled.
    """
    if out and not Path(out).parent.is_dir():
        raise FileNotFoundError(f"cannot write {out}: there is no such folder; make it first")
    report = compile_report(config, topology, what, overrides)
    if out:
        with written_whole([Path(out)]) as (partial,):
            partial.write_text(report.to_json())
    print(report)
    if report.fits:
        return 0
    print(advice(config, report), file=sys.stderr)
    return 1
