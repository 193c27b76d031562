"""MALT with a real 0.5B instruct model on elementary word problems, on two CPU cores.

python -m malt_jax.main --config=configs/qwen_svamp.py \
    --config.data.train=svamp/train.json --config.data.eval=svamp/test.json

The model needs no warm start. `svamp/train.json` holds the first 700 rows of SVAMP.json and
`svamp/test.json` the last 300 (docs/qwen.md has the lines that write them). Prompts and lengths
were chosen on the development questions. A run that was stopped goes on where
it was; scale it with --config.data.train_questions=N and --config.data.eval_questions=N.
Time:   31 tokens a second on two cores without AVX-512; not run at full size.
Result: no figure of the trained team has been measured yet.
"""

from ml_collections import ConfigDict

from malt_jax.recipe import base

# A form to fill in: told how to end alone, this model often writes the last line and no other.
# All three prompts say "solve": asked to check, it agrees, and asked to refine, it gives a verdict.
FORM = "What is asked: ...\nCalculation: ...\nFinal Answer: X, where X is {hint} and nothing else."
PROGRAM = "Quantities: ...\nPython: answer = ...\nValue: ..."
PROBLEM = "\n\nProblem:\n{question}"
ATTEMPT = "\n\nAn attempt of somebody else, which is often wrong:\n{generator}"
SECOND = "\n\nA second attempt, which is often wrong:\n{verifier}"


def get_config() -> ConfigDict:
    c = base()
    c.workdir = "runs/qwen_svamp"
    c.model.path = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
    c.data.task = "svamp"
    c.data.train = "svamp/train.json"
    c.data.eval = "svamp/test.json"
    c.data.development_questions = 40
    solve = "Solve the problem in this form:\n"
    c.roles.generator.prompt = solve + FORM + PROBLEM
    c.roles.verifier.prompt = solve + PROGRAM + PROBLEM + ATTEMPT
    c.roles.refiner.prompt = solve + FORM + PROBLEM + ATTEMPT + SECOND
    for role in c.chain:
        c.roles[role].max_new_tokens = 100
    # 21 nodes a tree in place of 39: more questions for the same hours.
    c.roles.verifier.branching = 2
    c.roles.refiner.branching = 2
    c.sample.temperature = 0.7  # where the prompts were chosen; siblings must differ
    c.sample.rows = 64  # the most that the CPU's products for few rows take
    c.credit.max_positives_per_parent = 1  # training is what costs most here
    c.credit.max_pairs_per_parent = 1
    c.lora.rank = 8
    c.lora.alpha = 16.0
    c.sft.epochs = 1
    c.dpo.epochs = 1
    c.dpo.rpo_alpha = 1.0
    return c
