"""What the training benchmark counts and compares, with figures worked out by hand."""

import argparse
import json
import math
from pathlib import Path

import pytest
import small
from benchmarks import engines, epochs, examples, report
from benchmarks.epochs import Row
from benchmarks.peers import training_job
from benchmarks.peers.training_job import Job
from benchmarks.weights import Weights

PAIRS = [([1, 2, 3], [[4, 5], [6]]), ([7], [[8], [9, 9, 9]]), ([7, 7], [[8], [9]])]
FIRST = {"losses": [0.7], "logps": [-50.0, -80.0], "parameters": 10}


def test_useful_tokens_count_a_prompt_once_a_completion():
    assert examples.useful_tokens(PAIRS) == (3 + 2) + (3 + 1) + (1 + 1) + (1 + 3) + (2 + 1) * 2


def test_a_job_is_read_as_it_was_written_and_cut_by_the_longer_row(tmp_path):
    job = Job("dpo", 4, 8.0, 2, 1e-3, 1.0, 0.1, 0, [(p, rows) for p, rows in PAIRS])
    job.write(tmp_path / "job.json")
    reread = training_job.read(str(tmp_path / "job.json"))
    assert reread.sorted(3) == [list(PAIRS[i]) for i in (2, 1, 0)]
    assert reread.sorted(2) == [list(PAIRS[i]) for i in (1, 0)]


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
    by_engine = {
        name: epochs.figures(row, good, 100, 2) for name, row in {"a": good, "b": bad}.items()
    }
    assert by_engine["a"]["tokens_per_s"] == {"median": 37.5, "min": 25.0, "max": 50.0}
    assert (by_engine["a"]["peak_rss_gib"], by_engine["a"]["epoch_loss"]) == (1.0, 0.6)
    assert (
        by_engine["b"]["tokens_per_s"]
        is by_engine["b"]["first_loss"]
        is by_engine["b"]["differs"]
        is None
    )
    table = report.training(
        {
            "batch": 8,
            "runs": 2,
            "examples": {"dpo": 3},
            "useful_tokens": {"dpo": 100},
            "engines": {name: {"dpo": row} for name, row in by_engine.items()},
            "ratios": {"b_dpo": None},
            "roofline": {"flops_per_s": 1e11},
            "roofline_fraction": {"dpo": None},
        }
    )
    assert "37.5 [25.0, 50.0]" in table
    assert "failed: out of memory" in table
    assert "other work" not in table


@pytest.mark.parametrize("change", [{"logps": [-50.0, -80.4]}, {"parameters": 11}])
def test_an_engine_whose_first_step_differs_is_marked(change):
    figures = epochs.figures(Row(first=FIRST | change), Row(first=FIRST), 100, 1)
    assert figures["agrees"] is False
    json.dumps(figures, allow_nan=False)


class Echo:
    """A worker without a process: answers with so many seconds a token; `slow` fails in rounds."""

    def __init__(self, name: str, job: Job):
        self.started, self.asked = 0.0, 0
        self._name, self._job = name, job

    def ask(self, request):
        self.asked += 1
        if self._name == "slow" and self.asked > 2:
            raise engines.Failure("ended with status 9")
        tokens = examples.useful_tokens(self._job.examples[: request["count"]])
        logps = {"logps": [-50.0, -80.0]} if self._job.phase == "dpo" else {}
        return {
            "losses": [0.7],
            "seconds": tokens / (30 if self._name == engines.OURS else 10),
            "parameters": 10,
            "peak_rss_bytes": 2**30,
            **logps,
        }

    def close(self):
        self._job = None


def test_a_whole_run_gives_ratios_fractions_and_what_failed(tmp_path, monkeypatch):
    tokenizer = small.tokenizer()
    data = {"sft": [(p, rows[:1]) for p, rows in PAIRS], "dpo": PAIRS}
    names = [engines.OURS, "steady", "slow"]

    def start(row, engine, folder, weights, also):
        return Echo(row.rpartition("_")[0], training_job.read(also[0]))

    limits = {"flops": 1e9, "bandwidth": 1e9}
    monkeypatch.setattr(engines, "TRAINING", dict.fromkeys(names))
    monkeypatch.setattr(engines, "start", start)
    monkeypatch.setattr(epochs, "measure_machine", lambda folder: limits)
    monkeypatch.setattr(examples, "load", lambda *given: data)
    monkeypatch.setattr(examples, "unused_id", lambda *given: min(tokenizer.control_ids))
    home = Weights(small.save(tmp_path / "hf"), tmp_path, tmp_path)
    monkeypatch.setattr(epochs, "derive", lambda *given: home)
    asked = argparse.Namespace(
        model=Path("m.gguf"), data=Path("d"), rows=8, runs=3, engines=names, envs=tmp_path
    )
    result = epochs.run(asked)
    assert result["ratios"] == {
        "steady_sft": pytest.approx(3.0),
        "steady_dpo": pytest.approx(3.0),
        "slow_sft": None,
        "slow_dpo": None,
    }
    assert result["engines"]["slow"]["dpo"]["error"] == "ended with status 9"
    assert result["engines"]["steady"]["dpo"]["agrees"]
    assert result["useful_tokens"] == {"sft": 10, "dpo": 21}
    # At one rate of useful tokens: a pair's prompt counts as two and need be computed only once.
    fractions = {phase: spread["median"] for phase, spread in result["roofline_fraction"].items()}
    assert 0 < fractions["dpo"] < fractions["sft"] < 1
    json.dumps(result, allow_nan=False)
    assert report.training(result).count("failed: ended with status 9") == 2
