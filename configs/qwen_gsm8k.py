"""MALT with a real 0.5B instruct model on GSM8K, on two CPU cores, in many sittings.

python -m malt_jax.main --config=configs/qwen_gsm8k.py \
    --config.data.train=gsm8k/train.jsonl --config.data.eval=gsm8k/test.jsonl

The prompts are those of qwen_svamp.py, with room for more steps. Scale it with
--config.data.train_questions=N and --config.data.eval_questions=N.
Time:   not run at full size.
Result: with the paper's prompts 22 of 160 answers to training questions are right and 57 are cut
        (temperature 0.7, 300 tokens; docs/guides/grader.md). No figure of a team has been measured.
"""

from ml_collections import ConfigDict

from malt_jax.recipe import load


def get_config() -> ConfigDict:
    c = load("qwen_svamp")
    c.workdir = "runs/qwen_gsm8k"
    c.data.task = "gsm8k"
    c.data.train = "gsm8k/train.jsonl"
    c.data.eval = "gsm8k/test.jsonl"
    c.data.train_questions = 150
    c.data.eval_questions = 200
    for role in c.chain:
        c.roles[role].max_new_tokens = 200
    return c
