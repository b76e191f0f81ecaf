"""A run's loss on examples it does not train on."""

import jax
import numpy as np

from videobooth_jax.sharding import place_batch
from videobooth_jax.training.data import TrainingData
from videobooth_jax.training.program import TrainProgram
from videobooth_jax.training.progress import Row
from videobooth_jax.training.state import TrainState

PREFIX = "validation_"
"""Of the names of a task's loss and metrics."""


def validate(program: TrainProgram, state: TrainState, data: TrainingData) -> Row:
    """Means of loss and metrics over ``config.validation.batches`` batches of the averaged weights.

    Once begun it is finished, whatever signals come: a broken-off run has the figures, and the best
    checkpoint, of an unbroken one.

    Args:
        program: the run, on its mesh.
        state: whose average is judged.
        data: held-out examples at their beginning, where they are left again.
    """
    config, begin, found = program.config, data.position(), []
    try:
        for number in range(config.validation.batches):
            batch = place_batch(program.mesh, next(data), config.data.batch_size)
            found.append(jax.device_get(program.validate(state, batch, np.int32(number))))
    finally:
        data.set_position(begin)
    return {
        PREFIX + name: float(np.mean([metrics[name] for metrics in found])) for name in found[0]
    }
