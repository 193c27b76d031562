"""The temperature of a round's trees: what it is chosen by, and what a kill or other candidates
cost."""

import shutil
from pathlib import Path

import pytest
from in_rounds import config, everything, run, untrained  # noqa: F401 (a fixture)

from malt_jax import recipe
from malt_jax.rollout import driver
from malt_jax.stages import collect, train
from malt_jax.stages.curriculum import root_values
from malt_jax.stages.job import Job
from malt_jax.workdir import shards
from malt_jax.workdir.storage import read_json

CANDIDATES = {"rounds__temperatures": (0.05, 1.5), "rounds__temperature_questions": 2}
pytestmark = pytest.mark.usefixtures("untrained")


@pytest.fixture(scope="module")
def tempered(tmp_path_factory) -> Path:
    """A run of two rounds that choose their temperature; tests change nothing in it."""
    with pytest.MonkeyPatch.context() as patch:
        import in_rounds

        patch.setattr(train, "train_role", in_rounds.pretend)
        return run(tmp_path_factory.mktemp("tempered") / "run", **CANDIDATES)


def choices(workdir: Path) -> list[dict]:
    return [read_json(workdir / f"rounds/{n}/temperatures/chosen.json") for n in (1, 2)]


@pytest.mark.slow
def test_a_round_is_drawn_at_the_temperature_with_the_most_contrasts(tempered):
    figures = read_json(tempered / "rounds" / "rounds.json")["rounds"]
    for number, choice in enumerate(choices(tempered), 1):
        folder = tempered / "rounds" / str(number)
        assert choice["candidates"] == [0.05, 1.5]
        assert choice["questions"] == 2
        for at, share in zip(choice["candidates"], choice["contrast"], strict=True):
            values = root_values(folder / "temperatures" / f"{at:g}")
            assert share == sum(0 < value < 1 for value in values.values()) / 2
        best = choice["contrast"].index(max(choice["contrast"]))
        assert choice["chosen"] == choice["candidates"][best]
        made = read_json(folder / "config.json")["config"]
        assert made["rounds"]["drawn_at"] == choice["chosen"]
        assert made["sample"]["temperature"] == recipe.parse(config(tempered)).sample.temperature
        assert figures[number - 1]["temperature"] == choice["chosen"]
        job = Job(recipe.parse(made), collects=True)
        assert collect.drawing(job).sampling.temperature == choice["chosen"]
    tried, drawn = (
        {row["question_id"] for row in shards.read(tempered / "rounds" / "1" / name)}
        for name in ("temperatures/0.05", "trees")
    )
    assert len(tried) == 2
    assert not tried & drawn


@pytest.mark.slow
def test_ended_while_a_temperature_is_chosen_it_goes_on_to_the_same_bits(
    tempered, tmp_path, monkeypatch
):
    workdir = tmp_path / "run"
    with monkeypatch.context() as patch:
        store = driver.store

        def end(directory, *args):
            if directory == workdir / "rounds/2/temperatures/1.5":
                raise KeyboardInterrupt
            store(directory, *args)

        patch.setattr(driver, "store", end)
        with pytest.raises(KeyboardInterrupt):
            run(workdir, "rounds", **CANDIDATES)
    assert not (workdir / "rounds/2/temperatures/chosen.json").exists()
    run(workdir, **CANDIDATES)
    assert everything(workdir) == everything(tempered)
    assert choices(workdir) == choices(tempered)


@pytest.mark.slow
def test_other_candidates_than_a_round_was_drawn_by_are_refused_by_key(tempered, tmp_path):
    workdir = shutil.copytree(tempered, tmp_path / "run")
    changed = CANDIDATES | {"rounds__temperatures": (0.05, 0.9)}
    with pytest.raises(ValueError, match=r"config.rounds.temperatures: .*\(bound by export/"):
        run(workdir, **changed)
    for name in ("export", "eval"):
        shutil.rmtree(workdir / name)
    with pytest.raises(ValueError, match=r"rounds/1 holds .*\n.*\(bound by .*temperatures/"):
        run(workdir, **changed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds__temperatures": (0.5, 0.0)}, "config.rounds.temperatures: must each be positive"),
        ({"rounds__temperatures": (0.5, 0.5)}, "config.rounds.temperatures: must each be positive"),
        (
            {"rounds__temperatures": (0.5,), "rounds__drawn_at": 1.0},
            "config.rounds.drawn_at: config.rounds.temperatures is to find it",
        ),
        (
            {"rounds__count": 1, "rounds__temperatures": (0.5, 1.0)},
            "config.rounds.temperatures: there is one round",
        ),
    ],
)
def test_candidates_that_cannot_be_are_refused_by_key(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()
