"""The settings of the adapters: `config.lora.*`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from malt_jax.config.schema import Checks, filled, positive, setting


@dataclass(frozen=True)
class LoraSettings:
    """`config.lora.*`: the shape of every role's adapter. The paper trains with LoRA, but gives
    neither rank nor targets."""

    rank: int = setting(16, "of both factors; ours", positive())
    alpha: float = setting(
        32.0, "the adapter's product is scaled by alpha / rank; ours", positive()
    )
    targets: tuple[Literal["q", "k", "v", "o", "gate", "up", "down"], ...] = setting(
        ("q", "k", "v", "o", "gate", "up", "down"),
        "projections that have an adapter, in every layer; ours",
        filled("empty; name at least one projection"),
    )
    shared: bool = setting(
        False,
        "one adapter for all trained roles, which each of its phases trains on the rows of the "
        "roles that name it: an ablation, and one adapter to serve",
    )

    def of_roles(self, roles: Sequence[tuple[tuple[str, ...], str]]) -> Checks:
        """What an adapter that is shared asks of the roles, each of some phases and with an adapter
        to start from: one of them goes through all phases, and all start alike."""
        trained = [role for role in roles if role[0]]
        longest = max((phases for phases, _ in trained), key=len, default=())
        return [
            (
                "lora.shared",
                not self.shared or all(set(phases) <= set(longest) for phases, _ in trained),
                f"one adapter goes through {list(longest)}; name no other phases in "
                "config.roles.ROLE.train, or give False",
            ),
            (
                "lora.shared",
                not self.shared or len({start for _, start in trained}) < 2,
                "one adapter starts from one; give all trained roles the same "
                "config.roles.ROLE.adapter, or give False",
            ),
        ]
