"""Round after round: who draws, what is asked, what is kept, and what a kill or another setting
costs. Training itself is replaced; `test_rounds_whole` has all of it."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from in_rounds import config, everything, run, untrained  # noqa: F401 (a fixture)

from malt_jax import export, recipe, stages
from malt_jax.rollout.team import policy
from malt_jax.stages import collect, evaluate, train
from malt_jax.stages.job import Job
from malt_jax.stages.rounds import resolve
from malt_jax.workdir import shards
from malt_jax.workdir.storage import read_json

ROLES = ("generator", "verifier", "refiner")
pytestmark = pytest.mark.usefixtures("untrained")


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """A run of two rounds; tests change nothing in it."""
    with pytest.MonkeyPatch.context() as patch:
        import in_rounds

        patch.setattr(train, "train_role", in_rounds.pretend)
        return run(tmp_path_factory.mktemp("two") / "run")


def rows(workdir: Path, number: int) -> list[dict]:
    return list(shards.read(workdir / "rounds" / str(number) / "trees"))


def asked(workdir: Path, number: int) -> list[str]:
    return list(dict.fromkeys(row["question_id"] for row in rows(workdir, number)))


def table(workdir: Path) -> dict:
    return read_json(workdir / "rounds" / "rounds.json")


def test_a_round_is_drawn_by_the_team_of_the_round_before(two):
    """The first by the base. The ids of the policies are those of the exported files, role by role:
    adapters that change places would show."""
    job = Job(recipe.parse(config(two)), collects=False)
    base = job.model.content_hash
    for number, team in {1: {}, 2: two / "rounds" / "1"}.items():
        drawn = {(row["role"], row["policy"], row["round"]) for row in rows(two, number)}
        adapters = {
            role: export.load(team / "export" / role, job.model, role) if team else None
            for role in ROLES
        }
        assert drawn == {(role, policy(base, adapters[role]), number) for role in ROLES}
    assert len({row["policy"] for row in rows(two, 2)}) == 3


def test_the_best_round_by_development_accuracy_is_what_is_exported(two):
    done = table(two)
    accuracies = [row["accuracy"]["malt"] for row in done["rounds"]]
    assert done["chosen"] == 1 + accuracies.index(max(accuracies))
    for role in ROLES:
        chosen = two / "rounds" / str(done["chosen"]) / "export" / role
        name = "adapter_model.safetensors"
        assert (two / "export" / role / name).read_bytes() == (chosen / name).read_bytes()
        assert read_json(two / "export" / role / "malt.json")["round"] == done["chosen"]
    assert read_json(two / "eval" / "results.json")["split"] == {"name": "test", "n": 2}
    assert set(done["rounds"][0]["accuracy"]) == {"ma", "ma_greedy", "malt", "malt_greedy"}
    assert set(done["rounds"][1]["accuracy"]) == {"malt", "malt_greedy"}


def test_fresh_questions_are_the_next_ones_and_never_those_of_development(two):
    first, second = asked(two, 1), asked(two, 2)
    assert (len(first), len(second)) == (4, 4)
    development = {
        row["question_id"]
        for row in shards.read(two / "rounds" / "1" / "eval" / "development" / "malt")
    }
    assert len({*first, *second, *development}) == 11


def test_what_is_done_is_not_done_again(two, monkeypatch):
    """Nothing is sampled or trained, and nothing changes."""
    before = everything(two)
    monkeypatch.setattr(collect, "run", None)
    monkeypatch.setattr(train, "run", None)
    run(two)
    assert everything(two) == before


@pytest.mark.parametrize(("stage", "number"), [(train, 1), (collect, 2), (evaluate, 2)])
def test_ended_before_and_after_any_stage_of_any_round_it_goes_on_to_the_same_bits(
    two, tmp_path, monkeypatch, stage, number
):
    """What a run that ends there leaves is what a whole one has, without what comes later."""
    workdir = tmp_path / "run"
    with monkeypatch.context() as patch:

        def end(job):
            if job.settings.rounds.number == number:
                raise KeyboardInterrupt
            whole.run(job)

        whole = stage.STAGE
        patch.setattr(stage, "STAGE", replace(whole, run=end))
        with pytest.raises(KeyboardInterrupt):
            run(workdir, "rounds")
    run(workdir)
    assert everything(workdir) == everything(two)


def test_more_rounds_go_on_from_those_there_are(two, tmp_path):
    workdir = shutil.copytree(two, tmp_path / "run")
    before = {name: d for name, d in everything(workdir).items() if name.startswith("rounds/")}
    run(workdir, "rounds", rounds__count=3)
    after = everything(workdir)
    assert before == {name: after[name] for name in before}
    assert [row["round"] for row in table(workdir)["rounds"]] == [1, 2, 3]


def test_another_threshold_of_a_later_round_leaves_the_earlier_ones_as_they_are(two, tmp_path):
    workdir = shutil.copytree(two, tmp_path / "run")
    changed = {"rounds__thresholds": (0.0, 0.4)}
    with pytest.raises(ValueError, match=r"config.rounds.thresholds: .* \(bound by export/"):
        run(workdir, **changed)
    for name in ("export", "eval"):
        shutil.rmtree(workdir / name)
    with pytest.raises(ValueError, match=r"rounds/2 holds .*\n.*credit.threshold: 0.0 there, 0.4"):
        run(workdir, **changed)
    for name in ("checkpoints", "export", "eval"):
        shutil.rmtree(workdir / "rounds" / "2" / name, ignore_errors=True)
    trees = [(p.name, p.stat().st_mtime_ns) for p in workdir.glob("rounds/*/trees/*")]
    run(workdir, **changed)
    assert trees == [(p.name, p.stat().st_mtime_ns) for p in workdir.glob("rounds/*/trees/*")]
    assert [row["threshold"] for row in table(workdir)["rounds"]] == [0.0, 0.4]


def test_a_later_round_drawn_by_another_team_is_refused(two, tmp_path):
    """The round before was trained anew under it."""
    workdir = shutil.copytree(two, tmp_path / "run")
    other = workdir / "rounds" / "1" / "export" / "verifier" / "adapter_model.safetensors"
    other.write_bytes((workdir / "rounds/1/export/refiner/adapter_model.safetensors").read_bytes())
    (workdir / "rounds" / "2" / "round.json").unlink()
    with pytest.raises(ValueError, match=r"rounds.behaviour: .*\(bound by trees/"):
        run(workdir)


def test_a_role_without_rows_keeps_the_adapter_of_the_round_before(two, tmp_path, caplog):
    """A threshold that nothing passes, or all, leaves the round nothing to learn from; the run goes
    on and says so."""
    done = run(tmp_path / "run", "rounds", rounds__thresholds=(0.0, 0.99))
    counts = read_json(done / "rounds" / "2" / "datasets" / "yield.json")
    lacking = [role for role in ROLES if not counts[role]["sft_rows"]]
    record = table(done)["rounds"][1]["without_rows"]
    assert lacking
    for role in lacking:
        assert record[role] == list(recipe.parse(config(done)).roles[role].train)
        assert f"{role}: no rows for sft" in caplog.text
        weights = [
            (done / "rounds" / number / "export" / role / "adapter_model.safetensors").read_bytes()
            for number in "12"
        ]
        assert weights[0] == weights[1]


def test_questions_asked_again_are_asked_with_other_random_numbers(tmp_path):
    done = run(tmp_path / "run", "rounds", rounds__questions="repeated", rounds__start="previous")
    assert asked(done, 1) == asked(done, 2)
    started = read_json(done / "rounds" / "2" / "export" / "refiner" / "malt.json")["started_from"]
    assert started["path"] == str(done / "rounds" / "1" / "export" / "refiner")


def test_replay_learns_from_earlier_rounds_as_well(two, tmp_path):
    workdir = shutil.copytree(two, tmp_path / "run")
    for name in ("export", "eval", "rounds/2/export", "rounds/2/eval"):
        shutil.rmtree(workdir / name)
    run(workdir, "rounds", rounds__replay=1)
    nodes = [
        read_json(place / "rounds" / number / "datasets" / "yield.json")["refiner"]["nodes"]
        for place, number in ((two, "1"), (two, "2"), (workdir, "2"))
    ]
    assert nodes[0] + nodes[1] == nodes[2]


def test_replayed_rows_weigh_less_by_the_rounds_since(tmp_path):
    done = run(
        tmp_path / "run",
        "rounds",
        rounds__count=3,
        rounds__replay=2,
        rounds__replay_weight=0.5,
        rounds__questions="repeated",
    )
    weights = {
        number: Counter(
            row.get("weight")
            for role in ROLES
            for row in shards.read_one(
                done / "rounds" / str(number) / "datasets" / role / "sft.parquet"
            )
        )
        for number in (1, 2, 3)
    }
    assert set(weights[1]) == {None}
    assert set(weights[2]) == {0.5, 1.0}
    assert set(weights[3]) == {0.25, 0.5, 1.0}
    assert weights[3][0.25] == weights[2][0.5] == weights[1][None]


def test_a_round_says_how_far_its_team_has_moved_from_the_base(two):
    """The replaced training moves every role; a role that is not trained stays where it is."""
    for row in table(two)["rounds"]:
        assert {role: row["roles"][role]["kl_to_base"] > 0 for role in ROLES} == dict.fromkeys(
            ROLES, True
        )
    for role in ROLES:
        counted = list(shards.read(two / "rounds" / "1" / "eval" / "development" / "malt"))
        assert sum(row["role"] == role for row in counted) == 9  # 3 questions, 3 passes


def test_a_rounds_settings_follow_from_the_runs(tmp_path):
    given = config(
        tmp_path,
        rounds__count=3,
        rounds__thresholds=(0.5, 0.7),
        rounds__start="previous",
        roles__generator__train=(),
        roles__generator__adapter="peft",
        eval__votes=9,
    )
    first, third = (resolve(given, number) for number in (1, 3))
    assert [first["credit"]["threshold"], third["credit"]["threshold"]] == [0.5, 0.7]
    before = f"{tmp_path}/rounds/2"
    assert [first["rounds"]["behaviour"], third["rounds"]["behaviour"]] == ["", before]
    assert third["roles"]["verifier"]["adapter"] == f"{before}/export/verifier"
    assert third["roles"]["generator"]["adapter"] == "peft"
    assert third["eval"]["votes"] == 3
    fewer = resolve(given | {"rounds": given["rounds"] | {"count": 2, "start": "base"}}, 1)
    assert fewer == first


def test_a_critic_may_first_learn_to_tell(tmp_path):
    given = config(
        tmp_path,
        rounds__count=3,
        rounds__verdict=2,
        credit__verdict=("Right", "Wrong"),
        credit__by_verdict=("verifier",),
    )
    rewarded = [resolve(given, number)["credit"]["by_verdict"] for number in (1, 2, 3)]
    assert rewarded == [("verifier",), ("verifier",), ()]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds__thresholds": (0.5,) * 3}, "config.rounds.thresholds: 3 values for 2 rounds"),
        ({"rounds__verdict": 2}, "config.rounds.verdict: 2, but there are 2 rounds"),
        ({"rounds__thresholds": (0.5, 1.0)}, "config.rounds.thresholds: must each be in"),
        ({"rounds__count": 1, "rounds__thresholds": (0.5,)}, "config.rounds.thresholds: there is"),
        ({"trees": "elsewhere"}, "config.trees: rounds draw their own trees"),
        ({"data__development_questions": 0}, "config.data.development_questions: 0, but the best"),
        ({"data__train_questions": 0}, "config.data.train_questions: 0 takes all"),
        ({f"roles__{role}__train": () for role in ROLES}, "config.rounds.count: no role of conf"),
        ({"rounds__number": 1}, "config.rounds.number: a round of a run has no rounds"),
        ({"rounds__count": 0}, "config.rounds.count: must be positive"),
        ({"rounds__replay_weight": 0.5}, "config.rounds.replay_weight: no earlier round is"),
        ({"rounds__replay_weight": 0.0}, r"config.rounds.replay_weight: must be in \(0, 1\]"),
    ],
)
def test_what_rounds_cannot_do_is_refused_by_key(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["collect", "datasets", "train"])
def test_a_stage_of_a_round_is_told_from_one_of_the_run(tmp_path, name):
    with pytest.raises(ValueError, match=rf"--stage={name}: with config.rounds.count=2 .*=rounds"):
        run(tmp_path / "run", name)


def test_fresh_questions_that_run_out_are_counted_before_anything_is_sampled(tmp_path):
    lines = [{"question": f"{i} + {i}", "answer": str(2 * i)} for i in range(10)]
    for name, of_split in {"train": lines[:9], "eval": lines[9:]}.items():
        text = "".join(json.dumps(line) + "\n" for line in of_split)
        (tmp_path / f"{name}.jsonl").write_text(text)
    given = {f"data__{name}": str(tmp_path / f"{name}.jsonl") for name in ("train", "eval")}
    with pytest.raises(ValueError, match=r"rounds.questions: 2 rounds of .*=4 .* need 8.* are 6;"):
        run(tmp_path / "run", "rounds", data__task="jsonl", **given)
    assert not (tmp_path / "run" / "rounds").exists()


def test_one_round_leaves_no_trace_of_rounds(tmp_path):
    assert stages.in_order(1)[:3] == ("collect", "datasets", "train")
    done = run(tmp_path / "run", rounds__count=1)
    assert not (done / "rounds").exists()
    assert {row["round"] for row in shards.read(done / "trees")} == {0}
