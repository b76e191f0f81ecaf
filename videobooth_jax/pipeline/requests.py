"""What people ask for, checked and turned into arrays before anything is compiled."""

import dataclasses
import math
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypedDict, Unpack

import numpy as np

from videobooth_jax.checkpointing import load_config
from videobooth_jax.data import image_prompt
from videobooth_jax.data.image_prompt import Box, Picture
from videobooth_jax.data.tokenizer import Tokenizer
from videobooth_jax.diffusion.samplers import Sampler, make_sampler
from videobooth_jax.diffusion.schedules import NoiseSchedule, make_schedule
from videobooth_jax.models.unet_config import KVMode
from videobooth_jax.models.videobooth import VideoBoothConfig
from videobooth_jax.pipeline.finding import find_model
from videobooth_jax.segmentation import Point, WordSegmenter, check_method, segment

INJECTIONS: dict[str, KVMode] = {"fine": "fine", "coarse": "coarse", "text": "plain"}
"""What the picture does -> whose keys and values run. ``fine``: words and exemplar; ``coarse``:
words alone; ``text``: nothing, the base text-to-video model."""

MAX_FRAMES, MAX_SIZE = 8, 4
"""The longest and largest videos made, in multiples of the model's own length and sides."""
MAX_WHOLE = 2**32 - 1
"""The largest seed, and count of videos."""


class SamplingOptions(TypedDict, total=False):
    """How to sample; what is left out, or None, is the model's own choice.

    Attributes:
        num_frames: length of the videos.
        height, width: size of the videos, px; multiples of the autoencoder's factor.
        num_inference_steps: denoising steps.
        guidance_scale: weight of prompt and picture; 1: no guidance, in half the time.
        sampler: a key of `diffusion.samplers.SAMPLERS`.
        injection: what the picture does, a key of `INJECTIONS`; "fine" if left out.
    """

    num_frames: int | None
    height: int | None
    width: int | None
    num_inference_steps: int | None
    guidance_scale: float | None
    sampler: str | None
    injection: str | None


@dataclasses.dataclass(frozen=True)
class Plan:
    """The choices that shape the compiled programs; hashable.

    ``branches`` of guidance go through the UNet "together", or "apart" in two calls: half the
    memory, and frames that are split over devices stay split.
    """

    num_frames: int
    height: int
    width: int
    sampler: str
    num_inference_steps: int
    injection: str
    guided: bool
    branches: Literal["together", "apart"] = "together"

    @property
    def kv(self) -> KVMode:
        """Whose keys and values the UNet uses."""
        return INJECTIONS[self.injection]


@dataclasses.dataclass(frozen=True)
class Texts:
    """One row per prompt: int32 ids (n, positions) and placeholder (n, m), padded with -1."""

    prompts: tuple[str, ...]
    subjects: tuple[str, ...]
    ids: np.ndarray
    placeholder: np.ndarray


@dataclasses.dataclass(frozen=True)
class Pictures:
    """s different pictures of subjects, as the networks take them.

    ``clip_images`` (s, H, W, 3) CLIP-normalised and ``vae_images`` (s, h, w, 3) in [-1, 1], both
    float32. ``rows`` says which of them each row of the request shows.
    """

    clip_images: np.ndarray
    vae_images: np.ndarray
    rows: tuple[int, ...]


def make_plan(config: VideoBoothConfig, options: SamplingOptions) -> tuple[Plan, float]:
    """Fill in the model's own choices and refuse what it cannot do.

    Returns:
        The plan, and the guidance scale.

    Raises:
        ValueError: naming the option, what was given and what is possible.
        TypeError: an option that does not exist.
    """
    if unknown := options.keys() - SamplingOptions.__annotations__.keys():
        known = ", ".join(SamplingOptions.__annotations__)
        raise TypeError(f"unknown option {sorted(unknown)[0]!r}; the options are {known}")
    settings = config.diffusion
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    injection = given.get("injection", "fine")
    if injection not in INJECTIONS:
        raise ValueError(f"unknown injection {injection!r}; choose one of {', '.join(INJECTIONS)}")
    scale = given.get("guidance_scale", settings.guidance_scale)
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not math.isfinite(scale):
        raise ValueError(f"guidance_scale must be a finite number, not {scale!r}")

    def size(name: str, most: int, step: int) -> int:
        own = getattr(config, name)
        return whole_number(name, given.get(name, own), step, most * own, step)

    steps = given.get("num_inference_steps", settings.num_inference_steps)
    plan = Plan(
        num_frames=size("num_frames", MAX_FRAMES, 1),
        height=size("height", MAX_SIZE, config.vae.downsampling),
        width=size("width", MAX_SIZE, config.vae.downsampling),
        sampler=given.get("sampler", settings.sampler),
        num_inference_steps=whole_number(
            "num_inference_steps", steps, 1, settings.num_train_timesteps
        ),
        injection=injection,
        guided=scale != 1,
    )
    sampler_of(config, plan)
    return plan, float(scale)


