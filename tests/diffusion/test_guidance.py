import jax.numpy as jnp
import numpy as np
import pytest

from videobooth_jax.diffusion.guidance import guide

CONDITIONAL = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 4)), jnp.float32)
UNCONDITIONAL = jnp.asarray(np.random.default_rng(1).standard_normal((2, 3, 4)), jnp.float32)


def test_guidance_extrapolates():
    expected = UNCONDITIONAL + 4.0 * (CONDITIONAL - UNCONDITIONAL)
    np.testing.assert_allclose(guide(CONDITIONAL, UNCONDITIONAL, 4.0), expected, atol=1e-6)
    one = guide(CONDITIONAL, UNCONDITIONAL, jnp.float32(1.0))
    np.testing.assert_allclose(one, CONDITIONAL, atol=1e-6)
    np.testing.assert_array_equal(guide(CONDITIONAL, UNCONDITIONAL, 0.0), UNCONDITIONAL)


@pytest.mark.parametrize("count", [0, 3, 4])
def test_only_the_first_channels_are_guided(count):
    out = guide(CONDITIONAL, UNCONDITIONAL, 7.5, count)
    everywhere = guide(CONDITIONAL, UNCONDITIONAL, 7.5)
    np.testing.assert_array_equal(out[..., :count], everywhere[..., :count])
    np.testing.assert_array_equal(out[..., count:], CONDITIONAL[..., count:])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="one shape"):
        guide(CONDITIONAL, UNCONDITIONAL[:1], 2.0)
    with pytest.raises(ValueError, match="guided_channels=5, but the prediction has 4"):
        guide(CONDITIONAL, UNCONDITIONAL, 2.0, 5)
