"""Log-probabilities of packed rows with shared prompts: exact, with exact gradients, and never an
array of tokens by vocabulary."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from malt_jax.learn import logprobs
from malt_jax.learn.logprobs import (
    Drawn,
    completion_logprobs,
    drawn_logprobs,
    per_sequence,
    predicting,
    sequence_logprobs,
)
from malt_jax.learn.losses import token_logprobs
from malt_jax.learn.packing import examples, plan, take
from malt_jax.models import llama, lora
from malt_jax.sampler import Sampling

MODEL = small.model(scale=2.0)
RNG = np.random.default_rng(0)
ROWS = [
    ([int(x) for x in RNG.integers(4, 90, p)], [RNG.integers(4, 90, c).tolist() for c in cs])
    for p, cs in ((5, (3, 9)), (1, (70, 2)), (90, (1, 1)), (33, (8, 40)), (2, (2,)))
]


def adapter():
    """Random in both matrices, so that both have gradients."""
    drawn = lora.init(MODEL.config, jax.random.key(1), rank=3, alpha=6.0)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: x + jnp.asarray(rng.normal(0, 0.1, x.shape), jnp.float32), drawn)


def batch_of(rows, per_row: int = 1):
    """All rows in one micro-batch."""
    prompts, completions = zip(*rows, strict=True)
    data = examples(prompts, completions, 512, [str(i) for i in range(len(rows))])
    order = plan(data, batch=len(rows), accumulate=1, epochs=1, seed=[0], rows=per_row)
    batch = jax.tree.map(lambda x: x[0], take(data, order, 0, pad_id=3))
    return batch, order.order[0, 0].reshape(-1), data.completions.shape[1]


@jax.jit
def full(adapter, tokens):
    """Every next token's log-probability from the logits of plain rows, nothing shared."""
    hidden, _ = llama.forward(MODEL.config, MODEL.params, tokens, tokens >= 0, adapter)
    logits = llama.unembed(MODEL.config, MODEL.params, hidden)
    return token_logprobs(logits[:, :-1], tokens[:, 1:])


@jax.jit
def scored(adapter, batch):
    logps = completion_logprobs(MODEL.config, MODEL.params, adapter, batch)
    return logps, *per_sequence(logps, batch)


def alone(adapter, prompt, completion):
    """Log-probabilities of one completion in a row of its own."""
    row = [*prompt, *completion]
    logps = full(adapter, jnp.array([row + [0] * (128 - len(row))]))
    return logps[0, len(prompt) - 1 : len(row) - 1]


@pytest.mark.parametrize("rows", [1, 3])
def test_packed_log_probabilities_equal_those_of_each_sequence_alone(rows):
    batch, order, branches = batch_of(ROWS, rows)
    logps, sums, counts = scored(adapter(), batch)
    for place, i in enumerate(order):
        for c in range(branches):
            sequence = place * branches + c
            if i < 0 or c >= len(ROWS[i][1]):
                assert (sums[sequence], counts[sequence]) == (0, 0)
                continue
            want = alone(adapter(), ROWS[i][0], ROWS[i][1][c])
            np.testing.assert_allclose(logps[batch.sequence == sequence], want, atol=1e-5)
            assert float(sums[sequence]) == pytest.approx(float(want.sum()), abs=1e-5 * len(want))
            assert counts[sequence] == len(want)
    stacked = jax.tree.map(lambda x: np.stack([x, x]), batch)
    again = sequence_logprobs(MODEL.config, MODEL.params, adapter(), stacked)
    np.testing.assert_allclose(again, np.stack([sums, sums]), rtol=1e-6)


def weighted(policy, batch, order, branches, score):
    """A loss with another weight for every completion, so that no two gradients cancel."""
    total = 0.0
    for place, i in enumerate(order):
        for c in range(branches if i >= 0 else 0):
            if c < len(ROWS[i][1]):
                total += (1 + i + 0.3 * c) * score(policy, place * branches + c, i, c)
    return total


