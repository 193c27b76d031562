"""The paper's systems and ablations as data: the main run's config with other values, below it.

What a variant does not change it takes from the main run: the samples (`config.trees`) and, of
roles that are to stay as they are, the trained adapters (`config.roles.ROLE.adapter`).
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from malt_jax import tasks
from malt_jax.experiments import chains, paper
from malt_jax.workdir import storage

Config = dict[str, Any]

TRAINED = ("collect", "datasets", "train", "evaluate")
EVALUATED = ("evaluate",)
_DPO = {"generator": ("generator_training", paper.TASK, "sft_dpo")}


@dataclass(frozen=True)
class Variant:
    """One experiment beside the main run.

    `rows` maps a system that it evaluates to the row of the table that this is, and `title` says
    what it is; `values` are dotted config keys. `reuses` is whether its trees are the main run's.
    `swept` is the setting that it has another value of than the main run, and that value;
    `reported` is where among the paper's ablations its vote stands (see `paper.accuracy`).
    """

    name: str
    group: str
    title: str
    values: Mapping[str, Any]
    rows: Mapping[str, str]
    stages: tuple[str, ...] = TRAINED
    reuses: bool = True
    swept: tuple[str, float] | None = None
    reported: tuple[str, ...] = ()


def resolve(main: Config, variant: Variant) -> Config:
    """The whole config of a variant: what `malt_jax.main` would be given to run it by itself."""
    config = copy.deepcopy(main)
    values = {
        "suite": "",
        "workdir": str(directory(main, variant.name)),
        "trees": main["workdir"] if variant.reuses and "collect" in variant.stages else "",
        "eval.systems": tuple(variant.rows),
        "eval.critiques": False,
        "eval.equal_compute": False,
        **variant.values,
    }
    for key, value in values.items():
        *groups, last = key.split(".")
        place = config
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    return config


def directory(main: Config, name: str) -> Path:
    """A variant's work directory."""
    return storage.at(main["workdir"]) / "variants" / name


def results(main: Config, variant: Variant) -> Path:
    """The file that is there once a variant is done."""
    return directory(main, variant.name) / "eval" / "results.json"


def of(main: Config) -> list[Variant]:
    """The variants of `config.suite`, each once, in an order in which none needs a later one.

    Raises ValueError for a suite that does not exist.
    """
    chosen: dict[str, Variant] = {}
    for name in main["suite"].split(","):
        if name.strip() not in SUITES:
            raise ValueError(f"config.suite: no suite {name!r}; there are {', '.join(SUITES)}")
        chosen |= {variant.name: variant for variant in SUITES[name.strip()](main)}
    return list(chosen.values())


def paper_table1(main: Config) -> list[Variant]:
    """STaR and debate; the other systems of the paper's table are the main run's own."""
    first = main["chain"][0]
    star_sa = Variant(
        "star_sa",
        "systems",
        "STaR, single agent",
        {"chain": (first,), f"roles.{first}.train": ("sft",)},
        _rows("star_sa"),
    )
    sft = _only_sft(main)
    star_ma = Variant(
        "star_ma",
        "systems",
        "STaR, team (SFT on MALT's positives)",
        sft,
        _rows("star_ma"),
        TRAINED if any(value == ("sft",) for value in sft.values()) else EVALUATED,
    )
    how = main["eval"]["debate"]
    debate = Variant(
        "debate",
        "systems",
        f"debate of {how['agents']} agents, {how['rounds']} rounds",
        _untrained(main),
        {"debate": "debate"},
        EVALUATED,
        reported=("debate_3_agents_3_rounds", paper.TASK),
    )
    return [star_sa, star_ma, debate]


