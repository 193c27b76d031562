"""MALT with a real 135M model on real one-step and two-step word problems, on a laptop-class CPU.

python -m malt_jax.main --config=configs/smollm2_mawps.py \
    --config.data.train=mawps/train.json --config.data.eval=mawps/singleop.jsonl

after smollm2_warm.py and smollm2_drafts.py, whose merged weights it starts from. It passes over the
questions of the first half of that warm start; those of the second half, read once there, are among
its 722 (of the 240 that are left DPO learnt nothing). Answers are expressions that the grader works
out. To evaluate on SVAMP as well, give all three jobs
--config.data.exclude="('svamp_equations:SVAMP.json',)", so that they learn from nothing like it,
and this one --config.suite=transfer. Scale it with --config.data.train_questions=N and
--config.data.eval_questions=N.
Time:   on 2 cores with AVX-512 16 minutes for the trees, 62 for training and 10 for evaluation
        (voting at equal compute not included).
Result: malt_mv 60.3%, ma_mv 52.2%, sa_mv 54.0%, STaR's votes 52.0% (one agent) and 57.6% (team) of
        531 questions. With answers as numbers, half of the reward is luck with sums and no vote is
        ahead (docs/mawps.md).
"""

from ml_collections import ConfigDict

from malt_jax.recipe import base, load


def get_config() -> ConfigDict:
    c, before = load("smollm2_warm"), load("smollm2_drafts")
    c.workdir = "runs/smollm2_mawps"
    c.model.path = f"{before.workdir}/export/merged/generator"
    c.data.skip_questions = before.data.skip_questions
    c.data.train_questions = 0
    c.roles.verifier.train = ("sft", "dpo")
    c.roles.refiner.train = ("sft", "dpo")
    c.eval.debate.prompt = (
        "Question: {question}\n\n{others}\n\nWrite the right equation, then the final answer."
    )
    c.eval.debate.other = "Answer: {other}"
    c.sample.rows = 128
    c.sample.temperature = 0.7  # at 0.3 a model this small repeats itself: too few contrasts
    c.sft = base().sft  # the warm start's are for worked solutions
    c.sft.epochs = 1
    c.sft.eval_every = 140
    c.sft.patience = 2
    c.dpo.epochs = 1
    c.dpo.batch = 16
    c.dpo.eval_every = 20
    c.dpo.patience = 2
    c.dpo.rpo_alpha = 1.0
    return c
