"""What a training run is: one frozen dataclass, made from a ConfigDict at the door.

A config file under ``configs/`` starts from :func:`default_config` and states only what differs.
Everything, the model's sizes included, can be overridden on the command line
(``--config.optimizer.learning_rate=3e-4``).
"""

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from videobooth_jax.models.sizes import SIZES
from videobooth_jax.models.videobooth import VideoBoothConfig, config_from_dict, config_to_dict
from videobooth_jax.sharding import MeshSizes

Task = Literal["autoencoder", "clip", "diffusion"]


@dataclass(frozen=True)
class OptimizerConfig:
    """A global-norm clip, then the optimizer; the defaults are the published trainers'.

    ``name`` "muon" orthogonalises the momentum of every matrix and convolution (Jordan et al.
    2024), scaled so that AdamW's learning rates carry over; biases and norms stay with AdamW.
    """

    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 1e-4
    warmup_steps: int = 0
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: float = 0.0
    clip_norm: float = 0.1
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8


@dataclass(frozen=True)
class DataConfig:
    """Where examples come from.

    ``source`` "sprites" renders them; "clips" reads a dataset that ``videobooth prepare`` wrote,
    "latents" what ``videobooth precompute`` made of one. These lie at ``path``; several, mixed, at
    ``paths``, in shares that are proportional to ``weights``, by default to their sizes.
    ``augment`` changes image prompts of pixels ("coarse", "fine": the paper's stages); ``window``
    is how many source frames the ``num_frames`` of a clip are spread over. ``vision_features``
    takes the image tower's work from the latents, too. ``worker_count`` processes prepare batches
    (0: a thread of this one), each keeping ``read_ahead`` ready.
    """

    source: Literal["sprites", "clips", "latents"] = "sprites"
    path: str = ""
    paths: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    split: str = "train"
    augment: Literal["none", "coarse", "fine"] = "none"
    window: int = 64
    vision_features: bool = False
    batch_size: int = 16
    num_frames: int = 16
    shuffle_seed: int = 0
    worker_count: int = 0
    read_ahead: int = 2

    def __post_init__(self):
        """Raise ValueError for numbers that cannot be meant."""
        least = {"batch_size": 1, "num_frames": 1, "window": 1, "worker_count": 0, "read_ahead": 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ValueError(f"data.{name} must be at least {value}, not {getattr(self, name)}")

    @property
    def folders(self) -> tuple[str, ...]:
        """``path`` or ``paths``, whichever is given.

        Raises:
            ValueError: both are, or neither is.
        """
        if bool(self.path) == bool(self.paths):
            raise ValueError(
                f"data.source {self.source!r} reads one folder, data.path, or a mixture of "
                f"several, data.paths; given are path={self.path!r} and paths={self.paths!r}"
            )
        return self.paths or (self.path,)


@dataclass(frozen=True)
class ObjectiveConfig:
    """What the diffusion task feeds and minimises.

    ``kv`` whose keys/values run (paper stages: "coarse", "fine"; "plain" is text-to-video alone).
    ``words`` replaces the subject's word by image embeddings; ``exemplar`` injects the picture
    into attn1. ``drop_probability`` drops text and exemplar together; a dropped row's exemplar is
    ``dropped_exemplar``: "zeros" (VAE of zeros, as published) or "none" (as at sampling).
    ``respacing`` "250" is what the published trainers end up drawing timesteps from.
    """

    kv: Literal["plain", "coarse", "fine"] = "fine"
    words: bool = True
    exemplar: bool = True
    drop_probability: float = 0.1
    dropped_exemplar: Literal["zeros", "none"] = "zeros"
    embedding_l1_weight: float = 0.01
    respacing: str = "250"
    sample_posterior: bool = True
    watermark: bool = False
    kl_weight: float = 1e-3


@dataclass(frozen=True)
class ValidationConfig:
    """A loss on examples the run does not train on: every ``every`` steps (0: never), the averaged
    weights, always the same ``batches`` batches with the same draws.

    The examples are those of ``split`` of the training data's dataset, or of the one at ``path``;
    of latents, which have no splits, those at ``path``.
    """

    every: int = 0
    batches: int = 4
    split: str = "validation"
    path: str = ""

    def __post_init__(self):
        """Raise ValueError for numbers that cannot be meant."""
        for name, least in {"every": 0, "batches": 1}.items():
            if getattr(self, name) < least:
                given = getattr(self, name)
                raise ValueError(f"validation.{name} must be at least {least}, not {given}")


@dataclass(frozen=True)
class TrainConfig:
    """One run of the loop.

    Beside the ``keep_checkpoints`` newest checkpoints stay the ``keep_best`` ones whose
    ``best_metric``, averaged over the reports of the last ``checkpoint_every`` steps, is the best:
    the smallest, or with ``best_mode`` "max" the largest; "validation_loss" and the like are there
    where ``validation`` is asked for. ``accumulate_steps`` is in how many
    parts a batch goes through the model, one after the other, to one update.
    ``max_nonfinite_steps`` is how many steps on end may be skipped because loss or gradient is not
    finite. ``profile_steps`` steps from ``profile_start`` (counted from 0) are recorded; 0: none.
    """

    name: str
    task: Task
    model: VideoBoothConfig
    trainable: tuple[str, ...]
    copies: tuple[str, ...] = ()
    init_from: str = ""
    steps: int = 1000
    seed: int = 0
    ema_decay: float = 0.9999
    frozen_dtype: str = "float32"
    log_every: int = 20
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    keep_best: int = 1
    best_metric: str = "loss"
    best_mode: Literal["min", "max"] = "min"
    accumulate_steps: int = 1
    max_nonfinite_steps: int = 10
    profile_start: int = 10
    profile_steps: int = 0
    sample_every: int = 0
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    mesh: MeshSizes = field(default_factory=MeshSizes)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)


