"""What every trainer is asked to do, written by the driver and read by the workers.

Stands alone on the standard library, since every peer's virtual environment runs it.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Example = tuple[list[int], list[list[int]]]


@dataclass(frozen=True)
class Job:
    """A phase ("sft" or "dpo") of LoRA on all TARGETS, without dropout: AdamW (0.9, 0.999, no
    decay) on gradients clipped to `clip_norm`, at a rate that falls from `learning_rate` to 0 as a
    cosine.

    `batch` is examples an optimiser step, `pad_id` a token that no example holds. An example is a
    prompt with one completion (SFT), or with the chosen and the rejected one (DPO).
    """

    phase: str
    rank: int
    alpha: float
    batch: int
    learning_rate: float
    clip_norm: float
    beta: float
    pad_id: int
    examples: list[Example]

    def write(self, file: Path) -> None:
        """Keeps the job for `read`."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")

    def sorted(self, count: int) -> list[Example]:
        """The first `count` examples, those of like length together: batches cut from these in
        order have the least padding."""
        return sorted(self.examples[:count], key=lambda e: len(e[0]) + max(map(len, e[1])))

    def steps(self, count: int) -> int:
        """Optimiser steps of an epoch over the first `count` examples."""
        return -(-count // self.batch)


def read(file: str) -> Job:
    """The job in `file`."""
    return Job(**json.loads(Path(file).read_text(encoding="utf-8")))
