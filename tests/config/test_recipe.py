"""Defaults and recipes are what they were when each stood in a table of its own; the reference
names every setting."""

import copy
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from recipes import change, good

from malt_jax import recipe
from malt_jax.config.schema import at_least, faults, group, setting
from malt_jax.workdir.run_record import flat

# What each recipe resolved to before the settings' defaults moved beside their types.
FROZEN = json.loads((Path(__file__).parent / "recipes.json").read_text())


@pytest.mark.parametrize("name", sorted(set(FROZEN) - {"base"}))
def test_no_value_of_a_recipe_changed(name):
    assert json.loads(json.dumps(recipe.load(name).to_dict())) == FROZEN[name]


def test_no_default_changed():
    assert json.loads(json.dumps(recipe.base().to_dict())) == FROZEN["base"]


def test_every_recipe_that_ships_was_frozen():
    assert set(recipe.names()) | {"base"} == set(FROZEN)


def test_the_reference_names_every_setting_once_with_its_default():
    lines = recipe.reference().splitlines()[2:]
    keys = [line.split(" | ")[0].strip("| `") for line in lines]
    assert len(keys) == len(set(keys))
    config = recipe.base().to_dict()
    config["roles"] = {"ROLE": config["roles"]["generator"]}
    assert set(keys) == {f"config.{key}" for key in flat(config)}
    for line in lines:
        cells = line.replace("\\|", "").split(" | ")
        assert len(cells) == 5, line
        assert cells[1], line
        assert len(cells[3]) > 5, f"{line}: says nothing of what it means"
    assert "| `config.dpo.beta` | number | `0.2` |" in recipe.reference()
    assert "| `config.mesh.data` | whole number | `0` |" in recipe.reference()


def test_a_config_of_an_earlier_version_takes_the_defaults_of_what_it_lacks():
    config = change(good(), "seed", 5)
    old = copy.deepcopy(config)
    del (
        old["eval"]["debate"]["rounds"],
        old["kto"],
        old["roles"]["verifier"]["adapter"],
        old["wandb"],
    )
    assert recipe.completed(old) == config
    other = recipe.completed({"roles": {"planner": {"prompt": "Plan"}}})
    assert list(other["roles"]) == ["planner"], "no role comes in that was not there"
    assert other["roles"]["planner"]["branching"] == 3


def test_paths_are_taken_as_a_shell_would(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = change(good(), "data.train", "~/train.jsonl")
    change(config, "data.exclude", ("jsonl:~/test.jsonl",))
    monkeypatch.chdir(tmp_path)
    parsed = recipe.parse(config)
    assert parsed.data.train == f"{tmp_path}/train.jsonl"
    assert parsed.data.exclude == (f"jsonl:{tmp_path}/test.jsonl",)
    assert (Path(parsed.model.path) / "config.json").is_file(), "the package's own, from anywhere"
    hub = change(good(), "model.path", "meta-llama/Llama-3.1-8B-Instruct")
    assert recipe.parse(hub).model.path == "meta-llama/Llama-3.1-8B-Instruct"


@dataclass(frozen=True)
class Inner:
    least: int = setting(1, "the least", at_least(0, "must not be negative"))
    most: int = setting(2, "the most")

    def rules(self) -> list[tuple[str, bool, str]]:
        return [("most", self.most >= self.least, "is below the least")]


@dataclass(frozen=True)
class Outer:
    inner: Inner = group(Inner, "bounds")


def test_faults_are_named_by_key_rule_by_rule():
    assert list(faults(Outer(), "config")) == []
    assert list(faults(Outer(Inner(-1, -2)), "config")) == [
        "config.inner.least: must not be negative",
        "config.inner.most: is below the least",
    ]
