"""Stages by name, stages of the user's own, and what is refused before any of them runs."""

import re

import pytest
from own_stage import STAGE
from recipes import ROOT, change, good

from malt_jax import stages
from malt_jax.recipe import parse

OWN = f"{ROOT / 'tests' / 'support' / 'own_stage.py'}:STAGE"


def test_a_stage_of_the_users_own_is_one_file(tmp_path):
    config = change(good(), "workdir", str(tmp_path))
    (tmp_path / "trees").mkdir()
    for i in range(3):
        (tmp_path / "trees" / f"shard-{i}.parquet").touch()
    stages.run(parse(config), config, [OWN])
    assert (tmp_path / "count" / "shards.txt").read_text() == "3"
    with pytest.raises(ValueError, match=r"config.seed: .*\(bound by trees/, count/\)"):
        stages.claim(tmp_path, change(good(), "seed", 1), [STAGE])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("trian", "--stage: no stage 'trian'; did you mean train?"),
        ("cook", "--stage: no stage 'cook'; choose from collect, datasets, train, evaluate, rep"),
        ("nowhere.py:STAGE", "--stage: nowhere.py does not import"),
        (OWN.replace("STAGE", "run"), "is no malt_jax.stages.stage.Stage"),
        (OWN.replace("STAGE", "STAG"), "has no 'STAG'; did you mean STAGE?"),
    ],
)
def test_what_is_no_stage_is_told(name, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        stages.named(name)


def test_the_job_goes_through_its_stages_in_order():
    assert stages.in_order() == ("collect", "datasets", "train", "evaluate", "report")
    assert stages.in_order(2) == ("rounds", "evaluate", "report")
    others = {"rounds", "solutions", "merge", "plan", "audit", "solve", "serve", "upload"}
    assert set(stages.STAGES) == {*stages.in_order(), *others}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.task", "gms8k", "no task 'gms8k'"),
        ("roles.verifier.prompt", "{refiner}", "config.roles.verifier.prompt"),
        ("wandb", "project", "wandb is not installed"),
        ("roles.verifier.branching", 1, "verifier.branching: 1, but dpo .* give at least 2, or"),
    ],
)
def test_what_training_could_not_do_is_refused_before_anything_is_written(
    tmp_path, monkeypatch, key, value, message
):
    """wandb was looked for after collection, pairs of single samples left data sets empty, and a
    task that there is not left a lock."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = change(change(good(), "workdir", str(tmp_path / "run")), key, value)
    with pytest.raises(ValueError, match=message):
        stages.run(parse(config), config, stages.in_order())
    assert not (tmp_path / "run").exists()


def test_one_sample_a_parent_is_enough_for_phases_that_compare_none():
    config = change(good(), "roles.verifier.branching", 1)
    with pytest.raises(ValueError, match=r"config.roles.verifier.branching"):
        stages.foresee(parse(config), ["train"])
    stages.foresee(parse(config), ["evaluate"])
    stages.foresee(parse(change(config, "roles.verifier.train", ("sft",))), ["train"])
