"""One adapter that all roles share: trained on the rows of all, exported for each, loaded once."""

from dataclasses import replace

import pytest
from in_rounds import config, run, untrained  # noqa: F401 (a fixture)
from recipes import change, good
from training import MODEL, exported, recipe, write_data

from malt_jax import recipe as recipes
from malt_jax.api.asking import Team
from malt_jax.learn.phases import PHASES
from malt_jax.models.identity import identity
from malt_jax.runtime import mesh
from malt_jax.stages import collect, train
from malt_jax.stages.job import Job
from malt_jax.workdir import shards, storage


def two_roles(**phase):
    """The settings of a verifier that is trained by SFT alone and a refiner with DPO after it."""
    parsed = recipe(("sft", "dpo"), **phase)
    refiner = parsed.roles["refiner"]
    roles = {"verifier": replace(refiner, train=("sft",)), "refiner": refiner}
    lora = replace(parsed.lora, shared=True)
    return replace(parsed, chain=("verifier", "refiner"), roles=roles, lora=lora)


def test_it_is_what_one_role_would_learn_from_the_rows_of_all(tmp_path):
    """To the bit; the last role's name and phases are those of the training."""
    together, alone = tmp_path / "together", tmp_path / "alone"
    for folder in (together, alone):
        write_data(folder)
    sets = {
        name: shards.read_one(together / "datasets" / "refiner" / f"{name}.parquet")
        for name in ("sft", "dpo")
    }
    first = together / "datasets" / "verifier"
    shards.write(first / "sft.parquet", sets["sft"][:4], PHASES["sft"].schema)
    both = [*sets["sft"][:4], *sets["sft"]]
    shards.write(alone / "datasets" / "refiner" / "sft.parquet", both, PHASES["sft"].schema)
    settings = two_roles(epochs=1)
    train.run(together, settings, MODEL, mesh.make())
    only = replace(
        settings,
        chain=("refiner",),
        roles={"refiner": settings.roles["refiner"]},
        lora=replace(settings.lora, shared=False),
    )
    train.run(alone, only, MODEL, mesh.make())
    shared = together / "export" / "verifier" / "adapter_model.safetensors"
    assert exported(together) == exported(alone) == shared.read_bytes()
    assert not (together / "checkpoints" / "verifier").exists()
    assert (together / "export" / "sft" / "refiner").exists()
    assert not (together / "export" / "sft" / "verifier").exists()


def test_checkpoints_of_other_roles_rows_are_refused(tmp_path):
    write_data(tmp_path)
    record = identity(MODEL) | {"teachers": ["verifier", "refiner"]}
    storage.write_json(tmp_path / "checkpoints" / "refiner" / "sft" / "base.json", record)
    with pytest.raises(
        ValueError, match=r"refiner/sft: trained on the rows of verifier, refiner, n"
    ):
        train.run(tmp_path, recipe(("sft",)), MODEL, mesh.make())


@pytest.mark.slow
@pytest.mark.usefixtures("untrained")
def test_rounds_draw_with_one_adapter_and_one_policy(tmp_path):
    given = {"lora__shared": True, "roles__generator__train": ("sft", "dpo")}
    done = run(tmp_path / "run", "rounds", **given)
    second = list(shards.read(done / "rounds" / "2" / "trees"))
    assert len({row["policy"] for row in second}) == 1
    weights = {path.read_bytes() for path in done.glob("export/*/adapter_model.safetensors")}
    assert len(weights) == 1
    values = config(done, **given) | {}
    values["rounds"] |= {"count": 1, "behaviour": str(done / "rounds" / "1"), "number": 2}
    team = collect.drawing(Job(recipes.parse(values), collects=True))
    generator, verifier, refiner = (team.adapters[role.name] for role in team.roles)
    assert generator is verifier is refiner
    served = Team.load(done).adapters
    assert served["generator"] is served["verifier"] is served["refiner"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"roles.generator.train": ("rl",)},
            r"config.lora.shared: one adapter goes through \['sft",
        ),
        ({"roles.verifier.adapter": "peft"}, "config.lora.shared: one adapter starts from one"),
    ],
)
def test_roles_that_cannot_share_are_told_by_key(changes, message):
    values = change(good(), "lora.shared", True)
    for key, value in changes.items():
        change(values, key, value)
    with pytest.raises(ValueError, match=message):
        recipes.parse(values)
