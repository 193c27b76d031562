"""A work directory belongs to its settings, as far as what lies in it depends on them."""

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from recipes import change, good

from malt_jax import stages
from malt_jax.workdir import run_record, storage
from malt_jax.workdir.outputs import Bindings, Output

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
        stages.claim(workdir, config)
        put(workdir, output)
        before = record(workdir)
        if output in binding:
            with pytest.raises(ValueError, match=re.escape(f"config.{key}: ")):
                stages.claim(workdir, changed)
            assert record(workdir) == before
        else:
            stages.claim(workdir, changed)
            assert record(workdir)["config"] == json.loads(json.dumps(changed))


def test_more_systems_only_add(tmp_path):
    """A run of a version that decoded nothing greedily was refused by the next one's default. Where
    the team comes to passes of its first role alone, these would be in its place."""
    before, more = ("sa", "ma", "malt_mv"), ("sa", "sa_greedy", "ma", "malt_greedy", "malt_mv")
    stages.claim(tmp_path, change(good(), "eval.systems", before))
    put(tmp_path, "eval/base", "eval/malt")
    stages.claim(tmp_path, change(good(), "eval.systems", more))
    assert record(tmp_path)["changes"][0]["config"] == {
        "eval.systems": {"old": list(before), "new": list(more)}
    }
    alone = tmp_path / "alone"
    stages.claim(alone, change(good(), "eval.systems", ("sa",)))
    put(alone, "eval/base")
    with pytest.raises(ValueError, match=r"config\.eval\.systems: \['sa'\] there"):
        stages.claim(alone, change(good(), "eval.systems", ("sa", "ma")))


def test_a_refusal_names_keys_values_directories_and_the_way_out(tmp_path):
    stages.claim(tmp_path, good())
    put(tmp_path, "trees", "checkpoints/verifier")
    changed = change(change(change(good(), "seed", 5), "lora.rank", 3), "mesh.data", 4)
    with pytest.raises(ValueError, match=r"another --config\.workdir") as caught:
        stages.claim(tmp_path, changed)
    lines = str(caught.value).splitlines()
    assert "  config.seed: 0 there, 5 now (bound by trees/, checkpoints/)" in lines
    assert "  config.lora.rank: 2 there, 3 now (bound by checkpoints/)" in lines
    assert lines[-1].endswith(f"delete {tmp_path / 'checkpoints'}, {tmp_path / 'trees'}")
    assert "mesh" not in str(caught.value)


def test_other_credit_never_costs_a_sample(tmp_path):
    """Samples hold no worth: of a trained team the training goes, and of another run nothing."""
    stages.claim(tmp_path, good())
    put(tmp_path, "trees", "datasets", "eval/base")
    changed = change(change(good(), "credit.threshold", 0.7), "credit.shuffle_rewards", True)
    stages.claim(tmp_path, changed)
    put(tmp_path, "checkpoints/verifier", "eval/malt")
    with pytest.raises(ValueError, match=r"config\.credit\.threshold: 0\.7 there") as caught:
        stages.claim(tmp_path, good())
    assert "trees" not in str(caught.value).replace(str(tmp_path), "")
    assert "eval/base" not in str(caught.value)


def test_the_record_says_how_the_directory_is_to_be_read(tmp_path):
    stages.claim(tmp_path, good())
    assert record(tmp_path)["format"] == run_record.FORMAT == 2


def test_what_was_taken_over_is_remembered_with_its_date(tmp_path):
    stages.claim(tmp_path, good())
    put(tmp_path, "trees")
    stages.claim(tmp_path, change(good(), "lora.rank", 3))
    stages.claim(tmp_path, change(change(good(), "lora.rank", 3), "sft.epochs", 7))
    stages.claim(tmp_path, change(change(good(), "lora.rank", 3), "sft.epochs", 7))
    recorded = record(tmp_path)
    assert recorded["config"]["lora"]["rank"] == 3
    assert recorded["config"]["sft"]["epochs"] == 7
    first, second = recorded["changes"]
    assert first["config"] == {"lora.rank": {"old": 2, "new": 3}}
    assert second["config"] == {"sft.epochs": {"old": 1, "new": 7}}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first["date"])


def test_an_empty_directory_binds_nothing(tmp_path):
    stages.claim(tmp_path, good())
    (tmp_path / "checkpoints" / "verifier" / "sft").mkdir(parents=True)
    stages.claim(tmp_path, change(good(), "lora.rank", 3))


def test_every_setting_is_named_by_an_output_or_shapes_none():
    """A setting that no stage names could be changed under what it shaped. Every phase is trained,
    so that each one's settings have something to bind."""
    config = good()
    for role in config["roles"].values():
        role["train"] = ("sft", "dpo", "kto", "rl")
    bindings = stages.bindings()
    keys = set(run_record.flat(json.loads(json.dumps(config))))
    free = {key for key in keys if any(fnmatchcase(key, pattern) for pattern in bindings.free)}
    assert {key for key in keys if not bindings.of(key, config["roles"])} == free
    for pattern in bindings.free:
        assert any(fnmatchcase(key, pattern) for key in keys), f"{pattern} is no setting"


