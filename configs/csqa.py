"""Llama-3.1-8B-Instruct on CommonsenseQA, with the paper's settings, for TPUs or a large GPU.

python -m malt_jax.main --config=configs/csqa.py

Trains on 2,000 of the 9,741 training questions (the paper gives no number of questions;
--config.data.train_questions=0 takes all) and tests on the 1,221 of the development split, as the
paper does: the test split's answers are not public.
Time:   not measured on an accelerator yet; about gsm8k.py's.
Result: the paper reports 81.50 for malt_mv, 74.50 for sa, 75.75 for sa_mv and 79.00 for ma_mv (4
        seeds of 100 questions); no figure of this program has been measured yet.
"""

from ml_collections import ConfigDict

from malt_jax.recipe import load


def get_config() -> ConfigDict:
    c = load("gsm8k")
    c.workdir = "runs/csqa"
    c.data.task = "csqa"
    return c
