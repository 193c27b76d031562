"""A score that weighs more than the task's own: how brief an answer is, and whether it has the form
that was asked for."""

from malt_jax.config.judging import RewardSettings
from malt_jax.grading.judge import Sample
from malt_jax.tasks.extract import marked
from malt_jax.types import Grade


def mixed(grade: Grade, sample: Sample, reward: RewardSettings) -> Grade:
    """A grade whose score is the mean of three by the weights of `reward`: the grade's own;
    brevity, 1 - characters / `reward.characters` and at least 0; and form, 1 for an answer with an
    explicit mark or in a closed fence, else 0.

    Nothing is brief or in form that gives no answer, or was cut. A grade without a verdict stays
    as it is.

    Worked example: weights 1, 0.5 and 0.5, a wrong answer of 500 of 2000 characters with a mark:
    (0 + 0.5 * 0.75 + 0.5) / 2 = 0.4375.
    """
    if not (reward.brief or reward.form) or grade.status == "unknown":
        return grade
    answers = grade.status in ("correct", "wrong")
    brief = max(0.0, 1 - len(sample.completion) / reward.characters) if answers else 0.0
    form = float(answers and in_form(sample.completion))
    weights = (reward.correct, reward.brief, reward.form)
    weighed = zip(weights, (grade.score, brief, form), strict=True)
    score = sum(weight * part for weight, part in weighed) / sum(weights)
    return Grade(grade.status, grade.answer, grade.via, min(score, 1.0))


def in_form(completion: str) -> bool:
    """Whether an answer is marked: by "Final Answer:", a box or "####", or as a closed fence."""
    return bool(marked(completion)) or completion.count("```") >= 2
