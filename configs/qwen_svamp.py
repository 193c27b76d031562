"""MALT with a real 0.5B instruct model on elementary word problems, on two CPU cores.

python -m malt_jax.main --config=configs/qwen_svamp.py \
    --config.data.train=svamp/train.json --config.data.eval=svamp/test.json

The model needs no warm start. `svamp/train.json` holds the first 700 rows of SVAMP.json and
`svamp/test.json` the last 300, of which nothing has been asked yet (docs/qwen.md has the lines that
write them). Prompts and lengths were chosen on training rows. A run that was stopped goes on where
it was; scale it with --config.data.train_questions=N and --config.data.eval_questions=N.
Time:   @@TIME@@
Result: no figure of the trained team has been measured yet.
"""

from ml_collections import ConfigDict

from malt_jax.recipe import base

# A form to fill in: told only how to end, this model writes the last line and nothing before it.
FORM = "What is asked: ...\nCalculation: ...\nFinal Answer: X, where X is {hint} and nothing else."
# The question first: what prompts share, the sampler computes once.
PROBLEM = "Problem:\n{question}\n\n"
ATTEMPT = PROBLEM + "Proposed solution:\n{generator}\n\n"


def get_config() -> ConfigDict:
    c = base()
    c.workdir = "runs/qwen_svamp"
    c.model.path = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
    c.data.task = "svamp"
    c.data.train = "svamp/train.json"
    c.data.eval = "svamp/test.json"
    c.data.development_questions = 40
    c.roles.generator.prompt = PROBLEM + "Solve the problem in this form:\n" + FORM
    c.roles.verifier.prompt = (
        ATTEMPT + "The proposed solution may be wrong. Check it in this form:\nWhat is asked: ...\n"
        "The numbers that matter: ...\nRight calculation: ...\nVerdict: right or wrong, and why"
    )
    c.roles.refiner.prompt = (
        ATTEMPT + "Check:\n{verifier}\n\nThe proposed solution and the check may be wrong. Write "
        "the right solution in this form:\n" + FORM
    )
    for role in c.chain:
        c.roles[role].max_new_tokens = 100
    # 21 nodes a tree in place of 39: more questions for the same hours.
    c.roles.verifier.branching = 2
    c.roles.refiner.branching = 2
    c.sample.temperature = 0.7  # at 0.3 siblings are too much alike for pairs
    c.sample.rows = 64  # a decoding step of more rows leaves the fast products
    c.credit.max_positives_per_parent = 1  # a row of 300 tokens takes half a minute of a core
    c.credit.max_pairs_per_parent = 1
    c.lora.rank = 8
    c.lora.alpha = 16.0
    c.sft.epochs = 1
    c.dpo.epochs = 1
    c.dpo.rpo_alpha = 1.0
    return c
