"""A team from where it lies: a work directory, a recipe and adapters from elsewhere; and what it
answers."""

import json
from pathlib import Path

import pytest
from asking import LENGTHS, PROMPTS, team, texts
from exports import drawn, recipe

import malt_jax
from malt_jax import export, models
from malt_jax.serve.backend import Answered, Began
from malt_jax.serve.batcher import Batcher

QUESTIONS = ["1+2", "7-3", "1+" * 300, "4+4", " "]


def settings(base: Path, workdir: Path, **changes):
    """The settings of a run with the roles of `asking.team`, all of which are trained."""
    for name, prompt in PROMPTS.items():
        changes |= {f"roles__{name}__prompt": prompt, f"roles__{name}__train": ("sft",)}
        changes[f"roles__{name}__max_new_tokens"] = LENGTHS[name]
    return recipe(base, workdir=str(workdir), sample__rows=16, **changes)


@pytest.fixture(scope="module")
def workdir(base: Path, model: models.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run leaves, as far as a team needs it; it was made elsewhere, and moved."""
    directory = tmp_path_factory.mktemp("runs") / "moved"
    given = settings(base, Path("/nowhere"))
    for seed, role in enumerate(given.chain):
        export.write(directory, given, model, role, drawn(model, seed))
    config = json.dumps({"format": 2, "config": given.as_config()})
    (directory / "config.json").write_text(config)
    return directory


@pytest.fixture(scope="module")
def loaded(workdir: Path) -> malt_jax.Team:
    return malt_jax.Team.load(workdir)


def test_a_work_directory_is_a_team_with_its_prompts_and_adapters(loaded, model):
    played = {role: drawn(model, seed) for seed, role in enumerate(PROMPTS)}
    by_hand = team(played)
    assert loaded.solve("1+2", votes=2) == by_hand.solve("1+2", votes=2)
    assert loaded.solve("1+2", 1, trained=False) == team().solve("1+2", 1)
    assert loaded.solve("1+2", 1, trained=False) != loaded.solve("1+2", 1)


def test_a_solution_is_the_same_alone_and_among_others(loaded):
    alone = loaded.solve("1+2", votes=3)
    solutions = list(loaded.solve_all(QUESTIONS, votes=3))
    assert solutions[0].votes == alone.votes
    assert solutions[0].transcript == alone.transcript
    assert len(alone.transcript) == 3
    assert all(list(said) == list(PROMPTS) for said in alone.transcript)
    assert solutions[0].tokens_read == alone.tokens_read > alone.tokens_shared >= 0


def test_a_question_that_cannot_be_asked_costs_its_own_answer_alone(loaded):
    solutions = list(loaded.solve_all(QUESTIONS, votes=1))
    assert [bool(solution.error) for solution in solutions] == [False, False, True, False, True]
    assert "room for" in solutions[2].error
    assert solutions[2].transcript == ()
    with pytest.raises(ValueError, match="room for"):
        loaded.solve(QUESTIONS[2])
    with pytest.raises(ValueError, match="question: empty"):
        loaded.solve(" ")


def test_options_are_checked_before_anything_is_asked(loaded):
    with pytest.raises(ValueError, match=r"no option 'temprature'; did you mean temperature\?"):
        loaded.solve("1+2", temprature=0.5)
    with pytest.raises(ValueError, match="temperature: -1"):
        next(loaded.solve_all(["1+2"], temperature=-1))
    assert loaded.solve("1+2", 1, seed=5) != loaded.solve("1+2", 1, seed=6)
    greedy = [loaded.solve("1+2", 1, seed=seed, temperature=0.0).text for seed in (5, 6)]
    assert greedy[0] == greedy[1]


def test_a_stream_tells_the_answer_as_it_is_written(loaded):
    events = list(loaded.stream("1+2", votes=2))
    written = texts(events)
    solution = loaded.solve("1+2", votes=2)
    said = [{role: written[run, role] for role in PROMPTS} for run in (0, 1)]
    assert solution.transcript == tuple(said)
    assert isinstance(events[-1], Answered)
    assert events[-1].text == solution.text


def test_a_stream_that_is_left_frees_what_it_holds():
    asked = team(endless=True)
    batcher: Batcher = asked._batcher
    stream = asked.stream("1+2", votes=2)
    assert isinstance(next(stream), Began)
    assert batcher.gauges()["requests_running"] == 1
    stream.close()
    assert not any(batcher.gauges().values())


def test_what_the_roles_wrote_may_be_given(loaded):
    given = {"generator": "3", "verifier": "no"}
    solution = loaded.solve("1+2", 1, written=given)
    assert {role: solution.transcript[0][role] for role in given} == given


def test_adapters_from_elsewhere_make_a_team_of_a_recipe(base, model, workdir, tmp_path, loaded):
    """PEFT directories by role; a role that is not named plays under the base."""
    file = tmp_path / "mine.py"
    config = settings(base, tmp_path / "run").as_config()
    file.write_text(f"import ml_collections\n\n\ndef get_config():\n    return "
                    f"ml_collections.ConfigDict({config!r})\n")  # fmt: skip
    places = {"refiner": str(workdir / "export" / "refiner")}
    elsewhere = malt_jax.Team.load(file, adapters=places)
    by_hand = team({"refiner": drawn(model, 2)})
    assert elsewhere.solve("1+2", 1) == by_hand.solve("1+2", 1) != loaded.solve("1+2", 1)
    with pytest.raises(ValueError, match=r"adapters: no role 'refinr'; did you mean refiner\?"):
        malt_jax.Team.load(file, adapters={"refinr": "x"})
    with pytest.raises(ValueError, match=r"the adapter of 'refiner', in the place of"):
        malt_jax.Team.load(file, adapters={"generator": places["refiner"]})


def test_a_team_that_is_not_trained_says_so_and_its_base_may_be_asked(base, tmp_path):
    given = settings(base, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"config": given.as_config()}))
    with pytest.raises(
        ValueError, match=r"export/generator: not there, .*run --stage=train.*--base"
    ):
        malt_jax.Team.load(tmp_path)
    assert malt_jax.Team.load(tmp_path, base=True).solve("1+2", 1) == team().solve("1+2", 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no config.json in it; give the work directory of a run, or a recipe"),
        ("{}", "config.json: not the record of a run"),
        ('{"config": {"chain": ["a"]}', "config.json: not JSON"),
    ],
)
def test_a_directory_that_no_run_left_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        malt_jax.Team.load(tmp_path)


def test_a_source_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"quickstrat: no such file, .*did you mean quickstart"):
        malt_jax.Team.load("quickstrat")


def test_verdicts_are_read_from_the_roles_that_give_them(base, tmp_path):
    words = ("1", "2")
    for by_verdict, roles in [((), ["verifier"]), (("refiner",), ["refiner"])]:
        given = settings(base, tmp_path, credit__verdict=words, credit__by_verdict=by_verdict)
        (tmp_path / "config.json").write_text(json.dumps({"config": given.as_config()}))
        asked = malt_jax.Team.load(tmp_path, base=True)
        assert list(asked.verdicts) == roles
        given_texts = {"generator": "3", "verifier": "it is 2. No: 1"}
        solution = asked.solve("1+2", 1, written=given_texts)
        if roles == ["verifier"]:
            assert solution.verdict is True
