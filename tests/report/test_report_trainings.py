"""metrics.jsonl on the page: which lines count, which charts they make, and where these stand."""

import json
from pathlib import Path

import pytest
import toy_phase
from pages import cells

from malt_jax import report
from malt_jax.learn.phases import PHASES
from malt_jax.report.load import load
from malt_jax.report.trainings import Training, panels


def training_of(workdir: Path, role: str, phase: str) -> Training:
    (training,) = (t for t in load(workdir).trainings if (t.role, t.phase) == (role, phase))
    return training


def test_a_last_line_that_a_kill_cut_short_is_left_out(workdir: Path) -> None:
    path = workdir / "checkpoints" / "generator" / "sft" / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 3}\n{"step": 2, "loss": 2}\n{"step": 3, "lo')
    training = training_of(workdir, "generator", "sft")
    assert training.series == {"loss": ((1, 3), (2, 2))}
    assert training.steps == 2


def test_held_out_evaluations_are_series_of_their_own(workdir: Path) -> None:
    """They stood among the steps: two losses a step, and a count of steps that was none."""
    path = workdir / "checkpoints" / "generator" / "sft" / "metrics.jsonl"
    path.write_text(
        '{"step": 1, "loss": 3}\n{"step": 2, "loss": null}\n{"step": 3, "loss": 2}\n'
        '{"step": 3, "eval": true, "loss": 2.5, "best": true}\n'
    )
    training = training_of(workdir, "generator", "sft")
    assert training.series == {"loss": ((1, 3), (3, 2))}
    assert training.held_out == {"loss": ((3, 2.5),)}
    assert training.steps == 3
    page = report.write(workdir).read_text()
    assert "loss 3 → 2, held out 2.5" in page
    assert '<polyline class="line other"' in page


def test_kl_and_the_log_probabilities_have_charts_and_the_kept_step_is_marked(
    workdir: Path,
) -> None:
    path = workdir / "checkpoints" / "verifier" / "dpo" / "metrics.jsonl"
    path.write_text(
        '{"step": 1, "loss": 3, "chosen_logp": -4, "rejected_logp": -5}\n'
        '{"step": 2, "loss": 2, "chosen_logp": -6, "rejected_logp": -9}\n'
        '{"step": 2, "eval": true, "loss": 2.5, "kl": 0.25, "best": true}\n'
        '{"step": 3, "loss": 1, "chosen_logp": null, "rejected_logp": null}\n'
        '{"step": 3, "eval": true, "loss": 2.75, "kl": 0.5, "best": false}\n'
    )
    training = training_of(workdir, "verifier", "dpo")
    assert training.kept == 2
    assert training.held_out["kl"] == ((2, 0.25), (3, 0.5))
    assert [figure.shows.split(" ")[0] for figure in training.figures] == [
        "loss",
        "log-probability,",
        "KL",
    ]
    assert training.figures[1].ends == "\u22124 → \u22126, \u22125 → \u22129"
    page = report.write(workdir).read_text()
    assert "held out 0.5 in" in page
    assert "3 steps; 2 kept" in page


def test_charts_of_a_phase_stand_by_figure_where_they_are_few_and_else_by_role(
    workdir: Path,
) -> None:
    trainings = load(workdir).trainings
    sft, dpo = ([t for t in trainings if t.phase == phase] for phase in ("sft", "dpo"))
    assert [[t.role for t, _ in row] for row in panels(sft)] == [[t.role for t in sft]] * 2
    assert [{t.role for t, _ in row} for row in panels(dpo)] == [{t.role} for t in dpo]
    assert [len(row) for row in panels(dpo)] == [5, 5]


def test_a_phase_without_evaluations_names_no_kept_step(workdir: Path) -> None:
    path = workdir / "checkpoints" / "generator" / "sft" / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 3}\n')
    training = training_of(workdir, "generator", "sft")
    assert training.kept is None


def test_a_last_partial_batch_does_not_bend_the_curve(workdir: Path) -> None:
    """(0.5 * 1000 + 2.5 * 100) / 1100 = 0.682, where a step of 100 tokens ended the curve at 2.5;
    one that is a little shorter stands."""
    rows = [(1, 1.0, 1000), (2, 0.75, 900), (3, 0.5, 1000), (4, 2.5, 100)]
    path = workdir / "checkpoints" / "generator" / "sft" / "metrics.jsonl"
    lines = [{"step": step, "loss": loss, "tokens": tokens} for step, loss, tokens in rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    training = training_of(workdir, "generator", "sft")
    assert training.series["loss"][:2] == ((1, 1.0), (2, 0.75))
    assert training.series["loss"][2] == pytest.approx((4, 750 / 1100))
    assert training.steps == 4


def test_where_the_held_out_score_began_stands_beside_its_end(workdir: Path) -> None:
    path = workdir / "checkpoints" / "generator" / "sft" / "metrics.jsonl"
    path.write_text(
        '{"step": 0, "eval": true, "loss": 4, "best": false}\n{"step": 1, "loss": 3}\n'
        '{"step": 1, "eval": true, "loss": 2.5, "best": true}\n'
    )
    assert "loss 3 → 3, held out 4 → 2.5 in" in report.write(workdir).read_text()


def test_examples_of_a_phase_from_outside_are_counted_under_its_name(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were read by name: those of SFT and DPO. Of phases that no role goes through none are
    shown."""
    monkeypatch.setitem(PHASES, "toy", toy_phase.PHASE)
    path = workdir / "datasets" / "yield.json"
    yields = json.loads(path.read_text())
    for counts in yields.values():
        counts["toy_rows"] = 1234
    path.write_text(json.dumps(yields))
    config = json.loads((workdir / "config.json").read_text())
    for role in config["config"]["roles"].values():
        role["train"] = ["sft", "toy"]
    (workdir / "config.json").write_text(json.dumps(config))
    rows = cells(report.write(workdir).read_text())
    assert ["TOY rows", "1,234", "68.6%", ""] in rows
    assert not [row for row in rows if row[0] == "pairs"]
    text = (workdir / "report" / "report.md").read_text()
    assert "| parents with a contrast | SFT rows | TOY rows | dropped |" in text
