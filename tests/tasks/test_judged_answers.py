"""Answers of a real model that a person has judged (Qwen2.5-Coder-0.5B-Instruct, temperature 0.7;
training questions of CommonsenseQA, GSM8K and SVAMP): the grader agrees on each."""

from pathlib import Path

import pytest

from malt_jax import tasks
from malt_jax.evaluate import judged

FILES = sorted((Path(__file__).parent / "judged").glob("*.jsonl"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_grader_agrees_with_the_judge(file: Path) -> None:
    rows = judged.read(file)
    rates = judged.rates(rows, tasks.get(file.stem))
    assert rates["judged"] == len(rows) >= 40
    assert {row["judged"] for row in rows} == {True, False}
    assert rates["now"]["false_right"]["count"] == rates["now"]["false_wrong"]["count"] == 0
