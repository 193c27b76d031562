"""Other methods on the same samples: STaR, alone and as a team, and debate."""

from malt_jax.experiments import paper, variant
from malt_jax.experiments.variant import EVALUATED, TRAINED, Config, Values, Variant
from malt_jax.workdir import storage


def paper_table1(main: Config) -> list[Variant]:
    """STaR and debate; the other systems of the paper's table are the main run's own."""
    first = main["chain"][0]
    star_sa = Variant(
        "star_sa",
        "systems",
        "STaR, single agent",
        {"chain": (first,), f"roles.{first}.train": ("sft",)},
        variant.rows("star_sa"),
    )
    return [star_sa, star_ma(main), debate(main)]


def star_ma(main: Config) -> Variant:
    """STaR with a team: SFT on the positives of MALT's own trees."""
    sft = _only_sft(main)
    return Variant(
        "star_ma",
        "systems",
        "STaR, team (SFT on MALT's positives)",
        sft,
        variant.rows("star_ma"),
        TRAINED if any(value == ("sft",) for value in sft.values()) else EVALUATED,
    )


def debate(main: Config) -> Variant:
    """Untrained single agents that read one another's solutions."""
    how = main["eval"]["debate"]
    return Variant(
        "debate",
        "systems",
        f"debate of {how['agents']} agents, {how['rounds']} rounds",
        variant.untrained(main),
        {"debate": "debate"},
        EVALUATED,
        reported=("debate_3_agents_3_rounds", paper.TASK),
    )


def _only_sft(main: Config) -> Values:
    """SFT alone, as the main run left it where its training began with that."""
    values: Values = {}
    for role in main["chain"]:
        if phases := main["roles"][role]["train"]:
            anew = phases[0] != "sft"
            values[f"roles.{role}.train"] = ("sft",) if anew else ()
            if not anew:
                values[f"roles.{role}.adapter"] = sft_adapter(main, role)
    return values


def sft_adapter(main: Config, role: str) -> str:
    """Where the adapter of a role lies that SFT alone has trained."""
    workdir = storage.at(main["workdir"])
    match main["roles"][role]["train"]:
        case ["sft"]:
            return str(workdir / "export" / role)
        case ["sft", *_]:
            return str(workdir / "export" / "sft" / role)
    return str(variant.directory(main, "star_ma") / "export" / role)
