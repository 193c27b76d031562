"""A warm start's rows: the data set's worked solutions, to the token as a role would write them."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import small

from malt_jax import tasks
from malt_jax.learn import warm_start
from malt_jax.rollout import records
from malt_jax.rollout.roles import Role, prompt_ids
from malt_jax.types import Question
from malt_jax.workdir import shards, storage

TASK = tasks.get("mawps")
ROLE = Role("generator", "Q: {question}", ("question",), 3, 40)
RIGHT = Question("a", "2 and 3?", "5", solution="2 + 3 = 5. Final Answer: 5")
WRONG = Question("b", "2 and 4?", "6", solution="2 + 4 = 7. Final Answer: 7")
LONG = Question("c", "2 and 5?", "7", solution=f"{'2 + 5 is 7. ' * 3}Final Answer: 7")
BARE = Question("d", "2 and 6?", "8")


def test_rows_are_what_the_role_would_have_sampled(tmp_path: Path) -> None:
    tokenizer = small.tokenizer()
    warm_start.run(tmp_path, (ROLE,), ("generator",), TASK, tokenizer, [WRONG, RIGHT, LONG, BARE])
    (row,) = pq.read_table(tmp_path / "datasets" / "generator" / "sft.parquet").to_pylist()
    assert (row["question_id"], row["completion"], row["value"]) == ("a", RIGHT.solution, 1.0)
    assert row["prompt_token_ids"] == prompt_ids(ROLE, RIGHT, "", {}, {}, tokenizer)
    assert row["completion_token_ids"][-1] == tokenizer.end_id
    assert tokenizer.decode(row["completion_token_ids"]) == RIGHT.solution
    counts = json.loads((tmp_path / "datasets" / "yield.json").read_text())["generator"]
    assert (counts["parents"], counts["sft_rows"]) == (4, 1)
    assert counts["dropped"] == {
        "graded wrong": 1,
        "longer than max_new_tokens": 1,
        "no solution": 1,
    }


def test_a_solution_of_just_the_limit_is_kept(tmp_path: Path) -> None:
    exact = Role("generator", ROLE.prompt, ROLE.sees, 3, len(RIGHT.solution) + 1)  # and the end
    warm_start.run(tmp_path, (exact,), ("generator",), TASK, small.tokenizer(), [RIGHT])
    assert pq.read_metadata(tmp_path / "datasets" / "generator" / "sft.parquet").num_rows == 1


def test_one_adapter_learns_the_prompts_of_all_roles(tmp_path: Path) -> None:
    """A base that knew the generator's prompt alone took the numbers of an answer for those of the
    question as soon as a prompt showed both."""
    tokenizer = small.tokenizer()
    second = Question("e", "3 and 4?", "7", solution="3 + 4 = 7. Final Answer: 7")
    third = Question("f", "4 and 4?", "8", solution="4 + 4 = 8. Final Answer: 8")
    chain = (
        ROLE,
        Role("verifier", "{question} {generator}", ("question", "generator"), 3, 60),
        Role("refiner", "{question} {verifier}", ("question", "verifier"), 3, 60),
    )
    asked = [RIGHT, WRONG, second, third]
    warm_start.run(tmp_path, chain, ("generator",), TASK, tokenizer, asked)
    rows = pq.read_table(tmp_path / "datasets" / "generator" / "sft.parquet").to_pylist()
    right = RIGHT, second, third
    assert [row["completion"] for row in rows] == [q.solution for q in right] * 3
    # They follow in a ring: the generator's answer is the next one's, the verifier's that after it.
    for role, shown in ((1, (second, third, RIGHT)), (2, (third, RIGHT, second))):
        for row, question, told in zip(rows[3 * role :], right, shown, strict=False):
            known = {chain[role - 1].name: told.solution}
            wanted = prompt_ids(chain[role], question, "", known, {}, tokenizer)
            assert row["prompt_token_ids"] == wanted


def test_prompts_show_what_was_written_in_the_question_s_tree(tmp_path: Path) -> None:
    """A base that had seen other questions' solutions only kept two of three right answers that it
    was shown, and no training taught it to keep more."""
    tokenizer = small.tokenizer()
    second = Question("e", "3 and 4?", "7", solution="3 + 4 = 7. Final Answer: 7")
    critic = Role("verifier", "{question} {generator}", ("question", "generator"), 3, 60)
    chain = (ROLE, critic)
    nodes = [
        ("generator", [0], "2 - 3."),
        ("generator", [1], "Not shown."),
        ("verifier", [0, 0], "No, it is 5."),
        ("verifier", [1, 0], "Not shown."),
    ]
    tree = [
        {"question_id": RIGHT.id, "role": role, "path": path, "completion": completion}
        for role, path, completion in nodes
    ]
    shards.write(tmp_path / "trees" / "shard-00000.parquet", tree, records.SCHEMA)
    asked, credit = [RIGHT, second], tmp_path / "datasets" / "credit.json"
    storage.write_json(credit, {"credit": "of the trees before"})
    warm_start.run(tmp_path, chain, ("generator",), TASK, tokenizer, asked)
    assert not credit.exists()  # it would have refused, or passed, the training
    rows = pq.read_table(tmp_path / "datasets" / "generator" / "sft.parquet").to_pylist()
    # The second question has no tree: it shows the solution of the question after it.
    for row, question, shown in zip(rows[2:], asked, ("2 - 3.", RIGHT.solution), strict=True):
        wanted = prompt_ids(critic, question, "", {"generator": shown}, {}, tokenizer)
        assert row["prompt_token_ids"] == wanted


def test_several_learners_and_data_without_solutions_are_errors(tmp_path: Path) -> None:
    for learners in (), ("generator", "verifier"):
        with pytest.raises(ValueError, match=r"config.roles: .*config.roles.generator.train=\(\)"):
            warm_start.run(tmp_path, (ROLE,), learners, TASK, small.tokenizer(), [RIGHT])
    with pytest.raises(ValueError, match=r"no worked solution .*\(1 no solution\)"):
        warm_start.run(tmp_path, (ROLE,), ("generator",), TASK, small.tokenizer(), [BARE])
    assert not (tmp_path / "datasets").exists()


@pytest.mark.parametrize(
    ("task", "row", "solution"),
    [
        (
            "gsm8k",
            {"question": "?", "answer": "4 pens cost 4*2=<<4*2=8>>8 dollars.\n#### 8"},
            "4 pens cost 4*2=8 dollars.\nFinal Answer: 8",
        ),
        ("gsm8k", {"question": "?", "answer": "8"}, ""),
        (
            "mawps",
            {"original_text": "?", "ans": 2.0, "equation": "X=((22.0-14.0)/4.0)"},
            "(22 - 14) / 4 = 2. Final Answer: 2",
        ),
        (
            "mawps",
            {"original_text": "?", "ans": 5.0, "equation": "x=(12.5+12.5)/(6.0-1.0)"},
            "(12.5 + 12.5) / (6 - 1) = 5. Final Answer: 5",
        ),
        ("mawps", {"original_text": "?", "ans": 5.0, "equation": "2*x=10"}, ""),
        ("mawps", {"input": "?", "target": 5.0}, ""),
        (
            "math",
            {"problem": "?", "solution": r"So it is $\boxed{\frac{1}{2}}$."},
            "So it is $\\boxed{\\frac{1}{2}}$.\nFinal Answer: $\\frac{1}{2}$",
        ),
        ("math", {"problem": "?", "answer": "2"}, ""),
    ],
)
def test_solutions_as_a_role_would_write_them(task: str, row: dict, solution: str) -> None:
    assert tasks.get(task).read_row(row).solution == solution
