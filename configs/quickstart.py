"""MALT in minutes on a CPU: a tiny Llama learns to do sums as a team. No download, no other file.

python -m malt_jax.main --config=configs/quickstart.py

The base model (0.35M parameters, `python -m malt_jax.tiny.pretrain` made it) can solve, check and
refine sums such as 17+8-12 well, and mostly does not: its pretraining text was a mixture of good
and bad manners. Rewards at the leaves of the trees are all that tells MALT which manners to keep.
Time:   3 minutes on 2 cores, up to 9 where other programs share them; 1.4 GB of memory.
Result: malt_mv 90.8%, sa 47.0% (mean of 3 passes), ma_mv 50.8% of 500 held-out questions. With as
        many tokens as malt_mv, plain voting of the base model has 96.5% and of the trained
        generator 98.1%; greedy decoding of the base model has 98.4%.
Control: --config.suite=control trains on shuffled rewards: malt_mv 44.2%.
"""

from ml_collections import ConfigDict

from malt_jax.recipe import base


def get_config() -> ConfigDict:
    c = base()
    c.workdir = "runs/quickstart"
    c.model.path = "malt_jax/tiny/model"
    c.data.task = "arithmetic"
    c.data.train_questions = 300
    c.data.eval_questions = 500
    # The prompts that the tiny model was pretrained with.
    c.roles.generator.prompt = "Solve: {question}"
    c.roles.verifier.prompt = "Check: {question}\n{generator}"
    c.roles.refiner.prompt = "Refine: {question}\n{generator}\n{verifier}"
    c.eval.debate.prompt = "Solve: {question}\n{others}"
    c.eval.debate.other = "{other}"
    c.roles.generator.max_new_tokens = 48
    c.roles.verifier.max_new_tokens = 48
    c.roles.refiner.max_new_tokens = 32
    c.sample.temperature = 1.0  # as it was pretrained: no gain from mere sharpening
    c.sample.rows = 192
    c.sample.questions_per_shard = 50
    c.lora.rank = 8
    c.lora.alpha = 16.0
    c.sft.learning_rate = 1.5e-3
    c.sft.batch = 32
    c.sft.remat = "keep_all"
    c.dpo.learning_rate = 1e-4  # 1e-3 over-optimises: the refiner forgets how to write an answer
    c.dpo.batch = 32
    c.dpo.epochs = 1
    c.dpo.remat = "keep_all"
    return c
