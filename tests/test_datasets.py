"""From planted trees to SFT rows and DPO pairs."""

import json

import pytest

from malt_jax import datasets, shards
from malt_jax.datasets import Harvest, gather
from malt_jax.settings import CreditSettings


def node(text: str, value: float, path=(0, 0, 0), role="refiner", question="q") -> dict:
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
        "reward": None,
        "value": value,
        "label": value > 0.5,
        "prompt_token_ids": [1, 2, 3],
        "completion_token_ids": [ord(c) for c in text],
    }


def harvest(siblings, positives=9, pairs=9) -> Harvest:
    found = Harvest()
    gather(found, siblings, CreditSettings(0.5, False, positives, pairs))
    return found


def pairs(found: Harvest):
    return [(row["chosen"], row["rejected"]) for row in found.dpo]


def test_positives_and_pairs_of_one_parent():
    found = harvest([node("a", 1.0), node("b", 0.0), node("c", 2 / 3)])
    assert [row["completion"] for row in found.sft] == ["a", "c"]
    assert pairs(found) == [("a", "b"), ("c", "b")]
    assert (found.positives, found.parents, found.contrasts) == (2, 1, 1)


def test_no_contrast_no_pair():
    assert not harvest([node("a", 1.0), node("b", 1.0)]).dpo
    assert not harvest([node("a", 0.0), node("b", 0.5)]).dpo
    assert not harvest([node("a", 0.0), node("b", 0.5)]).sft


def test_identical_texts_are_dropped():
    """Two equal refinements gave a pair of a text against itself."""
    found = harvest([node("a", 1.0), node("a", 1.0), node("b", 0.0)])
    assert [row["completion"] for row in found.sft] == ["a"]
    assert pairs(found) == [("a", "b")]
    assert found.dropped["repeated text"] == 1
    mixed = harvest([node("a", 1.0), node("a", 0.0), node("b", 0.0)])
    assert not mixed.sft
    assert not mixed.dpo
    assert mixed.dropped["same text, both labels"] == 2
    assert harvest([node(" ", 1.0)]).dropped["empty"] == 1


def test_caps_keep_the_widest_gap_and_spread_the_chosen():
    siblings = [node("a", 1.0), node("b", 0.7), node("c", 0.3), node("d", 0.0)]
    assert pairs(harvest(siblings, pairs=1)) == [("a", "d")]
    assert pairs(harvest(siblings, pairs=2)) == [("a", "d"), ("b", "d")]
    assert pairs(harvest(siblings)) == [("a", "d"), ("b", "d"), ("a", "c"), ("b", "c")]
    capped = harvest(siblings, positives=1, pairs=1)
    assert [row["completion"] for row in capped.sft] == ["a"]
    assert capped.dropped["positives over the cap"] == 1
    assert capped.dropped["pairs over the cap"] == 3


class Chain:
    chain = ("generator", "refiner")
    credit = CreditSettings(0.5, False, 3, 2)


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
    shards.write(tmp_path / "trees" / "shard-00000.parquet", rows, shards.SCHEMA)
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
    shards.write(tmp_path / "trees" / "shard-00000.parquet", rows, shards.SCHEMA)
    datasets.run(tmp_path, Chain())
    for name, columns in (
        ("datasets/refiner/sft.parquet", {"prompt", "completion", "value"}),
        ("datasets/refiner/dpo.parquet", {"prompt", "chosen", "rejected"}),
        ("trees/shard-00000.parquet", {"question_id", "path", "value"}),
    ):
        table = load_dataset("parquet", data_files=str(tmp_path / name), cache_dir=str(tmp_path))
        assert columns <= set(table["train"].column_names)
