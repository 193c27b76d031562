"""Questions that change under the samples that were drawn of them are told, by id and field."""

import json
from dataclasses import replace

import pytest
from jobs import a_job

from malt_jax import stages
from malt_jax.stages import claiming
from malt_jax.types import Question
from malt_jax.workdir import question_record

CHOICES = (("A", "a pen"), ("B", "a box"))
QUESTIONS = [Question(f"q{i}", f"What is {i}?", str(i), CHOICES) for i in range(9)]


def holding(workdir, output: str) -> None:
    (workdir / output).mkdir()
    (workdir / output / "file").touch()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"answer": "12"}, r"reference '3' then, '12' now"),
        ({"text": "What was 3?"}, r"question 'What is 3\?' then, 'What was 3\?' now"),
        ({"text": "x" * 999}, r"question 'What is 3\?' then, 'x{60}\.\.\.' now"),
        ({"choices": CHOICES[::-1]}, r"choices .*'A'.* then, .*'B'.* now"),
        ({"id": "q9"}, r"'q3': not there now"),
    ],
)
@pytest.mark.parametrize(("split", "output"), [("train", "trees"), ("eval", "eval")])
def test_a_question_that_changed_is_named_with_what_changed(
    tmp_path, split, output, changes, words
):
    question_record.settle(tmp_path, split, QUESTIONS)
    other = [replace(q, **changes) if q.id == "q3" else q for q in QUESTIONS]
    question_record.settle(tmp_path, split, other)  # nothing is drawn yet
    question_record.settle(tmp_path, split, QUESTIONS)
    holding(tmp_path, output)
    question_record.settle(tmp_path, split, QUESTIONS[::-1])
    with pytest.raises(ValueError, match=rf"config\.data\.{split}: .* 'q3': .*{words}|{words}"):
        question_record.settle(tmp_path, split, other)
    with pytest.raises(ValueError, match=r"8 of 9 questions .*another --config\.workdir"):
        question_record.settle(tmp_path, split, QUESTIONS[:1])


def test_a_directory_of_an_earlier_version_goes_on(tmp_path):
    holding(tmp_path, "trees")
    question_record.settle(tmp_path, "train", QUESTIONS)
    with pytest.raises(ValueError, match="q8"):
        question_record.settle(tmp_path, "train", QUESTIONS[:-1])


def written(path, *references: str) -> str:
    rows = [{"question": f"What is {r}?", "answer": r} for r in references]
    rows[0]["id"] = "first"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_stages_that_ask_no_question_look_at_files_that_changed(tmp_path):
    """Labels come from references: a data set was made, and trained on, of trees that were graded
    by others than those of the file."""
    file = tmp_path / "train.jsonl"

    def job():
        return a_job(
            tmp_path,
            data__task="jsonl",
            data__train=written(file, *references),
            data__eval=written(tmp_path / "eval.jsonl", "70", "71"),
            data__train_questions=0,
            data__eval_questions=0,
        )

    references = ["1", "2", "3"]
    asking = job()
    stages.claim(tmp_path, asking.settings.as_config())
    assert len(asking.training) == 3
    holding(tmp_path, "trees")
    references = ["1", "2", "3"]
    same = job()
    file.write_text(file.read_text().replace(": ", ":  "))  # other bytes, the same questions
    claiming.check_questions(same)
    file.write_text(file.read_text().replace('"3"', '"4"'))
    with pytest.raises(ValueError, match=r"config.data.train: 1 of 3 .*reference '3' then, '4'"):
        claiming.check_questions(replace(same))
