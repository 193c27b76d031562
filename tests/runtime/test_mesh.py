"""One device, and eight simulated ones: the same table, the same numbers."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import small

from malt_jax.models import lora
from malt_jax.runtime import mesh

PROGRAM = """
import json, math, sys
import jax
import small
from dataclasses import replace
from pathlib import Path
from malt_jax.runtime import mesh
from malt_jax.stages import train
from malt_jax.models import lora
import training, trees as grown

workdir = Path(sys.argv[1])

def measured(sizes):
    devices = mesh.make(*sizes, devices=jax.devices()[: math.prod(sizes)])
    model = small.model(scale=4.0)
    params = jax.device_put(model.params, mesh.tree_shardings(devices, model.params))
    spread = {str(leaf.sharding.spec) for leaf in jax.tree.leaves(params)}
    model = replace(model, params=params)
    adapter = jax.tree.map(
        lambda x: x + 0.2 * jax.random.normal(jax.random.key(1), x.shape),
        lora.init(model.config, jax.random.key(0), rank=2, alpha=4.0),
    )
    adapter = jax.device_put(adapter, mesh.tree_shardings(devices, adapter))
    team = grown.team(rows=16)
    trained = {team.roles[0].name: adapter, team.roles[2].name: adapter}
    sampler = replace(team.sampler, mesh=devices, params=params)
    team = replace(team, sampler=sampler, adapters=trained, random_stream="evaluate")
    trees = grown.trees(team, grown.QUESTIONS[:1])
    tokens = [n.completion.tokens for levels in trees.values() for ns in levels for n in ns]
    at = workdir / "-".join(map(str, sizes))
    training.write_data(at, 20)
    recipe = training.recipe(("dpo",), batch=8, epochs=1, held_out=0.3, eval_every=1)
    train.run(at, recipe, model, devices)
    rows = training.metrics(at, "dpo")
    losses = [row["loss"] for row in rows] + [row["kl"] for row in rows if "kl" in row]
    return {"tokens": tokens, "losses": losses, "specs": len(spread)}

print(json.dumps([measured(sizes) for sizes in json.loads(sys.argv[2])]))
"""

STEPS = """
import json
import jax, numpy as np
import stepping as t
from malt_jax.learn import steps
from malt_jax.runtime import mesh
from malt_jax.learn.packing import plan, take

def losses(sizes):
    count = int(np.prod(sizes))
    t.MESH = jax.make_mesh(sizes, mesh.AXES, devices=jax.devices()[:count],
                           axis_types=(jax.sharding.AxisType.Auto,) * 3)
    params = jax.device_put(t.MODEL.params, mesh.tree_shardings(t.MESH, t.MODEL.params))
    t.fresh.cache_clear()
    state = t.start()
    step = steps.training(t.MODEL.config, t.TX, t.sft, state, remat="keep_products")
    order = plan(t.DATA, batch=4, accumulate=2, epochs=3, seed=[0], rows=steps.rows(t.MESH))
    figures = []
    for i in range(len(order)):
        extra = {"denominator": t.DATA.completions.sum(), "factor": 1.0}
        extra = {name: np.full(2, value, np.float32) for name, value in extra.items()}
        batches, extra = steps.place(t.MESH, take(t.DATA, order, i, pad_id=3), extra)
        assert len(batches.tokens.sharding.device_set) == count
        state, metrics = step(params, state, batches, extra)
        figures += [float(metrics["loss"]), float(metrics["grad_norm"])]
    return figures

print(json.dumps([losses(sizes) for sizes in
                  [(1, 1, 1), (2, 1, 1), (1, 2, 2), (8, 1, 1)]]))
"""


def run(program: str, *arguments: str) -> Any:
    """What a program prints last, on eight simulated devices."""
    here = Path(__file__).parents[1]
    environment = {name: value for name, value in os.environ.items() if name.startswith("JAX_")}
    environment |= {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": f"{here / 'support'}:{here.parent}",
    }
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


MESHES = [(2, 2, 2), (8, 1, 1), (2, 4, 1), (1, 1, 8)]


@pytest.mark.parametrize("meshes", [MESHES[:1], pytest.param(MESHES[1:], marks=pytest.mark.slow)])
def test_eight_devices_agree_with_one(meshes, tmp_path):
    """Trees under adapters equal to the token; training and held-out losses and the KL within 1e-5:
    rows and weights both split; in the slow test rows over eight devices, weights split four and
    eight ways, and more ways than there are key/value heads."""
    first, *others = run(PROGRAM, str(tmp_path), json.dumps([(1, 1, 1), *meshes]))
    assert len(first["losses"]) >= 6
    for sizes, other in zip(meshes, others, strict=True):
        assert other["tokens"] == first["tokens"]
        np.testing.assert_allclose(other["losses"], first["losses"], atol=1e-5)
        assert other["specs"] > 2 or sizes == (8, 1, 1), "the parameters are not spread"


def test_one_two_four_and_eight_devices_take_the_same_steps():
    """Losses and gradient norms of three steps of two micro-batches, rows spread over the devices,
    weights whole or split."""
    first, *others = run(STEPS)
    assert len(first) == 6
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-5)


def test_every_parameter_and_adapter_leaf_has_logical_axes():
    model = small.model()
    adapter = lora.init(model.config, jax.random.key(0), rank=2, alpha=4.0)
    for tree in (model.params, adapter):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            parts = [getattr(entry, "key", getattr(entry, "name", "")) for entry in path]
            axes = mesh.logical_axes(parts, leaf.ndim)
            assert len(axes) == leaf.ndim
            if "norm" not in str(parts):
                assert any(axes), parts


def test_an_axis_that_does_not_divide_is_left_whole():
    device = mesh.make()
    assert mesh.sharding(device, (7, 3), ("batch", None)).is_fully_replicated


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"config.mesh: data 3 x fsdp 1 x tensor 1 is not"):
        mesh.make(data=3)


def test_hidden_states_stay_with_their_rows():
    """Inside a compiled function, on the mesh of its arguments; a plain array is left alone."""
    device = mesh.make()
    assert jax.jit(lambda x: mesh.constrain(x, ("batch", None)))(np.ones((2, 3))).shape == (2, 3)
    placed = mesh.put_batch(device, np.ones((2, 3)))
    assert jax.jit(lambda x: jax.numpy.full((), mesh.platform(x) == "cpu"))(placed)
