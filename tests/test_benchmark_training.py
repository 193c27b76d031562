"""What the training benchmark counts and compares, with figures worked out by hand."""

import math

import pytest
from benchmarks import epochs, examples, report
from benchmarks.epochs import Row
from benchmarks.peers import training_job
from benchmarks.peers.training_job import Job

PAIRS = [([1, 2, 3], [[4, 5], [6]]), ([7], [[8], [9, 9, 9]]), ([7, 7], [[8], [9]])]
FIRST = {"losses": [0.7], "logps": [-50.0, -80.0], "parameters": 10}


def test_useful_tokens_count_a_prompt_once_a_completion():
    assert examples.useful_tokens(PAIRS) == (3 + 2) + (3 + 1) + (1 + 1) + (1 + 3) + (2 + 1) * 2


def test_a_job_is_read_as_it_was_written_and_cut_by_the_longer_row(tmp_path):
    job = Job("dpo", 4, 8.0, 2, 1e-3, 1.0, 0.1, 0, [(p, rows) for p, rows in PAIRS])
    job.write(tmp_path / "job.json")
    found = training_job.read(str(tmp_path / "job.json"))
    assert found.sorted(3) == [list(PAIRS[i]) for i in (2, 1, 0)]
    assert found.sorted(2) == [list(PAIRS[i]) for i in (1, 0)]


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({}, 0.0),
        ({"losses": [0.77]}, 0.1),
        # A fresh adapter has DPO's log 2 whatever the model: the loss alone would not show this.
        ({"logps": [-50.0, -80.4]}, 0.005),
        ({"parameters": 11}, math.inf),
    ],
)
def test_another_first_step_is_noticed(change, differs):
    assert epochs.difference(FIRST, FIRST | change) == pytest.approx(differs)


def test_an_engine_that_failed_has_no_figures_and_its_error_in_the_table():
    good = Row(first=FIRST, losses=[0.7, 0.5], seconds=[2.0, 4.0], peak_rss_bytes=2**30)
    bad = Row(error="out of memory")
    found = {name: epochs.figures(row, good, 100, 2) for name, row in {"a": good, "b": bad}.items()}
    assert found["a"]["tokens_per_s"] == {"median": 37.5, "min": 25.0, "max": 50.0}
    assert (found["a"]["peak_rss_gib"], found["a"]["epoch_loss"]) == (1.0, 0.6)
    assert found["b"]["tokens_per_s"] is found["b"]["first_loss"] is found["b"]["differs"] is None
    table = report.training(
        {
            "batch": 8,
            "runs": 2,
            "examples": {"dpo": 3},
            "useful_tokens": {"dpo": 100},
            "engines": {name: {"dpo": row} for name, row in found.items()},
            "ratios": {"b_dpo": None},
            "roofline": {"flops_per_s": 1e11},
            "roofline_fraction": {"dpo": None},
        }
    )
    assert "37.5 [25.0, 50.0]" in table
    assert "failed: out of memory" in table
    assert "other work" not in table


def test_an_engine_whose_first_step_differs_is_marked():
    other = Row(first=FIRST | {"logps": [-50.0, -80.4]}, losses=[0.7], seconds=[1.0])
    assert epochs.figures(other, Row(first=FIRST), 100, 1)["agrees"] is False
