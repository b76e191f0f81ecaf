"""A run's loss on examples it does not train on."""

from collections.abc import Callable, Iterable

import jax
import numpy as np

from videobooth_jax.sharding import place_batch
from videobooth_jax.training.data import TrainingData
from videobooth_jax.training.program import TrainProgram
from videobooth_jax.training.progress import Row
from videobooth_jax.training.state import TrainState


def names(metrics: Iterable[str]) -> list[str]:
    """What the held-out metrics of a task are called beside its own."""
    return [f"validation_{name}" for name in metrics]


def validate(
    program: TrainProgram, state: TrainState, data: TrainingData, stopped: Callable[[], bool]
) -> Row | None:
    """Means of loss and metrics over ``config.validation.batches`` batches of the averaged weights.

    Args:
        program: the run, on its mesh.
        state: whose average is judged.
        data: held-out examples at their beginning, where it is left again.
        stopped: asked between batches, by all processes together.

    Returns:
        Means by name, or None once ``stopped`` says so.
    """
    config, begin, found = program.config, data.position(), []
    try:
        for number in range(config.validation.batches):
            if stopped():
                return None
            batch = place_batch(program.mesh, next(data), config.data.batch_size)
            found.append(jax.device_get(program.validate(state, batch, np.int32(number))))
    finally:
        data.set_position(begin)
    means = (float(np.mean([metrics[name] for metrics in found])) for name in found[0])
    return dict(zip(names(found[0]), means, strict=True))
