"""Loading: planted faults of every kind, the account of every row, and the published row forms."""

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from malt_jax import tasks
from malt_jax.tasks.loading import REASONS
from malt_jax.types import Question

JSONL = tasks.get("jsonl")
LONG = (
    "Nora has 12 red marbles and 7 blue marbles in a wooden box and she gives 3 of them to Sam ."
    " How many marbles are left ?"
)
HELD_OUT = [Question("e0", "What is 2+2?", "4"), Question("e1", LONG, "16")]


def write(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def rows_of(*pairs: tuple[str, object]) -> list[dict[str, object]]:
    return [{"question": question, "answer": answer} for question, answer in pairs]


def test_every_reason_is_counted_and_listed(tmp_path: Path) -> None:
    path = write(
        tmp_path / "q.jsonl",
        rows_of(
            ("What is 1+1?", 2),
            (" \n", "3"),
            ("No answer?", "  "),
            ("x" * 101, "1"),
            ("what is  1 + 1 ?", "2"),
            ("WHAT IS 2 + 2 ?", "4"),
            ("Once more: " + LONG.replace("How many", "So how many"), "16"),
            (LONG.replace("7 blue", "8 blue"), "17"),
            ("Dots?", "..."),
        ),
    )
    kept, report = tasks.load(JSONL, path, split="train", max_chars=100)
    assert report.too_long == 3
    kept, report = tasks.load(JSONL, path, split="train", max_chars=200, exclude=HELD_OUT)
    assert {q.text for q in kept} == {
        "What is 1+1?",
        "x" * 101,
        LONG.replace("7 blue", "8 blue"),
    }
    assert report.dropped == (
        ("jsonl-train-1", "empty"),
        ("jsonl-train-2", "empty"),
        ("jsonl-train-4", "duplicate"),
        ("jsonl-train-5", "overlap_exact"),
        ("jsonl-train-6", "overlap_ngram"),
        ("jsonl-train-8", "unparseable_answer"),
    )
    assert report.summary() == (
        "9 read, 3 kept (2 empty, 1 unparseable answer, 1 duplicate, 1 overlap exact, "
        "1 overlap ngram)"
    )


def test_what_does_not_fit_the_model_counts_as_too_long(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", rows_of(("one two", 1), ("one two three", 2)))
    kept, report = tasks.load(JSONL, path, split="train", fits=lambda text: len(text.split()) <= 2)
    assert [question.text for question in kept] == ["one two"]
    assert report.dropped == (("jsonl-train-1", "too_long"),)


questions = st.sampled_from(["", "What is 2+2?", LONG, LONG + " Say .", *"abcdefgh", "y" * 300])


@settings(max_examples=50)
@given(
    st.lists(st.tuples(questions, st.sampled_from(["1", "2", "", "..."])), max_size=12),
    st.integers(0, 5),
)
def test_every_row_is_kept_dropped_or_beyond_the_limit(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]], limit: int
) -> None:
    path = write(tmp_path_factory.mktemp("rows") / "q.jsonl", rows_of(*pairs))
    kept, report = tasks.load(
        JSONL, path, split="train", limit=limit, max_chars=200, exclude=HELD_OUT
    )
    counts = asdict(report)
    assert report.read == len(pairs)
    assert report.read == sum(counts[name] for name in (*REASONS, "kept", "beyond_limit"))
    assert Counter(reason for _, reason in report.dropped) == Counter(
        {name: counts[name] for name in REASONS if counts[name]}
    )
    assert len(kept) == report.kept == (min(limit, report.kept) if limit else report.kept)
    assert len({q.id for q in kept}) == len({q.text for q in kept}) == len(kept)


