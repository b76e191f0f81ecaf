"""Nobody waits for what they do not use."""

import subprocess
import sys
import time

import pytest

import videobooth_jax

HEAVY = ("tensorflow", "tensorflow_datasets", "torch", "cv2", "jax", "flax", "orbax", "grain")


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("module", ["videobooth_jax", "videobooth_jax.cli"])
def test_importing_loads_nothing_heavy(module):
    code = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert run(code).strip() == "[]"


def test_the_pipeline_loads_neither_tfds_nor_torch_nor_opencv():
    code = f"""
import sys, videobooth_jax
videobooth_jax.VideoBoothPipeline
print([name for name in {HEAVY[:4]!r} if name in sys.modules])
"""
    assert run(code).strip() == "[]"


def best_seconds(*command: str) -> float:
    """The quickest of five: what the work takes, whatever else the machine does."""
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def test_import_takes_less_than_a_second_and_a_half():
    assert best_seconds(sys.executable, "-c", "import videobooth_jax") < 1.5


def test_help_takes_less_than_a_second():
    assert best_seconds(sys.executable, "-m", "videobooth_jax.cli", "--help") < 1.0


def test_lazy_names():
    assert videobooth_jax.__version__.count(".") == 2
    assert videobooth_jax.VideoBoothPipeline.__name__ == "VideoBoothPipeline"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        videobooth_jax.nothing  # noqa: B018
