"""Training a role, engine against engine: same weights, same data, same adapter, same machine.

    python tests/benchmarks/training.py --model=SmolLM2-135M-Instruct.Q4_1.gguf [--json]

SFT rows and DPO pairs are made of GSM8K's training questions in the project's prompts. All engines
train a LoRA adapter of rank 16 on all projections in float32, 8 rows or pairs an optimiser step. A
phase of an engine is a process of its own (peers in virtual environments that are made on first
use, in --envs, with logs and converted weights beside them); processes are halted but for the one
that is measured.

The first step, from the start of the process, is the cold start; its loss is compared with
malt_jax's. An epoch that is not counted follows, then --runs rounds of an epoch of malt_jax and one
of the peer; then comes the next peer. DPO's reference log-probabilities are computed before the
clock starts, by all engines. Useful tokens are those of a prompt and a completion for every row, so
a pair's prompt counts twice, whether an engine computes it twice or not; padding never counts.
"""

import argparse
import json
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import epochs, report
from benchmarks.engines import ROOT, TRAINING
from benchmarks.weights import CACHE, default_model


def arguments() -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", type=Path, default=None, help="GGUF file [$MALT_SMOLLM2_GGUF, or the tests']")
    add("--data", type=Path, default=ROOT.parent / "shared" / "data" / "gsm8k" / "train.jsonl")
    add("--rows", type=int, default=64, help="SFT rows a round; half as many pairs [%(default)s]")
    add("--runs", type=int, default=5, help="rounds over all engines [%(default)s]")
    add("--engines", default=",".join(TRAINING), help="[%(default)s]")
    add("--envs", type=Path, default=CACHE / "benchmarks", help="[%(default)s]")
    add("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    options.engines = options.engines.split(",")
    if unknown := set(options.engines) - set(TRAINING):
        parser.error(f"--engines: {sorted(unknown)} not among {list(TRAINING)}")
    options.model = options.model or default_model()
    for name in ("model", "data"):
        if not getattr(options, name).is_file():
            parser.error(f"--{name}: {getattr(options, name)} is not a file")
    if options.rows < 8 or options.rows % 8:
        parser.error("--rows: must be a positive multiple of 8")
    if options.runs < 1:
        parser.error("--runs: must be positive")
    return options


def main() -> None:
    asked = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the workers are ended too
    result = epochs.run(asked)
    print(json.dumps(result) if asked.json else report.training(result))


if __name__ == "__main__":
    main()
