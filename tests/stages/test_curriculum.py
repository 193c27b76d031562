"""Which questions a round asks."""

from dataclasses import replace

import pytest
from recipes import good

from malt_jax.config.rounds import RoundsSettings
from malt_jax.recipe import parse
from malt_jax.stages import curriculum
from malt_jax.types import Question
from malt_jax.workdir import question_record, rounds

A, B, C, D, E = QUESTIONS = [Question(name, f"What is {name}?", "1") for name in "abcde"]


def test_hard_questions_by_hand():
    """c is nearest to a half; a was always right, and d and e were not asked."""
    values = {"a": 1.0, "b": 0.9, "c": 0.4}
    assert curriculum.hard(QUESTIONS, {"a", "b", "c"}, values, 3) == [C, B, D]
    assert curriculum.hard(QUESTIONS, {"a", "b", "c"}, values, 1) == [C]
    assert curriculum.hard(QUESTIONS, {"a", "b", "c"}, values, 0) == [C, B]
    assert curriculum.hard(QUESTIONS[:3], {"a", "b", "c"}, values, 5) == [C, B]


def test_equally_hard_questions_keep_the_order_of_the_data():
    values = {"d": 0.25, "b": 0.75, "a": 0.25}
    assert curriculum.hard(QUESTIONS, set(values), values, 3) == [A, B, D]


@pytest.mark.parametrize(
    ("kind", "number", "count", "most"),
    [
        *[("fresh", 0, 1, 4), ("fresh", 0, 3, 12), ("fresh", 2, 1, 8)],
        *[("repeated", 0, 3, 4), ("repeated", 2, 1, 4), ("hard", 2, 1, 8)],
    ],
)
def test_as_many_are_loaded_as_rounds_up_to_it_may_ask(kind, number, count, most):
    settings = RoundsSettings(questions=kind, number=number, count=count)
    assert curriculum.most(settings, 4) == most
    assert curriculum.most(settings, 0) == 0


def of_round(number: int, kind: str, directory, each: int = 2):
    settings = parse(good())
    over = RoundsSettings(questions=kind, number=number)
    data = replace(settings.data, train_questions=each)
    asked = replace(settings, rounds=over, data=data)
    return curriculum.of_round(rounds.directory(directory, number), asked, QUESTIONS)


def test_fresh_rounds_share_no_question_and_say_when_they_run_out(tmp_path):
    assert of_round(1, "fresh", tmp_path) == [A, B]
    assert of_round(2, "fresh", tmp_path) == [C, D]
    with pytest.raises(ValueError, match=r"rounds.questions: 3 rounds .* need 6, and there are 5;"):
        of_round(3, "fresh", tmp_path)


def test_the_same_are_repeated(tmp_path):
    assert [of_round(i, "repeated", tmp_path) for i in (1, 3)] == [[A, B]] * 2


def test_no_hard_question_left_is_told(tmp_path):
    """All were asked, and their trees show no grade at all."""
    first = rounds.directory(tmp_path, 1)
    question_record.settle(first, "train", QUESTIONS)
    with pytest.raises(ValueError, match=r"config.rounds.questions: no hard question .* round 2"):
        of_round(2, "hard", tmp_path)
