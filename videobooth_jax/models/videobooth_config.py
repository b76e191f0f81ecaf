"""The configuration of a whole model: plain, frozen, checked, and strict when read back."""

import dataclasses
import types
import typing
from typing import Any, Literal

from videobooth_jax.models.autoencoder_kl import AutoencoderKLConfig
from videobooth_jax.models.clip import CLIPTextConfig, CLIPVisionConfig
from videobooth_jax.models.image_projector import ImageProjectorConfig
from videobooth_jax.models.unet_config import UNet3DConfig


@dataclasses.dataclass(frozen=True)
class DiffusionSettings:
    """How the model was trained to denoise, and how it is sampled unless the caller says otherwise.

    The defaults are the published behaviour, quirks included.

    Attributes:
        num_train_timesteps: steps of the training process.
        beta_schedule: its kind: "linear", "scaled_linear" or "cosine".
        beta_start: its first variance.
        beta_end: its last variance.
        prediction_type: what the UNet predicts.
        zero_terminal_snr: whether nothing of the signal is left at the last timestep (not with
            "epsilon").
        exemplar_timestep: "same": the exemplar is noised to the video's timestep; "zero": it is
            given clean, at timestep 0.
        exemplar_mode: "replicated": one copy of the exemplar per frame, each with its own noise;
            "single": one copy.
        guided_channels: guidance acts on the first so many latent channels; None: on all.
        guidance_scale: default strength of guidance.
        sampler: default sampler: "ddpm", "ddim" or "dpmpp_2m".
        num_inference_steps: default number of steps.
        placeholder: the word put into the prompt in place of the subject's word before image words
            replace it; None: the subject's word itself.
        null_prompt: the prompt of the unconditional branch, of dropped training rows and of the
            exemplar branch.

    Raises:
        ValueError: if an option is unknown or does not fit another.
    """

    num_train_timesteps: int = 1000
    beta_schedule: str = "linear"
    beta_start: float = 1e-4
    beta_end: float = 2e-2
    prediction_type: Literal["epsilon", "x0", "v"] = "epsilon"
    zero_terminal_snr: bool = False
    exemplar_timestep: Literal["same", "zero"] = "same"
    exemplar_mode: Literal["replicated", "single"] = "replicated"
    guided_channels: int | None = 3
    guidance_scale: float = 4.0
    sampler: str = "ddpm"
    num_inference_steps: int = 250
    placeholder: str | None = None
    null_prompt: str = "None"

    def __post_init__(self):
        hints = typing.get_type_hints(DiffusionSettings)
        for name in ("prediction_type", "exemplar_timestep", "exemplar_mode"):
            _restore(hints[name], getattr(self, name), f"diffusion.{name}")
        if self.zero_terminal_snr and self.prediction_type == "epsilon":
            raise ValueError(
                'zero_terminal_snr does not go with prediction_type="epsilon": '
                'the noise alone says nothing at the last timestep; use "v"'
            )


