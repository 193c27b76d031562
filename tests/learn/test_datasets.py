"""From planted trees to SFT rows, DPO pairs and KTO rows."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malt_jax.config.credit import CreditSettings
from malt_jax.config.rounds import RoundsSettings
from malt_jax.learn import datasets
from malt_jax.learn.datasets import Harvest, gather
from malt_jax.rollout import records
from malt_jax.workdir import shards


def node(text: str, value: float, path=(0, 0, 0), role="refiner", question="q", **more) -> dict:
    return {
        "question_id": question,
        "question": "1+1",
        "reference": "2",
        "role": role,
        "path": list(path),
        "prompt": f"prompt {path[:-1]}",
        "completion": text,
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "logprob": -1.0,
        "finish_reason": "stop",
        "answer": "",
        "status": "",
        "score": value,
        "reward": None,
        "value": value,
        "label": value > 0.5,
        "prompt_token_ids": [1, 2, 3],
        "completion_token_ids": [ord(c) for c in text],
    } | more


def write(workdir: Path, rows: list[dict]) -> None:
    """The rows as trees whose roots they are, unless they name a parent."""
    placed = [{"node": i, "parent": -1} | row for i, row in enumerate(rows)]
    shards.write(workdir / "trees" / "shard-00000.parquet", placed, records.SCHEMA)


CREDIT = CreditSettings(0.5, False, 9, 9)


def harvest(siblings, positives=9, pairs=9) -> Harvest:
    harvested = Harvest()
    gather(harvested, siblings, CreditSettings(0.5, False, positives, pairs))
    return harvested


def pairs(harvested: Harvest):
    return [(row["chosen"], row["rejected"]) for row in harvested.rows["dpo"]]


def test_positives_and_pairs_of_one_parent():
    harvested = harvest([node("a", 1.0), node("b", 0.0), node("c", 2 / 3)])
    assert [row["completion"] for row in harvested.rows["sft"]] == ["a", "c"]
    assert pairs(harvested) == [("a", "b"), ("c", "b")]
    assert (harvested.positives, harvested.parents, harvested.contrasts) == (2, 1, 1)


def test_no_contrast_no_pair():
    assert not harvest([node("a", 1.0), node("b", 1.0)]).rows["dpo"]
    assert not harvest([node("a", 0.0), node("b", 0.5)]).rows["dpo"]
    assert not harvest([node("a", 0.0), node("b", 0.5)]).rows["sft"]


def test_identical_texts_are_dropped():
    """Two equal refinements gave a pair of a text against itself."""
    harvested = harvest([node("a", 1.0), node("a", 1.0), node("b", 0.0)])
    assert [row["completion"] for row in harvested.rows["sft"]] == ["a"]
    assert pairs(harvested) == [("a", "b")]
    assert harvested.dropped["repeated text"] == 1
    mixed = harvest([node("a", 1.0), node("a", 0.0), node("b", 0.0)])
    assert not mixed.rows["sft"]
    assert not mixed.rows["dpo"]
    assert mixed.dropped["same text, both labels"] == 2
    assert harvest([node(" ", 1.0)]).dropped["empty"] == 1


def test_one_prompt_under_two_parents_never_teaches_a_text_both_ways():
    """Two generators wrote the same, so that their verifiers had one prompt: the same critique was
    chosen in one pair and rejected in another."""
    one = [node("a", 1.0, (0, 0), "verifier"), node("b", 0.0, (0, 1), "verifier")]
    other = [node("a", 0.0, (1, 0), "verifier"), node("c", 1.0, (1, 1), "verifier")]
    rows = [
        row | {"prompt": "?", "parent": i} for i, rows in enumerate((one, other)) for row in rows
    ]
    rows += [row | {"prompt": "? of another", "parent": 2} for row in one]
    found = datasets.harvest(rows, ["verifier"], CREDIT)["verifier"]
    assert [row["completion"] for row in found.rows["sft"]] == ["c", "a"]
    assert pairs(found) == [("a", "b")]  # of the other prompt
    assert found.dropped["same text, both labels"] == 2
    assert found.parents == 3


def test_every_distinct_node_of_a_parent_is_a_row_for_kto():
    """Neither contrast nor caps matter; a value of exactly a half is undesirable."""
    siblings = [node("a", 1.0), node("a", 1.0), node("b", 0.5), node("c", 0.0), node(" ", 0.0)]
    harvested = harvest([*siblings, node("d", 1.0), node("d", 0.0)], positives=1, pairs=1)
    assert [(row["completion"], row["label"], row["value"]) for row in harvested.rows["kto"]] == [
        ("a", True, 1.0),
        ("b", False, 0.5),
        ("c", False, 0.0),
    ]


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), st.sampled_from([0, 0.5, 1.0]))),
        max_size=4,
    ),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_no_node_is_lost_silently(families, most_positives, most_pairs):
    """What is not in a file is counted as dropped, by the reason."""
    harvested = Harvest()
    for i, family in enumerate(families):
        siblings = [node(text, value, (i, 0, 0)) for text, value in family]
        gather(harvested, siblings, CreditSettings(0.5, False, most_positives, most_pairs))
    reasons = ("empty", "same text, both labels", "repeated text")
    dropped = sum(harvested.dropped[reason] for reason in reasons)
    assert len(harvested.rows["kto"]) + dropped == sum(map(len, families))
    desirable = sum(row["label"] for row in harvested.rows["kto"])
    assert len(harvested.rows["sft"]) + harvested.dropped["positives over the cap"] == desirable
    labels = Counter((row["prompt"], row["label"]) for row in harvested.rows["kto"])
    possible = sum(n * labels[prompt, False] for (prompt, label), n in labels.items() if label)
    assert len(harvested.rows["dpo"]) + harvested.dropped["pairs over the cap"] == possible


def test_a_tree_that_lies_there_twice_is_named(tmp_path):
    """A copied shard doubled its rows."""
    write(tmp_path, [node("a", 1.0), node("b", 0.0)])
    folder = tmp_path / "trees"
    shutil.copy(folder / "shard-00000.parquet", folder / "shard-00005.parquet")
    with pytest.raises(
        ValueError, match=r"shard-00005.parquet: holds question 'q', as does shard-0"
    ):
        datasets.run(tmp_path, Chain())


def test_neighbours_in_the_file_for_kto_answer_different_questions(tmp_path):
    """TRL reads the file in order and pairs a prompt with its neighbour's completion to measure
    the distance to the reference; in the order of the trees that was a sibling's."""
    rows = [
        node(f"{question}{i}{j}", float(j), (i, j), question=question)
        for question in "pqr"
        for i in range(2)
        for j in range(3 - (question == "r"))
    ]
    write(tmp_path, rows)
    summary = datasets.run(tmp_path, Chain())
    kto = shards.read_one(tmp_path / "datasets" / "refiner" / "kto.parquet")
    assert {row["completion"] for row in kto} == {row["completion"] for row in rows}
    assert summary["refiner"]["kto_rows"] == len(kto) == 16
    assert all(a["question_id"] != b["question_id"] for a, b in pairwise(kto))
    assert [row["completion"] for row in kto[:4]] == ["p00", "q00", "r00", "p01"]
    assert kto[3]["completion_token_ids"] == [ord(c) for c in "p01"]


