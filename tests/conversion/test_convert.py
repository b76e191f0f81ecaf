"""Names and layouts, both ways; at full size by shapes alone, at small size with values."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from videobooth_jax.conversion.convert import (
    WeightsMismatchError,
    to_flax,
    to_torch,
    torch_name,
    torch_shapes,
)
from videobooth_jax.conversion.name_map import INJECTED, UNET, Rule, Table
from videobooth_jax.models.unet_3d import UNet3D, UNet3DConfig

SMALL = UNet3DConfig(
    block_out_channels=(8, 16),
    layers_per_block=1,
    cross_attention_levels=(True, False),
    num_heads=2,
    cross_attention_dim=6,
    norm_num_groups=4,
    injection_levels=(True, True),
    watermark_channels=(8, 8),
)
TABLE = UNET + INJECTED


def abstract_unet(config):
    return jax.eval_shape(
        UNet3D(config).init,
        jax.random.key(0),
        jnp.zeros((1, 1, 8, 8, 4)),
        jnp.zeros((1,), jnp.int32),
        jnp.zeros((1, 1, config.cross_attention_dim)),
    )["params"]


@pytest.fixture(scope="module")
def full_size():
    return abstract_unet(UNet3DConfig())


@pytest.fixture
def abstract():
    return abstract_unet(SMALL)


@pytest.fixture
def state_dict(abstract):
    rng = np.random.default_rng(0)
    shapes = torch_shapes(abstract, TABLE)
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def count(shapes):
    return sum(int(np.prod(shape)) for shape in shapes.values())


def test_full_size_counts_are_the_published_ones(full_size):
    shapes = torch_shapes(full_size, TABLE)
    parts = {
        "text_kv": {n: s for n, s in shapes.items() if "attn2_to_" in n},
        "frame_kv": {n: s for n, s in shapes.items() if "attn1_to_" in n},
        "temporal": {n: s for n, s in shapes.items() if "_temp." in n},
        "watermark": {n: s for n, s in shapes.items() if n.startswith("watermark")},
    }
    image = shapes.keys() - {name for part in parts.values() for name in part}
    assert {name: count(part) for name, part in parts.items()} == {
        "text_kv": 19_169_280,
        "frame_kv": 49_561_600,
        "temporal": 49_599_040,
        "watermark": 133_090_560,
    }
    assert count({name: shapes[name] for name in image}) == 859_520_964


def test_every_full_size_parameter_has_one_name_of_its_own(full_size):
    paths = flatten_dict(full_size, sep="/")
    names = [torch_name(path, TABLE.rules) for path in paths]
    assert None not in names
    assert len({name for name, _ in names}) == len(paths)


def test_every_rule_names_something_at_full_size_or_beyond_it(full_size):
    """Only those block rules may be idle that other depths and levels would use."""
    paths = list(flatten_dict(full_size, sep="/"))
    used = {rule for path in paths for rule in TABLE.rules if torch_name(path, [rule])}
    unused = {rule.torch.split(".")[0] for rule in set(TABLE.rules) - used}
    blocks = {"down_blocks", "up_blocks", "mid_block", "watermark_down_blocks"}
    assert unused <= blocks | {"watermark_up_blocks"}


def test_layouts_put_every_axis_where_flax_wants_it(state_dict, abstract):
    params = flatten_dict(to_flax(state_dict, abstract, TABLE), sep="/")
    np.testing.assert_array_equal(
        params["conv_in/kernel"], state_dict["conv_in.weight"].transpose(2, 3, 1, 0)
    )
    block = "down_blocks_0/attentions_0"
    np.testing.assert_array_equal(
        params[f"{block}/proj_in/kernel"],
        state_dict["down_blocks.0.attentions.0.proj_in.weight"][:, :, 0, 0].T,
    )
    np.testing.assert_array_equal(
        params[f"{block}/transformer_blocks_0/attn2/to_k_global/kernel"],
        state_dict["down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.weight"].T,
    )
    np.testing.assert_array_equal(
        params[f"{block}/transformer_blocks_0/norm1/scale"],
        state_dict["down_blocks.0.attentions.0.transformer_blocks.0.norm1.weight"],
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_there_and_back_is_bit_exact(state_dict, abstract, dtype):
    state_dict = {name: array.astype(dtype) for name, array in state_dict.items()}
    wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), abstract)
    back = to_torch(to_flax(state_dict, wanted, TABLE), TABLE)
    assert back.keys() == state_dict.keys()
    for name, array in state_dict.items():
        assert back[name].dtype == array.dtype
        assert back[name].tobytes() == array.tobytes()


def test_dtype_and_contiguity_are_those_asked_for(state_dict, abstract):
    wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), abstract)
    for leaf in jax.tree.leaves(to_flax(state_dict, wanted, TABLE)):
        assert leaf.dtype == jnp.bfloat16
        assert leaf.flags["C_CONTIGUOUS"]


def test_all_that_does_not_fit_is_reported_at_once(state_dict, abstract):
    del state_dict["conv_in.bias"]
    state_dict["conv_out.weight"] = state_dict["conv_out.weight"][:, :5]
    state_dict["down_blocks.7.resnets.0.conv1.weight"] = np.zeros((8, 8, 3, 3))
    state_dict["lora.up"] = np.zeros(3)
    with pytest.raises(WeightsMismatchError) as caught:
        to_flax(state_dict, abstract, TABLE)
    message = str(caught.value)
    assert "1 missing, 2 unused, 1 misshapen" in message
    assert "torch conv_in.bias (8,) -> flax conv_in/bias (8,)" in message
    assert "conv_out.weight (4, 8, 3, 3) -> flax conv_out/kernel (3, 3, 8, 4): given" in message
    assert "flax down_blocks_7/resnets_0/conv1/kernel, which this model lacks" in message
    assert "torch lora.up (3,): no rule knows this name" in message


def test_parameters_without_a_rule_are_reported_on_the_way_out():
    params = {"conv_in": {"kernel": np.zeros((3, 3, 4, 8))}, "gate": {"scale": np.zeros(2)}}
    with pytest.raises(WeightsMismatchError, match="flax gate/scale \\(2,\\)"):
        to_torch(params, UNET)


SPELLINGS = Table(
    rules=(Rule("attn.{i}.query.weight", "attn_{i}/query/kernel", "linear"),),
    aliases=(("attn.{i}.to_q.weight", "attn.{i}.query.weight"),),
    ignored=("position_ids",),
)
WANTED = {"attn_3": {"query": {"kernel": jax.ShapeDtypeStruct((2, 5), np.float32)}}}


def test_other_spellings_are_understood_and_buffers_skipped():
    given = {"attn.3.to_q.weight": np.ones((5, 2), np.float32), "position_ids": np.arange(3)}
    assert to_flax(given, WANTED, SPELLINGS)["attn_3"]["query"]["kernel"].shape == (2, 5)


def test_the_same_weight_in_two_spellings_is_refused():
    given = {"attn.3.to_q.weight": np.ones((5, 2)), "attn.3.query.weight": np.ones((5, 2))}
    with pytest.raises(ValueError, match=r"both mean attn\.3\.query\.weight"):
        to_flax(given, WANTED, SPELLINGS)


def test_an_ambiguous_table_is_refused():
    table = Table((*SPELLINGS.rules, Rule("q{i}", "attn_{i}/query/kernel", "linear")))
    with pytest.raises(ValueError, match="ambiguous"):
        to_flax({}, WANTED, table)
