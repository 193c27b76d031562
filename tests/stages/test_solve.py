"""Questions to a team from the command line: what is read, what is printed, what is refused."""

import io
import json
import sys

import pytest
from recipes import change, good
from whole import TINY

from malt_jax import stages
from malt_jax.recipe import parse
from malt_jax.stages.asked import Asked


def asked(file, **flags) -> list[dict]:
    return Asked(file=str(file), **flags).questions()


@pytest.mark.parametrize(
    ("content", "questions"),
    [
        ("1+2\n\n  3+4  \n", [{"question": "1+2"}, {"question": "3+4"}]),
        ("\ufeff1+2\r\n3\u20284\r\n", [{"question": "1+2"}, {"question": "3\u20284"}]),
        ('{"question": "1+2", "id": 7}\n{"question": "a\\nb"}\n',
         [{"id": "7", "question": "1+2"}, {"question": "a\nb"}]),
        ("{1, 2} has how many?\n", [{"question": "{1, 2} has how many?"}]),
        ('"quoted"\n5\n', [{"question": '"quoted"'}, {"question": "5"}]),
    ],
)  # fmt: skip
def test_questions_are_a_line_each_or_json_lines(tmp_path, content, questions, monkeypatch):
    file = tmp_path / "questions"
    file.write_text(content, newline="")
    assert asked(file) == questions
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    assert asked("-") == questions


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n \n", "no question in it; write one a line"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"question": "1"}\n{"answer": "2"}', "line 2: field 'question' is missing"),
        (b'{"question": "1"}\n\n{"question": " "}', "line 3: the question is empty"),
        (b'{"question": "1"}\nplain', "line 2: Expecting value"),
        (b'{"question": "1"}\n[1]', "line 2: not a JSON object"),
        (b'{"question": 5}', "line 1: field 'question' holds 5; make it a string"),
        (b'{"question": "1", "question": "2"}', "line 1: the key 'question' stands twice"),
    ],
)
def test_a_file_that_is_no_list_of_questions_is_named_with_its_line(tmp_path, content, message):
    file = tmp_path / "questions"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"^--questions={file}: {message}"):
        asked(file)


def test_what_cannot_be_asked_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"--questions=.*none: cannot be read \(No such file"):
        asked(tmp_path / "none")
    with pytest.raises(ValueError, match=r"cannot be read .*directory"):
        asked(tmp_path)
    with pytest.raises(ValueError, match="--question: empty; give --question=TEXT, or"):
        Asked(question=" ").questions()
    with pytest.raises(ValueError, match="give one of them"):
        Asked(question="1", file="x").questions()


@pytest.fixture
def solve(tmp_path, capsys):
    """Asks the quickstart's base, and gives what is printed."""
    config = change(change(good(), "model.path", str(TINY)), "workdir", str(tmp_path / "run"))
    settings = parse(change(config, "sample.rows", 16))

    def printed(**flags) -> str:
        stages.run(settings, config, ("solve",), asked=Asked(**flags))
        return capsys.readouterr().out

    return printed


def test_answers_are_json_lines_where_no_terminal_is(solve, tmp_path):
    file = tmp_path / "questions.jsonl"
    rows = [{"id": "a", "question": "1+2"}, {"question": "1+" * 200}, {"question": "3+4"}]
    file.write_text("\n".join(map(json.dumps, rows)))
    lines = [json.loads(line) for line in solve(file=str(file), votes=2, base=True).splitlines()]
    assert [line["question"] for line in lines] == [row["question"] for row in rows]
    assert lines[0]["id"] == "a"
    assert ["error" in line for line in lines] == [False, True, False]
    for line in (lines[0], lines[2]):
        assert len(line["transcript"]) == 2
        assert {*line["transcript"][0]} == {"generator", "verifier", "refiner"}
        assert line["answer"] == max(line["votes"], key=line["votes"].get, default="")
        assert line["verdict"] is None
        assert line["tokens_read"] > 0 < line["tokens_written"]
    assert not (tmp_path / "run").exists()


def test_answers_are_text_on_a_terminal(solve, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    line = json.loads(solve(question="1+2", votes=1, base=True, json=True))
    said = line["transcript"][0]
    shown = solve(question="1+2", votes=1, base=True)
    head, *rest = shown.splitlines()
    assert head == "1+2"
    for role, text in said.items():
        at = rest.index(f"  {role}:")
        wrote = text.splitlines()
        assert rest[at + 1 : at + 1 + len(wrote)] == [f"    {part}" for part in wrote]
    assert rest[-1].startswith(f"  answer: {line['answer'] or 'none'}")


def test_a_team_that_is_not_trained_is_not_asked(solve):
    with pytest.raises(
        ValueError, match=r"export/generator: not there, .* --stage=train, .*--base"
    ):
        solve(question="1+2")


def test_the_one_question_that_cannot_be_asked_is_an_error(solve):
    with pytest.raises(ValueError, match=r"question: .* room for"):
        solve(question="1+" * 200, base=True)
