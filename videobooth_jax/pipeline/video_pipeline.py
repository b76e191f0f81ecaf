"""`VideoBoothPipeline`: pictures and sentences in, videos out."""

import contextlib
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Unpack

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from videobooth_jax.checkpointing import load_model
from videobooth_jax.data.image_prompt import Box, Picture
from videobooth_jax.data.tokenizer import Tokenizer
from videobooth_jax.diffusion.samplers import sample_steps
from videobooth_jax.models.videobooth import VideoBoothConfig, with_dtypes
from videobooth_jax.outputs import save_videos
from videobooth_jax.pipeline import programs
from videobooth_jax.pipeline.finding import find_model
from videobooth_jax.pipeline.kept import bind, call
from videobooth_jax.pipeline.on_mesh import place, plan_on, rows_at_once, told
from videobooth_jax.pipeline.programs import Conditioning, Subject
from videobooth_jax.pipeline.requests import (
    MAX_WHOLE,
    Columns,
    Pictures,
    Plan,
    SamplingOptions,
    Texts,
    make_columns,
    make_plan,
    read_pictures,
    read_texts,
    sampler_of,
    whole_number,
)
from videobooth_jax.segmentation import Point, WordSegmenter
from videobooth_jax.sharding import weight_shardings
from videobooth_jax.typing import Frames, Keys, Params

FPS = 8.0
"""Frames per second of videos, as the published results are shown."""

Progress = bool | Callable[[int, int], None]
SubjectOf = Callable[[np.ndarray], Subject]


@dataclasses.dataclass(frozen=True)
class VideoBoothOutput:
    """Finished videos, and what they were asked to be.

    Attributes:
        frames: uint8 (b, f, h, w, 3).
        fps: frames per second.
        prompts, subjects: one per video.
    """

    frames: Frames
    fps: float
    prompts: tuple[str, ...]
    subjects: tuple[str, ...]

    def save(
        self, path: str | os.PathLike[str], *, overwrite: bool = False, scale: int | None = None
    ) -> list[Path]:
        """Write .mp4, .gif, .webp or a .png contact sheet; see `outputs.save_videos`."""
        return save_videos(path, self.frames, self.fps, overwrite=overwrite, scale=scale)