def default_config(size: str) -> ConfigDict:
    """Every field with its default, for a model of ``SIZES[size]``; ``name``, ``task`` and
    ``trainable`` are yours to set.
    """
    config = ConfigDict(
        {
            "name": "",
            "task": "diffusion",
            "trainable": (),
            "model": _open(VideoBoothConfig, config_to_dict(SIZES[size])),
        },
        type_safe=True,
    )
    for f in dataclasses.fields(TrainConfig):
        if f.name in config:
            continue
        default: Any = f.default
        if default is dataclasses.MISSING:
            default = dataclasses.asdict(cast(Any, f.default_factory)())
        config[f.name] = default
    return config


def _open(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """``values`` of a dataclass with placeholders of the annotated type for None, whose type
    ml_collections could not tell, so that the command line can set those fields too.
    """
    hints = typing.get_type_hints(kind)

    def leaf(hint: Any, value: Any) -> Any:
        if dataclasses.is_dataclass(hint):
            return _open(cast(type, hint), value)
        if value is not None:
            return value
        (inner,) = (t for t in typing.get_args(hint) if t is not types.NoneType)
        return placeholder(typing.get_origin(inner) or inner)

    return {name: leaf(hints[name], value) for name, value in values.items()}


def from_config_dict(config: ConfigDict) -> TrainConfig:
    """Turn a ConfigDict into a :class:`TrainConfig`; nothing past this door sees a ConfigDict.

    Raises:
        ValueError: unknown or missing keys, or a value outside a field's choices; all of a
        section are named together.
    """
    return _build(TrainConfig, config.to_dict(), "config")


def _build(cls: type, values: dict[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(cls)
    names = {f.name for f in dataclasses.fields(cls)}
    unknown, missing = sorted(set(values) - names), sorted(names - set(values))
    if unknown or missing:
        raise ValueError(f"{where}: unknown keys {unknown}, missing keys {missing}")
    return cls(**{k: _field(hints[k], v, f"{where}.{k}") for k, v in values.items()})


def _field(hint: Any, value: Any, where: str) -> Any:
    if hint is VideoBoothConfig:
        return config_from_dict(value)
    if dataclasses.is_dataclass(hint):
        return _build(cast(type, hint), value, where)
    if typing.get_origin(hint) is Literal and value not in typing.get_args(hint):
        raise ValueError(f"{where} is {value!r}; choose one of {list(typing.get_args(hint))}")
    if typing.get_origin(hint) in (tuple, types.GenericAlias):
        return tuple(value)
    return value