def sampler_of(config: VideoBoothConfig, plan: Plan) -> Sampler:
    """The sampler a plan names, on the model's schedule. Raises ValueError, see `make_sampler`."""
    settings = config.diffusion
    return make_sampler(
        plan.sampler, schedule_of(config), plan.num_inference_steps, settings.prediction_type
    )


def schedule_of(config: VideoBoothConfig) -> NoiseSchedule:
    """The process the model was trained on."""
    settings = config.diffusion
    return make_schedule(
        settings.num_train_timesteps,
        settings.beta_schedule,
        settings.beta_start,
        settings.beta_end,
        settings.zero_terminal_snr,
    )


def whole_number(name: str, given: Any, low: int, high: int, step: int = 1) -> int:
    """``given`` as an int.

    Raises:
        ValueError: unless it is a multiple of ``step`` in [low, high].
    """
    if isinstance(given, bool) or not isinstance(given, int | np.integer):
        raise ValueError(f"{name} must be a whole number, not {given!r}")
    if not low <= given <= high:
        raise ValueError(f"{name} must be between {low} and {high}, not {given}")
    if given % step:
        raise ValueError(f"{name} must be a multiple of {step}, not {given}")
    return int(given)


@dataclasses.dataclass(frozen=True)
class Columns:
    """A request, item by item; all lists have one length."""

    prompts: list[str]
    subjects: list[str]
    images: list[Picture]
    masks: list[Picture | None]
    boxes: list[Box | None]
    points: list[Point | None]


def check_request(
    model: str | os.PathLike[str],
    prompt: str | Sequence[str],
    subject: str | Sequence[str] = "",
    *,
    seed: int = 0,
    count: int = 1,
    **options: Unpack[SamplingOptions],
) -> None:
    """What a call would raise of its texts and numbers, without reading any weights.

    Args:
        model: as for `VideoBoothPipeline.from_pretrained`.
        prompt, subject, seed, count, **options: as for a call.

    Raises:
        ValueError: as a call does, or no such model.
    """
    whole_number("seed", seed, 0, MAX_WHOLE)
    whole_number("count", count, 1, MAX_WHOLE)
    folder = find_model(model)
    config, columns = load_config(folder), make_columns(prompt, subject, None, None, None)
    make_plan(config, options)
    tokenizer = Tokenizer.from_file(folder / "tokenizer.json")
    read_texts(config, tokenizer, columns.prompts, columns.subjects)


def make_columns(
    prompt: Any, subject: Any, image: Any, mask: Any, box: Any, point: Any = None
) -> Columns:
    """Put lists together item by item; one item goes with all.

    Raises:
        ValueError: an empty list, or two lists of more than one item that differ in length.
    """
    columns = {
        "prompt": _as_list(prompt),
        "subject": _as_list(subject),
        "image": _as_list(image),
        "mask": _as_list(mask),
        "box": [box] if _is_one(box) else list(box),
        "point": [point] if _is_one(point) else list(point),
    }
    if empty := [name for name, items in columns.items() if not items]:
        raise ValueError(f"{empty[0]} is an empty list: give at least one")
    lengths = {name: len(items) for name, items in columns.items() if len(items) > 1}
    if len(set(lengths.values())) > 1:
        given = ", ".join(f"{count} of {name}" for name, count in lengths.items())
        raise ValueError(f"lists must have one length, or one item for all: got {given}")
    longest = max(lengths.values(), default=1)
    return Columns(*(items * longest if len(items) == 1 else items for items in columns.values()))


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _is_one(place: Any) -> bool:
    """Whether this is one box or point (or none), rather than a list of them."""
    return place is None or (len(place) > 0 and isinstance(place[0], int | float | np.number))


