"""What a completion votes for, and which vote wins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malt_jax import tasks
from malt_jax.tasks import votes


@pytest.mark.parametrize(
    ("answers", "winner"),
    [
        (["7", "8", "8"], 1),
        (["7", "8", "9"], 0),
        (["7", "8", "8", "7"], 0),
        (["9", "8", "7", "7", "8"], 1),
        (["", "", "5"], 2),
        (["", "4", "", "5", "5"], 3),
        (["", ""], None),
        ([], None),
    ],
)
def test_majority(answers, winner):
    assert votes.majority(answers) == winner


@given(st.lists(st.sampled_from(["", "1", "2", "3"]), max_size=9))
def test_majority_has_the_most_votes_and_is_the_earliest_of_them(answers):
    winner = votes.majority(answers)
    counted = [answer for answer in answers if answer]
    if winner is None:
        assert not counted
        return
    most = max(counted.count(answer) for answer in counted)
    earliest = next(i for i, x in enumerate(answers) if x and counted.count(x) == most)
    assert winner == earliest


@pytest.mark.parametrize(
    ("task", "text", "answer"),
    [
        ("arithmetic", "7+8=15\nFinal Answer: 15", "15"),
        ("arithmetic", "that makes\n15", "15"),  # the last line, where nothing is marked
        ("arithmetic", "Final Answer: none", ""),
        ("arithmetic", "", ""),
        ("gsm8k", "#### 1,200", "1200"),
    ],
)
def test_a_completion_votes_for_its_mark_or_its_last_line(task, text, answer):
    assert votes.answer(tasks.get(task), text) == answer