def test_a_smaller_limit_is_a_prefix_and_the_seed_fixes_the_order(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", rows_of(*((f"Question {i}?", i) for i in range(40))))
    everything, _ = tasks.load(JSONL, path, split="train", seed=1)
    some, report = tasks.load(JSONL, path, split="train", seed=1, limit=7)
    other, _ = tasks.load(JSONL, path, split="train", seed=2)
    assert some == everything[:7]
    assert (report.kept, report.beyond_limit) == (7, 33)
    assert other != everything
    assert sorted(other, key=lambda q: q.id) == sorted(everything, key=lambda q: q.id)


def test_skipped_questions_are_the_first_ones(tmp_path: Path) -> None:
    """So that a warm start's questions and those of the run after it share none."""
    path = write(tmp_path / "q.jsonl", rows_of(*[(f"What is {i} + {i}?", 2 * i) for i in range(9)]))
    every = tasks.load(JSONL, path, split="train", seed=1)[0]
    rest, report = tasks.load(JSONL, path, split="train", seed=1, skip=4)
    assert rest == every[4:]
    assert (report.kept, report.beyond_limit) == (5, 4)
    assert tasks.load(JSONL, path, split="train", seed=1, skip=4, limit=2)[0] == every[4:6]


@pytest.mark.parametrize(
    ("text", "overlap"),
    [
        ("what IS 2 + 2 ?", "overlap_exact"),
        ("What is 2+3?", None),
        (LONG.replace(" .", ".").replace(" ?", "?"), "overlap_exact"),
        ("Hello. " + LONG, "overlap_ngram"),
        (LONG.replace("Sam .", "Sam and 5 to Max ."), "overlap_ngram"),
        (LONG.replace("3 of", "4 of"), None),
        (LONG.replace("3 of", "three of"), None),
        ("Nora has 12 red marbles and 7 blue marbles", None),
    ],
)
def test_overlap_rule(text: str, overlap: str | None, tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", rows_of((text, "4")))
    _, report = tasks.load(JSONL, path, split="train", exclude=HELD_OUT)
    assert [reason for _, reason in report.dropped] == ([overlap] if overlap else [])


def test_two_rows_of_one_id_stay_apart(tmp_path: Path) -> None:
    rows = [{"id": 5, **row} for row in rows_of(("One?", 1), ("Two?", 2))]
    kept, _ = tasks.load(JSONL, write(tmp_path / "q.jsonl", rows), split="train")
    assert {q.id for q in kept} == {"5", "5-1"}


CSQA = Question(
    "c1",
    "Where is money?\n(A) bank\n(B) sea",
    "A",
    (("A", "bank"), ("B", "sea")),
)


@pytest.mark.parametrize(
    ("name", "row", "question"),
    [
        (
            "gsm8k",
            {"question": "Q?", "answer": "1+1=<<1+1=2>>2\n#### 1,002"},
            Question("gsm8k-eval-0", "Q?", "1002"),
        ),
        (
            "svamp",
            {"ID": "chal-1", "Body": "A body. ", "Question": "Q?", "Answer": "51.0"},
            Question("chal-1", "A body. Q?", "51"),
        ),
        ("mawps", {"id": 7, "original_text": "Q ?", "ans": 0.5}, Question("7", "Q ?", "0.5")),
        ("mawps", {"input": "Q?", "target": 3.0}, Question("mawps-eval-0", "Q?", "3")),
        (
            "mawps",
            {"id": "m__1", "question": "Q?", "result": "1_500", "result_float": 1500.0},
            Question("m__1", "Q?", "1500"),
        ),
        (
            "math",
            {"problem": "P?", "solution": "So $\\boxed{\\frac12}$."},
            Question("math-eval-0", "P?", "0.5"),
        ),
        (
            "math",
            {"problem": "P?", "solution": "long", "answer": "x + 1", "unique_id": "test/1.json"},
            Question("test/1.json", "P?", "x+1"),
        ),
        (
            "csqa",
            {
                "id": "c1",
                "answerKey": "A",
                "question": {
                    "stem": "Where is money?",
                    "choices": [{"label": "A", "text": "bank"}, {"label": "B", "text": "sea"}],
                },
            },
            CSQA,
        ),
        (
            "csqa",
            {
                "id": "c1",
                "question": "Where is money?",
                "question_concept": "money",
                "choices": {"label": ["A", "B"], "text": ["bank", "sea"]},
                "answerKey": "A",
            },
            CSQA,
        ),
    ],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_published_row_forms(
    name: str, row: dict[str, object], question: Question, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist([row]), path)
    else:
        path.write_text(json.dumps([row] if suffix == ".json" else row))
    kept, _ = tasks.load(tasks.get(name), str(path), split="eval")
    assert [replace(loaded, solution="") for loaded in kept] == [question]


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        tasks.load(JSONL, str(tmp_path / "none.jsonl"), split="train")
    with pytest.raises(ValueError, match="no hub dataset"):
        tasks.load(JSONL, "", split="train")
    with pytest.raises(ValueError, match="split 'test'"):
        tasks.load(JSONL, "", split="test")
    with pytest.raises(ValueError, match="limit -1"):
        tasks.load(JSONL, "", split="train", limit=-1)
    with pytest.raises(ValueError, match="say how many"):
        tasks.load(tasks.get("arithmetic"), "", split="train")


def test_the_hub_is_asked_for_the_tasks_own_split(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None, str]] = []

    def load_dataset(path: str, config: str | None, *, split: str) -> list[dict[str, str]]:
        asked.append((path, config, split))
        return [{"question": "Q?", "answer": "#### 2"}]

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    kept, _ = tasks.load(tasks.get("gsm8k"), "", split="eval")
    tasks.load(JSONL, "somebody/questions", split="train")
    assert asked == [("openai/gsm8k", "main", "test"), ("somebody/questions", None, "train")]
    assert kept == [Question("gsm8k-eval-0", "Q?", "2")]


def test_arithmetic_loads_as_many_as_asked_whatever_is_excluded() -> None:
    task = tasks.get("arithmetic")
    first, _ = tasks.load(task, "", split="train", limit=30, seed=5)
    rest, report = tasks.load(task, "", split="train", limit=30, seed=5, exclude=first)
    assert len(first) == len(rest) == 30
    assert not {q.text for q in first} & {q.text for q in rest}
    assert report.overlap_exact == 30
    assert report.read == report.kept + report.overlap_exact + report.beyond_limit
