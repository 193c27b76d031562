"""The second half of the warm start: 480 more questions, whose prompts show what the model of
smollm2_warm.py wrote there, so that a role learns how far to trust what it reads.

python -m malt_jax.main --config=configs/smollm2_drafts.py --stage=collect
python -m malt_jax.main --config=configs/smollm2_drafts.py --stage=solutions
python -m malt_jax.main --config=configs/smollm2_drafts.py --stage=train
python -m malt_jax.main --config=configs/smollm2_drafts.py --stage=merge

writes runs/smollm2_drafts/export/merged/generator, the base model of smollm2_mawps.py.
Time:   26 minutes on 2 cores with AVX-512 shared with other programs.
Result: see smollm2_mawps.py. Without it the refiner keeps two of three right answers that it reads,
        whatever it is then trained on, and the team is behind its generator.
"""

from ml_collections import ConfigDict

from malt_jax.recipe import load


def get_config() -> ConfigDict:
    c = load("smollm2_warm")
    c.workdir = "runs/smollm2_drafts"
    c.model.path = "runs/smollm2_warm/export/merged/generator"
    c.data.skip_questions = c.data.train_questions
    c.data.train_questions = 480
    for role in c.chain:
        c.roles[role].branching = 1
    c.sample.temperature = 0.7
    return c
