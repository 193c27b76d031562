"""The compiled programs of training: one call is one optimiser step of K micro-batches, or the
held-out evaluation of one of them.

A loss is a callable from the log-probabilities of a micro-batch to this micro-batch's share of the
step's loss and metrics: shares are added up over the K. A mean over the whole step comes out right
if each share is a sum divided by the denominator of the whole, handed in through `extra`; so K
micro-batches give what one batch of all their examples gives.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh

from malt_jax.config.phase import PhaseSettings
from malt_jax.learn import optim
from malt_jax.learn.logprobs import Drawn, drawn_logprobs, predicting, target_logprobs, token_kl
from malt_jax.learn.packing import Batch
from malt_jax.models.config import LlamaConfig
from malt_jax.models.lora import Adapter, Params
from malt_jax.models.training import Remat
from malt_jax.runtime import mesh as meshes
from malt_jax.runtime import process

State = dict[str, Any]
"""{"adapter": Adapter, "opt_state": of optax}."""
Extra = dict[str, Any]
"""Arrays that the loss needs beside the batch, with a leading axis K."""
Metrics = dict[str, Array]
Loss = Callable[[Array, Batch, Extra], tuple[Array, Metrics]]
"""(log-probabilities float32[R, P], batch, extra) -> share of the loss, shares of the metrics.
Where a program is made with `drawn`, they are of that distribution, and `extra` has its `entropy:
float32[R, P]`."""
Step = Callable[[Params, State, Batch, Extra], tuple[State, Metrics]]
Evaluate = Callable[[Params, Adapter, Adapter, Batch, Extra], Metrics]
"""(base, adapter, reference, batches, extra) -> metrics."""

# XLA's CPU compiler takes the barriers of `jax.checkpoint` out and then finds that what is to be
# recomputed is there already: it would keep everything, whatever `remat` says.
_CPU_OPTIONS = {"xla_disable_hlo_passes": "cse_barrier_expander"}
# Programs are remembered by what they are made of, so that a role trained like the one before it
# traces nothing anew.
_REMEMBERED = 4


def optimiser(phase: PhaseSettings, updates: int) -> optax.GradientTransformation:
    """The optimiser of a phase of so many updates."""
    return optim.adamw(
        phase.learning_rate,
        updates,
        warmup=phase.warmup,
        weight_decay=phase.weight_decay,
        b1=0.9,
        b2=0.999,
        clip_norm=phase.clip_norm,
    )


def init(tx: optax.GradientTransformation, adapter: Adapter, mesh: Mesh) -> State:
    """The state before the first step. Compiled with shardings: an eager `tx.init` would leave its
    counters on one device, and the step would compile twice."""
    shardings = meshes.tree_shardings(mesh, jax.eval_shape(tx.init, adapter))
    return {"adapter": adapter, "opt_state": jax.jit(tx.init, out_shardings=shardings)(adapter)}


def rows(mesh: Mesh) -> int:
    """Rows of a micro-batch, one for each of the mesh's batch shards: `packing.plan`'s `rows`."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def place(mesh: Mesh, batches: Batch, extra: Extra) -> tuple[Batch, Extra]:
    """Host arrays on the devices: rows over the mesh's batch shards, `extra` whole."""

    def spread(array: Any) -> Array:
        logical = (None, "batch") + (None,) * (array.ndim - 2)
        return meshes.put(array, meshes.sharding(mesh, array.shape, logical))

    def whole(array: Any) -> Array:
        return meshes.put(array, meshes.sharding(mesh, array.shape, (None,) * array.ndim))

    return jax.tree.map(spread, batches), jax.tree.map(whole, extra)


def training(
    config: LlamaConfig,
    tx: optax.GradientTransformation,
    loss: Loss,
    like: State,
    *,
    remat: Remat,
    drawn: Drawn | None = None,
) -> Step:
    """The compiled optimiser step. It takes over (donates) the state it is given, and places the
    new one as `like`: left to itself XLA places it otherwise and the second step compiles anew.

    Metrics are the loss's, and `loss`, `grad_norm` (before clipping), `predicted` and `computed`
    (tokens) and `finite`. Where the loss or the gradient's norm is not finite, `finite` is 0 and
    the new state is the old one, bit for bit.
    """
    leaves, tree = jax.tree.flatten(jax.tree.map(lambda leaf: leaf.sharding, like))
    return _training(config, tx, loss, tree, tuple(leaves), remat, drawn)


