"""Every suite of every config is made of runs that could be started by themselves."""

from pathlib import Path

import pytest
from recipes import CONFIGS, change, good, load

from malt_jax.experiments import suites, variant
from malt_jax.experiments.suites import SUITES
from malt_jax.recipe import parse
from malt_jax.rollout import roles


def a_config(path: Path, suite: str) -> dict:
    return change(
        change(load(path), "suite", suite), "data.exclude", ("svamp:SVAMP.json", "mawps:a/b.jsonl")
    )


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
@pytest.mark.parametrize("suite", SUITES)
def test_every_variant_is_a_run(path, suite):
    main = a_config(path, suite)
    before = repr(main)
    variants = suites.of(main)
    assert variants
    for row in variants:
        resolved = variant.resolve(main, row)
        parsed = parse(resolved)
        chain = roles.chain(parsed)  # its prompts show what they may
        assert set(row.rows) == set(parsed.eval.systems)
        assert parsed.workdir == f"{main['workdir']}/variants/{row.key.replace('/', '/variants/')}"
        if "train" in row.stages:
            trains = any(parsed.roles[role.name].train for role in chain)
            assert trains or not any(main["roles"][role]["train"] for role in parsed.chain)
        else:
            assert not any(parsed.roles[role.name].train for role in chain), "never trained"
    assert repr(main) == before, "the main run's config must stay as it is"
    runs = {
        row.key: row.beside.key if row.beside else row.values.get("seed", 0) for row in variants
    }
    rows = [(runs[row.key], name) for row in variants for name in row.rows.values()]
    assert len(set(rows)) == len(rows)


def resolved(name: str, suite: str, **changes) -> dict:
    main = good()
    for key, value in {"suite": suite, "workdir": "runs/x", **changes}.items():
        change(main, key, value)
    (row,) = [row for row in suites.of(main) if row.key == name]
    return variant.resolve(main, row)


def test_star_learns_from_the_same_samples():
    alone = resolved("star_sa", "paper_table1")
    assert (alone["chain"], alone["trees"]) == (("generator",), "runs/x")
    assert alone["roles"]["generator"]["train"] == ("sft",)
    team = resolved("star_ma", "paper_table1")
    # MALT's roles began with SFT: those adapters, not trained anew.
    assert [team["roles"][r]["train"] for r in team["chain"]] == [(), (), ()]
    assert [team["roles"][r]["adapter"] for r in team["chain"]] == [
        "runs/x/export/sft/generator", "runs/x/export/sft/verifier", "runs/x/export/sft/refiner"
    ]  # fmt: skip


def test_star_trains_what_began_without_sft():
    team = resolved("star_ma", "paper_table1", **{"roles.verifier.train": ("kto",)})
    assert team["trees"] == "runs/x"
    assert [team["roles"][r]["train"] for r in team["chain"]] == [(), ("sft",), ()]
    assert team["roles"]["verifier"]["adapter"] == ""


def test_one_role_untrained_leaves_the_others_as_they_are():
    played = resolved("untrained_verifier", "ablations")["roles"]
    assert [played[role]["adapter"] for role in ("generator", "verifier", "refiner")] == [
        "runs/x/export/generator", "", "runs/x/export/refiner"
    ]  # fmt: skip


def test_sft_only_takes_one_role_from_the_other_run():
    played = resolved("sft_refiner", "ablations")["roles"]
    assert played["refiner"]["adapter"] == "runs/x/export/sft/refiner"
    assert played["verifier"]["adapter"] == "runs/x/export/verifier"


def test_a_later_turn_works_on_the_last_answer():
    config = resolved("turns_3", "ablations")
    assert config["chain"] == (
        "generator", "verifier", "refiner", "verifier_2", "refiner_2", "verifier_3", "refiner_3"
    )  # fmt: skip
    shown = {name: config["roles"][name]["prompt"] for name in config["chain"]}
    assert shown["verifier_2"] == "Check: {question}\n{refiner}"
    assert shown["refiner_2"] == "Refine: {question}\n{refiner}\n{verifier_2}"
    assert shown["refiner_3"] == "Refine: {question}\n{refiner_2}\n{verifier_3}"
    assert config["roles"]["refiner_3"]["adapter"] == "runs/x/export/refiner"


def test_an_empty_critique_shows_nothing_where_it_stood():
    config = resolved("empty_critique", "ablations")
    assert config["chain"] == ("generator", "refiner")
    assert config["roles"]["refiner"]["prompt"] == "Refine: {question}\n{generator}\n"


def test_a_sweep_leaves_out_the_main_runs_own_value():
    """theta = 0.65 was trained twice where it is the main run's."""
    main = change(change(good(), "suite", "sweeps"), "credit.threshold", 0.65)
    names = [row.name for row in suites.of(main)]
    assert [name for name in names if name.startswith("theta")] == [
        "theta_0.2", "theta_0.35", "theta_0.8"
    ]  # fmt: skip


def test_samples_are_drawn_anew_only_where_they_must_be():
    def reuses(suite: str) -> dict[str, bool]:
        main = change(good(), "suite", suite)
        return {v.name: v.reuses for v in suites.of(main) if "collect" in v.stages}

    reused = reuses("sweeps,control")
    assert reused["n_2"]
    assert not reused["n_4"]
    assert reused["theta_0.65"]
    assert reused["shuffled"]
    assert not reused["temperature_0.7"]
    assert not any(reuses("seeds").values())


def test_suites_add_up_and_an_unknown_one_is_refused():
    main = change(good(), "suite", "paper_table1, ablations")
    names = [row.name for row in suites.of(main)]
    assert len(set(names)) == len(names)
    assert names.index("star_ma") < names.index("sft_refiner"), "it needs that run's adapters"
    with pytest.raises(
        ValueError, match=r"config.suite: no suite 'table2'; there are protocol, paper_table1"
    ):
        suites.of(change(good(), "suite", "table2"))
    with pytest.raises(ValueError, match=r"transfer needs test sets in config.data.exclude"):
        suites.of(change(good(), "suite", "transfer"))
