"""The image prompt of training: another view of the subject than the video's own.

The video's own picture, shown unchanged, could be copied; so a side of its box is trimmed (stage
2), and it is flipped, turned, scaled and shifted on white before the published resizes. What the
CLIP tower sees and what the autoencoder sees are drawn independently of each other.
"""

import dataclasses
import math

import numpy as np
from PIL import Image

from videobooth_jax.data.image_prompt import Picture, cut_out, open_picture


@dataclasses.dataclass(frozen=True)
class PromptAugment:
    """How far an image prompt may be changed; every draw is uniform. The defaults change nothing.

    Attributes:
        trim: least and largest share of the box that is cut off one of its four sides.
        flip: probability of a mirror image.
        rotation: largest angle either way, degrees.
        scale: least and largest.
        clip_shift: largest shift across and down, either way, of what the CLIP tower sees, shares
            of the square's side.
        vae_shift: the same of what the autoencoder sees.
    """

    trim: tuple[float, float] = (0.0, 0.0)
    flip: float = 0.0
    rotation: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    clip_shift: tuple[float, float] = (0.0, 0.0)
    vae_shift: tuple[float, float] = (0.0, 0.0)


COARSE = PromptAugment(
    flip=0.5, rotation=30.0, scale=(0.8, 1.2), clip_shift=(0.0, 0.1), vae_shift=(0.1, 0.1)
)
AUGMENTS = {
    "none": PromptAugment(),
    "coarse": COARSE,
    "fine": dataclasses.replace(COARSE, trim=(0.01, 0.2)),
}
"""By name; "coarse" and "fine" are the paper's two stages."""


def augment_prompt(
    picture: Picture, augment: PromptAugment, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """What the CLIP tower and what the autoencoder are shown of a picture, before they are resized.

    Args:
        picture: the subject's box, transparent or white where the subject is not.
        augment: how it may be changed.
        rng: draws the changes, as many numbers whatever ``augment`` says.

    Returns:
        Two squares on white, uint8 (side, side, 3), of the trimmed box's longer side, px.

    Raises:
        ValueError: the picture cannot be read, or shows hardly anything (`image_prompt.cut_out`).
    """
    image = open_picture(picture)
    square = cut_out(image, box=trimmed_box(image.size, augment.trim, rng))
    for_clip, for_vae = (
        placement(len(square), augment, shift, rng)
        for shift in (augment.clip_shift, augment.vae_shift)
    )
    return move(square, for_clip), move(square, for_vae)


def trimmed_box(
    size: tuple[int, int], trim: tuple[float, float], rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """The whole of a picture of ``size`` (width, height) less a share of one side, (x1, y1, x2,
    y2) in px."""
    side, share = rng.integers(4), rng.uniform(*trim)
    width, height = size
    box = [0.0, 0.0, float(width), float(height)]
    box[side] += (1 if side < 2 else -1) * share * (width, height)[side % 2]
    return (box[0], box[1], box[2], box[3])


def placement(
    side: int, augment: PromptAugment, shift: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """Where each point of a square goes, float64 (2, 3): flipped, scaled and turned about its
    centre, then shifted.

    Points are (x, y) in px, y downwards, the first pixel's centre at (0.5, 0.5); angles count
    counter-clockwise.
    """
    mirror = -1.0 if rng.random() < augment.flip else 1.0
    angle = math.radians(rng.uniform(-augment.rotation, augment.rotation))
    scale = rng.uniform(*augment.scale)
    across, down = rng.uniform(-1, 1, 2) * shift * np.float64(side)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    turn = np.array([[mirror * cos, sin], [-mirror * sin, cos]])
    centre = np.full(2, side / 2)
    return np.column_stack([turn, centre + np.array([across, down]) - turn @ centre])


def move(square: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """A picture, uint8 (h, w, 3), whose points go where ``matrix`` (2, 3) says: bilinear, what
    leaves it is lost, white comes in. The identity changes no bit.
    """
    if np.array_equal(matrix, np.eye(2, 3)):
        return square
    back = np.linalg.inv(np.vstack([matrix, (0, 0, 1)]))  # Pillow asks where a pixel comes from
    moved = Image.fromarray(square).transform(
        (square.shape[1], square.shape[0]),
        Image.Transform.AFFINE,
        tuple(back[:2].ravel()),
        Image.Resampling.BILINEAR,
        fillcolor=(255, 255, 255),
    )
    return np.asarray(moved)
