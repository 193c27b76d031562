"""Packed rows: nothing lost, nothing twice, little padding, and the same whenever asked."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from malt_jax.learn.packing import Batch, Examples, Plan, examples, plan, take

PAD = 99
IDS = st.lists(st.integers(0, 50), min_size=1, max_size=9)
DATA = st.integers(1, 3).flatmap(
    lambda n: st.lists(st.tuples(IDS, st.lists(IDS, min_size=1, max_size=n)), min_size=1)
)
SPLITS = st.fixed_dictionaries(
    {"batch": st.integers(1, 5), "accumulate": st.integers(1, 3), "rows": st.integers(1, 4)}
)


def build(rows) -> Examples:
    prompts, completions = zip(*rows, strict=True)
    return examples(prompts, completions, 512, [f"row {i}" for i in range(len(rows))])


def unpack(batch: Batch, plan: Plan, step: int, branches: int) -> dict[int, tuple]:
    """Prompt and completions by example index, read off the predictions' side of a batch."""
    unpacked = {}
    places = plan.order.shape[-1]
    for k, r, m in np.ndindex(plan.order.shape[1:]):
        index = plan.order[step, k, r, m]
        if index < 0:
            continue
        mine = batch.example[k, r] == m
        prompt = batch.tokens[k, r][mine & (batch.branch[k, r] == 0)].tolist()
        completions = []
        for c in range(branches):
            said = batch.sequence[k, r] == (r * places + m) * branches + c
            spoken = batch.target[k, r][said].tolist()
            assert spoken == batch.tokens[k, r][mine & (batch.branch[k, r] == c + 1)].tolist()
            if spoken:
                completions.append(spoken)
        assert index not in unpacked
        unpacked[index] = (prompt, completions)
    return unpacked


