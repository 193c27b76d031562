"""A real 135M instruct model on GSM8K: hard for it, so most trees hold no right leaf.

python -m malt_jax.main --config=configs/smollm2_gsm8k.py \
    --config.model.path=SmolLM2-135M-Instruct.Q4_1.gguf \
    --config.data.train=gsm8k/train.jsonl --config.data.eval=gsm8k/test.jsonl

Scale it with --config.data.train_questions=N and --config.data.eval_questions=N.
Time:   about twice that of smollm2_mawps.py a question (longer solutions); not run at full size.
Result: the base model alone solves about 4% (48 questions, temperature 0.3, as measured with
        transformers); no figure for the trained team has been measured yet.
"""

from ml_collections import ConfigDict

from configs.smollm2_mawps import get_config as mawps


def get_config() -> ConfigDict:
    c = mawps()
    c.workdir = "runs/smollm2_gsm8k"
    c.data.task = "gsm8k"
    c.data.train = "gsm8k/train.jsonl"
    c.data.eval = "gsm8k/test.jsonl"
    c.data.max_chars = 800
    c.roles.generator.max_new_tokens = 200
    c.roles.verifier.max_new_tokens = 100
    c.roles.refiner.max_new_tokens = 200
    return c