@lru_cache(_REMEMBERED)
def _training(
    config: LlamaConfig,
    tx: optax.GradientTransformation,
    loss: Loss,
    tree: jax.tree_util.PyTreeDef,
    placed: tuple[Any, ...],
    remat: Remat,
    drawn: Drawn | None,
) -> Step:
    """`training`, with the shardings of its state as leaves of `tree`."""

    def share(adapter: Adapter, params: Params, batch: Batch, extra: Extra) -> Any:
        hidden = predicting(config, params, adapter, batch, remat=remat)
        return _share(config, params, hidden, batch, extra, loss, drawn)

    shardings = jax.tree.unflatten(tree, placed)
    # The devices that the state lies on: a program for others may be compiled where there are none.
    [platform] = {d.platform for s in placed for d in s.device_set}
    options = _CPU_OPTIONS if platform == "cpu" else {}

    @partial(jax.jit, donate_argnums=1, out_shardings=(shardings, None), compiler_options=options)
    def step(params: Params, state: State, batches: Batch, extra: Extra) -> tuple[State, Metrics]:
        adapter = state["adapter"]
        gradient = jax.value_and_grad(share, has_aux=True)
        ((value, metrics), grads) = _added(
            lambda batch, extra: gradient(adapter, params, batch, extra), batches, extra
        )
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        updates, opt_state = tx.update(grads, state["opt_state"], adapter)
        new = {"adapter": optax.apply_updates(adapter, updates), "opt_state": opt_state}
        new = jax.tree.map(lambda after, before: jnp.where(finite, after, before), new, state)
        return new, metrics | {"loss": value, "grad_norm": norm, "finite": finite}

    return step


def evaluation(
    config: LlamaConfig, loss: Loss, *, every: int = 1, drawn: Drawn | None = None
) -> Evaluate:
    """A function that evaluates: the same loss and metrics, without gradients, and `kl`, the mean
    of `token_kl` from the adapter to the reference over the tokens of every `every`-th completion.

    It waits for one micro-batch after another, however many there are: none takes longer than a
    hang is told by.
    """
    score = scoring(config, loss, every=every, drawn=drawn)

    def evaluate(
        params: Params, adapter: Adapter, reference: Adapter, batches: Batch, extra: Extra
    ) -> Metrics:
        inputs = params, adapter, reference, batches, extra
        shapes = jax.eval_shape(score, None, 0, *inputs)
        # Of the host, as is what comes back: sums on the devices would compile it anew.
        sums = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
        for k in range(len(batches.tokens)):
            added = score(sums, k, *inputs)
            with process.watched("held-out loss"):
                sums = jax.device_get(added)
        (value, metrics), (kl, tokens) = sums
        kl_a_token = jnp.float32(kl) / jnp.float32(tokens)
        return dict(sorted({**metrics, "loss": value, "kl": kl_a_token}.items()))

    return evaluate


@lru_cache(_REMEMBERED)
def scoring(config: LlamaConfig, loss: Loss, *, every: int = 1, drawn: Drawn | None = None) -> Any:
    """The compiled program of an evaluation: (sums, k, base, adapter, reference, batches, extra) ->
    `sums`, None at first, with those of micro-batch k: ((loss, metrics), (`token_kl`, tokens)).

    A pass of the model for each of the two adapters.
    """

    @jax.jit
    def score(
        sums: Any,
        k: int | Array,
        params: Params,
        adapter: Adapter,
        reference: Adapter,
        batches: Batch,
        extra: Extra,
    ) -> Any:
        batch, of_batch = jax.tree.map(lambda x: x[k], (batches, extra))
        ours, theirs = (predicting(config, params, which, batch) for which in (adapter, reference))
        counted = batch.counted & (batch.sequence % every == 0)
        kl = jnp.where(counted, token_kl(config, params, ours, theirs, batch), 0.0)
        value = _share(config, params, ours, batch, of_batch, loss, drawn)
        share = value, (kl.sum(), counted.sum())
        return share if sums is None else jax.tree.map(jnp.add, sums, share)

    return score


def _share(
    config: LlamaConfig,
    params: Params,
    hidden: Array,
    batch: Batch,
    extra: Extra,
    loss: Loss,
    drawn: Drawn | None,
) -> tuple[Array, Metrics]:
    """A micro-batch's share of the loss and the metrics, from its `predicting` states."""
    if drawn is None:
        logps = target_logprobs(config, params, hidden, batch)
    else:
        logps, entropy = drawn_logprobs(config, params, hidden, batch, drawn)
        extra = extra | {"entropy": entropy}
    value, metrics = loss(logps, batch, extra)
    predicted = jnp.sum(batch.counted)
    return value, metrics | {"predicted": predicted, "computed": jnp.sum(batch.example >= 0)}


def _added(share: Callable[[Batch, Extra], Any], batches: Batch, extra: Extra) -> Any:
    """The sum of `share` over the K micro-batches."""

    def add(sums: Any, micro_batch: tuple[Batch, Extra]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, share(*micro_batch)), None

    first = jax.tree.map(lambda x: x[0], (batches, extra))
    shapes = jax.eval_shape(share, *first)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(add, zeros, (batches, extra))[0]
