"""A work directory belongs to its settings, as far as what lies in it depends on them."""

import json
import re
from pathlib import Path

import pytest
from recipes import change, good

from malt_jax.workdir import run_record, storage

OUTPUTS = (
    *("trees", "datasets", "checkpoints/verifier/sft", "checkpoints/verifier/dpo"),
    *("export/verifier", "export/sft/verifier"),
    *("eval/malt", "eval/critique-none", "eval/base"),
)
TEAM = ("eval/malt", "eval/critique-none")
TRAINED = set(OUTPUTS) - {"trees", "datasets", "eval/base"}


def put(workdir: Path, *outputs: str) -> None:
    for name in outputs:
        (workdir / name).mkdir(parents=True, exist_ok=True)
        (workdir / name / "file").touch()


def record(workdir: Path) -> dict:
    return json.loads((workdir / "config.json").read_text())


def other(value):
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value + "x"
        case tuple() | list():
            return value[:-1]


@pytest.mark.parametrize(
    ("key", "binding"),
    [
        ("mesh.data", ()),
        ("sample.rows", ()),
        ("sample.kv_gib", ()),
        ("workdir", ()),
        ("eval.votes", (*TEAM, "eval/base")),
        ("eval.systems", (*TEAM, "eval/base")),
        ("lora.rank", TRAINED),
        ("sft.learning_rate", TRAINED),
        ("dpo.beta", ("checkpoints/verifier/dpo", "export/verifier", *TEAM)),
        ("kto.beta", ()),
        ("sft.held_out", TRAINED),
        ("sft.max_nonfinite", ()),
        ("wandb", ()),
        ("roles.verifier.train", TRAINED),
        ("roles.verifier.adapter", TRAINED),
        ("roles.refiner.train", TEAM),
        ("credit.max_pairs_per_parent", TRAINED),
        ("credit.threshold", TRAINED),
        ("credit.shuffle_rewards", TRAINED),
        ("sample.temperature", OUTPUTS),
        ("roles.verifier.prompt", OUTPUTS),
        ("roles.verifier.branching", OUTPUTS),
        ("data.train_questions", OUTPUTS),
        ("model.path", OUTPUTS),
        ("seed", OUTPUTS),
    ],
)
def test_a_key_is_bound_by_what_depends_on_it_and_by_nothing_else(tmp_path, key, binding):
    config, place = good(), good()
    for group in key.split("."):
        place = place[group]
    changed = change(good(), key, other(place))
    for output in OUTPUTS:
        workdir = tmp_path / output.replace("/", "-")
        run_record.claim(workdir, config)
        put(workdir, output)
        before = record(workdir)
        if output in binding:
            with pytest.raises(ValueError, match=re.escape(f"config.{key}: ")):
                run_record.claim(workdir, changed)
            assert record(workdir) == before
        else:
            run_record.claim(workdir, changed)
            assert record(workdir)["config"] == json.loads(json.dumps(changed))


def test_a_refusal_names_keys_values_directories_and_the_way_out(tmp_path):
    run_record.claim(tmp_path, good())
    put(tmp_path, "trees", "checkpoints/verifier")
    changed = change(change(change(good(), "seed", 5), "lora.rank", 3), "mesh.data", 4)
    with pytest.raises(ValueError, match=r"another --config\.workdir") as caught:
        run_record.claim(tmp_path, changed)
    lines = str(caught.value).splitlines()
    assert "  config.seed: 0 there, 5 now (bound by trees/, checkpoints/)" in lines
    assert "  config.lora.rank: 8 there, 3 now (bound by checkpoints/)" in lines
    assert lines[-1].endswith(f"delete {tmp_path / 'checkpoints'}, {tmp_path / 'trees'}")
    assert "mesh" not in str(caught.value)


def test_what_was_taken_over_is_remembered_with_its_date(tmp_path):
    run_record.claim(tmp_path, good())
    put(tmp_path, "trees")
    run_record.claim(tmp_path, change(good(), "lora.rank", 3))
    run_record.claim(tmp_path, change(change(good(), "lora.rank", 3), "sft.epochs", 7))
    run_record.claim(tmp_path, change(change(good(), "lora.rank", 3), "sft.epochs", 7))
    found = record(tmp_path)
    assert found["config"]["lora"]["rank"] == 3
    assert found["config"]["sft"]["epochs"] == 7
    first, second = found["changes"]
    assert first["config"] == {"lora.rank": {"old": 8, "new": 3}}
    assert second["config"] == {"sft.epochs": {"old": 2, "new": 7}}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first["date"])


def test_an_empty_directory_binds_nothing(tmp_path):
    run_record.claim(tmp_path, good())
    (tmp_path / "checkpoints" / "verifier" / "sft").mkdir(parents=True)
    run_record.claim(tmp_path, change(good(), "lora.rank", 3))


def test_every_key_of_a_config_has_its_place_in_the_table():
    """A pattern that fits nothing is a typing error: the key would fall to the strictest rule."""
    keys = set(run_record.flat(json.loads(json.dumps(good()))))
    for pattern, _ in run_record._BOUND_BY:
        assert any(run_record.fnmatchcase(key, pattern) for key in keys), pattern


def test_a_directory_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "out"

    def fill(name: str, killed: bool = False) -> None:
        with storage.directory_whole(target, "one") as directory:
            (directory / name).write_text("1")
            if killed:
                raise KeyboardInterrupt

    for before, name in (([], "one"), (["one"], "two")):
        with pytest.raises(KeyboardInterrupt):
            fill("half", killed=True)
        assert [path.name for path in target.glob("*")] == before
        fill(name)
        assert [path.name for path in target.iterdir()] == [name]