def test_caps_keep_the_widest_gap_and_spread_the_chosen():
    siblings = [node("a", 1.0), node("b", 0.7), node("c", 0.3), node("d", 0.0)]
    assert pairs(harvest(siblings, pairs=1)) == [("a", "d")]
    assert pairs(harvest(siblings, pairs=2)) == [("a", "d"), ("b", "d")]
    assert pairs(harvest(siblings)) == [("a", "d"), ("b", "d"), ("a", "c"), ("b", "c")]
    capped = harvest(siblings, positives=1, pairs=1)
    assert [row["completion"] for row in capped.rows["sft"]] == ["a"]
    assert capped.dropped["positives over the cap"] == 1
    assert capped.dropped["pairs over the cap"] == 3


class Chain:
    chain = ("generator", "refiner")
    credit = CreditSettings(0.5, False, 3, 2)
    rounds = RoundsSettings()
    seed = 0


def test_pairs_never_cross_parents(tmp_path):
    """A refinement is better than another only under the same critique."""
    rows = [
        node("a", 1.0, (0, 0)),
        node("b", 1.0, (0, 1)),
        node("c", 0.0, (1, 0)),
        node("d", 0.0, (1, 1)),
        node("e", 1.0, (0, 0), question="p"),
        node("f", 0.0, (0, 1), question="p"),
        node("g", 0.5, (0,), "generator"),
        node("h", 2 / 3, (1,), "generator"),
    ]
    write(tmp_path, rows)
    summary = datasets.run(tmp_path, Chain())
    dpo = shards.read_one(tmp_path / "datasets" / "refiner" / "dpo.parquet")
    assert [(row["chosen"], row["rejected"]) for row in dpo] == [("e", "f")]
    assert dpo[0]["chosen_token_ids"] == [ord("e")]
    sft = shards.read_one(tmp_path / "datasets" / "generator" / "sft.parquet")
    assert [(row["completion"], row["question_id"]) for row in sft] == [("h", "q")]
    assert json.loads((tmp_path / "datasets" / "yield.json").read_text()) == summary
    assert summary["refiner"]["nodes"] == 6
    assert summary["refiner"]["positives"] == 3
    assert summary["refiner"]["parents"] == 3
    assert summary["refiner"]["parents_with_contrast"] == 1
    counts = summary["refiner"]["value_histogram"]["counts"]
    assert (counts[0], counts[-1], sum(counts)) == (3, 3, 6)


