"""MALT with a real 0.5B instruct model on open questions, which a model judges by a rubric.

python -m malt_jax.main --config=configs/qwen_judged.py \
    --config.data.train=train.jsonl --config.data.eval=test.jsonl

A row has a `question`. The judge answers at --config.judge.endpoint: the base model under
`--stage=serve`, or any server that speaks OpenAI's protocol, whose key is in the environment
variable that --config.judge.key names. docs/guides/judges.md has both commands.
Time:   not run.
Result: not run; no figure has been measured.
"""

from ml_collections import ConfigDict

from malt_jax.recipe import base

QUESTION = "\n\nQuestion:\n{question}"
DRAFT = "\n\nA draft of somebody else:\n{generator}"
REMARKS = "\n\nWhat a reader missed in it:\n{verifier}"
ANSWER = "Answer the question in at most five sentences. Write the answer and nothing else."


def get_config() -> ConfigDict:
    c = base()
    c.workdir = "runs/qwen_judged"
    c.model.path = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
    c.data.task = "judge"
    c.data.train = "train.jsonl"
    c.data.eval = "test.jsonl"
    c.judge.endpoint = "http://localhost:8000/v1"
    c.judge.model = "generator"  # a role that is served without an adapter: the base
    c.judge.key = ""
    c.judge.rubric = (
        "A good answer is true, answers what was asked, gives the reason, and ends when it has."
    )
    c.roles.generator.prompt = ANSWER + QUESTION
    c.roles.verifier.prompt = (
        "Name the two things that a reader of the draft would miss or doubt, one sentence each."
        + QUESTION
        + DRAFT
    )
    c.roles.refiner.prompt = ANSWER + QUESTION + DRAFT + REMARKS
    c.roles.verifier.branching = 2
    c.roles.refiner.branching = 2
    for role in c.chain:
        c.roles[role].max_new_tokens = 200
    c.sample.temperature = 0.7  # siblings must differ
    c.credit.label = "parent"  # scores between 0 and 1: above the parent's, not above a half
    c.reward.brief = 0.1
    c.reward.characters = 1000
    c.lora.rank = 8
    c.lora.alpha = 16.0
    return c
