"""Stage 3: one adapter a role. SFT on positives, then for the roles that ask for it DPO from that
SFT policy, which is also DPO's reference (MALT, section 4.3)."""

import json
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh
from tqdm import tqdm

from malt_jax import checkpoints, export, losses, optim, preflight, rundir, shards
from malt_jax import mesh as meshes
from malt_jax.batches import Batch, Sequences, pack, plan, take
from malt_jax.identity import check_identity, identity
from malt_jax.models import Model, lora
from malt_jax.models.lora import Adapter, Params
from malt_jax.policy import completion_logprobs, sequence_logprobs
from malt_jax.settings import PhaseSettings, Settings

State = dict[str, Any]
Extra = dict[str, Any]
Loss = Callable[[Params, Adapter, Batch, Extra], tuple[Array, dict[str, Array]]]


@dataclass(frozen=True)
class Data:
    """A phase's rows. DPO stacks the chosen completions and then the rejected ones: row i pairs
    with row i + n.

    `reference: float32[2 n]` holds the reference policy's sequence log-probabilities (empty for
    SFT).
    """

    sequences: Sequences
    rows: int
    reference: np.ndarray

    def batch(self, chosen: np.ndarray) -> tuple[Batch, Extra]:
        if not len(self.reference):
            return take(self.sequences, chosen), {}
        rows = np.concatenate([chosen, np.where(chosen >= 0, chosen + self.rows, -1)])
        return take(self.sequences, rows), {"reference": self.reference[rows]}


def run(workdir: Path, settings: Settings, model: Model, mesh: Mesh) -> None:
    """Trains and exports every role's adapter that `export/` does not hold yet.

    Raises ValueError before anything is trained for what `preflight.check` finds.
    """
    preflight.check(workdir, settings, model)
    for role in settings.chain:
        target = workdir / "export" / role
        if not settings.roles[role].train or target.exists():
            continue
        adapter = train_role(workdir, settings, model, mesh, role)
        export.write(workdir, settings, model, role, adapter)


def train_role(workdir: Path, settings: Settings, model: Model, mesh: Mesh, role: str) -> Adapter:
    """All phases of one role, from a fresh adapter or from the one its settings name."""
    seed = jax.random.fold_in(jax.random.key(settings.seed), zlib.crc32(role.encode()))
    shape = settings.lora
    init = partial(
        lora.init, model.config, rank=shape.rank, alpha=shape.alpha, targets=shape.targets
    )
    shardings = meshes.tree_shardings(mesh, jax.eval_shape(init, seed))
    start = export.starting_adapter(settings, model, role)
    adapter = (
        jax.jit(init, out_shardings=shardings)(seed)
        if start is None
        else jax.device_put(start, meshes.tree_shardings(mesh, start))
    )
    for phase in settings.roles[role].train:
        rows = shards.read_one(workdir / "datasets" / role / f"{phase}.parquet")
        data = _data(phase, rows, model, mesh, adapter, settings.phase(phase).batch)
        directory = workdir / "checkpoints" / role / phase
        check_identity(directory / "base.json", model)
        rundir.write_json(directory / "base.json", identity(model))
        adapter = fit(directory, settings, model, mesh, adapter, data, f"{role} {phase}")
    return adapter


def _data(
    phase: str,
    rows: Sequence[dict[str, Any]],
    model: Model,
    mesh: Mesh,
    reference: Adapter,
    batch: int,
) -> Data:
    completions = ["completion"] if phase == "sft" else ["chosen", "rejected"]
    pairs = [
        (row["prompt_token_ids"], row[f"{kind}_token_ids"]) for kind in completions for row in rows
    ]
    sequences = pack(pairs, model.tokenizer.pad_id, model.config.context)
    if phase == "sft":
        return Data(sequences, len(rows), np.zeros(0, np.float32))
    scores = [
        sequence_logprobs(
            model.config, model.params, reference, _put(mesh, take(sequences, chosen))
        )
        for chosen in tqdm(
            np.pad(np.arange(len(pairs)), (0, -len(pairs) % batch), constant_values=-1).reshape(
                -1, batch
            ),
            desc="reference",
            unit="batch",
        )
    ]
    return Data(sequences, len(rows), np.concatenate(jax.device_get(scores))[: len(pairs)])


def _put(mesh: Mesh, tree: Any) -> Any:
    return jax.tree.map(partial(meshes.put_batch, mesh), tree)


