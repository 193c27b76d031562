"""One device, and eight simulated ones: the same table, the same numbers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import small

from malt_jax import mesh
from malt_jax.models import lora

PROGRAM = """
import json, sys
import jax, numpy as np
import small
from dataclasses import replace
from pathlib import Path
from malt_jax import mesh, train, tree
from malt_jax.sampler import Sampler, Sampling
import test_train, test_tree

sizes, workdir = json.loads(sys.argv[1]), Path(sys.argv[2])
devices = mesh.make(**sizes)
model = small.model(scale=4.0)
params = jax.device_put(model.params, mesh.tree_shardings(devices, model.params))
model = replace(model, params=params)
spread = {str(leaf.sharding.spec) for leaf in jax.tree.leaves(params)}
team = test_tree.team(rows=24)
team = replace(team, sampler=replace(team.sampler, mesh=devices, params=params))
found = test_tree.trees(team)
test_train.write_data(workdir)
train.run(workdir, test_train.recipe(batch=8), model, devices)
losses = [row["loss"] for phase in ("sft", "dpo") for row in test_train.metrics(workdir, phase)]
tokens = [n.completion.tokens for q in test_tree.QUESTIONS for ns in found[q.id] for n in ns]
print(json.dumps({"tokens": tokens, "losses": losses, "specs": len(spread)}))
"""

STEPS = """
import json
import jax, numpy as np
import test_steps as t
from malt_jax import mesh, steps
from malt_jax.batches import plan, take

def losses(sizes):
    count = int(np.prod(sizes))
    t.MESH = jax.make_mesh(sizes, mesh.AXES, devices=jax.devices()[:count],
                           axis_types=(jax.sharding.AxisType.Auto,) * 3)
    params = jax.device_put(t.MODEL.params, mesh.tree_shardings(t.MESH, t.MODEL.params))
    t.fresh.cache_clear()
    state = t.start()
    step = steps.training(t.MODEL.config, t.TX, t.sft, state, remat="keep_products")
    order = plan(t.DATA, batch=4, accumulate=2, epochs=3, seed=[0], rows=steps.rows(t.MESH))
    found = []
    for i in range(len(order)):
        extra = {"denominator": t.DATA.completions.sum(), "factor": 1.0}
        extra = {name: np.full(2, value, np.float32) for name, value in extra.items()}
        batches, extra = steps.place(t.MESH, take(t.DATA, order, i, pad_id=3), extra)
        assert len(batches.tokens.sharding.device_set) == count
        state, metrics = step(params, state, batches, extra)
        found += [float(metrics["loss"]), float(metrics["grad_norm"])]
    return found

print(json.dumps([losses(s) for s in
                  [(1, 1, 1), (2, 1, 1), (4, 1, 1), (1, 2, 2), (8, 1, 1), (2, 2, 2)]]))
"""


def run(devices: int, sizes: dict[str, int], workdir: Path, program: str = PROGRAM) -> Any:
    here = Path(__file__).parent
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PATH": "/usr/bin:/bin"}
    environment["PYTHONPATH"] = f"{here}:{here.parent}"
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(sizes), str(workdir)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_eight_devices_agree_with_one(tmp_path):
    """Trees equal to the token and training losses within 1e-5 on data x fsdp x tensor = 2 x 2 x
    2."""
    one = run(1, {"data": 1}, tmp_path / "one")
    eight = run(8, {"data": 2, "fsdp": 2, "tensor": 2}, tmp_path / "eight")
    assert eight["specs"] > 2, "the parameters are not spread over the mesh"
    assert one["tokens"] == eight["tokens"]
    np.testing.assert_allclose(one["losses"], eight["losses"], atol=1e-5)


def test_one_two_four_and_eight_devices_take_the_same_steps(tmp_path):
    """Losses and gradient norms of three steps of two micro-batches, rows spread over the devices,
    weights whole or split."""
    one, *others = run(8, {}, tmp_path, STEPS)
    assert len(one) == 6
    for other in others:
        np.testing.assert_allclose(other, one, rtol=1e-5)


def test_every_parameter_and_adapter_leaf_has_logical_axes():
    one = small.model()
    adapter = lora.init(one.config, jax.random.key(0), rank=2, alpha=4.0)
    for tree in (one.params, adapter):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            parts = [getattr(entry, "key", getattr(entry, "name", "")) for entry in path]
            axes = mesh.logical_axes(parts, leaf.ndim)
            assert len(axes) == leaf.ndim
            if "norm" not in str(parts):
                assert any(axes), parts


def test_an_axis_that_does_not_divide_is_left_whole():
    one = mesh.make()
    assert mesh.sharding(one, (7, 3), ("batch", None)).is_fully_replicated


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"config.mesh: data 3 x fsdp 1 x tensor 1 is not"):
        mesh.make(data=3)
