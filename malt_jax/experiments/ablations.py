"""Ablations: roles left untrained, left out, or trained with other phases; more turns."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from malt_jax.experiments import baselines, chains, paper, variant
from malt_jax.experiments.variant import EVALUATED, TRAINED, Config, Variant

_DPO = {"generator": ("generator_training", paper.TASK, "sft_dpo")}


def ablations(main: Config) -> list[Variant]:
    """Roles left untrained, left out, or trained with other phases; more turns of the chain."""
    chain = tuple(main["chain"])
    suite = []
    for role in chain:
        values, reported = {f"roles.{role}.adapter": ""}, ("untrained_role", role, paper.TASK)
        name, title = f"untrained_{role}", f"{role} untrained"
        suite.append(evaluated(main, name, title, values, reported))
    title, reported = f"only the trained {chain[0]}", ("fewer_roles", chain[0], paper.TASK)
    suite.append(evaluated(main, f"only_{chain[0]}", title, {"chain": chain[:1]}, reported))
    if len(chain) == 3:
        suite += [_answering_second(main), _without_second(main)]
    suite.append(baselines.star_ma(main))
    for role in chain:
        phases, branching = tuple(main["roles"][role]["train"]), main["roles"][role]["branching"]
        if "dpo" in phases:
            sft = {f"roles.{role}.adapter": baselines.sft_adapter(main, role)}
            suite.append(evaluated(main, f"sft_{role}", f"{role} with SFT only", sft))
        elif phases == ("sft",) and branching > 1:  # DPO compares siblings
            both = {f"roles.{role}.train": ("sft", "dpo"), f"roles.{role}.adapter": ""}
            more = _beside(main, f"dpo_{role}", f"{role} with SFT and DPO", both, TRAINED)
            suite.append(replace(more, reported=_DPO.get(role, ())))
    return suite + [_turns(main, turns) for turns in (2, 3) if len(chain) > 1]


def _beside(
    main: Config, name: str, title: str, values: Mapping[str, Any], stages: tuple[str, ...]
) -> Variant:
    """Trained as the main run but for `values`, and named after what differs."""
    return Variant(
        name, "ablations", title, {**variant.kept(main), **values}, variant.rows(name), stages
    )


def evaluated(
    main: Config, name: str, title: str, values: Mapping[str, Any], reported: tuple[str, ...] = ()
) -> Variant:
    """Nothing trained anew: the main run's roles, asked otherwise."""
    return replace(_beside(main, name, title, values, EVALUATED), reported=reported)


def _answering_second(main: Config) -> Variant:
    """Two roles: the verifier also gives the final answer, in trees of its own."""
    first, second, _ = main["chain"]
    values = {**variant.kept(main, [first]), **chains.answering_second(main)}
    name, title = "generator_verifier", f"{first} and a {second} that answers"
    stages = TRAINED if main["roles"][second]["train"] else EVALUATED
    reported = ("fewer_roles", "generator_verifier", paper.TASK)
    rows = variant.rows(name)
    return Variant(name, "ablations", title, values, rows, stages, reuses=False, reported=reported)


def _without_second(main: Config) -> Variant:
    title, values = "trained, the critique left empty", chains.without_second(main)
    reported = ("fewer_roles", "generator_refiner_empty_critique", paper.TASK)
    return evaluated(main, "empty_critique", title, values, reported)


def _turns(main: Config, turns: int) -> Variant:
    """All roles but the first work again on the last one's answer, with the adapters they have."""
    kept = variant.kept(main)
    adapters = {
        role: kept.get(f"roles.{role}.adapter", main["roles"][role]["adapter"])
        for role in main["chain"]
    }
    values, reported = chains.turns(main, turns, adapters), ("turns", paper.TASK, str(turns))
    return evaluated(main, f"turns_{turns}", f"{turns} turns", values, reported)
