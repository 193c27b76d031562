"""MALT with a real 135M model on real one-step and two-step word problems, on a laptop-class CPU.

python -m malt_jax.main --config=configs/smollm2_mawps.py \
    --config.data.train=mawps/train.json --config.data.eval=mawps/singleop.jsonl

after smollm2_warm.py, whose merged weights it starts from and whose questions it passes over. To
evaluate on SVAMP as well, give both jobs --config.data.exclude="('svamp:SVAMP.json',)", so that
they learn from nothing like it, and this one --config.suite=transfer. Scale it with
--config.data.train_questions=N and --config.data.eval_questions=N.
Time:   31 minutes for the trees and an hour and a quarter for training, on 2 cores without AVX-512
        shared with other programs; 44 minutes alone for evaluation (voting at equal compute would
        be as much again).
Result: malt_mv 30.9%, ma_mv 29.0%, sa_mv 29.8% of 531 questions, and in a second run on all 422
        questions 27.1%, 29.0%, 28.2%: within chance of one another (docs/mawps.md). With a rate of
        1e-4, no SFT term and evaluations too far apart to end it, DPO remembers the answers of its
        116 questions: malt_mv 23.9%.
"""

from ml_collections import ConfigDict

from configs.base import get_config as base
from configs.smollm2_warm import get_config as warm


def get_config() -> ConfigDict:
    c = warm()
    c.workdir = "runs/smollm2_mawps"
    c.model.path = "runs/smollm2_warm/export/merged/generator"
    c.data.skip_questions = c.data.train_questions
    c.data.train_questions = 240
    c.roles.verifier.train = ("sft", "dpo")
    c.roles.refiner.train = ("sft", "dpo")
    c.eval.debate.prompt = (
        "Question: {question}\n\n{others}\n\nWrite the right equation, then the final answer."
    )
    c.eval.debate.other = "Answer: {other}"
    c.sample.rows = 128
    c.sample.temperature = 0.7  # at 0.3 a model this small repeats itself: too few contrasts
    c.sft = base().sft  # the warm start's are for worked solutions
    c.sft.eval_every = 100
    c.dpo.eval_every = 20
    c.dpo.patience = 2
    c.dpo.rpo_alpha = 1.0
    return c
