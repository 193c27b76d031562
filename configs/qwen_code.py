"""MALT with a real 0.5B instruct model on programs: trained on MBPP, evaluated on it and HumanEval.

python -m malt_jax.main --config=configs/qwen_code.py \
    --config.data.train=mbpp/train.jsonl --config.data.eval=mbpp/test.jsonl

`mbpp/train.jsonl` and `mbpp/test.jsonl` are the published splits (task ids 601 to 974, and 11 to
510); docs/guides/code.md has the lines that write them, and where HumanEval comes from. With
--config.suite=transfer the trained team is evaluated on HumanEval as well. Programs run in a
sandbox (apt-get install bubblewrap).
Time:   not run.
Result: not run; no figure has been measured. Its authors report about 61% pass@1 on HumanEval
        for the untrained model, greedily and under their own prompt.
"""

from ml_collections import ConfigDict

from malt_jax.recipe import base

PROBLEM = "\n\nProblem:\n{question}"
ATTEMPT = "\n\nAn attempt of somebody else, which is often wrong:\n{generator}"
REMARKS = "\n\nExamples worked out by somebody else:\n{verifier}"
PROGRAM = "Solve the problem. Reply with {hint}, and keep the name that the problem gives it."


def get_config() -> ConfigDict:
    c = base()
    c.workdir = "runs/qwen_code"
    c.model.path = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
    c.data.task = "mbpp"
    c.data.train = "mbpp/train.jsonl"
    c.data.eval = "mbpp/test.jsonl"
    c.data.exclude = ("humaneval:HumanEval.jsonl.gz",)
    c.data.development_questions = 40
    c.roles.generator.prompt = PROGRAM + PROBLEM
    # Asked to check, this model agrees: it is asked for what an error shows itself in.
    c.roles.verifier.prompt = (
        "Work out by hand what the function must return for the example and for two inputs that "
        "are easy to get wrong. Then say for each what the attempt returns. Write one short line "
        "an input, and no new program." + PROBLEM + ATTEMPT
    )
    c.roles.refiner.prompt = PROGRAM + PROBLEM + ATTEMPT + REMARKS
    c.roles.generator.max_new_tokens = 320
    c.roles.verifier.max_new_tokens = 160
    c.roles.refiner.max_new_tokens = 320
    # 21 nodes a tree in place of 39: more questions for the same hours.
    c.roles.verifier.branching = 2
    c.roles.refiner.branching = 2
    c.sample.temperature = 0.7  # siblings must differ
    c.sample.rows = 64  # the most that the CPU's products for few rows take
    c.credit.max_positives_per_parent = 1  # training is what costs most here
    c.credit.max_pairs_per_parent = 1
    c.lora.rank = 8
    c.lora.alpha = 16.0
    c.sft.epochs = 1
    c.dpo.epochs = 1
    c.dpo.rpo_alpha = 1.0
    return c
