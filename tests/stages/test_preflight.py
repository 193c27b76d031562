"""What would end training halfway is found before anything is trained."""

import json
import shlex
from pathlib import Path

import pyarrow as pa
import pytest
from exports import PEFTS_SHAPE, another_base, drawn, made_elsewhere, recipe
from safetensors.numpy import load_file

from malt_jax import export
from malt_jax.learn.phases import PHASES
from malt_jax.models.identity import identity
from malt_jax.runtime import mesh
from malt_jax.stages import preflight, train
from malt_jax.workdir import shards, storage

SCHEMAS = {name: PHASES[name].schema for name in ("sft", "dpo")}


def row(schema: pa.Schema) -> dict:
    """One row of that schema, every field filled."""
    values = {pa.string(): "1", pa.float32(): 1.0}
    return {field.name: values.get(field.type, [1, 2]) for field in schema}


def write_data(workdir: Path, *empty: str) -> None:
    for role in ("generator", "verifier", "refiner"):
        for phase, schema in SCHEMAS.items():
            rows = [] if f"{role}/{phase}" in empty else [row(schema)]
            shards.write(workdir / "datasets" / role / f"{phase}.parquet", rows, schema)


def test_every_empty_data_set_is_named_with_the_ways_out(base, model, tmp_path):
    """A role without data was passed over with a warning and exported untrained."""
    write_data(tmp_path, "generator/dpo", "verifier/sft", "verifier/dpo", "refiner/dpo")
    with pytest.raises(ValueError, match=r"^nothing to learn from:") as caught:
        train.run(tmp_path, recipe(base), model, mesh.make())
    message = str(caught.value)
    named = {name for name in message.split() if name.endswith(".parquet:")}
    folder = tmp_path / "datasets"
    assert named == {
        f"{folder}/{name}.parquet:" for name in ("verifier/sft", "verifier/dpo", "refiner/dpo")
    }
    for fix in ("config.data.train_questions", "config.credit.threshold", "--config.workdir"):
        assert fix in message
    assert shlex.split(message.splitlines()[-1]) == [
        "--config.roles.verifier.train=()",
        "--config.roles.refiner.train=('sft',)",
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"datasets"}
    fixed = recipe(base, roles__verifier__train=(), roles__refiner__train=("sft",))
    preflight.check(tmp_path, fixed, model)


def test_a_finished_role_needs_no_data(base, model, tmp_path):
    write_data(tmp_path, "verifier/sft")
    export.write(tmp_path, recipe(base), model, "verifier", drawn(model))
    preflight.check(tmp_path, recipe(base), model)


def test_a_missing_data_set_asks_for_its_stage(base, model, tmp_path):
    with pytest.raises(ValueError, match=r"generator/sft.parquet: not there; run --stage=datasets"):
        preflight.check(tmp_path, recipe(base), model)


@pytest.mark.parametrize("place", ["export/refiner/malt.json", "checkpoints/refiner/dpo/base.json"])
def test_what_was_trained_on_another_base_is_refused_and_kept(base, model, tmp_path, place):
    """The last role's: found only after the others had been trained."""
    write_data(tmp_path)
    other = another_base(tmp_path / "other")
    storage.write_json(tmp_path / place, identity(other))
    before = (tmp_path / place).read_bytes()
    with pytest.raises(ValueError, match=rf"{Path(place).parent}: made for another base model"):
        train.run(tmp_path, recipe(base), model, mesh.make())
    assert (tmp_path / place).read_bytes() == before
    assert not (tmp_path / "checkpoints" / "generator").exists()
    preflight.check(tmp_path, recipe(base), other)


def test_a_starting_adapter_that_does_not_fit_is_found_first(base, model, tmp_path):
    write_data(tmp_path)
    made_elsewhere(base, tmp_path / "peft")
    parsed = recipe(base, roles__refiner__adapter=str(tmp_path / "peft"))
    with pytest.raises(ValueError, match=r"config.roles.refiner.adapter: .* has rank 5"):
        train.run(tmp_path, parsed, model, mesh.make())
    assert not (tmp_path / "checkpoints").exists()


def test_training_goes_on_from_the_adapter_and_leaves_its_base_beside_checkpoints(
    base, model, tmp_path
):
    """At a learning rate that moves nothing, what is exported is what was given."""
    write_data(tmp_path)
    made_elsewhere(base, tmp_path / "peft")
    changes = PEFTS_SHAPE | {"chain": ("generator",), "sft__learning_rate": 1e-12, "sft__batch": 1}
    changes["roles__generator__adapter"] = str(tmp_path / "peft")
    train.run(tmp_path, recipe(base, **changes), model, mesh.make())
    weights = "adapter_model.safetensors"
    given = load_file(tmp_path / "peft" / weights)
    written = load_file(tmp_path / "export" / "generator" / weights)
    assert given.keys() == written.keys()
    for name, array in given.items():
        assert abs(array - written[name]).max() < 1e-6
        assert abs(array).max() > 0.1
    file = tmp_path / "checkpoints" / "generator" / "sft" / "base.json"
    assert json.loads(file.read_text()) == identity(model)
