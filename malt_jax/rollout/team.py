"""A team: a model, the roles that it plays, and the adapters under which it plays them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import jax

from malt_jax.models.lora import Adapter
from malt_jax.rollout.roles import Role
from malt_jax.runtime import mesh
from malt_jax.sampler import Sampler, Sampling
from malt_jax.tasks import Task
from malt_jax.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Team:
    """What samples for a question: a model, its roles and their adapters (None or absent: the
    base model).

    `random_stream` keeps the random numbers of different uses of one question apart (collection,
    evaluation). `base` is the content hash of the base's weights, empty where it is unknown, and
    `round` the round of learning that the samples are drawn in. `verdicts` holds, by role that says
    whether it accepts what it read, the two marks by which it does (`credit.verdicts`).
    """

    sampler: Sampler
    tokenizer: Tokenizer
    roles: tuple[Role, ...]
    adapters: Mapping[str, Adapter | None]
    task: Task
    sampling: Sampling
    seed: int
    random_stream: str
    base: str = ""
    round: int = 0
    verdicts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def limits(self) -> dict[str, int]:
        """The most tokens that each role writes."""
        return {role.name: role.max_new_tokens for role in self.roles}

    @cached_property
    def policies(self) -> dict[str, str]:
        """Each role's `policy`."""
        return {role.name: policy(self.base, self.adapters.get(role.name)) for role in self.roles}


_DIGITS = len("sha256:") + 16


def policy(base: str, adapter: Adapter | None) -> str:
    """Who drew a sample: `sha256:` and 16 hexadecimal digits that follow from the base's content
    hash and, where there is an adapter, from its matrices and scale. Hosts that share the adapter
    must call it together."""
    if adapter is None:
        return base[:_DIGITS]
    digest = hashlib.sha256(f"{base} {adapter.scale!r}".encode())
    for path, leaf in jax.tree.leaves_with_path(mesh.fetch(adapter)):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        digest.update(leaf.tobytes())
    return f"sha256:{digest.hexdigest()}"[:_DIGITS]
