"""Plans as a whole: with a compiler that only pretends, and once with TPUs' own."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from plans import CONFIG, LORA, PASS, phase

from configs.gsm8k import get_config
from configs.quickstart import get_config as quickstart
from malt_jax import models, plan
from malt_jax.config.settings import SampleSettings, Settings
from malt_jax.models.config import LlamaConfig, Rope
from malt_jax.plan import costs, programs, topology, workload
from malt_jax.plan.programs import Footprint, Packed
from malt_jax.recipe import parse
from malt_jax.runtime import mesh

LLAMA_8B = LlamaConfig(128256, 4096, 14336, 32, 32, 8, 128, 131072, 1e-5, Rope())
# 94 GB in bfloat16, in few layers: a plan goes through each of them.
LARGE = replace(LLAMA_8B, hidden_size=16384, intermediate_size=65536, num_layers=12, num_heads=64)
SMALL = replace(CONFIG, hidden_size=512, head_dim=128, num_heads=4, num_kv_heads=2, context=2048)
GIB = topology.GIB


@pytest.fixture
def settings(tmp_path):
    """Settings of configs/gsm8k.py with changes, for a model of that shape."""

    def make(config: LlamaConfig, **changes) -> Settings:
        (tmp_path / "config.json").write_text(json.dumps(config.to_hf()))
        recipe = get_config()
        recipe.workdir, recipe.model.path = str(tmp_path / "run"), str(tmp_path)
        with recipe.unlocked():
            recipe.update_from_flattened_dict(changes)
        return parse(recipe.to_dict())

    return make


@pytest.fixture
def pretended(monkeypatch):
    """A compiler that finds 1 GiB of temporaries in every program."""
    pytest.importorskip("libtpu", reason="pip install -e '.[tpu]' brings the TPU's compiler")

    def footprint(config, build, unknown_trips=1):
        return Footprint(0.0, 1.0 * GIB, {"all-gather": 1e9})

    monkeypatch.setattr(programs, "footprint", footprint)


def plan_of(settings: Settings) -> dict:
    """What `plan.json` holds."""
    return json.loads((Path(settings.workdir) / "plan.json").read_text())


def test_what_does_not_fit_is_named_with_a_layout_that_does(settings, pretended):
    """16 GB of weights on chips of 16 GB, one replica a chip."""
    asked = settings(LLAMA_8B)
    with pytest.raises(ValueError, match="the job does not fit v5e:2x4") as caught:
        plan.run(asked, "v5e:2x4")
    told, planned = str(caught.value), plan_of(asked)
    assert "train sft: weights 14.96" in told
    assert "config.sample.kv_gib" in told
    flags = planned["proposal"]["flags"]
    assert f"ask for it with:\n  {' '.join(flags)}" in told
    assert flags == ["--config.mesh.tensor=2"]
    assert not planned["proposal"]["failures"]
    assert all(program["fits"] for program in planned["proposal"]["programs"].values())
    assert planned["hours"]["job"] > 0
    # Followed, they make a plan that fits.
    given = (flag.removeprefix("--config.").split("=") for flag in flags)
    changes = {key: int(value) if value.isdigit() else value for key, value in given}
    table = plan.run(settings(LLAMA_8B, **changes), "v5e:2x4")
    assert "DOES NOT FIT" not in table
    assert "largest that fits: sample.rows" in table


def test_a_model_that_no_layout_holds_has_no_proposal(settings, pretended):
    asked = settings(LARGE)
    with pytest.raises(ValueError, match="does not fit"):
        plan.run(asked, "v5e:2x2")
    planned = plan_of(asked)
    assert planned["proposal"] is None
    assert planned["hours"] is None


def test_rows_without_pages_are_refused_with_the_rows_that_fit(settings, pretended):
    asked = settings(LLAMA_8B, **{"sample.rows": 4096, "sample.kv_gib": 8.0})
    with pytest.raises(ValueError, match=r"config.sample.rows: 4096 rows .* rows fit"):
        plan.run(asked, "v5p:2x2x1")
    assert any("sample.rows" in flag for flag in plan_of(asked)["proposal"]["flags"])


def test_without_the_compiler_the_extra_is_named(settings, monkeypatch):
    monkeypatch.setattr(topology, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'malt-jax\[tpu\]'"):
        plan.run(settings(SMALL), "v5e:2x2")


@pytest.mark.parametrize("name", ["v9:2x2", "v5e:3x5", "nonsense"])
def test_a_topology_not_known_is_refused(settings, name):
    with pytest.raises(ValueError, match="a name is a generation and the chips along each axis"):
        plan.run(settings(SMALL), name)


@pytest.mark.parametrize("name", ["v5e:1x1", "v5litepod-8"])
def test_the_quickstart_fits_a_chip(pretended, tmp_path, name):
    """Its model has a context of 256 tokens, and longer questions are none of the job's."""
    recipe = quickstart()
    recipe.workdir = str(tmp_path)
    table = plan.run(parse(recipe.to_dict()), name)
    assert "fits" in table
    assert "NOT" not in table


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("Llama-3.1-8B-Instruct", 8_030_261_248), ("Llama-3.1-70B", 70_553_706_496)],
)
def test_the_shapes_of_llama_come_with_the_package(monkeypatch, name, parameters):
    """Their numbers of parameters are those that the hub shows."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = models.read_config(f"meta-llama/{name}")
    norms = (2 * config.num_layers + 1) * config.hidden_size
    assert costs.body(config) + 2 * costs.head(config) + norms == parameters
    assert config.context == 131072
    assert config.rope.theta == 500000.0


def test_libtpu_says_nothing_and_takes_no_signal():
    pytest.importorskip("libtpu", reason="pip install -e '.[tpu]' brings the TPU's compiler")
    code = """
        import os, signal, jax
        from malt_jax.plan import topology
        print(len(topology.devices("v5litepod-8")), flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
    """
    unset = ("TPU_", "TF_CPP")  # as they are in a user's shell
    clean = {key: value for key, value in os.environ.items() if not key.startswith(unset)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=clean | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.stdout, done.stderr) == ("8\n", "")
    assert done.returncode == -signal.SIGTERM


def test_a_task_of_unknown_size_asks_for_counts(settings):
    changes = {"data.task": "svamp", "data.eval_questions": 0}
    with pytest.raises(ValueError, match=r"say how many with --config.data.eval_questions=N"):
        plan.run(settings(SMALL, **changes), "v5e:2x2")


def test_the_work_of_a_job_by_hand(settings):
    """n = 3: 3 solutions of 300 tokens, 9 critiques of 200, 27 answers of 300."""
    asked = settings(SMALL, **{"data.eval_questions": 10, "sft.epochs": 1})
    job = workload.work(asked)
    assert job.decoded["collect"] == 2000 * (3 * 300 + 9 * 200 + 27 * 300)
    # Two teams of three passes and a greedy one, and for each as many more votes of its first role
    # as the last two roles' tokens pay for.
    assert job.decoded["evaluate"] == 10 * 2 * ((3 + 1) * 800 + 3 * 500)
    # A question for each role, then 3 solutions for critics, 3 and 9 critiques for refiners.
    assert job.prefilled["collect"] == 2000 * (3 * 128 + 3 * 300 + 3 * 300 + 9 * 200)
    positives = [3 * 1000, 9 * 1000, 27 * 1000]
    assert job.steps["sft"] == sum(-(-int(0.9 * n) // 8) for n in positives)


def test_rounds_multiply_the_work_and_replay_adds_to_training(settings):
    """Each draws its own trees, learns from those of the round before as well, and is evaluated on
    the development split: 3 passes and a greedy one; the untrained team once."""
    given = {"data.eval_questions": 10, "data.development_questions": 50}
    one = workload.work(settings(SMALL, **given))
    three = workload.work(settings(SMALL, **given, **{"rounds.count": 3, "rounds.replay": 1}))
    assert three.train_questions == 3 * one.train_questions
    for tokens in ("decoded", "prefilled"):
        assert getattr(three, tokens)["collect"] == 3 * getattr(one, tokens)["collect"]
    assert three.decoded["evaluate"] - one.decoded["evaluate"] == 50 * (3 + 1) * (3 + 1) * 800
    assert three.steps["sft"] == pytest.approx((1 + 2 + 2) * one.steps["sft"], rel=1e-3)
    # Each round tries two temperatures on 20 questions.
    tried = {"rounds.temperatures": (0.5, 1.0), "rounds.temperature_questions": 20}
    tried |= {"rounds.count": 3, "rounds.replay": 1}
    more = workload.work(settings(SMALL, **given, **tried))
    of_trees = one.decoded["collect"] / one.train_questions
    assert more.decoded["collect"] == three.decoded["collect"] + 3 * 2 * 20 * of_trees


@pytest.mark.parametrize("kind", ["decode", "train"])
def test_a_line_through_two_depths_meets_the_whole_depth(kind):
    """On the platform here."""
    deep, device = replace(CONFIG, num_layers=4), mesh.make()
    build = {
        "decode": programs.decode(jnp.float32, LORA, device, PASS),
        "train": programs.train(
            jnp.float32, LORA, device, *phase("sft"), Packed(128, 128, 1, 1), SampleSettings()
        ),
    }[kind]
    line, whole = programs.footprint(deep, build), programs.compiled(build(deep))
    assert line.arguments == pytest.approx(whole.arguments, rel=1e-3)
    assert line.temporaries == pytest.approx(whole.temporaries, rel=0.1)


@pytest.mark.slow
def test_a_small_job_is_planned_with_the_compiler_of_tpus(settings):
    """Four chips, weights split in two ways: they are gathered for a step, and little else is."""
    pytest.importorskip("libtpu", reason="pip install -e '.[tpu]' brings the TPU's compiler")
    short = {f"roles.{role}.max_new_tokens": 64 for role in ("generator", "verifier", "refiner")}
    mesh_ = {"mesh.data": 1, "mesh.fsdp": 2, "mesh.tensor": 2}
    asked = settings(
        SMALL, **short, **mesh_, **{"chain": ("generator",), "sft.batch": 2, "data.max_chars": 500}
    )
    table = plan.run(asked, "v5e:2x2")
    planned = plan_of(asked)["asked"]["programs"]
    assert set(planned) == {"decode", "prefill", "train sft"}
    for name in planned:
        assert name in table
        assert planned[name]["fits"]
        assert planned[name]["seconds"]["step"] == max(planned[name]["seconds"].values())
    weights = programs.bytes_on_a_chip(
        programs.weights(SMALL, jnp.bfloat16, mesh.make(devices=jax.devices()))
    )
    sent = sum(planned["train sft"]["traffic"].values())
    assert weights / 8 < sent < 3 * weights
    assert 0 < planned["train sft"]["memory"]["temporaries"] < GIB
