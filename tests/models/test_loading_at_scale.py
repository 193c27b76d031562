"""Four hosts that load one model: each reads and holds its own quarter, and never a replica."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from malt_jax.models import hf, llama
from malt_jax.models.config import LlamaConfig, Rope

MIB = 2**20
HOSTS = 4

HOST = """
import json, re, sys
import jax
from malt_jax.models import hf, load
from malt_jax.runtime import mesh

address, hosts, me, tiny, big = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]
jax.distributed.initialize(address, hosts, me)
on = mesh.make(fsdp=hosts)
opened, read = hf._read, []

def peak():
    # getrusage would begin at the peak of the process that started this one.
    status = open("/proc/self/status").read()
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])

def counted(file, name, index):
    found = opened(file, name, index)
    read.append(found.nbytes)
    return found

hf._read = counted

def placement(path, shape):
    return mesh.sharding(on, shape, mesh.logical_axes(path, len(shape)))

load(tiny, placement=placement)  # imports what loading needs
before, read[:] = peak(), []
params = load(big, placement=placement).params
grown = peak() - before
held = sum(s.data.nbytes for leaf in jax.tree.leaves(params) for s in leaf.addressable_shards)
print(json.dumps({"grown": grown, "held": held, "read": sum(read)}))
"""


def directory(at: Path, width: int, layers: int) -> int:
    """A model there; its size in bytes."""
    config = LlamaConfig(2048, width, 2 * width, layers, 8, 8, width // 8, 64, 1e-5, Rope())
    params = llama.init(config, jax.random.key(0), jnp.float32)
    hf.save(at, config, params)
    return sum(leaf.nbytes for leaf in jax.tree.leaves(params))


@pytest.fixture(scope="module")
def hosts(tmp_path_factory) -> tuple[int, list[dict[str, int]]]:
    """A model's size, and what each of four processes held, read and grew by as they loaded it."""
    at = tmp_path_factory.mktemp("models")
    directory(at / "tiny", 32, 1)
    size = directory(at / "big", 1024, 8)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", HOST, address, str(HOSTS), str(me), at / "tiny", at / "big"],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for me in range(HOSTS)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in running]
    assert all(process.returncode == 0 for process in running)
    return size, [json.loads(output.splitlines()[-1]) for output in outputs]


@pytest.mark.slow
def test_a_host_reads_and_holds_its_quarter(hosts):
    """Norms alone are whole everywhere."""
    size, reports = hosts
    for host in reports:
        assert size / HOSTS <= host["held"] < 1.01 * size / HOSTS
        assert host["read"] == host["held"]


def test_no_host_grows_by_a_replica(hosts):
    """Its quarter, and room for the file's pages of the largest tensors and for the allocator."""
    size, reports = hosts
    for host in reports:
        assert host["grown"] > 0.15 * size, "nothing was measured"
        assert host["grown"] < 0.25 * size + 48 * MIB < 0.6 * size
