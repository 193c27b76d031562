"""The peers' virtual environments: made once, with pinned versions, and reused."""

import os
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = {
    "transformers": ("torch==2.13.0", "transformers==5.23.0"),
    # Built from source, for this machine's own instructions.
    "llama_cpp": ("llama-cpp-python==0.3.36",),
    "trl": (
        *("torch==2.13.0", "transformers==5.24.0", "trl==1.16.0"),
        *("peft==0.21.2", "accelerate==1.15.0"),
    ),
    "tunix": ("google-tunix==0.1.7", "jax==0.10.2", "flax==0.12.8"),
}
_BUILD = {"CMAKE_ARGS": "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF"}


def python(folder: Path, name: str) -> Path:
    """The interpreter of a peer's environment, made first if it is missing or was made for other
    versions. Raises RuntimeError with pip's last lines if that fails."""
    home = folder / name
    interpreter, mark = home / "bin" / "python", home / "malt-benchmark.txt"
    wanted = "\n".join(REQUIREMENTS[name])
    if mark.exists() and mark.read_text(encoding="utf-8") == wanted:
        return interpreter
    print(f"making {home} with {', '.join(REQUIREMENTS[name])}", file=sys.stderr)
    _run([sys.executable, "-m", "venv", "--clear", str(home)])
    _run([str(interpreter), "-m", "pip", "install", *REQUIREMENTS[name]])
    mark.write_text(wanted, encoding="utf-8")
    return interpreter


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command,
        env={**os.environ, **_BUILD},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stdout[-500:]}")
