"""The quickstart made tiny, as a process of its own."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# It answers rightly often enough that every role has something to learn.
TINY = ROOT / "malt_jax" / "tiny" / "model"


def command(workdir: Path, model: Path, *flags: str) -> list[str]:
    tiny = {
        "workdir": workdir,
        "model.path": model,
        "data.train_questions": 6,
        "data.eval_questions": 4,
        # As in the paper: a role without DPO beside two with it.
        "roles.generator.train": ("sft",),
        "sample.rows": 24,
        "sample.questions_per_shard": 2,
        "credit.threshold": 0.0,
        "sft.epochs": 1,
        "dpo.epochs": 1,
        "sft.batch": 4,
        "dpo.batch": 4,
        "eval.resamples": 100,
    }
    return [
        *(sys.executable, "-m", "malt_jax.main", "--config=configs/quickstart.py"),
        *(f"--config.{key}={value}" for key, value in tiny.items()),
        *flags,
    ]


def run(*args, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(*args, **kwargs),
        cwd=ROOT,
        env=os.environ | SECRETS,
        capture_output=True,
        text=True,
        check=False,
    )


SECRETS = {
    name: f"canary-{name.lower()}"
    for name in ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY")
}


def products(workdir: Path) -> dict[str, str]:
    """The digests of what a run ends with."""
    files = [*workdir.glob("trees/*"), *workdir.glob("datasets/*/*")]
    files += workdir.glob("export/**/adapter_model.safetensors")
    digests = {str(f.relative_to(workdir)): hashlib.sha256(f.read_bytes()) for f in files}
    return {name: digest.hexdigest() for name, digest in digests.items()}
