"""The grades of trees that grow: nodes are graded beside the sampler, and taken when they are."""

from collections.abc import Sequence
from concurrent import futures
from concurrent.futures import Future
from dataclasses import dataclass, field

from malt_jax import grading
from malt_jax.grading import Sample
from malt_jax.rollout.tree import Node
from malt_jax.runtime import process
from malt_jax.tasks import Task
from malt_jax.types import Grade, Question


@dataclass(frozen=True)
class Grades:
    """The grades by question id, those to come as well."""

    task: Task
    of_question: dict[str, list[tuple[list[Node], Future[list[Grade]]]]] = field(
        default_factory=dict
    )

    def submit(self, question: Question, nodes: Sequence[Node]) -> None:
        """Sends those of a question's nodes that answer."""
        answering = [node for node in nodes if node.answers]
        samples = [
            Sample(
                node.text,
                question.answer,
                not node.completion.stopped,
                question.choices,
                question.text,
            )
            for node in answering
        ]
        grades = self.of_question.setdefault(question.id, [])
        if samples:
            grades.append((answering, grading.submit(self.task, samples)))

    def done(self, question: Question, seconds: float) -> bool:
        """Whether a question's grades are there, at the latest in so many seconds."""
        under_way = [grades for _, grades in self.of_question[question.id]]
        return all(grades.done() for grades in under_way) or (
            seconds > 0 and not futures.wait(under_way, seconds).not_done
        )

    def wait(self, questions: Sequence[Question]) -> None:
        """Until those of one of the questions are there, or a signal is."""
        while not any(self.done(question, 0) for question in questions):
            graded = [grades for q in questions for _, grades in self.of_question[q.id]]
            under_way = [grades for grades in graded if not grades.done()]
            futures.wait(under_way, 0.2, return_when=futures.FIRST_COMPLETED)
            process.heed()

    def of(self, question: Question) -> dict[Node, Grade]:
        """The grades of a question's nodes, which must be there. Raises what the grader did."""
        return {
            node: grade
            for nodes, grades in self.of_question[question.id]
            for node, grade in zip(nodes, grades.result(), strict=True)
        }

    def take(self, question: Question) -> dict[Node, Grade]:
        """The same, which are then forgotten."""
        grades = self.of(question)
        del self.of_question[question.id]
        return grades