def ablations(main: Config) -> list[Variant]:
    """Roles left untrained, left out, or trained with other phases; more turns of the chain."""
    chain = tuple(main["chain"])
    suite = []
    for role in chain:
        values, reported = {f"roles.{role}.adapter": ""}, ("untrained_role", role, paper.TASK)
        name, title = f"untrained_{role}", f"{role} untrained"
        suite.append(_evaluated(main, name, title, values, reported))
    title, reported = f"only the trained {chain[0]}", ("fewer_roles", chain[0], paper.TASK)
    suite.append(_evaluated(main, f"only_{chain[0]}", title, {"chain": chain[:1]}, reported))
    if len(chain) == 3:
        suite += [_answering_second(main), _without_second(main)]
    suite.append(next(v for v in paper_table1(main) if v.name == "star_ma"))
    for role in chain:
        phases, branching = tuple(main["roles"][role]["train"]), main["roles"][role]["branching"]
        if "dpo" in phases:
            sft = {f"roles.{role}.adapter": _sft_adapter(main, role)}
            suite.append(_evaluated(main, f"sft_{role}", f"{role} with SFT only", sft))
        elif phases == ("sft",) and branching > 1:  # DPO compares siblings
            both = {f"roles.{role}.train": ("sft", "dpo"), f"roles.{role}.adapter": ""}
            more = _variant(main, f"dpo_{role}", f"{role} with SFT and DPO", both, TRAINED)
            suite.append(replace(more, reported=_DPO.get(role, ())))
    return suite + [_turns(main, turns) for turns in (2, 3) if len(chain) > 1]


def sweeps(main: Config) -> list[Variant]:
    """n, theta, temperature and k around the main run's values."""
    chain, suite = main["chain"], []
    n = max(main["roles"][role]["branching"] for role in chain)
    for branching in sorted({2, n - 1, n + 1} - {n, 0, 1}):
        values = {f"roles.{role}.branching": branching for role in chain}
        suite.append(_swept("n", branching, f"n = {branching}", values, branching < n))
    for theta in (0.2, 0.35, 0.65, 0.8):
        if theta != main["credit"]["threshold"]:
            values = {"credit.threshold": theta}
            suite.append(_swept("theta", theta, f"theta = {theta}", values, True))
    for temperature in (0.3, 0.7, 1.0):
        if temperature != main["sample"]["temperature"]:
            title, values = f"temperature {temperature}", {"sample.temperature": temperature}
            suite.append(_swept("temperature", temperature, title, values, False))
    votes = 3 * main["eval"]["votes"]
    more = _evaluated(main, f"votes_{votes}", f"vote of {votes}", {"eval.votes": votes})
    return [*suite, replace(more, group="sweeps", swept=("votes", votes))]


def control(main: Config) -> list[Variant]:
    """The negative control: the same samples, their rewards shuffled."""
    values = {"credit.shuffle_rewards": True}
    return [_retrained("shuffled", "shuffled rewards", values, True)]


def transfer(main: Config) -> list[Variant]:
    """The trained team on the test sets of `config.data.exclude`; ValueError if there are none."""
    places = main["data"]["exclude"]
    if not places:
        raise ValueError("config.suite: transfer needs test sets in config.data.exclude, TASK:PATH")
    suite = []
    for place in places:
        task, path = tasks.place(place)
        name = "_".join(dict.fromkeys([tasks.get(task).name.lower(), Path(path).stem.lower()]))
        values = {
            **_kept(main),
            "data.task": task,
            "data.eval": path,
            "data.train": "",
            "data.exclude": (),
            "data.eval_questions": 0,
            "eval.equal_compute": True,
        }
        title, rows = f"transfer_{name}", _every_row(main, name)
        suite.append(Variant(title, "transfer", name, values, rows, EVALUATED))
    return suite


def seeds(main: Config) -> list[Variant]:
    """The whole run with three other seeds: other questions, samples and adapters."""
    return [
        Variant(
            f"seed_{seed}",
            "seeds",
            f"seed {seed}",
            {"seed": seed},
            _every_row(main, f"seed_{seed}"),
            reuses=False,
        )
        for seed in range(main["seed"] + 1, main["seed"] + 4)
    ]


SUITES: dict[str, Callable[[Config], list[Variant]]] = {
    suite.__name__: suite for suite in (paper_table1, ablations, sweeps, control, transfer, seeds)
}


def _rows(name: str) -> dict[str, str]:
    """The rows of a variant's trained team."""
    return {"malt": name, "malt_mv": f"{name}_mv"}


