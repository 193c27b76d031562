"""A team of one's own: other roles, other prompts, other training, in a recipe outside the package.

    python -m malt_jax.main --config=examples/own_roles.py

A role is a name, a prompt and an entry in the chain. What it reads is what its prompt shows: the
{question}, the {hint} that says what kind of answer is asked for, and earlier roles by their names.
Here a solver proposes, an auditor checks what it wrote, and a closer answers. The auditor learns
from single samples with labels (KTO) where MALT has pairs. The tiny model that ships with the
package knows these three prompts and no others; with a model of your own, write what you would
tell a person.

The same by flags alone, over any recipe:

    --config.chain="('solver','closer')" --config.roles.solver.prompt="Solve: {question}"
    --config.roles.closer.prompt="{question} A try: {solver}" --config.roles.closer.branching=4

Time:   3 minutes on 2 idle cores.
Result: not measured; the recipe shows how, not how well.
"""

from ml_collections import ConfigDict

from malt_jax.recipe import base


def role(prompt: str, branching: int, max_new_tokens: int, train: tuple[str, ...]) -> ConfigDict:
    """A role that learns in these phases, one after another; with () it stays the base model."""
    return ConfigDict(
        {
            "prompt": prompt,
            "branching": branching,
            "max_new_tokens": max_new_tokens,
            "train": train,
            "adapter": "",
        }
    )


def get_config() -> ConfigDict:
    """The recipe."""
    c = base()
    c.workdir = "runs/own_roles"
    c.model.path = "malt_jax/tiny/model"
    c.data.task = "arithmetic"
    c.data.train_questions = 200
    c.data.eval_questions = 200
    c.chain = ("solver", "auditor", "closer")
    c.roles = ConfigDict(
        {
            "solver": role("Solve: {question}", 2, 48, ("sft",)),
            "auditor": role("Check: {question}\n{solver}", 3, 48, ("sft", "kto")),
            "closer": role("Refine: {question}\n{solver}\n{auditor}", 3, 32, ("sft", "dpo")),
        }
    )
    c.eval.debate.prompt = "Solve: {question}\n{others}"
    c.eval.debate.other = "{other}"
    c.sample.temperature = 1.0  # as the tiny model was pretrained
    c.sample.rows = 192
    c.sample.questions_per_shard = 50
    c.lora.rank = 2
    c.lora.alpha = 8.0
    c.lora.targets = ("o", "down")
    c.credit.threshold = 0.3  # this base is seldom right
    for phase, rate in ((c.sft, 4e-3), (c.dpo, 1e-3), (c.kto, 1e-3)):
        phase.learning_rate = rate
        phase.batch = 32
        phase.remat = "keep_all"
    return c
