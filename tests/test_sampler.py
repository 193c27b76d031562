"""The sampler: what it draws, and that a row's tokens are its own business."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from malt_jax import mesh, tree
from malt_jax.models import llama, lora
from malt_jax.sampler import Request, Sampler, Sampling, bucket, draw, inverse_cdf, truncate

STOP = 7


def sampler(rows: int = 12, stop_ids: tuple[int, ...] = (STOP,)) -> Sampler:
    model = small.model(scale=4.0)
    return Sampler(model.config, model.params, mesh.make(), rows, stop_ids, pad_id=3)


def requests(n: int = 10, children: int = 3) -> list[Request]:
    rng = np.random.default_rng(0)
    prompts = [rng.integers(4, 100, rng.integers(5, 60)).tolist() for _ in range(n)]
    keys = tree.node_keys(0, "test", [(str(i), ()) for i in range(n)], children)
    return [Request(p, k) for p, k in zip(prompts, keys, strict=True)]


def run(one: Sampler, asked: list[Request], sampling: Sampling, adapter=None, new: int = 24):
    got = dict(one(asked, adapter, max_new_tokens=new, sampling=sampling))
    return [got[i] for i in range(len(asked))]


@pytest.mark.parametrize(
    ("length", "padded"), [(1, 32), (32, 32), (33, 48), (48, 48), (49, 64), (65, 96), (300, 384)]
)
def test_bucket(length, padded):
    assert bucket(length) == padded


def test_tokens_and_logps_are_the_models_own():
    """Greedy tokens and their log-probabilities equal those of one full forward pass."""
    one, asked = sampler(stop_ids=()), requests()
    for request, children in zip(asked, run(one, asked, Sampling(0.0)), strict=True):
        first = children[0]
        assert [c.tokens for c in children] == [first.tokens] * 3
        tokens = np.array([[*request.prompt, *first.tokens]])
        hidden, _ = llama.forward(one.config, one.params, tokens, np.ones_like(tokens, bool))
        logps = jax.nn.log_softmax(llama.unembed(one.config, one.params, hidden), -1)[0]
        start = len(request.prompt) - 1
        assert first.tokens == np.argmax(logps[start:-1], -1).tolist()
        expected = logps[jnp.arange(start, start + 24), jnp.array(first.tokens)]
        np.testing.assert_allclose(first.logps, expected, atol=2e-5)
        assert not first.stopped


def test_a_rows_tokens_do_not_depend_on_its_batch():
    """Bit-equal in reversed order, alone, and with another number of rows a batch (issue: a shared
    random state or padding that leaks would change them)."""
    asked, sampling = requests(), Sampling(1.0)
    whole = run(sampler(), asked, sampling)
    reverse = run(sampler(), asked[::-1], sampling)[::-1]
    alone = [run(sampler(), [request], sampling)[0] for request in asked]
    wide = run(sampler(rows=24), asked, sampling)
    for others in (reverse, alone, wide):
        for mine, theirs in zip(whole, others, strict=True):
            assert [c.tokens for c in mine] == [c.tokens for c in theirs]
    for mine, theirs in zip(whole, alone, strict=True):
        assert all((a.logps == b.logps).all() for a, b in zip(mine, theirs, strict=True))


def test_children_differ_and_keys_decide():
    asked = requests()
    children = run(sampler(), asked, Sampling(1.0))[0]
    assert len({tuple(c.tokens) for c in children}) == 3
    swapped = Request(asked[0].prompt, asked[0].keys[::-1])
    assert [c.tokens for c in run(sampler(), [swapped], Sampling(1.0))[0]] == [
        c.tokens for c in children[::-1]
    ]


def test_stop_ids_end_a_row_and_count_as_its_last_token():
    completions = [c for row in run(sampler(), requests(20), Sampling(1.0)) for c in row]
    stopped = [c for c in completions if c.stopped]
    assert stopped
    assert len(stopped) < len(completions)
    for completion in completions:
        assert (STOP in completion.tokens) == completion.stopped
        assert completion.tokens.count(STOP) == int(completion.stopped)
        assert len(completion.tokens) == 24 or completion.tokens[-1] == STOP
        assert len(completion.logps) == len(completion.tokens)


def test_swapping_adapters_compiles_nothing():
    """Adapters are arguments of the compiled program: one that was closed over would be frozen."""
    from malt_jax.sampler import generate

    one, asked = sampler(), requests(2)
    keys = jax.random.split(jax.random.key(3), 3)

    def random(key):
        adapter = lora.init(one.config, key, rank=2, alpha=64.0)
        return jax.tree.map(lambda x: jax.random.normal(key, x.shape), adapter)

    results = [run(one, asked, Sampling(1.0), random(keys[0]))]
    compiled = generate._cache_size()
    results += [run(one, asked, Sampling(1.0), random(key)) for key in keys[1:]]
    assert generate._cache_size() == compiled
    assert len({tuple(r[0][0].tokens) for r in results}) == 3


def test_a_prompt_beyond_the_context_is_refused():
    long = Request([5] * 500, requests(1)[0].keys)
    with pytest.raises(ValueError, match=r"500 tokens and 24 new ones.*context of 512"):
        run(sampler(), [long], Sampling(1.0))


def test_truncate_literals():
    logits = jnp.log(jnp.array([0.1, 0.4, 0.2, 0.3]))
    np.testing.assert_array_equal(
        jnp.isfinite(truncate(logits, 2, 1.0)), [False, True, False, True]
    )
    # 0.4 alone has less than 0.5; with 0.3 it has 0.7.
    for top_p, kept in [(0.3, 1), (0.5, 2), (0.71, 3), (0.95, 4)]:
        assert int(jnp.isfinite(truncate(logits, 0, top_p)).sum()) == kept
    assert int(jnp.isfinite(truncate(logits, 3, 0.5)).sum()) == 2


@pytest.mark.parametrize("vocab", [5, 256, 1000])
def test_inverse_cdf_equals_a_search_in_the_running_sum(vocab):
    rng = np.random.default_rng(vocab)
    probs = rng.dirichlet(np.full(vocab, 0.3), 200).astype(np.float32)
    probs[:, rng.integers(0, vocab, vocab // 2)] = 0.0
    uniform = rng.random(200).astype(np.float32)
    got = np.asarray(inverse_cdf(jnp.array(probs), jnp.array(uniform)))
    sums = np.cumsum(probs.astype(np.float64), -1)
    expected = [np.searchsorted(s, u * s[-1], "right") for s, u in zip(sums, uniform, strict=True)]
    assert (got == expected).mean() > 0.99  # float32 sums differ at the edges
    assert (probs[np.arange(200), got] > 0).all()


def test_inverse_cdf_never_draws_the_impossible():
    """u close to 1 must not run past the last possible token into padding or zeros."""
    probs = jnp.zeros((1, 600)).at[0, 3].set(0.7).at[0, 300].set(0.3)
    almost_one = jnp.array([np.nextafter(np.float32(1), np.float32(0))])
    assert int(inverse_cdf(probs, almost_one)[0]) == 300
    assert int(inverse_cdf(probs, jnp.array([0.0]))[0]) == 3


def test_draw_frequencies_follow_the_temperature():
    logits = jnp.array([0.0, 1.0, 2.0])
    uniform = jnp.linspace(0, 1, 20_001)[:-1]
    for temperature in (0.5, 1.0, 2.0):
        token, logp = draw(jnp.broadcast_to(logits, (20_000, 3)), uniform, Sampling(temperature))
        share = np.bincount(token, minlength=3) / 20_000
        np.testing.assert_allclose(share, jax.nn.softmax(logits / temperature), atol=1e-3)
        np.testing.assert_allclose(logp, jax.nn.log_softmax(logits)[token], rtol=1e-6)
