"""The protocol by which a result is claimed: several seeds, the control of the same configuration,
and every rival that was given as much as MALT was.

The questions are those of the main run for every seed; what differs is sampling and training.
"""

from dataclasses import replace

from malt_jax.experiments import baselines, sweeps, variant
from malt_jax.experiments.variant import EVALUATED, Config, Values, Variant
from malt_jax.rollout.strategies.full_tree import nodes_per_question

SYSTEMS = (
    *("sa_greedy", "sa", "sa_mv", "ma_greedy", "ma", "ma_mv", "generator"),
    *("malt_greedy", "malt", "malt_mv"),
)
"""What each seed's run evaluates itself, beside the votes of `sa` and `generator` at equal
compute."""


def main_run(main: Config) -> Config:
    """The main run's config with all that the protocol evaluates of it."""
    given = main["eval"]["systems"]
    asked = (*SYSTEMS, *(system for system in given if system not in SYSTEMS))
    return main | {"eval": main["eval"] | {"systems": asked, "equal_compute": True}}


def protocol(main: Config) -> list[Variant]:
    """All seeds, and beside each the rows of the protocol."""
    suite, first = _beside(main), main["seed"]
    for seed in range(first + 1, first + main["suite_seeds"]):
        run = _run(main, seed)
        suite += [run, *(replace(row, beside=run) for row in _beside(variant.resolve(main, run)))]
    return suite


def _run(main: Config, seed: int) -> Variant:
    """The main run with another seed of sampling and training, on the same questions."""
    of_questions = main["seed"] if main["data"]["seed"] < 0 else main["data"]["seed"]
    values: Values = {"seed": seed, "data.seed": of_questions, "eval.equal_compute": True}
    rows = {system: system for system in SYSTEMS}
    return Variant(f"run_{seed}", "systems", f"seed {seed}", values, rows, reuses=False)


def _beside(run: Config) -> list[Variant]:
    """The variants beside one seed's run: its control, and the rivals that it does not evaluate."""
    alone = [_trained_alone(run, role) for role in run["chain"]]
    systems = [baselines.star_ma(run), _star_sa(run), *alone, baselines.debate(run)]
    return [*sweeps.control(run), *systems]


def _star_sa(run: Config) -> Variant:
    """STaR with one agent: as many samples a question as MALT's trees have nodes, and as many of
    them learned from as MALT's roles may learn from together."""
    first, roles = run["chain"][0], run["roles"]
    samples = nodes_per_question(tuple(roles[role]["branching"] for role in run["chain"]))
    most = run["credit"]["max_positives_per_parent"]
    values: Values = {
        "chain": (first,),
        f"roles.{first}.train": ("sft",),
        f"roles.{first}.branching": samples,
        "credit.max_positives_per_parent": most * samples // roles[first]["branching"],
        "eval.equal_compute": True,
        "eval.compute_of": run["workdir"],
    }
    name, title = f"star_sa_{samples}", f"STaR, single agent, {samples} samples a question"
    rows = {"malt_greedy": f"{name}_greedy", "malt": name}
    return Variant(name, "systems", title, values, rows, reuses=False)


def _trained_alone(run: Config, role: str) -> Variant:
    """The team with one role as the run trained it, the others untrained."""
    values = variant.untrained(run) | variant.kept(run, [role])
    name, title = f"alone_{role}", f"team, only the {role} trained"
    return Variant(name, "systems", title, values, variant.rows(name), EVALUATED)
