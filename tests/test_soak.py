"""Everything but the model, from questions to the report, as the questions grow: the cost of a
question, memory and open files stay what they are."""

import pytest
from benchmarks.scaling import STAGES, ended, start


def added(row: dict, stage: str) -> float:
    """The MiB by which a stage raised the most that its process has had."""
    before = ("start", *STAGES)[STAGES.index(stage)]
    return row[f"{stage}_mib"] - row[f"{before}_mib"]


def test_a_question_costs_the_same_among_many():
    """Function calls and bytes are counted, not seconds: a stage that went through all shards for
    each of them, or all questions for each question, would show from one size to the next."""
    rows = ended(start({"sizes": [400, 800, 1600], "counted": True}))
    for stage in STAGES:
        counts = [[row[f"{stage}_calls"], *row[f"{stage}_bytes"]] for row in rows]
        for few, some, many in zip(*counts, strict=True):
            assert many - some < 2.2 * (some - few) + 0.02 * some, (stage, counts)
        files = [row[f"{stage}_open"] for row in rows]
        assert files[0] == files[-1], (stage, files)
        assert added(rows[-1], stage) < 60, (stage, rows)


@pytest.mark.slow
def test_a_hundred_thousand_questions():
    """Evaluation holds the scores of all questions, which are paired; all else is flat."""
    few, many = (ended(start({"sizes": [n]}))[0] for n in (10_000, 100_000))
    print(few, many)
    for stage in STAGES:
        assert many[f"{stage}_us"] < 1.5 * few[f"{stage}_us"], stage
        assert many[f"{stage}_open"] == few[f"{stage}_open"], stage
        held = 90_000 * 4 / 1024 if stage == "evaluate" else 0
        assert added(many, stage) - added(few, stage) < 100 + held, stage
