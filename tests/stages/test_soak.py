"""Everything but the model, from questions to the report, as the questions grow: the cost of a
question, memory and open files stay what they are."""

import pytest
from benchmarks.scaling import STAGES, ended, start


def added(row: dict, stage: str) -> float:
    """The MiB by which a stage raised the most that its process has had."""
    before = ("start", *STAGES)[STAGES.index(stage)]
    return row[f"{stage}_mib"] - row[f"{before}_mib"]


@pytest.mark.slow
def test_a_question_costs_the_same_among_many():
    """Function calls and bytes are counted, not seconds. Twice the questions are twice the work;
    for a stage that goes through all shards for each of them, or all questions for each question,
    they are four times as much."""
    few, many = ended(start({"sizes": [300, 600], "counted": True}))
    for stage in STAGES:
        assert many[f"{stage}_calls"] < 2.5 * few[f"{stage}_calls"], (stage, few, many)
        for less, more in zip(few[f"{stage}_bytes"], many[f"{stage}_bytes"], strict=True):
            assert more < 2.5 * less + 2**16, (stage, few, many)  # which are written in groups
        assert few[f"{stage}_open"] == many[f"{stage}_open"], (stage, few, many)
        assert added(many, stage) < 60, (stage, many)


@pytest.mark.slow
def test_a_hundred_thousand_questions():
    """Evaluation holds the scores of all questions, which are paired; all else is flat."""
    few, many = (ended(start({"sizes": [n]}))[0] for n in (10_000, 100_000))
    print(few, many)
    for stage in STAGES:
        assert many[f"{stage}_us"] < 1.5 * few[f"{stage}_us"], stage
        (files, threads), (files_of_few, threads_of_few) = (r[f"{stage}_open"] for r in (many, few))
        assert files == files_of_few, stage
        # Libraries' pools start as many as they come to need; one lost a shard would be thousands.
        assert threads < threads_of_few + 20, stage
        held = 90_000 * 4 / 1024 if stage == "evaluate" else 0
        assert added(many, stage) - added(few, stage) < 100 + held, stage
