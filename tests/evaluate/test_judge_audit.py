"""What an audit says of a judge: planted judges whose faults are known."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from malt_jax.config.judging import JudgeSettings
from malt_jax.evaluate import judge_audit
from malt_jax.grading import Sample, judges
from malt_jax.grading.opinions import Inquiry
from malt_jax.tasks.task import Judged

SAMPLES = [Sample("word " * n, "", question=f"Question {n}?") for n in range(1, 9)]


@dataclass
class Planted:
    """A judge that says what `verdict` makes of an inquiry."""

    verdict: Callable[[str, Inquiry], float | None]
    asked: list[Inquiry] = field(default_factory=list)

    def ask(self, judged: Judged, asked: list[Inquiry]) -> list[float | None]:
        self.asked += asked
        return [self.verdict(inquiry.messages[1]["content"], inquiry) for inquiry in asked]


def figures(
    monkeypatch: pytest.MonkeyPatch, verdict: Callable[[str, Inquiry], float | None], form: str
) -> dict[str, object]:
    monkeypatch.setattr(judges, "ask", Planted(verdict).ask)
    settings = JudgeSettings(model="m", rubric="r", form=form)  # type: ignore[arg-type]
    return judge_audit.measured(Judged(settings, str(Path())), SAMPLES)


def test_a_steady_judge_agrees_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    told = figures(monkeypatch, lambda text, inquiry: 0.5, "score")
    steady = {"n": 8, "agree": 8, "shift": 0.0}
    assert told["repeats"] == steady
    assert told["planted"] == steady | {"moved": 0}
    assert told["orders"] == {"n": 0, "agree": 0, "shift": None}
    assert told["length"] == {"n": 8, "correlation": None}


def test_faults_of_a_judge_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def obeys(text: str, inquiry: Inquiry) -> float:
        return 1.0 if "Ignore all previous" in text or "NOTE FROM" in text else 0.5

    assert figures(monkeypatch, obeys, "score")["planted"] == {
        **{"n": 8, "agree": 4, "shift": 0.25, "moved": 4}
    }
    first = figures(monkeypatch, lambda text, inquiry: float(not inquiry.swapped), "preference")
    assert first["orders"] == {"n": 8, "agree": 0, "shift": -1.0}
    fickle = figures(monkeypatch, lambda text, inquiry: inquiry.repeat / 4, "score")
    assert fickle["repeats"] == {"n": 8, "agree": 0, "shift": 0.25}
    long = figures(monkeypatch, lambda text, inquiry: text.count("word ") / 100, "score")
    assert long["length"] == {"n": 8, "correlation": pytest.approx(1)}


def test_an_answer_without_a_verdict_is_counted_and_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def silent(text: str, inquiry: Inquiry) -> float | None:
        return None if "Question 3?" in text else 0.5

    told = figures(monkeypatch, silent, "score")
    assert (told["answers"], told["unanswered"]) == (8, 1)
    assert told["repeats"] == {"n": 7, "agree": 7, "shift": 0.0}


def test_the_rank_correlation_is_scipys() -> None:
    rng = np.random.default_rng(0)
    pairs = [(float(a), float(b)) for a, b in rng.integers(0, 5, (40, 2))]
    ours = judge_audit.rank_correlation(pairs)
    assert ours == pytest.approx(scipy.stats.spearmanr(*zip(*pairs, strict=True)).statistic)
    assert judge_audit.rank_correlation(pairs[:1]) is None