def test_gradients_equal_those_of_each_sequence_alone():
    batch, order, branches = batch_of(ROWS, 2)

    def packed(policy):
        logps = completion_logprobs(MODEL.config, MODEL.params, policy, batch)
        sums, _ = per_sequence(logps, batch)
        return weighted(policy, batch, order, branches, lambda _, s, i, c: sums[s])

    def apart(policy):
        return weighted(
            policy, batch, order, branches, lambda policy, s, i, c: alone(policy, *pick(i, c)).sum()
        )

    def pick(i, c):
        return ROWS[i][0], ROWS[i][1][c]

    value, got = jax.jit(jax.value_and_grad(packed))(adapter())
    expected, want = jax.jit(jax.value_and_grad(apart))(adapter())
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(want))
    for ours, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(ours, other, atol=1e-5 * largest)


def test_the_head_has_the_gradient_of_the_full_logits(monkeypatch):
    """Three chunks, the last of them partly used and a fourth not at all."""
    monkeypatch.setattr(logprobs, "CHUNK", 4)
    keys = jax.random.split(jax.random.key(0), 3)
    hidden, head = jax.random.normal(keys[0], (2, 16, 8)), jax.random.normal(keys[1], (40, 8))
    target = jax.random.randint(keys[2], (2, 16), 0, 40)
    weights = jnp.where(jnp.arange(16) < 10, jnp.arange(32.0).reshape(2, 16) - 9.0, 0.0)

    def loss(score, hidden):
        return jnp.sum(weights * score(hidden))

    def naive(hidden):
        return token_logprobs(hidden @ head.T, target)

    def chunked(hidden):
        return logprobs._score(hidden, head, target, jnp.array(10))

    (got, got_grad), (want, want_grad) = (
        jax.value_and_grad(partial(loss, score))(hidden) for score in (chunked, naive)
    )
    assert float(got) == pytest.approx(float(want), rel=1e-5)
    np.testing.assert_allclose(got_grad, want_grad, atol=1e-4)
    assert (chunked(hidden)[:, 12:] == 0).all()


def shapes(jaxpr):
    """The shapes of all values of a jaxpr, those of loops and custom rules within it too."""
    for eqn in jaxpr.eqns:
        yield from (var.aval.shape for var in eqn.outvars)
        for param in jax.tree.leaves(
            eqn.params, is_leaf=lambda x: isinstance(x, jax.extend.core.ClosedJaxpr)
        ):
            inner = getattr(param, "jaxpr", param)
            if hasattr(inner, "eqns"):
                yield from shapes(inner)


def test_no_array_is_tokens_by_vocabulary(monkeypatch):
    """Of the loss and its gradient; and the walk does find the array where it is made."""
    import jax.extend

    monkeypatch.setattr(logprobs, "CHUNK", 16)
    batch, _, _ = batch_of(ROWS)
    vocabulary, predictions = MODEL.config.vocab_size, batch.target.size
    assert predictions > 4 * 16

    def loss(policy):
        return completion_logprobs(MODEL.config, MODEL.params, policy, batch).sum()

    def drawn(policy):
        hidden = predicting(MODEL.config, MODEL.params, policy, batch)
        of = Drawn(Sampling(0.7, top_k=5, top_p=0.9), entropy_gradient=True)
        scores = drawn_logprobs(MODEL.config, MODEL.params, hidden, batch, of)
        return sum(score.sum() for score in scores)

    def naive(policy):
        tokens = jnp.asarray(batch.tokens)
        hidden, _ = llama.forward(MODEL.config, MODEL.params, tokens, tokens >= 0, policy)
        return llama.unembed(MODEL.config, MODEL.params, hidden).sum()

    def largest(function):
        sizes = shapes(jax.make_jaxpr(jax.value_and_grad(function))(adapter()).jaxpr)
        return max(int(np.prod(shape[:-1])) for shape in sizes if shape and shape[-1] == vocabulary)

    assert largest(loss) == largest(drawn) == 16
    assert largest(naive) == batch.tokens.size


@pytest.mark.parametrize("remat", ["keep_products", "keep_inputs"])
def test_what_is_kept_changes_no_gradient(remat):
    batch, _, _ = batch_of(ROWS)

    def loss(policy, remat):
        logps = completion_logprobs(MODEL.config, MODEL.params, policy, batch, remat=remat)
        return jnp.where(batch.sequence < batch.sequences, logps, 0.0).mean()

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    kept, again = gradient(adapter(), "keep_all"), gradient(adapter(), remat)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), kept, again)
