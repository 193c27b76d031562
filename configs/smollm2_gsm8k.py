"""A real 135M instruct model on GSM8K: hard for it, so most trees hold no right leaf.

python -m malt_jax.main --config=configs/smollm2_gsm8k.py \
    --config.model.path=SmolLM2-135M-Instruct.Q4_1.gguf \
    --config.data.train=gsm8k/train.jsonl --config.data.eval=gsm8k/test.jsonl

Scale it with --config.data.train_questions=N and --config.data.eval_questions=N, and from some
hundred questions on train all three roles (the last lines of this file).
Time:   not run at full size.
Result: the base model alone solves about 4% (48 questions, temperature 0.3, as measured with
        transformers); no figure for the trained team has been measured yet.
"""

from ml_collections import ConfigDict

from malt_jax.recipe import base


def get_config() -> ConfigDict:
    c = base()
    c.workdir = "runs/smollm2_gsm8k"
    c.model.path = "HuggingFaceTB/SmolLM2-135M-Instruct"
    c.data.task = "gsm8k"
    c.data.train = "gsm8k/train.jsonl"
    c.data.eval = "gsm8k/test.jsonl"
    c.data.train_questions = 16
    c.data.eval_questions = 48
    c.data.max_chars = 800
    c.roles.generator.max_new_tokens = 200
    c.roles.verifier.max_new_tokens = 100
    c.roles.refiner.max_new_tokens = 200
    c.sample.rows = 48
    c.sample.questions_per_shard = 16
    c.sample.temperature = 0.7  # at 0.3 a model this small repeats itself: too few contrasts
    c.lora.rank = 8
    c.lora.alpha = 16.0
    c.sft.learning_rate = 5e-4  # little data: a few dozen steps in all
    c.sft.batch = 4
    c.dpo.batch = 4
    # 16 trees leave these two next to nothing to learn from.
    c.roles.generator.train = ()
    c.roles.verifier.train = ()
    return c
