"""Llama-3.1-8B-Instruct on MATH, with the paper's settings, for TPUs or a large GPU.

python -m malt_jax.main --config=configs/math.py

Trains on 2,000 of MATH's 7,500 training problems (the paper gives no number of problems;
--config.data.train_questions=0 takes all) and tests on its 5,000 test problems; both come from the
hub.
Time:   not measured on an accelerator yet; about twice gsm8k.py's, the solutions are longer.
Result: the paper reports 57.25 for malt_mv, 49.50 for sa, 52.50 for sa_mv and 53.50 for ma_mv (4
        seeds of 100 questions); no figure of this program has been measured yet.
"""

from ml_collections import ConfigDict

from malt_jax.recipe import load


def get_config() -> ConfigDict:
    c = load("gsm8k")
    c.workdir = "runs/math"
    c.data.task = "math"
    c.roles.generator.max_new_tokens = 640  # ours: MATH's solutions run to several hundred tokens
    c.roles.verifier.max_new_tokens = 320
    c.roles.refiner.max_new_tokens = 640
    return c
