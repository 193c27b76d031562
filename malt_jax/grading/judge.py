"""The verdict on a completion, in this process and without limits; `worker` asks for it within
them."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from malt_jax.tasks.extract import Rules, Undecided, concluded, first_question, marked
from malt_jax.tasks.task import Choices, Task
from malt_jax.types import Grade, Question


class Sample(NamedTuple):
    """What is graded: a completion, the reference answer, whether the completion ran to its limit
    of tokens, and the choices and text of the question."""

    completion: str
    answer: str
    truncated: bool = False
    choices: Choices = ()
    question: str = ""


def verdict(
    task: Task,
    completion: str,
    answer: str,
    *,
    truncated: bool = False,
    choices: Choices = (),
    question: str = "",
    leniently: bool = False,
) -> Grade:
    """The verdict on one completion, whose `answer` is the reference; `leniently` as in
    `by_rules`. It may take any time: `grading.grade` sets limits.

    Raises:
        ValueError: if the task's rules do, for a reference answer that they cannot read.
    """
    sample = Sample(completion, answer, truncated, choices, question)
    assert task.program is None, "programs are graded in a sandbox, by `grading.grade`"
    if task.rules is None:
        return by_grader(task, [sample])[0]
    return by_rules(task.rules(answer, choices), sample, leniently=leniently)


def by_rules(rules: Rules, sample: Sample, *, leniently: bool = False) -> Grade:
    """The verdict on a completion by its task's rules.

    The first mark that can be read counts. The fallback counts only where there is no mark at all
    and the completion came to its own end; of one that was cut short, only an "answer is" whose
    sentence is over. `leniently`, for audits, whatever the completion holds
    anywhere counts where no mark can be read, cut short or not. Another question that a completion
    asks and answers after its own is none of it; the sample's own, asked again, is.
    """
    completion = first_question(sample.completion, sample.question)
    marks = marked(completion)
    readings = ((answer, via) for text, via in marks if (answer := rules.read(text)))
    answer, via = next(readings, ("", ""))
    if not answer and leniently:
        answer, via = rules.anywhere(completion) or "", "fallback"
    elif not answer and sample.truncated:
        answer, via = _concluded(rules, completion) if not marks else "", "fallback"
        if not answer:
            return Grade("truncated")
    elif not answer and not marks:
        answer, via = rules.fallback(completion) or "", "fallback"
    if not answer:
        return Grade("unparseable")
    try:
        return Grade("correct" if rules.agree(answer, rules.truth) else "wrong", answer, via)
    except Undecided:
        return Grade("unknown", via=via)


def _concluded(rules: Rules, completion: str) -> str:
    statement = concluded(completion)
    return rules.read(statement) or "" if statement else ""


def by_grader(task: Task, samples: Sequence[Sample]) -> list[Grade]:
    """The verdicts of a task's own grader. A score of 1 is a correct answer; a lower one is wrong,
    or truncated or unparseable where there is a reason, and remains the reward.

    Raises:
        ValueError: for another number of scores than of samples, and for a score outside [0, 1].
    """
    assert task.grade is not None
    questions = [Question("", s.question, s.answer, s.choices) for s in samples]
    scores = list(task.grade([s.completion for s in samples], questions))
    if len(scores) != len(samples):
        raise ValueError(f"{len(scores)} scores for {len(samples)} completions; give one for each")
    read = task.answer or stated
    return [_scored(s, float(score), read) for s, score in zip(samples, scores, strict=True)]


def _scored(sample: Sample, score: float, read: Callable[[str], str]) -> Grade:
    if math.isnan(score):
        return Grade("unknown", via="grader")
    answer = read(sample.completion)
    if score == 1:
        return Grade("correct", answer, "grader")
    if sample.truncated:
        return Grade("truncated", "", "grader", score)
    return Grade("wrong" if answer else "unparseable", answer, "grader", score)


def stated(completion: str) -> str:
    """The marked answer, else the last line that is not blank: what a vote counts where the task
    does not say what an answer is."""
    marks = marked(completion)
    return marks[0][0] if marks else completion.strip().rpartition("\n")[2].strip()
