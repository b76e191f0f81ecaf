"""The table of parameter shardings is total, and says what is meant at full size."""

import jax
import pytest
from flax.traverse_util import flatten_dict
from jax.sharding import PartitionSpec as P

from videobooth_jax.models.sizes import SIZES
from videobooth_jax.models.videobooth import abstract_params
from videobooth_jax.sharding import RULES, spec_of
from videobooth_jax.sharding.rules import rule_of

SIZES_OF_MESH = {"data": 2, "fsdp": 4, "frames": 1, "tensor": 2}
BLOCK = "unet/down_blocks_1/attentions_0/transformer_blocks_0"


@pytest.fixture(scope="module")
def full_size():
    params = flatten_dict(abstract_params(SIZES["sd14"]), sep="/")
    return {path: leaf.shape for path, leaf in params.items()}


def test_every_parameter_has_a_rule_and_every_rule_a_parameter(full_size):
    used = {rule_of(path) for path in full_size}
    small = flatten_dict(abstract_params(SIZES["sprites"]), sep="/")  # has the contrastive head
    assert used | {rule_of(path) for path in small} == set(range(len(RULES)))


def test_an_unknown_parameter_is_refused():
    with pytest.raises(KeyError, match="unet/new_thing"):
        spec_of("unet/new_thing", (3,), SIZES_OF_MESH)


@pytest.mark.parametrize(
    ("path", "spec"),
    [
        (f"{BLOCK}/attn1/to_q/kernel", P("fsdp", "tensor")),
        (f"{BLOCK}/attn1/to_k_exemplar/kernel", P("fsdp", "tensor")),
        (f"{BLOCK}/attn1/to_v_new/kernel", P("fsdp", "tensor")),
        (f"{BLOCK}/attn2/to_v_global/kernel", P("fsdp", "tensor")),
        (f"{BLOCK}/attn_temp/to_out_0/kernel", P("tensor", "fsdp")),
        (f"{BLOCK}/attn_temp/to_out_0/bias", P(None)),
        (f"{BLOCK}/ff/net_0/proj/kernel", P("fsdp", "tensor")),
        (f"{BLOCK}/ff/net_0/proj/bias", P("tensor")),
        (f"{BLOCK}/ff/net_2/kernel", P("tensor", "fsdp")),
        (f"{BLOCK}/norm_temp/scale", P(None)),
        ("unet/up_blocks_0/resnets_0/conv1/kernel", P(None, None, "fsdp", "tensor")),
        ("unet/up_blocks_0/resnets_0/norm1/scale", P(None)),
        ("unet/up_blocks_0/resnets_0/norm2/scale", P("tensor")),
        ("unet/up_blocks_0/resnets_0/conv2/kernel", P(None, None, "tensor", "fsdp")),
        ("unet/up_blocks_0/upsamplers_0/conv/kernel", P(None, None, "fsdp", None)),
        ("unet/conv_in/kernel", P(None, None, "fsdp", None)),
        ("unet/watermark_zero_out/kernel", P("fsdp", None)),
        ("text_encoder/embeddings/token_embedding/embedding", P(None, "fsdp")),
        ("text_encoder/encoder/layers_3/mlp/fc2/kernel", P("tensor", "fsdp")),
        ("vision_encoder/encoder/layers_3/self_attn/q_proj/bias", P("tensor")),
        ("vision_encoder/embeddings/class_embedding", P(None)),
        ("projector/mapping_0/0/kernel", P("fsdp", None)),
        ("vae/encoder/conv_in/kernel", P(None, None, None, None)),
    ],
)
def test_full_size_specs(full_size, path, spec):
    found = spec_of(path, full_size[path], SIZES_OF_MESH)
    padded = P(*(None,) * (len(full_size[path]) - len(spec)), *spec)
    assert found == padded


def test_most_bytes_are_split(full_size):
    """On fsdp 4 x tensor 2 a device stores little more than an eighth of all weights."""
    total = here = 0
    for path, shape in full_size.items():
        spec = spec_of(path, shape, SIZES_OF_MESH)
        size = jax.numpy.prod(jax.numpy.asarray(shape, float)).item()
        parts = 1
        for axis in spec:
            parts *= SIZES_OF_MESH.get(axis, 1)
        total, here = total + size, here + size / parts
    assert here / total < 0.16