class VideoBoothPipeline:
    """A model ready to make videos. It holds weights and no other state."""

    def __init__(
        self,
        config: VideoBoothConfig,
        params: Params,
        tokenizer: Tokenizer,
        mesh: Mesh | None = None,
    ):
        """Join what `from_pretrained` reads; for models still in training.

        Args:
            config, params, tokenizer: of one model.
            mesh: devices to split videos over, of `sharding.make_mesh`; ``params`` lie on it. None:
                the device that ``params`` lie on.

        Raises:
            ValueError: the tokenizer's ids or positions are not those of the text tower.
        """
        text = config.text_encoder
        size = (tokenizer.vocab_size, tokenizer.positions)
        if size[0] > text.vocab_size or size[1] != text.max_position_embeddings:
            raise ValueError(
                f"the tokenizer has {size[0]} ids and {size[1]} positions, the text tower of "
                f"{config.name!r} takes {text.vocab_size} and {text.max_position_embeddings}"
            )
        self.config, self.params, self.tokenizer, self.mesh = config, params, tokenizer, mesh

    @classmethod
    def from_pretrained(
        cls, model: str | os.PathLike[str], dtype: str | None = None, mesh: Mesh | None = None
    ) -> "VideoBoothPipeline":
        """Read a model.

        Args:
            model: the name of a model inside the package ("sprites"), or a model directory.
            dtype: dtype of weights and of the networks' arithmetic ("float32", "bfloat16"); None:
                what the model directory says. Sampling itself is always float32.
            mesh: devices to spread weights and videos over, of `sharding.make_mesh`; None: the
                first device.

        Raises:
            ValueError: no such model, or one that is incomplete, damaged or inconsistent.
        """
        folder = find_model(model)
        shardings = None if mesh is None else weight_shardings(mesh)
        config, params = load_model(folder, dtype=dtype, shardings=shardings)
        if dtype is not None:
            config = with_dtypes(config, dtype=dtype, param_dtype=dtype)
        return cls(config, params, Tokenizer.from_file(folder / "tokenizer.json"), mesh)

    def __call__(
        self,
        prompt: str | Sequence[str],
        image: Picture | Sequence[Picture] | None = None,
        subject: str | Sequence[str] = "",
        *,
        mask: Picture | Sequence[Picture | None] | None = None,
        box: Box | Sequence[Box | None] | None = None,
        point: Point | Sequence[Point | None] | None = None,
        segment: str | WordSegmenter | None = None,
        cut_out: bool = True,
        exemplar: Subject | None = None,
        seed: int = 0,
        count: int = 1,
        batch_size: int = 8,
        progress: Progress = False,
        **options: Unpack[SamplingOptions],
    ) -> VideoBoothOutput:
        """Make videos.

        Lists of prompts, subjects, pictures, masks, boxes and points go together item by item; one
        item goes with all. Video i depends on ``seed``, i and its inputs alone.

        Args:
            prompt: what happens; holds the subject's word.
            image: the subject: a file, a Pillow image or a uint8 array (h, w, 3 or 4).
            subject: the word or words of the prompt that the picture shows.
            mask: a picture of the same size, set where the subject is.
            box: (x1, y1, x2, y2) around the subject, px.
            point: (x, y) of a px of the subject.
            segment: how to tell the subject from its surroundings; see `segmentation.segment`.
            cut_out: False: pictures are finished image prompts, see `requests.read_pictures`.
            exemplar: from `exemplar_features`, instead of ``image``: one subject for all prompts.
            seed: 0 .. 2**32 - 1.
            count: videos per prompt; they follow each other.
            batch_size: most videos made at once.
            progress: False: all steps in one program; True: step by step, with a bar; a function:
                step by step, and it is called with (steps done, steps in all).
            **options: see `SamplingOptions`.

        Raises:
            ValueError: anything that cannot be done, before anything is compiled.
            FileNotFoundError: no such picture.
        """
        whole_number("seed", seed, 0, MAX_WHOLE)
        whole_number("count", count, 1, MAX_WHOLE)
        whole_number("batch_size", batch_size, 1, MAX_WHOLE)
        plan, scale = self._plan(options)
        columns = make_columns(prompt, subject, image, mask, box, point)
        texts = read_texts(self.config, self.tokenizer, columns.prompts, columns.subjects)
        source = self._source(plan, columns, cut_out, segment, exemplar)
        order = np.repeat(np.arange(len(texts.prompts)), count)
        batches = _batches(len(order), rows_at_once(self.mesh, min(batch_size, len(order))))
        made, steps = [], len(batches) * plan.num_inference_steps
        with told(self.mesh), _ticker(progress, steps) as tick:
            for indices in batches:
                conditioning = self._condition(plan, scale, texts, order[indices], source)
                made.append(self._make(plan, conditioning, indices, seed, tick))
        prompts, subjects = (tuple(t[i] for i in order) for t in (texts.prompts, texts.subjects))
        return VideoBoothOutput(np.concatenate(made)[: len(order)], FPS, prompts, subjects)

    def exemplar_features(
        self,
        image: Picture,
        *,
        subject: str = "",
        mask: Picture | None = None,
        box: Box | None = None,
        point: Point | None = None,
        segment: str | WordSegmenter | None = None,
        cut_out: bool = True,
        seed: int = 0,
        **options: Unpack[SamplingOptions],
    ) -> Subject:
        """Work on one subject done once, to be given as ``exemplar`` for many prompts and seeds.

        Where the model noises the exemplar along with the video, its keys and values at every
        timestep of the sampler are kept: at full size (256 x 256, float32) about 23 MB per step.
        Its noise is then the subject's, the same in all its videos.

        Args:
            image, mask, box, point, segment, cut_out: as for a call.
            subject: what to look for, if ``segment`` is "auto".
            seed: of the exemplar's noise, 0 .. 2**32 - 1.
            **options: those of the calls to come; see `SamplingOptions`.

        Raises:
            ValueError: as a call does.
            FileNotFoundError: no such picture.
        """
        plan, _ = self._plan(options)
        whole_number("seed", seed, 0, MAX_WHOLE)
        columns = make_columns("", subject, image, mask, box, point)
        pictures = read_pictures(self.config, columns, plan, cut_out, segment)
        keys = programs.video_keys(np.uint32(seed), np.zeros(1, np.uint32))
        timesteps = self._feature_timesteps(plan)
        with told(self.mesh):
            return self._read(plan, pictures, np.zeros(1, int), timesteps, keys)

    def _plan(self, options: SamplingOptions) -> tuple[Plan, float]:
        plan, scale = make_plan(self.config, options)
        return plan_on(self.mesh, plan), scale

    def _feature_timesteps(self, plan: Plan) -> np.ndarray:
        if self.config.diffusion.exemplar_timestep == "zero":
            return np.zeros(1, np.int32)
        return sampler_of(self.config, plan).timesteps

    def _read(
        self,
        plan: Plan,
        pictures: Pictures,
        rows: np.ndarray,
        timesteps: np.ndarray | None,
        keys: Keys,
    ) -> Subject:
        return call(
            programs.read_subject,
            (self.config, plan.num_frames),
            self.params,
            place(self.mesh, "clip_image", pictures.clip_images[rows]),
            place(self.mesh, "vae_image", pictures.vae_images[rows]),
            self.tokenizer.encode([self.config.diffusion.null_prompt]),
            timesteps,
            place(self.mesh, "keys", keys),
        )

    def _source(
        self,
        plan: Plan,
        columns: Columns,
        cut_out: bool,
        segment: str | WordSegmenter | None,
        exemplar: Subject | None,
    ) -> SubjectOf:
        """The subject or subjects that given rows of the request show.

        One per row, or one if it is the same in all. The last answer is kept: a single subject is
        read once, however many batches show it.
        """
        if exemplar is not None:
            self._check_exemplar(plan, columns, exemplar)
            return lambda rows: exemplar
        pictures = read_pictures(self.config, columns, plan, cut_out, segment)
        clean = self.config.diffusion.exemplar_timestep == "zero" and plan.injection == "fine"
        timesteps = np.zeros(1, np.int32) if clean else None

        @functools.lru_cache(maxsize=1)
        def read(shown: tuple[int, ...]) -> Subject:
            keys = programs.video_keys(np.uint32(0), np.zeros(len(shown), np.uint32))
            return self._read(plan, pictures, np.array(shown), timesteps, keys)

        def subject_of(rows: np.ndarray) -> Subject:
            shown = tuple(pictures.rows[row] for row in rows)
            return read(shown[:1] if len(set(shown)) == 1 else shown)

        return subject_of

    def _check_exemplar(self, plan: Plan, columns: Columns, exemplar: Subject) -> None:
        """Raises ValueError unless the exemplar was made for this plan, and no picture is given."""
        given = (*columns.images, *columns.masks, *columns.boxes, *columns.points)
        if any(value is not None for value in given):
            raise ValueError(
                "give either a picture (with mask, box or point) or exemplar, not both"
            )
        side = min(plan.height, plan.width) // self.config.vae.downsampling
        timesteps = self._feature_timesteps(plan)
        same_steps = np.array_equal(np.asarray(exemplar.timesteps), timesteps)
        if exemplar.latents.shape[1] != side or not same_steps:
            raise ValueError(
                "this exemplar was made for other steps or another size: give exemplar_features "
                "the same sampler, num_inference_steps, height and width as the call"
            )

    def _condition(
        self, plan: Plan, scale: float, texts: Texts, rows: np.ndarray, source: SubjectOf
    ) -> Conditioning:
        subject = source(rows)
        words = None if plan.injection == "text" else subject.words
        states = call(
            programs.read_prompts,
            (self.config,),
            self.params,
            place(self.mesh, "ids", texts.ids[rows]),
            place(self.mesh, "placeholder", texts.placeholder[rows]),
            words,
        )
        return Conditioning(states, subject, jax.device_put(np.float32(scale)))

    def _make(
        self,
        plan: Plan,
        conditioning: Conditioning,
        indices: np.ndarray,
        seed: int,
        tick: Callable[[], None] | None,
    ) -> Frames:
        """Videos of one batch; ``indices`` are theirs in the whole request, for their keys."""
        config, params = self.config, self.params
        keys = programs.video_keys(np.uint32(seed), indices.astype(np.uint32))
        keys = place(self.mesh, "keys", keys)
        noise = place(self.mesh, "latents", programs.start(config, plan, keys))
        if tick is None:
            make = programs.make_videos
            return np.asarray(call(make, (config, plan), params, conditioning, noise, keys))
        denoise = bind(programs.denoise, (config, plan), params, conditioning)
        for _, latents, _ in sample_steps(sampler_of(config, plan), denoise, noise, keys):
            latents.block_until_ready()
            tick()
        return np.asarray(call(programs.decode, (config,), params, latents))


def _batches(count: int, size: int) -> list[np.ndarray]:
    """Indices of every batch, all of ``size``, so that they share their programs.

    The last index is repeated to fill the last batch.
    """
    return [
        np.minimum(np.arange(first, first + size), count - 1) for first in range(0, count, size)
    ]


@contextlib.contextmanager
def _ticker(progress: Progress, total: int) -> Iterator[Callable[[], None] | None]:
    """What to call after every step; None where nobody wants to know."""
    if callable(progress):
        done = itertools.count(1)
        yield lambda: progress(next(done), total)
    elif progress:
        with tqdm(total=total, unit="step") as bar:
            yield lambda: bar.update() and None
    else:
        yield None