def test_no_trees_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"trees: no shards; run --stage=collect"):
        datasets.run(tmp_path, Chain())


def test_the_files_load_with_hugging_face_datasets(tmp_path):
    from datasets import load_dataset

    rows = [node("a", 1.0, (0, 0)), node("b", 0.0, (0, 1))]
    write(tmp_path, rows)
    datasets.run(tmp_path, Chain())
    for name, columns in (
        ("datasets/refiner/sft.parquet", {"prompt", "completion", "value"}),
        ("datasets/refiner/dpo.parquet", {"prompt", "chosen", "rejected"}),
        ("datasets/refiner/kto.parquet", {"prompt", "completion", "label", "value"}),
        ("trees/shard-00000.parquet", {"question_id", "path", "score"}),
    ):
        table = load_dataset("parquet", data_files=str(tmp_path / name), cache_dir=str(tmp_path))
        assert columns <= set(table["train"].column_names)


def under(**changes) -> Chain:
    """The same chain under other credit settings."""
    chain = Chain()
    chain.credit = replace(Chain.credit, **changes)
    return chain


def test_another_threshold_and_the_control_need_no_new_sample(tmp_path):
    """What samples are worth follows from their grades whenever data sets are made."""
    rows = [node(f"{i}", i / 8, (i,)) for i in range(9)]
    write(tmp_path, rows)
    (shard,) = (tmp_path / "trees").glob("shard-*")
    before = shard.stat().st_mtime_ns

    def positives(chain: Chain) -> list[str]:
        datasets.run(tmp_path, chain)
        kto = shards.read_one(tmp_path / "datasets" / "refiner" / "kto.parquet")
        return [row["completion"] for row in kto if row["label"]]

    assert positives(Chain()) == ["5", "6", "7", "8"]
    assert positives(under(threshold=0.7)) == ["6", "7", "8"]
    mixed = positives(under(shuffle_rewards=True))
    assert len(mixed) == 4
    assert mixed != ["5", "6", "7", "8"]
    assert positives(Chain()) == ["5", "6", "7", "8"]
    assert shard.stat().st_mtime_ns == before


def test_data_sets_of_other_settings_are_not_trained_on(tmp_path):
    write(tmp_path, [node("a", 1.0), node("b", 0.0)])
    datasets.check_fresh(tmp_path, Chain())  # of a warm start, or none yet
    datasets.run(tmp_path, Chain())
    datasets.check_fresh(tmp_path, Chain())
    for other in (under(threshold=0.7), under(max_pairs_per_parent=1), under(shuffle_rewards=True)):
        with pytest.raises(ValueError, match=r"datasets: made under other .* --stage=datasets"):
            datasets.check_fresh(tmp_path, other)
        datasets.run(tmp_path, other)
        datasets.check_fresh(tmp_path, other)
