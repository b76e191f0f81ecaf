"""The table of groups is total over both sizes, and the paper's stages train what the paper
says.
"""

import jax
import numpy as np
import pytest
from flax import traverse_util

from videobooth_jax.models.sizes import SIZES
from videobooth_jax.models.videobooth import abstract_params
from videobooth_jax.training import phases

COARSE = ("projector", "text_kv")
FINE = ("projector", "text_kv", "frame_kv")


def count(tree) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("size", sorted(SIZES))
def test_every_parameter_has_a_group_and_every_group_a_parameter(size):
    flat = traverse_util.flatten_dict(abstract_params(SIZES[size]), sep="/")
    groups = {phases.group_of(path) for path in flat}
    optional = {"watermark", "contrastive_head"}
    assert groups | optional == {name for name, _ in phases.GROUPS}


@pytest.mark.parametrize(("groups", "million"), [(COARSE, 48_074_240), (FINE, 97_635_840)])
def test_full_size_stages_train_the_published_number_of_parameters(groups, million):
    trained, frozen = phases.split(abstract_params(SIZES["sd14"]), groups)
    assert count(trained) == million
    assert count(trained) + count(frozen) == count(abstract_params(SIZES["sd14"]))


def test_split_and_merge_are_inverses():
    params = abstract_params(SIZES["sprites"])
    assert phases.merge(*phases.split(params, COARSE)) == params


def test_unknown_group_is_named():
    with pytest.raises(ValueError, match="nonsense"):
        phases.split({"vae": {"x": 1}}, ("nonsense",))


def test_group_without_parameters_is_refused():
    with pytest.raises(ValueError, match="hold no parameter"):
        phases.split({"vae": {"x": 1}}, ("projector",))


def test_unmatched_parameter_is_named():
    with pytest.raises(KeyError, match="stranger/kernel"):
        phases.group_of("stranger/kernel")


def test_copies_take_the_values_of_the_originals_and_only_of_the_named_groups():
    flat = traverse_util.flatten_dict(abstract_params(SIZES["sprites"]), sep="/")
    params = traverse_util.unflatten_dict({p: p for p in flat}, sep="/")
    copied = traverse_util.flatten_dict(phases.start_from_copies(params, ("frame_kv",)), sep="/")
    for path, value in copied.items():
        if phases.group_of(path) == "frame_kv":
            origin = path.replace("_new", "").replace("_exemplar", "")
            assert value == origin
        else:
            assert value == path
