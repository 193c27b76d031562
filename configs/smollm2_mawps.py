"""A real 135M instruct model on real one-step and two-step word problems, on a laptop-class CPU.

python -m malt_jax.main --config=configs/smollm2_mawps.py \
    --config.model.path=SmolLM2-135M-Instruct.Q4_1.gguf \
    --config.data.train=mawps/train.json --config.data.eval=mawps/singleop.jsonl

Scale it with --config.data.train_questions=N and --config.data.eval_questions=N, and from some
hundred questions on train all three roles (the last lines of this file).
Time:   38 minutes on 2 cores shared with other programs, as it stands.
Result: too small to show anything, and says so: 8 of the 576 checked and refined samples lead to a
        right answer: 0, 1 and 7 texts of the roles. sa 2.1%, ma_mv 0.0%, malt_mv 4.2% of 48
        questions, with the one text of the verifier still trained on; every paired interval
        touches zero.
"""

from ml_collections import ConfigDict

from configs.base import get_config as base


def get_config() -> ConfigDict:
    c = base()
    c.workdir = "runs/smollm2_mawps"
    c.model.path = "HuggingFaceTB/SmolLM2-135M-Instruct"
    c.data.task = "mawps"
    c.data.train = "mawps/train.json"
    c.data.eval = "mawps/singleop.jsonl"
    c.data.train_questions = 16
    c.data.eval_questions = 48
    c.data.max_chars = 600
    c.roles.generator.max_new_tokens = 128
    c.roles.verifier.max_new_tokens = 64
    c.roles.refiner.max_new_tokens = 128
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
