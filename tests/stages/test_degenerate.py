"""Runs that have next to nothing to learn from, through all stages with a model that says what it
is told: each goes through or stops, and says why."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from jobs import a_job
from jobs import write as write_questions
from recipes import change, good
from telling import telling
from whole import TINY

from malt_jax import report
from malt_jax.config import settings
from malt_jax.evaluate import audit, evaluation, scoring
from malt_jax.learn import datasets
from malt_jax.recipe import parse
from malt_jax.stages import collect, job, preflight
from malt_jax.types import Question
from malt_jax.workdir import shards

Say = Callable[[str, int, int], str]
"""(question id, depth, child) -> a completion."""
QUESTIONS = [Question(f"q{i}", f"{i}-{i}", "0") for i in range(3)]
RIGHT, WRONG = "Final Answer: 0", "Final Answer: 1"


@pytest.fixture(scope="module")
def prepared() -> job.Job:
    return job.Job(parse(change(good(), "model.path", str(TINY))), collects=False)


def stages(
    prepared: job.Job, workdir: Path, say: Say, questions: Sequence[Question] = QUESTIONS, **changes
) -> settings.Settings:
    """All stages but training, in `workdir`; the settings."""
    config = good()
    shape = {"eval.systems": ("sa", "sa_mv", "malt", "malt_mv"), "eval.resamples": 50}
    for key, value in (shape | changes).items():
        change(config, key.replace("__", "."), value)
    parsed = parse(config)
    chain = job.Job(parsed, collects=False).chain
    team = telling(
        replace(prepared.team, roles=chain), lambda name, path: say(name, len(path) - 1, path[-1])
    )
    collect.run(workdir, parsed, team, questions)
    datasets.run(workdir, parsed)
    evaluation.run(workdir, parsed, team, {}, questions)
    audit.run(workdir, parsed)
    report.write(workdir)
    return parsed


def read(workdir: Path, name: str) -> dict:
    return json.loads((workdir / name).read_text())


def refusal(workdir: Path, parsed: settings.Settings, prepared: job.Job) -> str:
    """What training says instead of beginning."""
    with pytest.raises(ValueError, match="nothing to learn from") as caught:
        preflight.check(workdir, parsed, prepared.model)
    return str(caught.value)


def test_empty_completions(prepared, tmp_path, caplog):
    """Nothing is read into them, they are no data, and advice to lower the threshold is none."""
    parsed = stages(prepared, tmp_path, lambda *_: "")
    rows = list(shards.read(tmp_path / "trees"))
    assert {row["completion"] for row in rows} == {""}
    assert {row["status"] for row in rows if len(row["path"]) in (1, 3)} == {"unparseable"}
    counts = read(tmp_path, "datasets/yield.json")["refiner"]
    assert (counts["positives"], counts["kto_rows"]) == (0, 0)
    assert counts["dropped"] == {"empty": counts["nodes"]}
    for score in read(tmp_path, "eval/results.json")["systems"].values():
        assert (score["accuracy"], score["unparseable"]) == (0, score["answers"])
    said = refusal(tmp_path, parsed, prepared)
    assert "generator: none of 9 samples led to a right answer" in said
    assert "credit.threshold" not in said
    assert "verifier: none of 27 samples led to a right answer" in caplog.text


def test_an_empty_critique_is_no_data_though_the_answer_below_it_is_right(prepared, tmp_path):
    stages(prepared, tmp_path, lambda q, depth, c: "" if depth == 1 else f"{c}\n{RIGHT}")
    counts = read(tmp_path, "datasets/yield.json")
    assert counts["verifier"]["positives"] == counts["verifier"]["nodes"] == 27
    assert counts["verifier"]["sft_rows"] == 0
    assert counts["verifier"]["dropped"] == {"empty": 27}
    assert counts["refiner"]["sft_rows"] == 81
    why = datasets.lacks(counts["verifier"])
    assert why.startswith("none of 27 positive samples can be used (27 empty)")


@pytest.mark.parametrize("text", [RIGHT, WRONG], ids=["all", "none"])
def test_all_and_none_rewarded(prepared, tmp_path, text: str):
    """SFT has positives where all are right, and nothing else has anything to prefer."""
    parsed = stages(prepared, tmp_path, lambda q, depth, c: f"{q} {depth} {c}\n{text}")
    every = float(text is RIGHT)
    counts = read(tmp_path, "datasets/yield.json")
    for role in parsed.chain:
        assert counts[role]["pairs"] == counts[role]["parents_with_contrast"] == 0
        assert counts[role]["sft_rows"] == counts[role]["nodes"] * every
    results = read(tmp_path, "eval/results.json")
    assert {score["accuracy"] for score in results["systems"].values()} == {every}
    for pair in results["paired"]:
        low, high = pair["ci95"]
        assert (pair["difference"], pair["p_mcnemar"]) == (0, 1)
        assert low < -0.5 < 0.5 < high  # three questions that all came out alike say little
    said = refusal(tmp_path, parsed, prepared)
    flags = said.splitlines()[-1]
    if every:
        assert "verifier: all 27 samples are positive" in said
        assert "sft.parquet: empty" not in said
        assert "--config.roles.verifier.train=('sft',)" in flags.replace("'\"'\"'", "'")
    else:
        assert "none of 27 samples led to a right answer" in said
        assert "--config.roles.generator.train=()" in flags


def test_one_child_a_parent_and_one_vote(prepared, tmp_path):
    """The chain is a line: values are its last answer's, there are no pairs, and a vote of one is
    the answer."""
    single = {f"roles__{name}__branching": 1 for name in ("generator", "verifier", "refiner")}
    parsed = stages(
        prepared,
        tmp_path,
        lambda q, depth, c: RIGHT if q == "q0" else WRONG,
        eval__votes=1,
        eval__equal_compute=True,
        **single,
    )
    counts = read(tmp_path, "datasets/yield.json")["refiner"]
    assert (counts["nodes"], counts["parents"], counts["positives"]) == (3, 3, 1)
    assert (counts["sft_rows"], counts["pairs"]) == (1, 0)
    results = read(tmp_path, "eval/results.json")
    scores = results["systems"]
    assert scores["malt"] == scores["malt_mv"]
    assert scores["sa"] == scores["sa_mv"]
    assert scores["sa"]["correct"] == 1
    assert [row["k"] for row in results["at_k"]["malt"]] == [1]
    assert "raise config.roles.ROLE.branching" in refusal(tmp_path, parsed, prepared)


def test_one_question(prepared, tmp_path):
    """One question that the team has right and the single agent wrong was a victory: a resampled
    interval of it is a point."""
    wins = lambda q, depth, c: (RIGHT if depth else WRONG) if c == 0 else f"{c}\n{WRONG}"  # noqa: E731
    stages(prepared, tmp_path, wins, QUESTIONS[:1], eval__votes=1)
    results = read(tmp_path, "eval/results.json")
    assert results["systems"]["malt_mv"]["correct"] == 1
    assert results["systems"]["sa"]["correct"] == 0
    for pair in results["paired"]:
        assert pair["n"] == 1
        assert pair["ci95"][0] < 0 < pair["ci95"][1]
    low, high = results["equal_compute"][0]["ci95"]
    assert low < 0 < high
    text = (tmp_path / "report" / "report.md").read_text()
    assert "cannot be told from" in text
    assert "beats" not in text
    assert "wins" not in text


@pytest.mark.parametrize(("n", "sure"), [(5, False), (6, True)])
def test_questions_that_all_came_out_alike_say_what_mcnemar_says(n: int, sure: bool):
    """Six wins of six have p = 0.03, five of five p = 0.06."""
    right, wrong = ((scoring.Outcome(status, 1, 1, 1),) for status in ("correct", "wrong"))
    compared = scoring.compared([right] * n, [wrong] * n, 0, 100)
    assert compared["difference"] == 1
    assert (compared["ci95"][0] > 0) == (compared["p_mcnemar"] < 0.05) == sure
    assert compared["ci95"][1] == 1


def test_questions_beyond_the_context_cost_themselves(tmp_path):
    """Within `data.max_chars`, but not within what the prompts leave of 512 tokens."""
    long = "What is " + "1+" * 300 + "1?"
    files = {
        "data__train": write_questions(tmp_path / "train.jsonl", ["And 3 - 2?", long, "And 2?"]),
        "data__eval": write_questions(tmp_path / "eval.jsonl", ["What is 5 - 4?", long + "?"]),
    }
    counts = {"data__train_questions": 0, "data__eval_questions": 0, "data__task": "jsonl"}
    prepared = a_job(tmp_path, **files, **counts)
    assert {q.text for q in prepared.training} == {"And 3 - 2?", "And 2?"}
    assert [q.text for q in prepared.held_out] == ["What is 5 - 4?"]
    account = read(tmp_path, "data.json")
    assert (account["train"]["too_long"], account["eval"]["too_long"]) == (1, 1)
    assert [reason for _, reason in account["train"]["dropped"]] == ["too_long"]
    files["data__train"] = write_questions(tmp_path / "long.jsonl", [long])
    with pytest.raises(ValueError, match=r"config.data.train: no question is left .*data.json"):
        _ = a_job(tmp_path, **files, **counts).training
