"""A warm start for smollm2_mawps.py: SmolLM2-135M-Instruct on worked solutions of 600 questions,
each as the answer of every role.

python -m malt_jax.main --config=configs/smollm2_warm.py --stage=solutions
python -m malt_jax.main --config=configs/smollm2_warm.py --stage=train
python -m malt_jax.main --config=configs/smollm2_warm.py --stage=merge

writes the Hugging Face directory runs/smollm2_warm/export/merged/generator, where smollm2_drafts.py
goes on. As it is published this model solves 2% of the training questions in any of six prompts,
too few to learn from. Answers are expressions that the grader works out; with
--config.data.task=mawps they are numbers, and half of the right equations are worked out wrongly.
Time:   10 minutes on 2 cores with AVX-512.
Result: see smollm2_mawps.py.
"""

from ml_collections import ConfigDict

from malt_jax.recipe import base

# The question first: the two roles' prompts share it and the answer, and the sampler computes what
# prompts share once.
SHOWN = "Question: {question}\n\nAnswer: {generator}\n\n"


def get_config() -> ConfigDict:
    c = base()
    c.workdir = "runs/smollm2_warm"
    c.model.path = "SmolLM2-135M-Instruct.Q4_1.gguf"
    c.data.task = "mawps_equations"
    c.data.train = "mawps/train.json"
    c.data.eval = "mawps/singleop.jsonl"
    c.data.train_questions = 600
    c.roles.generator.prompt = (
        "Write the equation that answers the question, then the final answer.\n\n"
        "Question: {question}"
    )
    c.roles.verifier.prompt = SHOWN + "Check the equation."
    c.roles.refiner.prompt = (
        SHOWN + "Check: {verifier}\n\nWrite the right equation, then the final answer."
    )
    for role in c.chain:
        c.roles[role].max_new_tokens = 48
    c.roles.verifier.train = ()  # one adapter learns all prompts
    c.roles.refiner.train = ()
    c.lora.rank = 16
    c.lora.alpha = 32.0
    c.sft.learning_rate = 1e-3
    c.sft.batch = 4
    c.sft.epochs = 1
    c.sft.eval_every = 200
    return c
