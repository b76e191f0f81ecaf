"""The harness can fail: a wrong output, an unknown kind, role or bound, and a wrong network are
all noticed.
"""

import copy
import json

import numpy as np
import pytest

from parity.bounds import BOUNDS, compare, measure, violations
from parity.cases import Case, load_cases
from parity.configs import unet_config, vae_config
from parity.runners import RUNNERS, run, run_and_measure
from parity.unet_runners import denoiser
from parity.weights import recipe
from videobooth_jax.models import transformer_3d


@pytest.fixture
def goldens(request):
    folder = request.path.parent.parent / "goldens"
    return {case.name: case for case in load_cases(folder)}


def changed(case: Case, **entry) -> Case:
    return Case(case.folder, copy.deepcopy(case.entry) | entry)


def perfect(case: Case) -> dict:
    return {role: case.array(spec["key"]) for role, spec in case.outputs.items()}


def test_every_kind_of_the_shipped_cases_has_a_runner(goldens):
    assert {case.kind for case in goldens.values()} == set(RUNNERS)


def test_a_case_of_unknown_kind_fails(goldens):
    with pytest.raises(ValueError, match="no runner for cases of kind 'depth'"):
        run(changed(goldens["vae"], kind="depth"), "float32")


def test_an_output_nobody_produces_fails(goldens):
    case = goldens["diffusion_tables_10"]
    spec = case.outputs["betas"]
    with pytest.raises(KeyError, match="produces no snr"):
        run_and_measure(changed(case, outputs={"snr": spec}), "float32")


@pytest.mark.parametrize("bounds", [{}, {"cosine": 0.1}])
def test_an_output_without_a_known_bound_fails(goldens, bounds):
    case = goldens["diffusion_tables_10"]
    case = changed(case, outputs={"betas": {"key": "tab10_betas"} | bounds})
    with pytest.raises(ValueError, match="expected some of"):
        run_and_measure(case, "float32")


WRONG = {
    "max": ({"max": 1e-3}, lambda x: x + np.eye(1, 100)[0] * 2e-3),
    "rms": ({"rms": 1e-3}, lambda x: x + 2e-3),
    "relative": ({"relative": 1e-3}, lambda x: x * 1.002),
    "absolute": ({"absolute": 1e-3}, lambda x: x + 2e-3),
    "relative_l2": ({"relative_l2": 1e-3}, lambda x: x * 1.002),
    "share_within": (
        {"max": 1e-3, "share_within": 0.99},
        lambda x: x + (np.arange(100) < 2) * 2e-3,
    ),
    "share_exact": ({"share_exact": 0.99}, lambda x: x + (np.arange(100) < 2) * 1e-9),
}


@pytest.mark.parametrize("bound", sorted(BOUNDS))
def test_every_bound_sees_what_it_is_for_and_lets_the_rest_pass(bound):
    spec, spoil = WRONG[bound]
    want = np.linspace(1, 2, 100)
    assert violations({"x": compare(want, want, spec)}) == []
    assert [line.split()[1] for line in violations({"x": compare(spoil(want), want, spec)})] == [
        bound
    ]


def test_a_looser_bound_of_two_holds_near_zero():
    want, got = np.array([1.0, 0.0]), np.array([1.0005, 5e-8])
    both = {"relative": 1e-3, "absolute": 1e-7}
    assert violations({"x": compare(got, want, both)}) == []
    assert violations({"x": compare(got, want, {"relative": 1e-3})})


def test_a_share_bound_forgives_its_share_and_no_more():
    want = np.zeros(200)
    got = (np.arange(200) < 1) * 1.0
    spec = {"max": 1e-6, "share_within": 0.995}
    assert violations({"x": compare(got, want, spec)}) == []


@pytest.mark.parametrize("got", [np.zeros(3), np.full(4, np.nan)])
def test_other_shapes_and_values_that_are_not_finite_fail(got):
    with pytest.raises(ValueError, match=r"shape|finite"):
        compare(got, np.zeros(4), {"max": 1.0})


def test_shipped_references_pass_their_own_bounds_and_fail_when_moved(goldens):
    case = goldens["vae"]
    assert violations(measure(case, perfect(case), "float32")) == []
    spoiled = {role: array + np.float32(1e-4) for role, array in perfect(case).items()}
    assert len(violations(measure(case, spoiled, "float32"))) == 2 * len(case.outputs)


def test_derived_roles_and_tables_are_compared_with_the_whole_array(goldens):
    case = goldens["train_step_stage1"]
    roles = ("grad/mapping_0.0.weight__first64", "grad/mapping_0.0.weight__norm", "grad_norms")
    case = changed(case, outputs={role: case.outputs[role] for role in roles})
    table = case.params["stage1"]["grad_norm"]
    gradient = np.zeros((1024, 64), np.float32)
    gradient[0] = case.reference(roles[0])
    gradient[1, 0] = np.sqrt(table["mapping_0.0.weight"] ** 2 - np.sum(gradient[0] ** 2.0))
    produced = {"grad/mapping_0.0.weight": gradient, "grad_norms": dict(table)}
    assert violations(measure(case, produced, "float32")) == []
    produced["grad_norms"] = table | {"frozen.weight": 0.1}
    with pytest.raises(ValueError, match=r"frozen\.weight"):
        measure(case, produced, "float32")


@pytest.mark.parametrize("change", [{"dropout": 0.1}, {"norm_eps": 1e-6}, {"act_fn": "gelu"}])
def test_sizes_the_implementation_does_not_have_are_refused(goldens, change):
    with pytest.raises(ValueError, match="is not a size"):
        unet_config(goldens["unet_plain"].config | change, "float32")


def test_published_values_may_be_spelled_out(goldens):
    config = goldens["unet_plain"].config
    spelled = config | {"norm_eps": 1e-5, "act_fn": "silu", "in_channels": 4}
    assert unet_config(spelled, "float32") == unet_config(config, "float32")
    assert vae_config(goldens["vae"].config, 1.0, "float32").block_out_channels == (32, 64, 64, 64)


def test_the_recipe_is_the_one_the_references_were_made_with(goldens):
    folder = next(iter(goldens.values())).folder
    checks = json.loads((folder / "recipe_check.json").read_text())
    for name in ("unet_tiny/unet", "unet_tiny/injected", "mapper_clip_tiny/text", "vae_tiny/vae"):
        file, section = name.split("/")
        shapes = json.loads((folder / f"{file}_params.json").read_text())[section]
        weights = {n: recipe(n, tuple(shape)) for n, shape in shapes.items()}
        total = sum(float(np.sum(w, dtype=np.float64)) for w in weights.values())
        np.testing.assert_allclose(total, checks[name]["sum"], rtol=1e-9)
        for n, first in checks[name]["first_values"].items():
            assert weights[n].ravel()[:4].tolist() == pytest.approx(first, rel=0, abs=0)


@pytest.mark.slow
def test_a_wrong_epsilon_escapes_float32_but_not_float64(goldens, monkeypatch):
    case = goldens["unet_plain"]
    monkeypatch.setattr(transformer_3d, "ENTRY_EPS", 1e-5)
    denoiser.cache_clear()
    try:
        assert violations(run_and_measure(case, "float32")) == []
        assert violations(run_and_measure(case, "float64"))
    finally:
        denoiser.cache_clear()
