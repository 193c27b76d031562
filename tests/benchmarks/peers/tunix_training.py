"""google-tunix: `PeftTrainer` and `DPOTrainer` with qwix's LoRA, one epoch a request.

It compiles for each shape, so batches are of examples of like length, padded to a multiple of
BUCKET; the driver's first whole epoch, which compiles, is not counted. DPOTrainer computes the
reference's log-probabilities anew in every step; here its own code does that before training, so
that all engines have them stored.

    python -m benchmarks.peers.tunix_training DIRECTORY JOB.json
"""

import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import qwix  # type: ignore[import-not-found]
from flax import nnx
from tunix.models.llama3.model import RematConfig  # type: ignore[import-not-found]
from tunix.sft import peft_trainer, utils  # type: ignore[import-not-found]
from tunix.sft.dpo import dpo_trainer  # type: ignore[import-not-found]

from benchmarks.peers import training_job, tunix_model
from benchmarks.peers.serving import serve
from benchmarks.peers.training_job import TARGETS, Example, Job

BUCKET = 32  # prompts and completions are padded to a multiple of this many tokens
# Without recomputation DPO's 16 rows keep some 20 GB of attention probabilities.
REMAT = {"sft": RematConfig.NONE, "dpo": RematConfig.BLOCK}


class StoredDPOTrainer(dpo_trainer.DPOTrainer):  # type: ignore[misc]
    """Takes batches whose reference log-probabilities are there already."""

    def _prepare_inputs(self, training_input: Any) -> Any:
        if isinstance(training_input, dpo_trainer.TrainExample):
            return training_input
        return super()._prepare_inputs(training_input)


class Engine:
    """The base model, and a trainer and its batches for each number of examples asked for."""

    def __init__(self, directory: Path, job: Job):
        self.job = job
        self.model = tunix_model.load(directory, remat_config=REMAT[job.phase])
        self.prepared: dict[int, tuple[Any, list[Any]]] = {}

    def train(self, count: int) -> dict[str, Any]:
        """One epoch over the first `count` examples, the adapter fresh where `count` is new."""
        if count not in self.prepared:
            self.prepared[count] = self._prepare(count)
        trainer, batches = self.prepared[count]
        started = time.perf_counter()
        trainer.train(batches)
        seconds = time.perf_counter() - started
        trainer._write_train_metrics()  # it keeps the last step's back until the next

        def metric(name: str) -> list[float]:
            history = trainer.metrics_logger.get_metric_history("", name, "train")
            return [float(value) for value in history[-len(batches) :]]

        trained = jax.tree.leaves(nnx.state(trainer.model, nnx.LoRAParam))
        answer = {
            "losses": metric("loss"),
            "seconds": seconds,
            "parameters": sum(x.size for x in trained),
        }
        if self.job.phase == "dpo":
            answer["logps"] = [metric(f"log_probs/{kind}")[0] for kind in ("chosen", "rejected")]
        return answer

    def _prepare(self, count: int) -> tuple[Any, list[Any]]:
        job = self.job
        examples = job.sorted(count)
        cut = [examples[i : i + job.batch] for i in range(0, count, job.batch)]
        lora = qwix.LoraProvider(
            module_path="|".join(f".*{name}" for name in TARGETS), rank=job.rank, alpha=job.alpha
        )
        model = qwix.apply_lora_to_model(self.model, lora, **self.model.get_model_input())
        rate = optax.cosine_decay_schedule(job.learning_rate, len(cut))
        optimiser = optax.chain(
            optax.clip_by_global_norm(job.clip_norm), optax.adamw(rate, weight_decay=0.0)
        )
        if job.phase == "sft":
            plain = peft_trainer.TrainingConfig(eval_every_n_steps=count)
            trainer = peft_trainer.PeftTrainer(model, optimiser, plain)
            trainer.with_gen_model_input_fn(self._model_input)
            batches = [self._sft(batch) for batch in cut]
        else:
            config = dpo_trainer.DPOTrainingConfig(eval_every_n_steps=count, beta=job.beta)
            trainer = StoredDPOTrainer(model, self.model, optimiser, config)
            batches = [trainer._prepare_inputs(self._dpo(batch)) for batch in cut]
        trainer.is_managed_externally = True  # so that it can be asked to train again
        return trainer, batches

    def _sft(self, batch: list[Example]) -> Any:
        """`input_mask` says what the loss counts."""
        tokens, _ = self._padded([prompt + completion for prompt, (completion,) in batch])
        counted = np.zeros(tokens.shape, bool)
        for row, (prompt, (completion,)) in enumerate(batch):
            counted[row, len(prompt) : len(prompt) + len(completion)] = True
        return peft_trainer.TrainingInput(tokens, counted)

    def _model_input(self, batch: Any) -> dict[str, Any]:
        real = batch.input_tokens != self.job.pad_id
        return {
            "input_tokens": batch.input_tokens,
            "input_mask": batch.input_mask,
            "positions": utils.build_positions_from_mask(real),
            "attention_mask": utils.make_causal_attn_mask(real),
        }

    def _dpo(self, batch: list[Example]) -> Any:
        prompts = self._padded([prompt for prompt, _ in batch], left=True)
        answers = self._padded(
            [row for place in (0, 1) for _, rows in batch for row in [rows[place]]]
        )
        halves = [np.split(array, 2) for array in answers]
        (chosen, rejected), (chosen_mask, rejected_mask) = halves
        return dpo_trainer.TrainingInput(
            *prompts,
            chosen_ids=chosen,
            chosen_mask=chosen_mask,
            rejected_ids=rejected,
            rejected_mask=rejected_mask,
        )

    def _padded(
        self, rows: list[list[int]], *, left: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and what of them is real, int32[B, T] each."""
        width = -(-max(map(len, rows)) // BUCKET) * BUCKET
        tokens = np.full((len(rows), width), self.job.pad_id, np.int32)
        for row, ids in zip(tokens, rows, strict=True):
            row[width - len(ids) if left else 0 :][: len(ids)] = ids
        return tokens, (tokens != self.job.pad_id).astype(np.int32)


def main() -> None:
    engine = Engine(Path(sys.argv[1]), training_job.read(sys.argv[2]))
    serve(lambda request: engine.train(request["count"]))


if __name__ == "__main__":
    main()