def test_a_directory_stands_for_what_is_below_it_where_all_of_that_is_bound():
    roles = {"a": {"train": ["sft", "dpo"]}, "b": {"train": ["sft"]}}
    trained = Output(
        "out/{role}/{phase}", ("{phase}.*", "roles.{role}.*"), ("out/{role}/{earlier}",)
    )
    bindings = Bindings((Output("trees", ("seed",)), trained, Output("end/{role}", (), ("out/*",))))
    assert bindings.of("sft.rate", roles) == ["out", "end"]
    assert bindings.of("dpo.rate", roles) == ["out/a/dpo", "end"]
    assert bindings.of("kto.rate", roles) == []
    assert bindings.of("roles.a.train", roles) == ["out/a", "end"]
    assert bindings.of("roles.b.train", roles) == ["out/b", "end"]
    assert bindings.of("seed", roles) == ["trees"]
    assert Bindings(bindings.outputs, ("se*",)).of("seed", roles) == []


@pytest.mark.parametrize("spelt", ["link", "/", "..", "~", "relative"])
def test_another_spelling_of_the_same_path_goes_on(tmp_path, monkeypatch, spelt):
    model = tmp_path / "model"
    model.mkdir()
    (tmp_path / "link").symlink_to(model)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    spellings = {"link": "link", "/": f"{model}/", "..": f"{model}/../model", "~": "~/model"}
    workdir = tmp_path / "run"
    stages.claim(workdir, change(good(), "model.path", str(model)))
    put(workdir, "trees")
    again = change(good(), "model.path", spellings.get(spelt, "model"))
    stages.claim(workdir, again)
    assert record(workdir)["config"]["model"]["path"] == again["model"]["path"]


def test_files_that_were_moved_are_the_same_and_others_at_their_place_are_not(tmp_path):
    """What stood at the recorded path is known by its hash: the file may be gone."""
    rows, moved, workdir = tmp_path / "rows.jsonl", tmp_path / "moved.jsonl", tmp_path / "run"
    rows.write_text("{}")
    stages.claim(workdir, change(good(), "data.train", str(rows)))
    put(workdir, "trees")
    rows.rename(moved)
    config = change(good(), "data.train", str(moved))
    stages.claim(workdir, config)
    assert record(workdir)["config"]["data"]["train"] == str(moved)
    (tmp_path / "other.jsonl").write_text("[]")
    with pytest.raises(ValueError, match=r"config.data.train: .*moved.*other"):
        stages.claim(workdir, change(good(), "data.train", str(tmp_path / "other.jsonl")))
    exclude = change(config, "data.exclude", (f"jsonl:{moved}",))
    with pytest.raises(ValueError, match=r"config.data.exclude"):
        stages.claim(workdir, exclude)
    fresh = tmp_path / "fresh"
    stages.claim(fresh, exclude)
    put(fresh, "trees")
    moved.rename(rows)
    again = change(change(good(), "data.train", str(rows)), "data.exclude", (f"jsonl:{rows}",))
    stages.claim(fresh, again)


def test_a_model_that_was_moved_is_known_by_the_hash_of_its_weights(tmp_path):
    """They are hashed once a stage has loaded them, and only where the path is another one."""
    asked = []

    def base(digest: str) -> dict:
        asked.append(digest)
        return {"base_hash": digest}

    stages.claim(tmp_path, good(), base=lambda: base("never"))
    put(tmp_path, "trees")
    moved = change(good(), "model.path", "elsewhere")
    with pytest.raises(ValueError, match=r"config.model.path"):
        stages.claim(tmp_path, moved, base=lambda: base("never"))
    run_record.note(tmp_path, base_hash="sha256:1")
    stages.claim(tmp_path, good(), base=lambda: base("never"))
    assert not asked
    with pytest.raises(ValueError, match=r"config.model.path"):
        stages.claim(tmp_path, moved, base=lambda: base("sha256:2"))
    stages.claim(tmp_path, moved, base=lambda: base("sha256:1"))
    assert asked == ["sha256:2", "sha256:1"]


def test_a_setting_of_a_later_version_takes_its_default_in_an_old_directory(tmp_path):
    """It read as a change from nothing, and every output refused it."""
    old = good()
    del old["sample"]["top_p"], old["roles"]["verifier"]["adapter"], old["kto"]
    stages.claim(tmp_path, old)
    put(tmp_path, *OUTPUTS)
    stages.claim(tmp_path, good())
    other = change(good(), "sample.top_p", 0.5)
    with pytest.raises(ValueError, match=r"config.sample.top_p: 1.0 there, 0.5 now"):
        stages.claim(tmp_path, other)


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
