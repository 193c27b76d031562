"""TRL with PEFT: `SFTTrainer` and `DPOTrainer` on torch, one epoch a request.

Batches are of examples of like length, as the trainers' `group_by_length` makes them of a large
data set (of a small one it makes worse ones). SFT's `padding_free` took 1.3 times the CPU seconds:
its one row attends, masked, to all 8 examples. DPO's reference log-probabilities are computed
before training.

    python -m benchmarks.peers.trl_worker DIRECTORY JOB.json
"""

import sys
import tempfile
import time
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from benchmarks.peers import training_job
from benchmarks.peers.serving import serve
from benchmarks.peers.training_job import TARGETS, Example, Job


class Clock(TrainerCallback):
    """Seconds from the start of an epoch to the end of its last step."""

    started = ended = 0.0

    def on_train_begin(self, *given: Any, **more: Any) -> None:
        self.started = time.perf_counter()

    def on_step_end(self, *given: Any, **more: Any) -> None:
        self.ended = time.perf_counter()


class IdsDPOTrainer(DPOTrainer):
    """Takes token ids as they are, where DPOTrainer would have text."""

    def _prepare_dataset(self, dataset: Dataset, *given: Any, **more: Any) -> Dataset:
        return dataset


class Engine:
    """The base model, and the trainer of the number of examples that was asked for last."""

    def __init__(self, directory: str, job: Job):
        self.job = job
        self.model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
        self.tokenizer = AutoTokenizer.from_pretrained(directory)
        self.folder = tempfile.TemporaryDirectory()
        self.trainer: Any = None
        self.count = 0

    def train(self, count: int) -> dict[str, Any]:
        """One epoch over the first `count` examples, the adapter fresh where `count` is new."""
        if count != self.count:
            if self.trainer:
                wrapped: PeftModel = self.trainer.model
                self.model = wrapped.unload()
            self.clock = Clock()
            self.trainer, self.count = self._trainer(count), count
        self.trainer.train()
        steps = [entry for entry in self.trainer.state.log_history if "loss" in entry]
        answer = {
            "losses": [entry["loss"] for entry in steps],
            "seconds": self.clock.ended - self.clock.started,
            "parameters": self.trainer.model.get_nb_trainable_parameters()[0],
        }
        if self.job.phase == "dpo":
            answer["logps"] = [steps[0]["logps/chosen"], steps[0]["logps/rejected"]]
        return answer

    def _trainer(self, count: int) -> Any:
        job = self.job
        settings = {
            "output_dir": self.folder.name,
            "per_device_train_batch_size": job.batch,
            "num_train_epochs": 1,
            "learning_rate": job.learning_rate,
            "lr_scheduler_type": "cosine",
            "max_grad_norm": job.clip_norm,
            "train_sampling_strategy": "sequential",
            "max_length": None,
            "gradient_checkpointing": False,
            "bf16": False,
            "use_cpu": True,
            "dataloader_pin_memory": False,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
        }
        adapter = LoraConfig(
            r=job.rank,
            lora_alpha=job.alpha,
            lora_dropout=0.0,
            target_modules=list(TARGETS),
            task_type="CAUSAL_LM",
        )
        make, config, row = (
            (SFTTrainer, SFTConfig(**settings), sft_row)
            if job.phase == "sft"
            else (
                IdsDPOTrainer,
                DPOConfig(**settings, beta=job.beta, precompute_ref_log_probs=True),
                dpo_row,
            )
        )
        return make(
            model=self.model,
            args=config,
            train_dataset=Dataset.from_list([row(example) for example in job.sorted(count)]),
            processing_class=self.tokenizer,
            peft_config=adapter,
            callbacks=[self.clock],
        )


def sft_row(example: Example) -> dict[str, list[int]]:
    """The loss is of the completion only."""
    prompt, (completion,) = example
    return {"input_ids": prompt + completion, "labels": [-100] * len(prompt) + completion}


def dpo_row(example: Example) -> dict[str, list[int]]:
    prompt, (chosen, rejected) = example
    return {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}


def main() -> None:
    engine = Engine(sys.argv[1], training_job.read(sys.argv[2]))
    serve(lambda request: engine.train(request["count"]))


if __name__ == "__main__":
    main()