def fit(
    directory: Path,
    settings: Settings,
    model: Model,
    mesh: Mesh,
    adapter: Adapter,
    data: Data,
    title: str,
) -> Adapter:
    """One phase (its name is the directory's), from `adapter` or from the newest checkpoint in
    `directory`.

    The order of the rows is a function of the seed, so a resumed run takes up at the exact
    micro-batch. Raises FloatingPointError at the first loss that is not finite; the checkpoint
    before it stays.
    """
    phase = settings.phase(directory.name)
    batches = plan(
        data.rows,
        phase.batch,
        phase.accumulate,
        phase.epochs,
        [settings.seed, zlib.crc32(title.encode())],
    )
    updates = len(batches) // phase.accumulate
    tx = _optimiser(phase, updates)
    rate = optim.schedule(phase.learning_rate, updates, phase.warmup)
    step = _step(model, tx, _loss(directory.name, model, phase))
    like = jax.eval_shape(tx.init, adapter)
    opt_state = jax.jit(tx.init, out_shardings=meshes.tree_shardings(mesh, like))(adapter)
    saved = checkpoints.manager(directory)
    done, state = checkpoints.restore(saved, {"adapter": adapter, "opt_state": opt_state})
    with (
        _Log(directory / "metrics.jsonl", done) as log,
        tqdm(total=len(batches), initial=done, desc=title, unit="batch") as bar,
    ):
        for i in range(done, len(batches)):
            started = time.perf_counter()
            batch, extra = data.batch(batches[i])
            group = batches[i - i % phase.accumulate :][: phase.accumulate]
            extra["denominator"] = np.float32(_weight(data, group) / phase.accumulate)
            state, metrics = step(model.params, state, _put(mesh, batch), extra)
            values = {name: float(value) for name, value in jax.device_get(metrics).items()}
            if not np.isfinite(values["loss"]):
                raise FloatingPointError(
                    f"{title}: loss {values['loss']} at batch {i}; "
                    f"lower config.{directory.name}.learning_rate"
                )
            seconds = time.perf_counter() - started
            log.add(
                {
                    "step": i + 1,
                    "lr": float(rate(i // phase.accumulate)),
                    **values,
                    "seconds": seconds,
                }
            )
            bar.set_postfix(loss=f"{values['loss']:.3f}")
            bar.update()
            if (i + 1) % phase.checkpoint_every == 0 or i + 1 == len(batches):
                checkpoints.save(saved, i + 1, state)
    saved.close()
    return state["adapter"]


def _weight(data: Data, group: np.ndarray) -> float:
    """What an optimiser step's loss is a mean over: completion tokens (SFT) or pairs (DPO)."""
    rows = group[group >= 0]
    return float(len(rows) if len(data.reference) else data.sequences.completions[rows].sum())


def _optimiser(phase: PhaseSettings, updates: int) -> optax.GradientTransformation:
    return optim.adamw(
        phase.learning_rate,
        updates,
        warmup=phase.warmup,
        weight_decay=phase.weight_decay,
        b1=0.9,
        b2=0.999,
        clip_norm=phase.clip_norm,
        accumulate=phase.accumulate,
    )


def _loss(name: str, model: Model, phase: PhaseSettings) -> Loss:
    def sft(params: Params, adapter: Adapter, batch: Batch, extra: Extra) -> Any:
        logps, mask = completion_logprobs(model.config, params, adapter, batch, remat=phase.remat)
        return losses.sft_loss(logps, mask, denominator=extra["denominator"])

    def dpo(params: Params, adapter: Adapter, batch: Batch, extra: Extra) -> Any:
        logps, mask = completion_logprobs(model.config, params, adapter, batch, remat=phase.remat)
        sums = jnp.sum(jnp.where(mask, logps, 0.0), -1)
        chosen, rejected = jnp.split(sums, 2)
        ref_chosen, ref_rejected = jnp.split(extra["reference"], 2)
        lengths = jnp.split(jnp.asarray(batch.completions), 2)
        pairs = losses.Pairs(chosen, rejected, ref_chosen, ref_rejected, *lengths)
        return losses.preference_loss(
            pairs,
            partial(losses.sigmoid, beta=phase.beta),
            phase.beta,
            weights=jnp.split(batch.completions > 0, 2)[0],
            denominator=extra["denominator"],
        )

    return sft if name == "sft" else dpo


def _step(model: Model, tx: optax.GradientTransformation, loss: Loss) -> Callable[..., Any]:
    """The compiled micro-batch: base and adapter are arguments, the state is donated."""

    @partial(jax.jit, donate_argnums=1)
    def step(
        params: Params, state: State, batch: Batch, extra: Extra
    ) -> tuple[State, dict[str, Array]]:
        (value, metrics), grads = jax.value_and_grad(loss, argnums=1, has_aux=True)(
            params, state["adapter"], batch, extra
        )
        updates, opt_state = tx.update(grads, state["opt_state"], state["adapter"])
        adapter = optax.apply_updates(state["adapter"], updates)
        metrics |= {"loss": value, "grad_norm": optax.tree.norm(grads)}
        metrics |= {"tokens": jnp.sum(batch.completions)}
        return {"adapter": adapter, "opt_state": opt_state}, metrics

    return step


class _Log:
    """`metrics.jsonl`, a line a micro-batch; lines after the restored step are dropped, they will
    come again."""

    def __init__(self, path: Path, done: int):
        kept = path.read_text().splitlines()[:done] if path.exists() else []
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(line + "\n" for line in kept))
        self._file = path.open("a")

    def __enter__(self) -> "_Log":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
