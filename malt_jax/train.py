"""Stage 3: one adapter a role. SFT on positives, then for the roles that ask for it DPO from that
SFT policy, which is also DPO's reference (MALT, section 4.3)."""

import json
import time
import zlib
from collections.abc import Sequence
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

from malt_jax import checkpoints, export, losses, optim, preflight, rundir, shards, steps
from malt_jax import mesh as meshes
from malt_jax.batches import Batch, Examples, Plan, examples, plan, take
from malt_jax.identity import check_identity, identity
from malt_jax.models import Model, lora
from malt_jax.models.lora import Adapter
from malt_jax.policy import per_sequence, sequence_logprobs
from malt_jax.settings import PhaseSettings, Settings


@dataclass(frozen=True)
class Data:
    """A phase's examples; for DPO also `reference: float32[N, 2]`, the reference policy's
    log-probabilities of chosen and rejected (empty for SFT)."""

    examples: Examples
    reference: np.ndarray

    def step(self, plan: Plan, i: int, pad_id: int) -> tuple[Batch, steps.Extra]:
        """The micro-batches of optimiser step `i`, and what the loss needs beside them: its
        denominator, completion tokens (SFT) or pairs (DPO), and the reference [K, S]."""
        order = plan.order[i]
        present = order[order >= 0]
        tokens, pairs = self.examples.completions[present].sum(), len(present)
        denominator = pairs if len(self.reference) else tokens
        extra = {"denominator": np.full(len(order), denominator, np.float32)}
        if len(self.reference):
            extra["reference"] = self.reference[order].reshape(len(order), -1)
        return take(self.examples, plan, i, pad_id), extra


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
        path = workdir / "datasets" / role / f"{phase}.parquet"
        data = _data(path, shards.read_one(path), model, mesh, adapter, settings.phase(phase).batch)
        directory = workdir / "checkpoints" / role / phase
        check_identity(directory / "base.json", model)
        rundir.write_json(directory / "base.json", identity(model))
        adapter = fit(directory, settings, model, mesh, adapter, data, f"{role} {phase}")
    return adapter


def _data(
    path: Path,
    rows: Sequence[dict[str, Any]],
    model: Model,
    mesh: Mesh,
    reference: Adapter,
    batch: int,
) -> Data:
    kinds = ["completion"] if path.stem == "sft" else ["chosen", "rejected"]
    data = examples(
        [row["prompt_token_ids"] for row in rows],
        [[row[f"{kind}_token_ids"] for kind in kinds] for row in rows],
        model.config.context,
        [f"{path}: question {row['question_id']}" for row in rows],
    )
    if path.stem == "sft":
        return Data(data, np.zeros(0, np.float32))
    once = plan(data, batch=batch, accumulate=1, epochs=1, seed=[0], rows=steps.rows(mesh))
    scores = np.zeros((len(data), 2), np.float32)
    for i in tqdm(range(len(once)), desc="reference", unit="batch"):
        batches, _ = steps.place(mesh, take(data, once, i, model.tokenizer.pad_id), {})
        sums = sequence_logprobs(model.config, model.params, reference, batches)
        order = once.order[i].reshape(-1)
        scores[order[order >= 0]] = np.asarray(sums).reshape(-1, 2)[order >= 0]
    return Data(data, scores)


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

    The order of the examples is a function of the seed, so a resumed run takes up at the exact
    step. Raises FloatingPointError at the first step that is not finite; the checkpoint before it
    stays.
    """
    phase = settings.phase(directory.name)
    order = plan(
        data.examples,
        batch=phase.batch,
        accumulate=phase.accumulate,
        epochs=phase.epochs,
        seed=[settings.seed, zlib.crc32(title.encode())],
        rows=steps.rows(mesh),
    )
    tx = _optimiser(phase, len(order))
    rate = optim.schedule(phase.learning_rate, len(order), phase.warmup)
    saved = checkpoints.manager(directory)
    begun = steps.init(tx, adapter, mesh)
    step = steps.training(model.config, tx, _loss(directory.name, phase), begun, remat=phase.remat)
    done, state = checkpoints.restore(saved, begun)
    with (
        _Log(directory / "metrics.jsonl", done) as log,
        tqdm(total=len(order), initial=done, desc=title, unit="step") as bar,
    ):
        for i in range(done, len(order)):
            started = time.perf_counter()
            batches, extra = data.step(order, i, model.tokenizer.pad_id)
            state, metrics = step(model.params, state, *steps.place(mesh, batches, extra))
            values = {name: float(value) for name, value in jax.device_get(metrics).items()}
            if not values["finite"]:
                raise FloatingPointError(
                    f"{title}: loss {values['loss']} at step {i}; "
                    f"lower config.{directory.name}.learning_rate"
                )
            seconds = time.perf_counter() - started
            log.add({"step": i + 1, "lr": float(rate(i)), **values, "seconds": seconds})
            bar.set_postfix(loss=f"{values['loss']:.3f}")
            bar.update()
            if (i + 1) % phase.checkpoint_every == 0 or i + 1 == len(order):
                checkpoints.save(saved, i + 1, state)
    saved.close()
    return state["adapter"]


def _optimiser(phase: PhaseSettings, updates: int) -> optax.GradientTransformation:
    return optim.adamw(
        phase.learning_rate,
        updates,
        warmup=phase.warmup,
        weight_decay=phase.weight_decay,
        b1=0.9,
        b2=0.999,
        clip_norm=phase.clip_norm,
    )


def _loss(name: str, phase: PhaseSettings) -> steps.Loss:
    def sft(logps: Array, batch: Batch, extra: steps.Extra) -> tuple[Array, steps.Metrics]:
        counted = jnp.asarray(batch.sequence < batch.sequences)
        loss, metrics = losses.sft_loss(logps, counted, denominator=extra["denominator"])
        return loss, {"nll": loss, "tokens": metrics["tokens"]}

    def dpo(logps: Array, batch: Batch, extra: steps.Extra) -> tuple[Array, steps.Metrics]:
        sums, tokens = per_sequence(logps, batch)
        chosen, rejected = sums.reshape(-1, 2).T
        ref_chosen, ref_rejected = extra["reference"].reshape(-1, 2).T
        pairs = losses.Pairs(chosen, rejected, ref_chosen, ref_rejected, tokens[::2], tokens[1::2])
        loss, metrics = losses.preference_loss(
            pairs,
            partial(losses.sigmoid, beta=phase.beta),
            phase.beta,
            weights=tokens[::2],
            denominator=extra["denominator"],
        )
        many = metrics.pop("pairs")
        shares = {name: mean * many / extra["denominator"] for name, mean in metrics.items()}
        return loss, shares | {"pairs": many, "tokens": jnp.sum(tokens)}

    return sft if name == "sft" else dpo


class _Log:
    """`metrics.jsonl`, a line a step; lines after the restored step are dropped, they will
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
