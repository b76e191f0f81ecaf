"""What a forward pass keeps for the gradient.

Rematerialisation (Chen et al. 2016, arXiv 1604.06174): what is not kept is computed again when the
backward pass needs it. Loss and gradients are the same; memory is paid for with time.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from flax import linen as nn

Module = TypeVar("Module", bound=nn.Module)


def _layer_results(primitive: Any, *_: Any, **params: Any) -> bool:
    """Whether an operation is a dense layer or a convolution: products without batch axes, which
    those of attention have.
    """
    if primitive.name == "dot_general":
        _, batch_axes = params["dimension_numbers"]
        return not batch_axes[0]
    return primitive.name == "conv_general_dilated"


REMAT: dict[str, Callable[..., bool] | None] = {
    "none": None,
    "dots": _layer_results,
    "blocks": jax.checkpoint_policies.nothing_saveable,
}
"""Name -> policy of `jax.checkpoint`, or None for no checkpoint.

``none`` keeps everything. ``dots`` keeps the results of dense layers and convolutions; norms,
activations and attention come again. ``blocks`` keeps nothing but the inputs.
"""


def rematerialised(module: type[Module], name: str) -> type[Module]:
    """``module`` under the policy ``name``, a key of `REMAT`; parameters keep their names."""
    policy = REMAT[name]
    return module if policy is None else nn.remat(module, policy=policy)
