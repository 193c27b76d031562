"""Logits from transformers in both major versions: the installed one, and an older one in an
environment of its own, whose Python $MALT_TRANSFORMERS4 names."""

import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

_PROGRAM = """
import sys, numpy, torch, transformers
directory, tokens, out = sys.argv[1:]
assert transformers.__version__.startswith("4."), transformers.__version__
model = transformers.AutoModelForCausalLM.from_pretrained(directory, torch_dtype=torch.float32)
with torch.no_grad():
    numpy.save(out, model.eval()(torch.tensor(numpy.load(tokens))).logits.numpy())
"""


PEERS = ("transformers", "transformers 4")


def logits_of(peer: str, directory: Path, tokens: np.ndarray) -> np.ndarray:
    """float32[B, T, V] of a Hugging Face directory; skips where the peer is not there."""
    if peer == "transformers 4":
        return _older(directory, tokens)
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    with torch.no_grad():
        return model.eval()(torch.tensor(tokens)).logits.numpy()


def _older(directory: Path, tokens: np.ndarray) -> np.ndarray:
    python = os.environ.get("MALT_TRANSFORMERS4")
    if not python:
        pytest.skip("MALT_TRANSFORMERS4 does not name the Python of a transformers 4 environment")
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{folder}/tokens.npy", f"{folder}/logits.npy"]
        np.save(files[0], tokens)
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        command = [python, "-c", _PROGRAM, str(directory), *files]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
        return np.load(files[1])
