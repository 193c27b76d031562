"""The public face: what `import malt_jax` offers. Plain lists are taken where arrays are.

For example, where `prompts` holds the prompts of "generator" and "refiner":

    model = malt_jax.load("SmolLM2-135M-Instruct.Q4_1.gguf")
    trees = malt_jax.grow(malt_jax.team(model, prompts, "gsm8k"), [("What is 2+3?", "5")])
    adapter = malt_jax.train(model, malt_jax.rows(trees, "refiner", "sft"), "sft", epochs=1)
    team = malt_jax.team(model, prompts, "gsm8k", adapters={"refiner": adapter})
    team.solve("What is 2+3?", votes=3).answer

What a run left is a team as well: `malt_jax.Team.load("runs/quickstart").solve("17+8-12").answer`.
"""

from malt_jax.api.asking import Solution, Team
from malt_jax.api.learning import propagate, rows, train
from malt_jax.api.teams import Asked, grow, sample, solve, team
from malt_jax.models import Model, load
from malt_jax.models.lora import Adapter
from malt_jax.rollout.roles import Role
from malt_jax.types import Question

__all__ = ["Adapter", "Asked", "Model", "Question", "Role", "Solution", "Team", "grow", "load"]
__all__ += ["propagate", "rows", "sample", "solve", "team", "train"]
