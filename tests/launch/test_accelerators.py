"""The table of slices against what is published of single ones, and against itself."""

import pytest

from launch.accelerators import SLICES, find_slice


@pytest.mark.parametrize(
    ("accelerator", "topology", "gke", "hosts", "chips_per_host"),
    [
        ("v4-8", "2x2x1", "tpu-v4-podslice", 1, 4),
        ("v4-32", "2x2x4", "tpu-v4-podslice", 4, 4),
        ("v5litepod-1", "1x1", "tpu-v5-lite-podslice", 1, 1),
        ("v5litepod-16", "4x4", "tpu-v5-lite-podslice", 4, 4),
        ("v5litepod-256", "16x16", "tpu-v5-lite-podslice", 64, 4),
        ("v5p-128", "4x4x4", "tpu-v5p-slice", 16, 4),
        ("v6e-4", "2x2", "tpu-v6e-slice", 1, 4),
        ("v6e-64", "8x8", "tpu-v6e-slice", 16, 4),
    ],
)
def test_known_slices(accelerator, topology, gke, hosts, chips_per_host):
    found = find_slice(accelerator)
    assert (found.topology, found.gke) == (topology, gke)
    assert (found.hosts, found.chips_per_host) == (hosts, chips_per_host)


@pytest.mark.parametrize("accelerator", SLICES)
def test_hosts_hold_all_chips(accelerator):
    found = SLICES[accelerator]
    assert found.accelerator == accelerator
    assert found.hosts * found.chips_per_host == found.chips


@pytest.mark.parametrize("accelerator", ["v5e-16", "v5litepod-3", "tpu7x-8", "h100", ""])
def test_unknown_ones_are_refused_with_all_names(accelerator):
    with pytest.raises(ValueError, match=r"unknown accelerator .*v5litepod-16.*v6e-256"):
        find_slice(accelerator)
