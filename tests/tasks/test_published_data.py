"""The published files, where they are at hand: references grade themselves; known overlaps."""

import json
from pathlib import Path

import pytest
from thinned import thinned

from malt_jax import tasks
from malt_jax.grading import verdict
from malt_jax.tasks.extract import marked

DATA = Path(__file__).parents[3] / "shared" / "data"
FILES = {
    "gsm8k/train.jsonl": ("gsm8k", 7473),
    "gsm8k/test.jsonl": ("gsm8k", 1319),
    "csqa/train.jsonl": ("csqa", 9741),
    "csqa/dev.jsonl": ("csqa", 1221),
    "math/train4500.jsonl": ("math", 4500),
    "math/test500.jsonl": ("math", 500),
    "svamp/SVAMP.json": ("svamp", 1000),
    "mawps/train.json": ("mawps", 1898),
    "mawps/singleop.jsonl": ("mawps", 562),
    "mawps/addsub.jsonl": ("mawps", 395),
}


def published(file: str) -> list[dict[str, object]]:
    path = DATA / file
    if not path.exists():
        pytest.skip(f"{path} is not here")
    text = path.read_text()
    return json.loads(text) if path.suffix == ".json" else list(map(json.loads, text.splitlines()))


@thinned(8)
@pytest.mark.parametrize("file", FILES)
def test_every_reference_graded_against_itself_is_correct(file: str, every: int) -> None:
    name, count = FILES[file]
    task = tasks.get(name)
    rows = published(file)
    assert len(rows) == count
    for row in rows[::every]:
        question = task.read_row(row)
        marks = marked(question.answer)
        answer = marks[0][0] if marks else question.answer
        completions = [f"Final Answer: {answer}", f"**Final Answer:** {answer}."]
        completions += [str(row["solution"])] if "solution" in row else []
        completions += [question.answer] if marks else []
        completions += [question.solution] if question.solution else []
        canonical = task.reference(question.answer, question.choices)
        for completion in completions:
            grade = verdict(task, completion, question.answer, choices=question.choices)
            assert (grade.status, grade.answer) == ("correct", canonical), (row, completion)


def test_how_many_rows_have_a_worked_solution() -> None:
    """The 19 others of MAWPS have equations that are not solved for X."""
    counts = {}
    for file in ("gsm8k/train.jsonl", "math/test500.jsonl", "mawps/train.json", "csqa/dev.jsonl"):
        task = tasks.get(FILES[file][0])
        counts[file] = sum(bool(task.read_row(row).solution) for row in published(file))
    assert list(counts.values()) == [7473, 500, 1879, 0]


# The largest is loaded below, against the test questions.
@pytest.mark.parametrize("file", [file for file in FILES if file != "gsm8k/train.jsonl"])
def test_every_row_loads(file: str) -> None:
    published(file)
    name, count = FILES[file]
    kept, report = tasks.load(tasks.get(name), str(DATA / file), split="eval")
    assert (report.read, report.kept + report.duplicate) == (count, count)
    assert len({q.id for q in kept}) == report.kept == len(kept)


def test_known_overlap_of_the_mawps_collections() -> None:
    word_for_word = {row["original_text"] for row in published("mawps/train.json")}
    addsub, singleop = published("mawps/addsub.jsonl"), published("mawps/singleop.jsonl")
    assert sum(row["input"] in word_for_word for row in addsub) == 318
    assert sum(row["input"] in word_for_word for row in singleop) == 0

    # Without case and spacing before punctuation most of singleop stands there as well.
    mawps = tasks.get("mawps")
    train, _ = tasks.load(mawps, str(DATA / "mawps/train.json"), split="train")
    for file, exact, ngram in [("addsub", 327, 18), ("singleop", 460, 2)]:
        path = str(DATA / f"mawps/{file}.jsonl")
        _, report = tasks.load(mawps, path, split="train", exclude=train)
        assert (report.overlap_exact, report.overlap_ngram) == (exact, ngram)


def test_no_gsm8k_training_question_overlaps_with_the_test_questions() -> None:
    published("gsm8k/test.jsonl")
    gsm8k = tasks.get("gsm8k")
    held_out, _ = tasks.load(gsm8k, str(DATA / "gsm8k/test.jsonl"), split="eval")
    path = str(DATA / "gsm8k/train.jsonl")
    train, report = tasks.load(gsm8k, path, split="train", exclude=held_out)
    assert len({q.id for q in train}) == report.read == 7473
    assert (report.kept, report.overlap_exact, report.overlap_ngram) == (7473, 0, 0)