@settings(max_examples=60)
@given(rows=DATA, splits=SPLITS, seed=st.integers(0, 9))
def test_every_example_once_an_epoch_and_as_it_was(rows, splits, seed):
    data = build(rows)
    order = plan(data, epochs=2, seed=[seed], **splits)
    per_step = splits["batch"] * splits["accumulate"]
    per_epoch = -(-len(rows) // per_step)
    assert order.order.shape[:3] == (2 * per_epoch, splits["accumulate"], splits["rows"])
    for epoch in range(2):
        steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
        counts = [(order.order[step] >= 0).sum() for step in steps]
        assert counts[:-1] == [per_step] * (per_epoch - 1)
        unpacked = {}
        for step in steps:
            batch = take(data, order, step, PAD)
            unpacked |= unpack(batch, order, step, data.completions.shape[1])
        assert unpacked == {
            i: (prompt, completions) for i, (prompt, completions) in enumerate(rows)
        }


@settings(max_examples=30)
@given(rows=DATA, splits=SPLITS)
def test_a_prediction_comes_from_the_token_before_in_its_own_sequence(rows, splits):
    """The first token of every completion is predicted by the prompt's last token, also where
    another completion stands between them."""
    data = build(rows)
    order = plan(data, epochs=1, seed=[0], **splits)
    for step in range(len(order)):
        batch = take(data, order, step, PAD)
        for k, r, p in np.argwhere(batch.sequence < batch.sequences):
            at = batch.source[k, r, p]
            branch = batch.sequence[k, r, p] % data.completions.shape[1] + 1
            target = np.flatnonzero(
                (batch.example[k, r] == batch.example[k, r, at])
                & (batch.branch[k, r] == branch)
                & (batch.positions[k, r] == batch.positions[k, r, at] + 1)
            )
            assert len(target) == 1
            assert batch.tokens[k, r, target[0]] == batch.target[k, r, p]
            assert batch.branch[k, r, at] in (0, branch)
        assert (batch.tokens[batch.example < 0] == PAD).all()


def test_a_worked_pair():
    """Prompt 7 8, chosen 1 2, rejected 3: five tokens, and 7 8 stands once."""
    data = build([([7, 8], [[1, 2], [3]])])
    batch = take(data, plan(data, batch=1, accumulate=1, epochs=1, seed=[0]), 0, PAD)
    assert batch.tokens[0, 0].tolist() == [7, 8, 1, 2, 3, PAD, PAD, PAD]
    assert batch.positions[0, 0].tolist() == [0, 1, 2, 3, 2, 0, 0, 0]
    assert batch.example[0, 0].tolist() == [0, 0, 0, 0, 0, -1, -1, -1]
    assert batch.branch[0, 0].tolist() == [0, 0, 1, 1, 2, 0, 0, 0]
    assert batch.source[0, 0].tolist() == [1, 2, 1, 0, 0, 0, 0, 0]
    assert batch.target[0, 0].tolist() == [1, 2, 3, 0, 0, 0, 0, 0]
    assert batch.sequence[0, 0].tolist() == [0, 0, 1, 2, 2, 2, 2, 2]
    assert batch.sequences == 2


def realistic(n: int, seed: int) -> Examples:
    """Prompts and completions of the spread that reasoning data has (log-normal)."""
    rng = np.random.default_rng(seed)
    prompts, completions = (
        np.clip(rng.lognormal(np.log(median), 0.5, n), 8, 900).astype(int) for median in (150, 180)
    )
    flat = np.arange((prompts + completions).sum(), dtype=np.int32) % 1000
    starts = np.concatenate([[0], np.cumsum(prompts + completions)])
    return Examples(flat, starts, prompts.astype(np.int32), completions[:, None].astype(np.int32))


@pytest.mark.parametrize("splits", [(8, 1, 1), (8, 4, 1), (32, 1, 4), (64, 1, 8)])
def test_little_is_padding(splits):
    """Dealt at random, eight such examples a row leave more than a quarter of the places empty."""
    batch, accumulate, rows = splits
    data = realistic(2000, seed=3)
    order = plan(data, batch=batch, accumulate=accumulate, epochs=2, seed=[1], rows=rows)
    padding = 1 - 2 * data.sizes.sum() / (len(order) * accumulate * rows * order.length)
    assert padding < 0.10
    random = np.random.default_rng(0).permutation(data.sizes).reshape(-1, 8).sum(1)
    assert 1 - random.mean() / random.max() > 0.25


def test_an_epoch_is_seeded_and_each_is_another():
    data = realistic(60, seed=0)
    make = {"batch": 4, "accumulate": 2, "epochs": 3, "rows": 2}
    first, again, other = (plan(data, seed=seed, **make) for seed in ([1, 2], [1, 2], [1, 3]))
    assert (first.order == again.order).all()
    assert (first.length, first.predictions) == (again.length, again.predictions)
    assert first.order.shape != other.order.shape or (first.order != other.order).any()
    steps = len(first) // 3
    assert (first.order[:steps] != first.order[steps : 2 * steps]).any()


def test_a_step_in_the_middle_needs_no_step_before_it():
    """Resuming: the bytes of step 5 are the same whether or not the steps before were taken."""
    data = realistic(60, seed=0)
    make = {"batch": 4, "accumulate": 2, "epochs": 3, "seed": [5], "rows": 2}

    def digest(batch: Batch) -> str:
        arrays = (batch.tokens, batch.positions, batch.example, batch.branch, batch.source)
        return hashlib.sha256(b"".join(x.tobytes() for x in arrays)).hexdigest()

    order = plan(data, **make)
    walked = [digest(take(data, order, step, PAD)) for step in range(len(order))]
    assert digest(take(data, plan(data, **make), 5, PAD)) == walked[5]
    assert len(set(walked)) == len(walked)


def test_shapes_are_those_of_the_fullest_row():
    data = build([([1] * 5, [[2] * 4]), ([1] * 20, [[2] * 11])])
    order = plan(data, batch=1, accumulate=1, epochs=1, seed=[0])
    assert (order.length, order.predictions) == (32, 16)
    assert order.order.shape == (2, 1, 1, 1)


def test_an_example_beyond_the_context_is_refused_by_name():
    names = ["sft.parquet: question 3", "sft.parquet: question 4"]
    fits = [([1] * 6, [[2] * 4, [2] * 4]), ([1] * 6, [[2] * 4, [2] * 4])]
    prompts, completions = zip(*fits, strict=True)
    examples(prompts, completions, 10, names)  # both completions at once are not one sequence
    match = r"question 4: a prompt of 6 tokens with a completion of 5 is longer .* context of 10"
    with pytest.raises(ValueError, match=match):
        examples(prompts, (completions[0], [[2] * 4, [2] * 5]), 10, names)


@pytest.mark.parametrize("row", [([], [[1]]), ([1], [[]]), ([1], [[2], []])])
def test_nothing_to_predict_is_refused_by_name(row):
    with pytest.raises(ValueError, match="row 0: an empty prompt or completion; drop the row"):
        build([row])
