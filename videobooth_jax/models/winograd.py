"""3x3 convolutions with fewer multiplications, for CPUs.

Winograd's minimal filtering F(2x2, 3x3) (Lavin and Gray 2016, arXiv 1509.09308): a tile of 2x2
results takes 16 products instead of 36. With 4x4 tiles d of the input, half overlapping, and
kernels g,

    Y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A,

summed over input channels, which makes every one of the 16 entries a matrix product. A and B hold
0 and ±1, G halves: in float32 results differ from a plain convolution's by rounding, about 1e-5.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from videobooth_jax.typing import Array

MIN_CHANNELS, MIN_TILES = 128, 128
"""Below, making tiles costs more than the multiplications saved (measured on two cores)."""
PLAIN: dict[str, Any] = {
    "window_strides": (1, 1),
    "padding": ((1, 1), (1, 1)),
    "dimension_numbers": lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)),
}
"""A 3x3 convolution over height and width of (n, h, w, c), zero outside."""


def convolve(
    inputs: Array, kernel: Array, window_strides: Any, padding: Any, **options: Any
) -> Array:
    """`jax.lax.conv_general_dilated`, which it is unless a program is lowered for a CPU and
    Winograd's way pays; differentiated, it is always the plain one, and so is its gradient.
    """
    images, height, width, channels = inputs.shape
    tiles = images * (-(-height // 2)) * (-(-width // 2))
    pays = channels >= MIN_CHANNELS and tiles >= MIN_TILES and inputs.dtype == jnp.float32
    if pays and kernel.shape[:2] == (3, 3) and tuple(window_strides) == (1, 1):
        return _by_platform(inputs, kernel)
    return lax.conv_general_dilated(inputs, kernel, window_strides, padding, **options)


@jax.custom_vjp
def _by_platform(inputs: Array, kernel: Array) -> Array:
    return lax.platform_dependent(inputs, kernel, cpu=winograd, default=_plain)


def _plain(inputs: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(inputs, kernel, **PLAIN)


_by_platform.defvjp(
    lambda inputs, kernel: (_plain(inputs, kernel), (inputs, kernel)),
    lambda given, cotangent: jax.vjp(_plain, *given)[1](cotangent),
)


def winograd(inputs: Array, kernel: Array) -> Array:
    """A 3x3 convolution, zero outside.

    Args:
        inputs: (n, h, w, c).
        kernel: (3, 3, c, outputs).

    Returns:
        (n, h, w, outputs).
    """
    images, height, width, channels = inputs.shape
    tall, wide = -(-height // 2), -(-width // 2)  # tiles
    edges = ((0, 0), (1, 1 + 2 * tall - height), (1, 1 + 2 * wide - width), (0, 0))
    bands = _times_b(jnp.pad(inputs, edges), 1, tall)
    tiles = [[tile.reshape(-1, channels) for tile in _times_b(band, 2, wide)] for band in bands]
    kernels = [_times_g([column[y] for y in range(3)]) for column in _columns(kernel)]
    products = [[tiles[a][b] @ kernels[b][a] for b in range(4)] for a in range(4)]
    columns = [_times_a([products[a][b] for a in range(4)]) for b in range(4)]
    results = [_times_a([columns[b][y] for b in range(4)]) for y in range(2)]
    stacked = jnp.stack([jnp.stack(row, axis=1) for row in results], axis=1)  # tile, y, x, output
    stacked = stacked.reshape(images, tall, wide, 2, 2, -1).transpose(0, 1, 3, 2, 4, 5)
    return stacked.reshape(images, 2 * tall, 2 * wide, -1)[:, :height, :width]


def _columns(kernel: Array) -> list[Array]:
    """A kernel (3, 3, c, outputs) times G along x: four columns (3, c, outputs)."""
    return _times_g([kernel[:, x] for x in range(3)])


def _times_g(entries: list[Array]) -> list[Array]:
    """Three entries times G: four."""
    g0, g1, g2 = entries
    return [g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2]


def _times_b(padded: Array, axis: int, count: int) -> list[Array]:
    """Tiles along an axis, four entries each and two apart, times B."""
    d = [lax.slice_in_dim(padded, i, i + 2 * count - 1, 2, axis) for i in range(4)]
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _times_a(entries: list[Array]) -> list[Array]:
    """Four entries times A: two results."""
    m0, m1, m2, m3 = entries
    return [m0 + m1 + m2, m1 - m2 - m3]
