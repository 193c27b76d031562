"""The sampler of a job on its chips: the room of its cache, and its programs."""

from dataclasses import dataclass, replace

import jax.numpy as jnp

from malt_jax.config.settings import Settings
from malt_jax.models import kv_cache
from malt_jax.plan import costs, programs, workload
from malt_jax.plan.costs import Cost
from malt_jax.plan.line import Line, Target, compiled, line
from malt_jax.plan.programs import Pass
from malt_jax.plan.topology import GIB
from malt_jax.rollout import roles
from malt_jax.sampler import schedule
from malt_jax.sampler.spec import Memory, Spec, memory, pages_needed


@dataclass(frozen=True)
class Sampled:
    """The sampler on a layout."""

    lines: tuple[Line, ...]
    rows: int  # of the longest prompts and completions that find pages, over all chips
    prefilled: int  # tokens of a prefill pass, over all chips
    failures: tuple[str, ...]  # beside programs that do not fit


@dataclass(frozen=True)
class _Room:
    """A shard's cache: its pages, and those of a group's prompt and of a row, at most."""

    spec: Spec
    memory: Memory
    prompt: int
    decoded: int

    @property
    def rows(self) -> int:
        """Rows that find pages."""
        return int(self.memory.decode // (self.decoded + self.prompt / self.spec.siblings))


def sampled(target: Target, settings: Settings) -> Sampled:
    """Compiles the sampler's programs, if its cache has room for a row."""
    mesh, config, dtype = target.mesh(settings), target.config, target.dtype
    given = {
        "weights": programs.bytes_on_a_chip(programs.weights(config, dtype, mesh)),
        "adapters": len(settings.chain)
        * programs.bytes_on_a_chip(programs.adapter(config, settings.lora, mesh)),
    }
    free = target.chip.memory - sum(given.values())
    granted = settings.sample.kv_gib * GIB or 0.6 * max(free, 0.0)
    nothing = tuple(
        line(name, given, None, Cost(0.0, 0.0), target.chip) for name in ("decode", "prefill")
    )
    if granted < kv_cache.page_bytes(config, mesh, 128, jnp.dtype(dtype)):
        return Sampled(nothing, 0, 0, ())
    room, failures = _room(target, settings, granted)
    shards, wanted = kv_cache.shards_of(mesh), settings.sample.rows
    fitting = room.rows * shards
    if not fitting or failures:
        return Sampled(nothing, fitting, 0, failures)
    if fitting < wanted:
        failures = (
            f"config.sample.rows: {wanted} rows of the longest prompts and completions need more "
            f"pages than the KV cache of {granted / GIB:.2f} GiB a chip has; {fitting} rows fit",
        )
    lines, tokens = _lines(target, settings, given, room)
    return Sampled(lines, fitting, tokens * shards, failures)


def _room(target: Target, settings: Settings, granted: float) -> tuple[_Room, tuple[str, ...]]:
    """The room in so many bytes, and why the longest questions would not run in it."""
    mesh = target.mesh(settings)
    most = max(*settings.branching, settings.eval.votes)
    params = programs.weights(target.config, target.dtype, mesh)
    rows, siblings = settings.sample.rows, min(most, 4)
    spec = Spec(target.config, params, mesh, rows, (), 0, siblings, granted / GIB)
    failures: tuple[str, ...] = ()
    pool, context, chain = memory(spec), target.config.context, roles.chain(settings)
    typical = workload.question(settings, context)
    asked = workload.question(settings, context, settings.data.max_chars // workload.LETTERS)
    longest, new = max(
        ((workload.prompt(settings, role, asked), role.max_new_tokens) for role in chain), key=sum
    )
    try:
        pool.check(spec, longest, new, most)
    except ValueError as error:
        failures = (str(error),)
    pages = [
        pages_needed(workload.prompt(settings, role, typical), role.max_new_tokens, spec.page_size)
        for role in chain
    ]
    prompt, completion = (max(counts) for counts in zip(*pages, strict=True))
    return _Room(spec, pool, prompt, completion), failures


def _lines(
    target: Target, settings: Settings, given: dict[str, float], room: _Room
) -> tuple[tuple[Line, ...], int]:
    """The programs, as wide as the rows that find pages; and the tokens of a prefill pass."""
    mesh, config, dtype = target.mesh(settings), target.config, target.dtype
    spec, pool, size = room.spec, room.memory, room.spec.page_size
    rows = min(spec.rows_a_shard, room.rows)
    used = -(-rows // spec.siblings) * room.prompt, rows * room.decoded
    pages = schedule.sizes(*used, pool.decode)
    columns, adapters = -(-config.context // size) + 1, len(settings.chain)
    of = Pass(rows, pages, pool.prompts, columns, spec.siblings, size, adapters)
    asked = workload.question(settings, config.context)
    context = max(
        workload.prompt(settings, role, asked) + role.max_new_tokens // 2
        for role in roles.chain(settings)
    )
    tokens = programs.prefill_tiles(of) * size // 4
    shape = settings.lora
    decode = costs.decode(config, dtype, shape, mesh, replace(of, pages=used), context)
    prefill = costs.prefill(config, dtype, shape, mesh, of, tokens, context // 2)

    def of_program(name: str, build: programs.Build, cost: Cost, held: int) -> Line:
        parts = given | {"cache": held * pool.page_bytes}
        program = line(name, parts, compiled(name, config, build), cost, target.chip)
        # Whatever a program is given of the cache, all of it lies there.
        return replace(program, memory=program.memory | {"cache": pool.granted})

    return (
        of_program("decode", programs.decode(dtype, shape, mesh, of), decode, sum(pages)),
        of_program("prefill", programs.prefill(dtype, shape, mesh, of), prefill, pool.prompts),
    ), tokens
