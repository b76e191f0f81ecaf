"""Which file holds which part of the model: data only.

The paths here are those of the whole model. `FILES` says per file, named as the options of
``videobooth convert`` and, with ``.safetensors``, the files of ``videobooth export``, where the
usual folders keep it and which `Table` it follows.
"""

from dataclasses import dataclass

from videobooth_jax.conversion.name_map import INJECTED, UNET, Rule, Table, under
from videobooth_jax.conversion.name_map_towers import (
    CLIP_TEXT,
    CLIP_VISION,
    CONTRASTIVE_HEAD,
    PROJECTOR,
    VAE,
)


@dataclass(frozen=True)
class File:
    """One file of weights.

    Attributes:
      table: its names; every path of the model is in one file's table.
      example: where it comes from, for messages.
      folders: sub-folders of a pipeline that hold it.
      optional: rules that only count where the model has the parameter.
    """

    table: Table
    example: str
    folders: tuple[str, ...] = ()
    optional: tuple[Rule, ...] = ()


def _part(name: str, table: Table) -> Table:
    return Table(under("", name, table.rules), table.aliases, table.ignored)


def _aside(*tables: Table) -> Table:
    """Names that a file may hold for another part of the model."""
    names = tuple(rule.torch for table in tables for rule in table.rules)
    return Table((), ignored=names + tuple(n for table in tables for n in table.ignored))


HEAD = _part("contrastive_head", CONTRASTIVE_HEAD)

FILES: dict[str, File] = {
    "unet": File(_part("unet", UNET), "CompVis/stable-diffusion-v1-4", ("unet",)),
    "mapper": File(
        _part("projector", PROJECTOR) + _part("unet", INJECTED), "the published mapper.pt"
    ),
    "vae": File(_part("vae", VAE), "stabilityai/sd-vae-ft-ema", ("vae",)),
    "text_encoder": File(
        _part("text_encoder", CLIP_TEXT) + _aside(CLIP_VISION),
        "openai/clip-vit-large-patch14",
        ("text_encoder",),
        HEAD.rules,
    ),
    "vision_encoder": File(
        _part("vision_encoder", CLIP_VISION) + _aside(CLIP_TEXT, CONTRASTIVE_HEAD),
        "openai/clip-vit-large-patch14",
        ("image_encoder", "vision_encoder"),
    ),
}


def table_of(file: File, contrastive: bool) -> Table:
    """The names of a file, given whether the model has a contrastive head."""
    head = Table(file.optional)
    return file.table + (head if contrastive else _aside(head))
