"""Names of slices of TPUs, with sizes and layouts as in Google Cloud's documentation."""

import pytest

from malt_jax.plan import slices, topology


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        *(("v5e:1x1", "v5e:1x1"), ("v5e:2x4", "v5e:2x4"), ("v5p:2x2x1", "v5p:2x2x1")),
        *(("v5litepod-1", "v5e:1x1"), ("v5litepod-4", "v5e:2x2"), ("v5litepod-8", "v5e:2x4")),
        *(("v5e-8", "v5e:2x4"), ("v5e-16", "v5e:4x4"), ("v5litepod-32", "v5e:4x8")),
        *(("v5e-128", "v5e:8x16"), ("v5e-256", "v5e:16x16"), ("v6e-1", "v6e:1x1")),
        *(("v6e-8", "v6e:2x4"), ("v6e-64", "v6e:8x8"), ("trillium-8", "v6e:2x4")),
        # TensorCores, of which a chip has two.
        *(("v5p-8", "v5p:2x2x1"), ("v5p-16", "v5p:2x2x2"), ("v5p-32", "v5p:2x2x4")),
        *(("v5p-64", "v5p:2x4x4"), ("v5p-128", "v5p:4x4x4"), ("v5p-256", "v5p:4x4x8")),
        *(("v4-8", "v4:2x2x1"), ("v4-16", "v4:2x2x2"), ("v4-512", "v4:4x8x8")),
        *((" V5E-8", "v5e:2x4"), ("v5e_2x4", "v5e:2x4"), ("v5p:2x2", "v5p:2x2")),
    ],
)
def test_a_name_is_a_layout(name, layout):
    assert slices.named(name).name == layout


@pytest.mark.parametrize(
    ("name", "way_on"),
    [
        *(("v5e:2*4", "did you mean v5e:2x4?"), ("v5ee:2x4", "did you mean v5e:2x4?")),
        *(("v5litpod-8", "did you mean v5litepod-8?"), ("v5p8", "did you mean v5p-8?")),
        *(("v5e-6", "v5e comes in sizes of 1, 4, 8, 16, 32,"), ("v5p-4", "sizes of 8, 16, 32,")),
        *(("v4-9", "v4 comes in sizes of 8, 16"), ("v5e:2x2x2", "v5e has 2 axes")),
        *(("v5e:32x32", "v5e has 1 to 256 chips"), ("v5e:0x4", "v5e has 1 to 256 chips")),
        *(("v5e:3x5", "in squares of two by two"), ("h100", "v5e:1x1, v5e:2x4,")),
        *(("", "v5litepod-8, v5e-8, v5p-8"), ("v5e:²x4", "v5e:2x4")),
    ],
)
def test_another_name_is_refused_with_the_way_on(name, way_on, monkeypatch):
    """Whether the compiler is there or not, and in one line."""
    monkeypatch.setattr(topology, "find_spec", lambda module: None)
    with pytest.raises(ValueError, match=r"^--topology=.*: not known; .*$") as caught:
        topology.devices(name)
    assert way_on in str(caught.value)


@pytest.mark.parametrize(
    ("name", "chips", "kind", "hosts"),
    [
        *(("v5e:1x1", 1, "TPU v5 lite", 1), ("v5litepod-8", 8, "TPU v5 lite", 2)),
        *(("v5p-8", 4, "TPU v5", 1), ("v5p:1x1x1", 1, "TPU v5", 1)),
        *(("v4-8", 4, "TPU v4", 1), ("v4-16", 8, "TPU v4", 2), ("v6e:1x1", 1, "TPU v6 lite", 1)),
    ],
)
def test_the_compiler_knows_the_slice_and_something_is_known_of_its_chips(name, chips, kind, hosts):
    pytest.importorskip("libtpu", reason="pip install -e '.[tpu]' brings the TPU's compiler")
    devices = topology.devices(name)
    assert len(devices) == chips
    assert len({device.process_index for device in devices}) == hosts
    chip = topology.chip(devices[0], "bfloat16")
    assert chip.kind == kind
    assert chip.memory > 15 * topology.GIB
    assert chip.flops >= 197e12
