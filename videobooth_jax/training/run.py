"""From a state to the last step: stepping, reporting, sampling and saving on the way."""

import contextlib
import dataclasses
from collections.abc import Collection
from functools import partial

import jax
from etils import epath
from jax.sharding import Mesh

from videobooth_jax.checkpointing import TrainCheckpoints
from videobooth_jax.compilation_cache import traced_programs_folder
from videobooth_jax.distributed import StopTogether, is_primary
from videobooth_jax.sharding import place_batch, replicated
from videobooth_jax.training.clock import Clock
from videobooth_jax.training.data import TrainingData, open_training_data
from videobooth_jax.training.feed import Feed
from videobooth_jax.training.losses import Batch, Metrics
from videobooth_jax.training.metrics import Reporter, Work
from videobooth_jax.training.profiling import ProfilerWindow
from videobooth_jax.training.program import TrainProgram
from videobooth_jax.training.progress import Pending, Progress, check_finite, summarize
from videobooth_jax.training.ready import FIRST, compiled, kept_train_program
from videobooth_jax.training.samples import sample_grid
from videobooth_jax.training.state import TrainState
from videobooth_jax.training.stopping import Stopped
from videobooth_jax.training.validation import PREFIX, validate
from videobooth_jax.typing import Params


def run_steps(
    program: TrainProgram,
    state: TrainState,
    data: TrainingData,
    checkpoints: TrainCheckpoints,
    workdir: epath.Path,
    stopped: Stopped,
    progress: Progress,
    held_out: TrainingData | None = None,
) -> TrainState:
    """Step until ``config.steps`` or a stop signal, reporting and saving on the way and at the
    end.

    Args:
        program: the run, on its mesh.
        state: where to begin; donated.
        data: standing at ``progress.data``.
        checkpoints: where to save.
        workdir: where reports go.
        stopped: asked between steps, and while samples are made; one process is enough.
        progress: what was saved with ``state``, or a fresh one.
        held_out: for ``config.validation``, at its beginning.

    Raises:
        NonFiniteError: see `progress.check_finite`.
        SaveError: a checkpoint could not be written.
        OSError: reports could not be written.
        ValueError: ``config.best_metric`` is none of this task's.
    """
    config, mesh = program.config, program.mesh
    reporter = Reporter(workdir, config.name, int(state.step), config.steps)
    profiler = ProfilerWindow(workdir / "profile", config.profile_start, config.profile_steps)
    with contextlib.closing(reporter), contextlib.closing(profiler):
        feed = Feed(data, partial(place_batch, mesh, batch_size=config.data.batch_size))
        loop = _Loop(program, feed, checkpoints, reporter, progress, stopped)
        together = StopTogether(mesh, stopped)
        step = saved = int(state.step)
        while step < config.steps and not together():
            with profiler.step(step):
                state, metrics = loop.step(state)
            profiler.end(step, metrics)
            step += 1
            loop.after(step, metrics)
            if config.sample_every and step % config.sample_every == 0:
                loop.sample(step, state)
            if held_out is not None and step % config.validation.every == 0:
                loop.validate(step, state, held_out)
            if step % config.checkpoint_every == 0:
                loop.save(step, state)
                saved = step
        if step != saved:
            loop.save(step, state)
    return state


class _Loop:
    """What happens around the steps of one process."""

    def __init__(
        self,
        program: TrainProgram,
        feed: Feed,
        checkpoints: TrainCheckpoints,
        reporter: Reporter,
        progress: Progress,
        stopped: Stopped,
    ):
        self._program, self._feed, self._stopped = program, feed, stopped
        self._config, self._mesh = program.config, program.mesh
        self._checkpoints, self._reporter = checkpoints, reporter
        self._pending = Pending(progress.pending)
        self._nonfinite_run = progress.nonfinite_run
        self._clock = Clock(reporter.started, progress.productive_seconds)
        self._work: Work | None = None
        self._examples: Batch | None = None

    def step(self, state: TrainState) -> tuple[TrainState, Metrics]:
        """Take a step; the first of a process takes a compiler's time, which is no step's."""
        if self._work is not None:
            return self._program.step(state, self._feed.take())
        with self._clock.aside():
            self._work = self._prepare(state, self._feed.peek())
            return self._program.step(state, self._feed.take())

    def _prepare(self, state: TrainState, batch: Batch) -> Work:
        """Have the steps compiled, once it is known that they tell what is asked of them."""
        folder, devices = traced_programs_folder(), self._mesh.devices
        program, flops = kept_train_program(self._program, batch, folder)
        names = set(jax.eval_shape(program.step, state, batch)[1])
        if self._config.validation.every:
            held_out = jax.eval_shape(program.validate, state, batch, FIRST)
            names |= {PREFIX + name for name in held_out}
        _check_metric(self._config.best_metric, names)
        self._program = compiled(program, state, batch)
        return Work(
            samples=self._config.data.batch_size,
            flops=flops,
            devices=devices.size,
            device_kind=devices.flat[0].device_kind,
        )

    def after(self, step: int, metrics: Metrics) -> None:
        """Fetch the next batch while the step runs; report where one is due."""
        self._clock.step()
        self._pending.add(metrics)
        if step < self._config.steps:
            seconds = self._feed.prefetch()
            if self._pending.idle():
                self._clock.waited(seconds)
        self._pending.settle()
        self._checkpoints.poll()
        if step % self._config.log_every == 0:
            self._report(step)

    def _report(self, step: int) -> None:
        assert self._work is not None
        rows = self._pending.rows()
        self._pending.clear()
        self._reporter.report(step, summarize(rows), self._work.speed(self._clock.lap()))
        most = self._config.max_nonfinite_steps
        self._nonfinite_run = check_finite(rows, self._nonfinite_run, most, step)

    def sample(self, step: int, state: TrainState) -> None:
        """Show what the model makes of a few examples; one process does, the others go on."""
        jax.block_until_ready(state.step)
        with self._clock.aside():
            params = _whole(state.ema_params(), self._mesh)
            if not is_primary():
                return
            if self._examples is None:
                here = dataclasses.replace(self._config.data, worker_count=0)
                start = self._config.init_from
                self._examples = next(open_training_data(here, self._config.model, None, start))
            picture = sample_grid(self._config, params, self._examples, self._stopped)
            if picture is not None:
                self._reporter.image("samples", picture, step)

    def validate(self, step: int, state: TrainState, data: TrainingData) -> None:
        """Report the loss on held-out examples."""
        jax.block_until_ready(state.step)
        with self._clock.aside():
            self._reporter.validation(step, validate(self._program, state, data))

    def save(self, step: int, state: TrainState) -> None:
        """Save state, data position and progress as one, with its score."""
        rows = self._pending.rows()
        progress = Progress(
            data=self._feed.position,
            pending=rows,
            nonfinite_run=self._nonfinite_run,
            productive_seconds=self._clock.productive(),
        )
        after = step - self._config.checkpoint_every
        with self._clock.aside():
            score = self._reporter.average(self._config.best_metric, after)
            self._checkpoints.save(step, state, progress.to_dict(), score)


def _whole(params: Params, mesh: Mesh) -> Params:
    """All of every parameter, on one device of this process."""
    gathered = jax.jit(lambda x: x, out_shardings=replicated(mesh))(params)
    return jax.tree.map(lambda x: x.addressable_data(0), gathered)


def _check_metric(name: str, metrics: Collection[str]) -> None:
    if name not in metrics:
        raise ValueError(f"best_metric is {name!r}; this run has {', '.join(sorted(metrics))}")
