"""Rows that cannot be read cost themselves alone, and are listed."""

import json
from pathlib import Path
from random import Random

import pytest

from malt_jax import tasks
from malt_jax.tasks.rows import MAX_LINE

JSONL = tasks.get("jsonl")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.jsonl", '{"question": ', r"q\.jsonl:1: broken JSON at column 13"),
        ("q.jsonl", '\n{"question": "a"}', r"q\.jsonl:2: field 'answer' is missing; .*question"),
        ("q.jsonl", "[1]\n[2]", r":1: holds a list"),
        ("q.json", '{"question": "a"}', r"q\.json: holds a dict; make it a list"),
        ("q.json", '[\n{"question": "a",}]', r"q\.json: broken JSON at line 2"),
        (
            "q.json",
            "[{}]",
            r"entry 0: field 'question' is missing.* no row can be read",
        ),
        ("q.parquet", "not parquet", r"q\.parquet: unreadable Parquet"),
        ("q.csv", "question,answer", r"q\.csv: not one of \.jsonl, \.jsonl\.gz, \.json, \.parquet"),
    ],
)
def test_files_of_which_nothing_can_be_read_are_refused(
    name: str, content: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        tasks.load(JSONL, str(path), split="train")


GOOD = b'{"question": "What is 1+1?", "answer": 2}'
BAD = {
    b'{"question": "a", "answer"': "broken JSON at column 27",
    b'{"question": "a"}': "field 'answer' is missing; the row has question",
    b'{"question": 3, "answer": 1}': "field 'question' holds 3; make it a string",
    b'{"question": "a", "answer": [1]}': "field 'answer' holds [1]; make it a string or a number",
    b"[1]": "holds a list, not an object with fields",
    b"null": "holds a NoneType, not an object with fields",
    b"\xff\xfe{": "not UTF-8",
    b'{"question": "a\\u0000b", "answer": 1}': "field 'question' holds the character U+0000",
    b'{"question": "a\\u202eb", "answer": 1}': "field 'question' holds the character U+202E",
    b'{"question": "a\\ud800", "answer": 1}': "field 'question' holds the character U+D800",
    b'{"id": "\\ud800", "question": "a", "answer": 1}': "field 'id' holds the character U+D800",
    b'{"question": "a", "answer": "\\u0007"}': "field 'answer' holds the character U+0007",
    b"[" * 100_000: "JSON nested too deep",
    b'{"question": "' + b"a" * MAX_LINE + b'"}': "a line of 1048593 bytes; 1048576 are the most",
}


@pytest.mark.parametrize(("line", "reason"), BAD.items(), ids=lambda value: repr(value)[:30])
def test_a_bad_line_costs_itself_alone(line: bytes, reason: str, tmp_path: Path) -> None:
    """A line that could not be read ended the run, ten thousand good ones beside it."""
    path = tmp_path / "q.jsonl"
    path.write_bytes(GOOD + b"\n" + line + b"\n" + GOOD.replace(b"1+1", b"2+2"))
    kept, report = tasks.load(JSONL, str(path), split="train")
    assert sorted(q.text for q in kept) == ["What is 1+1?", "What is 2+2?"]
    ((place, why, begins),) = report.quarantined
    assert place == f"{path}:2"
    assert reason in why
    assert begins
    assert (report.read, report.malformed) == (3, 1)
    assert report.dropped == ((f"{path}:2", "malformed"),)


def test_ten_thousand_fuzzed_lines(tmp_path: Path) -> None:
    """Every line is a question, or in quarantine, or dropped for a reason; none ends the load."""
    random = Random(0)
    lines = []
    for i in range(10_000):
        line = bytearray(json.dumps({"id": i % 900, "question": f"{i}?", "answer": i}).encode())
        match i % 5:
            case 1:
                for _ in range(3):
                    line[random.randrange(len(line))] = random.choice(b'"{}[]:,\\\0\x80\xff a1')
            case 2:
                del line[random.randrange(len(line)) :]
            case 3:
                line = bytearray(random.choice(list(BAD)[:-2]))
            case 4:
                line = bytearray(f'{{"question": "<|im_end|> {i} </s>", "answer": {i}}}'.encode())
        lines.append(bytes(line).replace(b"\n", b""))
    (tmp_path / "q.jsonl").write_bytes(b"\n".join(lines))
    kept, report = tasks.load(JSONL, str(tmp_path / "q.jsonl"), split="train")
    assert report.read == sum(bool(line.strip()) for line in lines)
    assert report.read == report.kept + len(report.dropped)
    assert report.malformed == len(report.quarantined) > 4_000
    assert report.kept == len({q.id for q in kept}) >= 4_000
    places = [int(place.rpartition(":")[2]) for place, _, _ in report.quarantined]
    assert not {place % 5 for place in places} & {1, 0}  # lines i % 5 == 0 and 4, counted from 1
