"""metrics.jsonl on the page: which lines count, which charts they make, and where these stand."""

from pathlib import Path

from malt_jax import report
from malt_jax.report.load import load
from malt_jax.report.trainings import panels


def test_a_last_line_that_a_kill_cut_short_is_left_out(workdir: Path) -> None:
    path = workdir / "checkpoints" / "generator" / "sft" / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 3}\n{"step": 2, "loss": 2}\n{"step": 3, "lo')
    (training,) = (t for t in load(workdir).trainings if (t.role, t.phase) == ("generator", "sft"))
    assert training.series == {"loss": ((1, 3), (2, 2))}
    assert training.steps == 2


def test_held_out_evaluations_are_series_of_their_own(workdir: Path) -> None:
    """They stood among the steps: two losses a step, and a count of steps that was none."""
    path = workdir / "checkpoints" / "generator" / "sft" / "metrics.jsonl"
    path.write_text(
        '{"step": 1, "loss": 3}\n{"step": 2, "loss": null}\n{"step": 3, "loss": 2}\n'
        '{"step": 3, "eval": true, "loss": 2.5, "best": true}\n'
    )
    (training,) = (t for t in load(workdir).trainings if (t.role, t.phase) == ("generator", "sft"))
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
    (training,) = (t for t in load(workdir).trainings if (t.role, t.phase) == ("verifier", "dpo"))
    assert training.kept == 2
    assert training.held_out["kl"] == ((2, 0.25), (3, 0.5))
    assert [figure.what.split(" ")[0] for figure in training.figures] == [
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
    found = load(workdir).trainings
    sft, dpo = ([t for t in found if t.phase == phase] for phase in ("sft", "dpo"))
    assert [[t.role for t, _ in row] for row in panels(sft)] == [[t.role for t in sft]] * 2
    assert [{t.role for t, _ in row} for row in panels(dpo)] == [{t.role} for t in dpo]
    assert [len(row) for row in panels(dpo)] == [5, 5]


def test_a_phase_without_evaluations_names_no_kept_step(workdir: Path) -> None:
    path = workdir / "checkpoints" / "generator" / "sft" / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 3}\n')
    (training,) = (t for t in load(workdir).trainings if (t.role, t.phase) == ("generator", "sft"))
    assert training.kept is None