def read_texts(
    config: VideoBoothConfig, tokenizer: Tokenizer, prompts: Sequence[str], subjects: Sequence[str]
) -> Texts:
    """Tokenize prompts and find the subject's word in each.

    Raises:
        ValueError: the subject's word is not in the prompt, or it, or the image words that replace
            it, would be cut off at the end of the text tower's positions.
    """
    for name, texts in (("prompt", prompts), ("subject", subjects)):
        if wrong := [text for text in texts if not isinstance(text, str)]:
            raise ValueError(f"{name} must be text, not {wrong[0]!r}")
    words = [config.diffusion.placeholder or subject for subject in subjects]
    written = []
    for prompt, subject, word in zip(prompts, subjects, words, strict=True):
        tokenizer.subject_span(prompt, subject)
        written.append(_replace_word(prompt, subject, word))
        start, _ = tokenizer.subject_span(written[-1], word)
        if start + config.projector.num_words > tokenizer.positions - 1:
            raise ValueError(
                f"the subject {subject!r} is cut off: the picture takes "
                f"{config.projector.num_words} positions from position {start} of the prompt on, "
                f"and there are {tokenizer.positions}; shorten the prompt or name it earlier"
            )
    return Texts(
        tuple(prompts), tuple(subjects), tokenizer.encode(written), tokenizer.placeholder(words)
    )


def _replace_word(prompt: str, subject: str, word: str) -> str:
    """The prompt with the subject's word, wherever it stands alone, replaced."""
    if word == subject:
        return prompt
    pattern = r"\s+".join(map(re.escape, subject.split()))
    return re.sub(rf"(?<!\w){pattern}(?!\w)", lambda _: word, prompt, flags=re.IGNORECASE)


def read_pictures(
    config: VideoBoothConfig,
    columns: Columns,
    plan: Plan,
    cut_out: bool = True,
    method: str | WordSegmenter | None = None,
) -> Pictures:
    """Cut the subjects out of their pictures; equal ones are kept once.

    Args:
        config: the model.
        columns: the request.
        plan: whose size the pictures get.
        cut_out: False: pictures are image prompts already, as `training` sees them: square, the
            subject on white at the scale that it has in the videos.
        method: how subjects are told from their surroundings, see `segmentation.segment`.

    Raises:
        ValueError: a picture or hint that cannot be used, or no subject found in it.
        FileNotFoundError: no such file.
        ImportError: the method needs a library that is not installed.
    """
    if any(image is None for image in columns.images):
        raise ValueError("a picture of the subject is missing: give image")
    side = min(plan.height, plan.width)
    squares = list(_cut_outs(columns, method) if cut_out else _as_they_are(columns, method))
    if cut_out and config.subject_share is not None:
        placed = image_prompt.place_on_canvas
        squares = [placed(square, side, config.subject_share) for square in squares]
    keys = [square.tobytes() for square in squares]
    found = dict(zip(keys, squares, strict=True))
    places = {key: row for row, key in enumerate(found)}
    clip_side = config.vision_encoder.image_size
    clip = [image_prompt.resize(square, clip_side) for square in found.values()]
    vae = [image_prompt.resize(square, side) for square in found.values()]
    return Pictures(
        image_prompt.clip_input(np.stack(clip)),
        image_prompt.vae_input(np.stack(vae)),
        tuple(places[key] for key in keys),
    )


def _cut_outs(columns: Columns, method: str | WordSegmenter | None) -> Iterator[np.ndarray]:
    """The subjects on white, filling their squares, uint8 (side, side, 3)."""
    rows = list(
        zip(
            columns.images,
            columns.masks,
            columns.boxes,
            columns.points,
            columns.subjects,
            strict=True,
        )
    )
    for _, mask, box, point, subject in rows:
        name = "auto" if isinstance(method, WordSegmenter) else method
        check_method(name, mask=mask, box=box, point=point, subject=subject)
    if method == "auto":
        method = WordSegmenter.load()
    for image, mask, box, point, subject in rows:
        found = segment(image, method, mask=mask, box=box, point=point, subject=subject)
        yield found.square()


def _as_they_are(columns: Columns, method: str | WordSegmenter | None) -> Iterator[np.ndarray]:
    """Finished image prompts, uint8 (side, side, 3)."""
    hints = (*columns.masks, *columns.boxes, *columns.points, method)
    if any(hint is not None for hint in hints):
        raise ValueError(
            "mask, box, point and segment are for cutting out: leave them away, or leave cut_out on"
        )
    for image in columns.images:
        square = np.asarray(image_prompt.open_picture(image).convert("RGB"))
        if square.shape[0] != square.shape[1]:
            raise ValueError(
                "an image prompt that is not to be cut out must be square, not "
                f"{square.shape[1]}x{square.shape[0]} px"
            )
        yield square
