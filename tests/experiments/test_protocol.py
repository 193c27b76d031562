"""The protocol: which runs it is made of, and what is told of them."""

from recipes import change, good

from malt_jax.experiments import suites, variant
from malt_jax.experiments.protocol import main_run

BESIDE = [
    *("shuffled", "star_ma", "star_sa_39"),
    *("alone_generator", "alone_verifier", "alone_refiner", "debate"),
]


def the_protocol(**changes) -> dict:
    config = change(change(good(), "suite", "protocol"), "workdir", "runs/x")
    for key, value in changes.items():
        change(config, key.replace("__", "."), value)
    return config


def resolved(config: dict) -> dict[str, dict]:
    return {row.key: variant.resolve(config, row) for row in suites.of(config)}


def test_every_seed_has_every_row():
    keys = list(resolved(the_protocol(suite_seeds=2)))
    assert keys == [*BESIDE, "run_1", *(f"run_1/{name}" for name in BESIDE)]
    assert len(resolved(the_protocol())) == 3 * len(BESIDE) + 2


def test_seeds_differ_in_sampling_and_training_and_share_their_questions():
    variants = resolved(the_protocol(seed=4))
    assert [variants[f"run_{seed}"]["seed"] for seed in (5, 6)] == [5, 6]
    assert variants["run_5"]["data"]["seed"] == 4
    assert variants["run_5"]["trees"] == "", "samples of its own"
    beside = variants["run_5/alone_verifier"]
    assert (beside["seed"], beside["data"]["seed"]) == (5, 4)
    assert beside["workdir"] == "runs/x/variants/run_5/variants/alone_verifier"
    adapters = {role: beside["roles"][role]["adapter"] for role in beside["chain"]}
    assert adapters == {
        "generator": "",
        "verifier": "runs/x/variants/run_5/export/verifier",
        "refiner": "",
    }
    assert not any(beside["roles"][role]["train"] for role in beside["chain"])


def test_star_has_as_many_samples_a_question_as_malt_has_nodes():
    """It had three where MALT had 39, and learned from three where MALT's roles might from 39."""
    star = resolved(the_protocol())["star_sa_39"]
    assert star["chain"] == ("generator",)
    assert star["roles"]["generator"]["branching"] == 39
    assert star["roles"]["generator"]["train"] == ("sft",)
    assert star["credit"]["max_positives_per_parent"] == 39
    assert star["trees"] == ""
    assert star["eval"]["compute_of"] == "runs/x", "it votes for what MALT spends"
    assert star["eval"]["equal_compute"]


def test_the_control_is_the_same_configuration_through_every_phase():
    config = the_protocol(credit__threshold=0.6)
    control = resolved(config)["shuffled"]
    assert control["credit"] == {**config["credit"], "shuffle_rewards": True}
    assert control["trees"] == "runs/x", "the same samples"
    assert control["roles"] == config["roles"], "all phases of all roles, trained anew"
    assert control["eval"]["systems"] == ("malt", "malt_mv")


def test_the_main_run_evaluates_all_of_its_rows_whatever_it_was_asked_for():
    config = the_protocol(eval__systems=("malt_mv", "debate"), eval__equal_compute=False)
    evaluation = main_run(config)["eval"]
    assert {"sa_greedy", "ma_greedy", "malt_greedy", "sa", "ma_mv", "debate"} <= {
        *evaluation["systems"]
    }
    assert evaluation["equal_compute"]
    assert not config["eval"]["equal_compute"], "the given config stays as it is"
