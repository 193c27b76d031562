"""Sampling whole trees, engine against engine: same weights, same prompts, same machine.

    python tests/benchmarks/sampling.py --model=SmolLM2-135M-Instruct.Q4_1.gguf [--json]

Each engine is a process of its own (peers in virtual environments that are made on first use, in
--envs, with logs and converted weights beside them). Processes are halted but for the one that is
measured. First greedy ids are compared with malt_jax's; then a forced number of tokens is timed
once, and of transformers' two caches the faster goes on; then the real trees, --runs rounds of all
engines in turn. Peers are given a level of the tree
at a time and are not charged for text handling or compilation; malt_jax is given whole trees and is
charged for text handling, not for compilation, which is reported apart: each new shape of a pool
compiles once, and a program's users find it in the cache of an earlier run.
"""

import argparse
import json
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import report, sampling_rounds
from benchmarks.engines import ROOT, SAMPLING
from benchmarks.weights import CACHE, default_model


def arguments() -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", type=Path, default=None, help="GGUF file [$MALT_SMOLLM2_GGUF, or the tests']")
    add("--data", type=Path, default=ROOT.parent / "shared" / "data" / "gsm8k" / "test.jsonl")
    add("--questions", type=int, default=2, help="trees a run [%(default)s]")
    add("--runs", type=int, default=5, help="rounds over all engines [%(default)s]")
    add("--max_new_tokens", type=int, default=160, help="a node [%(default)s]")
    add("--engines", default=",".join(SAMPLING), help="[%(default)s]")
    add("--envs", type=Path, default=CACHE / "benchmarks", help="[%(default)s]")
    add("--seed", type=int, default=0)
    add("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    options.engines = options.engines.split(",")
    if unknown := set(options.engines) - set(SAMPLING):
        parser.error(f"--engines: {sorted(unknown)} not among {list(SAMPLING)}")
    options.model = options.model or default_model()
    for name in ("model", "data"):
        if not getattr(options, name).is_file():
            parser.error(f"--{name}: {getattr(options, name)} is not a file")
    for name in ("questions", "runs", "max_new_tokens"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: must be positive")
    return options


def main() -> None:
    asked = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the workers are ended too
    result = sampling_rounds.run(asked)
    print(json.dumps(result) if asked.json else report.sampling(result))


if __name__ == "__main__":
    main()
