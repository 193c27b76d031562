"""Memory and time of reading a training data set, with token ids as arrays and as Python lists.

python tests/benchmarks/token_ids.py --rows=100000    # as lists that takes some 5 GB

Pairs of a prompt of 600 tokens and two completions of 300 each, packed as training packs them; each
way in a process of its own, whose highest resident memory beyond that before reading is told.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from malt_jax.learn.packing import examples
from malt_jax.workdir import shards

LENGTHS = {"prompt": 600, "chosen": 300, "rejected": 300}


def make(path: Path, rows: int) -> None:
    """A file of random pairs."""
    rng = np.random.default_rng(0)
    columns: dict[str, pa.Array] = {"question_id": pa.array(map(str, range(rows)))}
    for name, length in LENGTHS.items():
        ids = rng.integers(0, 128_000, rows * length, dtype=np.int32)
        lists = pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32) * length, ids)
        columns[f"{name}_token_ids"] = lists
    pq.write_table(pa.table(columns), path, compression="zstd", row_group_size=1024)


def read(path: Path, arrays: str) -> None:
    """Reads and packs it, and prints MiB and seconds."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    rows = shards.read_one(path, arrays=arrays)
    prompts = [row["prompt_token_ids"] for row in rows]
    branches = [[row["chosen_token_ids"], row["rejected_token_ids"]] for row in rows]
    packed = examples(prompts, branches, 2048, [row["question_id"] for row in rows])
    seconds = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"{used / 1024:,.0f} MiB, {seconds:.1f} s for {packed.tokens.size:,} tokens")


def main() -> None:
    """Both ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--read", nargs=2, metavar=("FILE", "ARRAYS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        read(Path(options.read[0]), options.read[1])
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.parquet"
        make(file, options.rows)
        for title, arrays in (("lists", ""), ("arrays", "_token_ids")):
            line = [sys.executable, __file__, "--read", str(file), arrays]
            done = subprocess.run(line, capture_output=True, text=True, check=True)
            print(f"{title}: {done.stdout.strip()}")


if __name__ == "__main__":
    main()