def _every_row(main: Config, name: str) -> dict[str, str]:
    """The rows of a variant that evaluates what the main run does."""
    return {system: f"{system}_{name}" for system in main["eval"]["systems"]}


def _kept(main: Config, roles: Sequence[str] = ()) -> dict[str, Any]:
    """Values that take roles (all of the chain by default) as the main run trained them."""
    values: dict[str, Any] = {}
    for role in roles or main["chain"]:
        if main["roles"][role]["train"]:
            values[f"roles.{role}.train"] = ()
            values[f"roles.{role}.adapter"] = str(storage.at(main["workdir"]) / "export" / role)
    return values


def _untrained(main: Config) -> dict[str, Any]:
    return {
        f"roles.{role}.{key}": empty
        for role in main["chain"]
        for key, empty in (("train", ()), ("adapter", ""))
    }


def _only_sft(main: Config) -> dict[str, Any]:
    """SFT alone, as the main run left it where its training began with that."""
    values: dict[str, Any] = {}
    for role in main["chain"]:
        if phases := main["roles"][role]["train"]:
            anew = phases[0] != "sft"
            values[f"roles.{role}.train"] = ("sft",) if anew else ()
            if not anew:
                values[f"roles.{role}.adapter"] = _sft_adapter(main, role)
    return values


def _sft_adapter(main: Config, role: str) -> str:
    """Where the adapter of a role lies that SFT alone has trained."""
    workdir = storage.at(main["workdir"])
    match main["roles"][role]["train"]:
        case ["sft"]:
            return str(workdir / "export" / role)
        case ["sft", *_]:
            return str(workdir / "export" / "sft" / role)
    return str(directory(main, "star_ma") / "export" / role)


def _variant(
    main: Config, name: str, title: str, values: Mapping[str, Any], stages: tuple[str, ...]
) -> Variant:
    """Trained as the main run but for `values`, and named after what differs."""
    return Variant(name, "ablations", title, {**_kept(main), **values}, _rows(name), stages)


def _evaluated(
    main: Config, name: str, title: str, values: Mapping[str, Any], reported: tuple[str, ...] = ()
) -> Variant:
    return replace(_variant(main, name, title, values, EVALUATED), reported=reported)


def _retrained(name: str, title: str, values: Mapping[str, Any], reuses: bool) -> Variant:
    """Everything trained anew; other samples need their own baselines."""
    rows = _rows(name)
    if not reuses:
        rows |= {"sa_mv": f"{name}_sa_mv"}
    return Variant(name, "ablations", title, values, rows, reuses=reuses)


def _swept(
    setting: str, value: float, title: str, values: Mapping[str, Any], reuses: bool
) -> Variant:
    """Another value of a setting, everything trained anew."""
    variant = _retrained(f"{setting}_{value}", title, values, reuses)
    return replace(variant, group="sweeps", swept=(setting, value))


def _answering_second(main: Config) -> Variant:
    """Two roles: the verifier also gives the final answer, in trees of its own."""
    first, second, _ = main["chain"]
    values = {**_kept(main, [first]), **chains.answering_second(main)}
    name, title = "generator_verifier", f"{first} and a {second} that answers"
    stages = TRAINED if main["roles"][second]["train"] else EVALUATED
    reported = ("fewer_roles", "generator_verifier", paper.TASK)
    rows = _rows(name)
    return Variant(name, "ablations", title, values, rows, stages, reuses=False, reported=reported)


def _without_second(main: Config) -> Variant:
    title, values = "trained, the critique left empty", chains.without_second(main)
    reported = ("fewer_roles", "generator_refiner_empty_critique", paper.TASK)
    return _evaluated(main, "empty_critique", title, values, reported)


def _turns(main: Config, turns: int) -> Variant:
    """All roles but the first work again on the last one's answer, with the adapters they have."""
    kept = _kept(main)
    adapters = {
        role: kept.get(f"roles.{role}.adapter", main["roles"][role]["adapter"])
        for role in main["chain"]
    }
    values, reported = chains.turns(main, turns, adapters), ("turns", paper.TASK, str(turns))
    return _evaluated(main, f"turns_{turns}", f"{turns} turns", values, reported)
