"""malt_jax: any prompts through its sampler, and whole trees through `driver.expand`.

python -m benchmarks.peers.ours DIRECTORY DATA QUESTIONS LIMIT
"""

import dataclasses
import sys
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import jax

from benchmarks import workload
from benchmarks.peers.serving import serve
from malt_jax import models
from malt_jax.models import lora
from malt_jax.rollout import driver
from malt_jax.rollout.keys import node_keys
from malt_jax.rollout.strategies.full_tree import full_tree
from malt_jax.rollout.team import Team
from malt_jax.runtime import mesh
from malt_jax.sampler import Request, Sampler, Sampling, Work

ROWS = 128
RANK = 8


_COMPILE_EVENTS = {
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
}
_COMPILED: list[float] = []  # seconds of each of these events, as jax reports them


def _hear(event: str, seconds: float, **_: Any) -> None:
    if event in _COMPILE_EVENTS:
        _COMPILED.append(seconds)


jax.monitoring.register_event_duration_secs_listener(_hear)


class Engine:
    """The model with its sampler, and the questions whose trees are asked for."""

    def __init__(self, directory: Path, data: Path, questions: int, limit: int):
        self.work = workload.load(directory, data, questions, limit)
        self.model = models.load(directory)
        stops, pad = self.work.tokenizer.stop_ids, self.work.tokenizer.pad_id
        self.sampler = Sampler(self.model.config, self.model.params, mesh.make(), ROWS, stops, pad)

    def sample(self, request: dict[str, Any]) -> dict[str, Any]:
        """All completions of a request, a list a prompt."""
        started = time.perf_counter()
        paths, seed = [(child,) for child in range(request["n"])], request["seed"]
        keys = [node_keys(seed, "benchmark", str(i), paths) for i in range(len(request["prompts"]))]
        sampler = dataclasses.replace(self.sampler, stop_ids=tuple(request["stop_ids"]))
        limit = request["max_new_tokens"]
        asked = enumerate(zip(request["prompts"], keys, strict=True))
        left = iter([Request(p, k, limit, tag=i) for i, (p, k) in asked])
        sampled = sampler.run(lambda: next(left, None), sampling=Sampling(request["temperature"]))
        rows = {ended.tag: [c.tokens for c in completions] for ended, completions in sampled}
        completions = [rows[i] for i in range(len(rows))]
        return {"completions": completions, "seconds": time.perf_counter() - started}

    def expand(self, request: dict[str, Any]) -> dict[str, Any]:
        """The questions' trees: parents as the driver counts them, and the mean number of rows a
        decoding step worked on. The seconds include text handling; those of programs that had to
        be compiled are told apart."""
        team = Team(
            sampler=self.sampler,
            tokenizer=self.work.tokenizer,
            roles=self.work.roles,
            adapters=self.adapters if request["adapters"] else {},
            task=self.work.task,
            sampling=Sampling(self.work.temperature),
            seed=request["seed"],
            random_stream="benchmark",
        )
        started, work, before = time.perf_counter(), Work(), len(_COMPILED)
        trees = list(driver.expand(full_tree(team), self.work.questions, work=work))
        compiling = sum(_COMPILED[before:])
        seconds = time.perf_counter() - started - compiling
        parents = []
        for tree in trees:
            siblings: dict[Any, list[Any]] = {}
            for node in tree.nodes:
                siblings.setdefault(node.parent, []).append(node)
            for nodes in siblings.values():
                parents.append((nodes[0].prompt, [node.completion.tokens for node in nodes]))
        live = work.decoded / work.steps
        print(f"{work.summary()}; {compiling:.1f} s compiling", file=sys.stderr, flush=True)
        return {
            "parents": parents,
            "seconds": seconds,
            "compile_s": compiling,
            "live_rows": live,
        }

    @cached_property
    def adapters(self) -> dict[str, lora.Adapter]:
        """One a role, of rank 8; B is drawn as A is, so that they change what is sampled."""

        def drawn(key: jax.Array) -> lora.Adapter:
            first, second = jax.random.split(key)
            adapter = lora.init(self.model.config, first, rank=RANK, alpha=RANK / 16)
            leaves, shape = jax.tree.flatten(adapter)
            keys = jax.random.split(second, len(leaves))
            noise = [jax.random.normal(k, x.shape) / 100 for k, x in zip(keys, leaves, strict=True)]
            return jax.tree.unflatten(shape, [x + e for x, e in zip(leaves, noise, strict=True)])

        keys = jax.random.split(jax.random.key(0), len(self.work.roles))
        return {role.name: drawn(key) for role, key in zip(self.work.roles, keys, strict=True)}


def main() -> None:
    directory, data, questions, limit = sys.argv[1:]
    engine = Engine(Path(directory), Path(data), int(questions), int(limit))
    serve(lambda ask: engine.sample(ask) if "prompts" in ask else engine.expand(ask))


if __name__ == "__main__":
    main()
