"""The training phases, a file each. Another phase is another such file and its place in `PHASES`;
no other module knows a phase by its name."""

from typing import Any

from malt_jax.learn.phases import dpo, kto, rl, sft
from malt_jax.learn.phases.phase import Phase

PHASES: dict[str, Phase[Any]] = {
    phase.name: phase for phase in (sft.PHASE, dpo.PHASE, kto.PHASE, rl.PHASE)
}
