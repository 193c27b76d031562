"""A suite goes on where it was and past what cannot be run."""

import json

import pytest
from recipes import change, good

from malt_jax import experiments, stages
from malt_jax.experiments import variant


@pytest.fixture
def started(monkeypatch, tmp_path):
    """What was run, by its directory's name, without running it; STaR with one agent fails."""
    runs: dict[str, tuple] = {}

    def run(parsed, config, stages):
        name = parsed.workdir.rpartition("/")[2]
        runs[name] = (config, tuple(stages))
        if name == "star_sa":
            raise ValueError("nothing to learn from")

    monkeypatch.setattr(stages, "run", run)
    monkeypatch.setattr(stages, "check", lambda parsed: None)
    monkeypatch.setattr(experiments, "report_on", lambda config: None)
    return runs


def a_suite(tmp_path, suite: str) -> dict:
    return change(change(good(), "workdir", str(tmp_path / "main")), "suite", suite)


def test_one_that_fails_does_not_keep_the_others_from_running(started, tmp_path):
    with pytest.raises(ValueError, match=r"could not be run:\nstar_sa: nothing to learn from"):
        experiments.run(a_suite(tmp_path, "paper_table1,control"))
    assert list(started) == ["main", "star_sa", "star_ma", "debate", "shuffled"]
    assert started["debate"][1] == ("evaluate",)
    assert started["shuffled"][0]["trees"] == str(tmp_path / "main")


def test_what_is_evaluated_is_not_run_again(started, tmp_path):
    config = a_suite(tmp_path, "paper_table1")
    for name in ("star_sa", "star_ma"):
        results = variant.directory(config, name) / "eval" / "results.json"
        results.parent.mkdir(parents=True)
        results.write_text(json.dumps({}))
    experiments.run(config)
    assert list(started) == ["main", "debate"]


def test_every_setting_is_checked_before_the_first_run(started, tmp_path):
    config = a_suite(tmp_path, "sweeps")
    config["sample"]["rows"] = 8  # enough for the main run, and too few for nine votes
    with pytest.raises(ValueError, match=r"config.sample.rows: too few"):
        experiments.run(config)
    assert not started


def test_every_prompt_is_measured_before_the_first_run(started, monkeypatch, tmp_path):
    """A debate that could not fit the context was refused when its turn came, hours later."""

    def check(parsed):
        if parsed.eval.systems == ("debate",):
            raise ValueError("no room")

    monkeypatch.setattr(stages, "check", check)
    with pytest.raises(ValueError, match="no room"):
        experiments.run(a_suite(tmp_path, "paper_table1"))
    assert not started


def test_ablations_ask_the_main_run_for_the_critique_test(started, tmp_path):
    config = a_suite(tmp_path, "ablations")
    experiments.run(config)
    assert started["main"][0]["eval"]["critiques"]
    assert not started["star_ma"][0]["eval"]["critiques"]
    assert not config["eval"]["critiques"], "the given config stays as it is"


def test_one_that_is_not_finite_is_noted_and_tried_again(started, monkeypatch, tmp_path):
    """A loss of NaN in one variant ended the suite."""
    config = a_suite(tmp_path, "paper_table1,control")
    ran = stages.run

    def fails(parsed, config, stages):
        ran(parsed, config, stages)
        if parsed.workdir.endswith("star_ma"):
            raise FloatingPointError("sft: 5 steps were not finite")

    monkeypatch.setattr(stages, "run", fails)
    with pytest.raises(ValueError, match=r"star_ma: sft: 5 steps were not finite"):
        experiments.run(config)
    noted = json.loads((tmp_path / "main" / "failures.json").read_text())
    assert noted == {"star_sa": "nothing to learn from", "star_ma": "sft: 5 steps were not finite"}
    assert "shuffled" in started
    started.clear()
    monkeypatch.setattr(stages, "run", lambda parsed, *_: started.update({parsed.workdir: ()}))
    experiments.run(config)
    assert any(place.endswith("star_ma") for place in started)
    assert json.loads((tmp_path / "main" / "failures.json").read_text()) == {}


def test_nothing_is_tried_beside_a_seed_that_failed(started, monkeypatch, tmp_path):
    config = a_suite(tmp_path, "protocol")
    config["suite_seeds"] = 2

    def fails(parsed, config, stages):
        started[parsed.workdir] = ()
        if parsed.workdir.endswith("run_1"):
            raise ValueError("no trees")

    monkeypatch.setattr(stages, "run", fails)
    with pytest.raises(ValueError, match=r"run_1/debate: run_1 failed, beside which it stands"):
        experiments.run(config)
    assert not any("run_1/variants" in place for place in started)
    assert len(started) == 1 + 7 + 1