@dataclasses.dataclass(frozen=True)
class VideoBoothConfig:
    """Everything needed to build a model and sample from it.

    Attributes:
        name: what to call it.
        unet, vae, text_encoder, vision_encoder, projector: the networks.
        diffusion: noise process and sampling defaults.
        vision_layers: which hidden states of the image tower become words, one each: i is after
            layer i, 0 before the first, -1 after the last.
        contrastive_dim: width of the joint space of the CLIP pair, or None for a model without a
            contrastive head.
        num_frames, height, width: default size of videos, in frames and pixels.
        subject_share: longer side of the subject in the image prompt, as a share of the picture's;
            None: the subject fills it, as published.

    Raises:
        ValueError: if the networks do not fit each other.
    """

    name: str
    unet: UNet3DConfig
    vae: AutoencoderKLConfig
    text_encoder: CLIPTextConfig
    vision_encoder: CLIPVisionConfig
    projector: ImageProjectorConfig
    diffusion: DiffusionSettings
    vision_layers: tuple[int, ...] = (-1, 4, 8, 12, 16)
    contrastive_dim: int | None = None
    num_frames: int = 16
    height: int = 256
    width: int = 256
    subject_share: float | None = None

    def __post_init__(self):
        self._check_widths()
        depth = self.vision_encoder.num_hidden_layers
        outside = [layer for layer in self.vision_layers if not -1 <= layer <= depth]
        if outside:
            raise ValueError(
                f"vision_layers {outside} do not exist: "
                f"the image tower has layers 0 .. {depth}, and -1 for the last"
            )
        factor = self.vae.downsampling
        if self.height % factor or self.width % factor or self.num_frames < 1:
            raise ValueError(
                f"videos of {self.num_frames} frames, {self.height} x {self.width}: give at least "
                f"one frame, and multiples of the autoencoder's {factor} as height and width"
            )

    def _check_widths(self) -> None:
        pairs = (
            (
                "vae.latent_channels",
                self.vae.latent_channels,
                "unet.in_channels",
                self.unet.in_channels,
            ),
            (
                "unet.in_channels",
                self.unet.in_channels,
                "unet.out_channels",
                self.unet.out_channels,
            ),
            (
                "text_encoder.hidden_size",
                self.text_encoder.hidden_size,
                "unet.cross_attention_dim",
                self.unet.cross_attention_dim,
            ),
            (
                "projector.output_dim",
                self.projector.output_dim,
                "text_encoder.hidden_size",
                self.text_encoder.hidden_size,
            ),
            (
                "projector.input_dim",
                self.projector.input_dim,
                "vision_encoder.hidden_size",
                self.vision_encoder.hidden_size,
            ),
            (
                "projector.num_words",
                self.projector.num_words,
                "the number of vision_layers",
                len(self.vision_layers),
            ),
        )
        wrong = [f"{a} is {x} but {b} is {y}" for a, x, b, y in pairs if x != y]
        if wrong:
            raise ValueError("the networks do not fit each other: " + "; ".join(wrong))

    def latent_shape(
        self, num_frames: int | None = None, height: int | None = None, width: int | None = None
    ) -> tuple[int, int, int, int]:
        """``(frames, height, width, channels)`` of one video's latents; sizes given in pixels."""
        factor = self.vae.downsampling
        return (
            num_frames or self.num_frames,
            (height or self.height) // factor,
            (width or self.width) // factor,
            self.vae.latent_channels,
        )


NETWORKS = ("unet", "vae", "text_encoder", "vision_encoder", "projector")


def with_dtypes(
    config: VideoBoothConfig, dtype: str | None = None, param_dtype: str | None = None
) -> VideoBoothConfig:
    """The same model with other compute and/or parameter dtypes in every network."""
    changes = {"dtype": dtype, "param_dtype": param_dtype}
    changes = {key: value for key, value in changes.items() if value is not None}
    networks = {n: dataclasses.replace(getattr(config, n), **changes) for n in NETWORKS}
    return dataclasses.replace(config, **networks)


def config_to_dict(config: VideoBoothConfig) -> dict[str, Any]:
    """A nested dict of plain values, ready for JSON."""
    return dataclasses.asdict(config)


def config_from_dict(values: dict[str, Any]) -> VideoBoothConfig:
    """The inverse of `config_to_dict`, also after a trip through JSON (lists become tuples again).

    Raises:
        ValueError: naming every unknown and missing key of a section, or the key whose value has
            the wrong type, or what does not fit together.
    """
    return _restore(VideoBoothConfig, values, "the configuration")


ADDED_LATER: dict[type, frozenset[str]] = {UNet3DConfig: frozenset({"remat"})}
"""Fields younger than the first stored configurations: where a section lacks one, its default is
taken."""


def _restore(kind: Any, value: Any, where: str) -> Any:
    """``value`` as the annotated type ``kind``, or an error that says ``where`` it went wrong."""
    if dataclasses.is_dataclass(kind):
        return _restore_section(kind, value, where)
    origin, choices = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        (inner,) = (c for c in choices if c is not types.NoneType)
        return None if value is None else _restore(inner, value, where)
    if origin is Literal:
        if value not in choices:
            raise ValueError(f"{where} is {value!r}; choose one of {', '.join(map(repr, choices))}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where} must be a list, not {value!r}")
        return tuple(_restore(choices[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    allowed = (int, float) if kind is float else (kind,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where} must be of type {kind.__name__}, not {value!r}")
    return value


def _restore_section(kind: Any, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"{where} must be a table of settings, not {values!r}")
    hints = typing.get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind)}
    required = names - ADDED_LATER.get(kind, frozenset())
    unknown, missing = sorted(values.keys() - names), sorted(required - values.keys())
    if unknown or missing:
        parts = [
            f"{what}: {', '.join(keys)}"
            for what, keys in (("unknown", unknown), ("missing", missing))
            if keys
        ]
        raise ValueError(f"{where} has other keys than {kind.__name__}: {'; '.join(parts)}")
    prefix = "" if kind is VideoBoothConfig else f"{where}."
    return kind(**{n: _restore(hints[n], values[n], f"{prefix}{n}") for n in names & values.keys()})
