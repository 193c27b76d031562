"""The protocol's table, from planted outcomes of two seeds: means, intervals, the primary
comparison, and what failed."""

import json
from pathlib import Path

import pytest
from planted_outcomes import N, evaluated
from recipes import change, good

from malt_jax.evaluate import over_seeds
from malt_jax.experiments import compare, suites, text, variant
from malt_jax.workdir import reads

MALT, SA, STAR = (80, 90), (30, 36), (70, 84)


@pytest.fixture
def planted(tmp_path: Path):
    """A protocol of two seeds, of which STaR, the control and the runs themselves are done."""
    config = change(change(good(), "suite", "protocol"), "workdir", str(tmp_path))
    config["suite_seeds"] = 2
    for row in [None, *suites.of(config)]:
        name = row.name if row else ""
        place = variant.workdir(config, row) if row else tmp_path
        seed = row is not None and (row.beside is not None or name == "run_1")
        if name in ("", "run_1"):
            evaluated(place, sa=SA[seed], sa_mv=50, malt_greedy=110, malt_mv=MALT[seed])
        if name == "star_sa_39":
            evaluated(place, malt=40, generator_equal=STAR[seed])
        if name == "shuffled":
            evaluated(place, malt=30, malt_mv=45)
    return config


def written(config: dict) -> tuple[dict, dict[str, dict]]:
    comparison = compare.write(config, suites.of(config), ())
    return comparison, {row["name"]: row for row in comparison["rows"]}


def test_a_row_is_the_mean_over_seeds(planted):
    comparison, rows = written(planted)
    assert list(rows) == [
        *("sa", "sa_mv", "malt_greedy", "malt_mv", "shuffled", "shuffled_mv"),
        *("star_sa_39", "star_sa_39_equal"),
    ]
    sa = rows["sa"]
    assert sa["accuracy"] == pytest.approx(sum(SA) / 2 / N)
    assert sa["by_seed"] == {"0": 30 / N, "1": 36 / N}
    assert (sa["n"], sa["correct"]) == (2 * N, sum(SA))
    assert sa["tokens"] == {"prompt": 2 * N * 100, "completion": 2 * N * 10}
    assert sa["novel_tokens"] == 2 * N * 60
    answers = [[1.0] * right + [0.0] * (N - right) for right in SA]
    assert sa["ci95"] == pytest.approx(over_seeds.share_interval(over_seeds.mean(answers)))
    gap = sa["against_main"]
    assert gap["difference"] == pytest.approx((50 + 54) / 2 / N)
    assert gap["ci95"][0] > 0
    assert rows["malt_mv"]["against_main"] is None
    assert rows["star_sa_39_equal"]["title"] == ("STaR, single agent, 39 samples a question")
    assert json.loads((Path(planted["workdir"]) / "comparison.json").read_text()) == comparison


def test_the_primary_comparison_is_with_the_best_rival(planted):
    """Not with the weakest, nor with another row of MALT's own, which has 110 right."""
    comparison, rows = written(planted)
    primary = comparison["primary"]
    assert (primary["against"], primary["rivals"]) == ("star_sa_39_equal", 4)
    assert primary["seeds"] == 2
    assert primary["difference"] == pytest.approx((10 + 6) / 2 / N)
    assert primary["verdict"] in ("wins", "undecided")
    assert (primary["verdict"] == "wins") == (primary["ci95"][0] > 0)
    assert "p_holm" not in rows["star_sa_39_equal"]["against_main"]
    compared = [row["against_main"] for row in rows.values() if row["against_main"]]
    others = [other for other in compared if "p_holm" in other]
    assert len(others) == 6
    assert all(other["p"] <= other["p_holm"] <= min(1, 6 * other["p"]) for other in others)
    assert any(other["p"] < other["p_holm"] for other in others)


def test_a_loss_is_claimed_where_it_holds_among_all_rivals(planted):
    for place in (Path(planted["workdir"]), Path(planted["workdir"]) / "variants" / "run_1"):
        evaluated(place / "variants" / "star_sa_39", malt=40, generator_equal=115)
    primary = written(planted)[0]["primary"]
    assert primary["verdict"] == "loses"
    assert primary["p"] <= primary["p_holm"] <= 0.05


def test_a_seed_that_is_not_there_leaves_its_row_to_the_others(planted):
    (variant.workdir(planted, suites.of(planted)[0]) / "eval" / "results.json").unlink()
    comparison, rows = written(planted)
    assert "by_seed" not in rows["shuffled_mv"]
    assert rows["shuffled_mv"]["accuracy"] == 45 / N
    assert "shuffled" not in comparison["done"]
    assert "run_1/shuffled" in comparison["done"]


def test_what_failed_stands_there_with_its_reason(planted):
    workdir = Path(planted["workdir"])
    failures = {"debate": "loss is NaN", "star_sa_39": "done since", "sweep_x": "of another suite"}
    (workdir / "failures.json").write_text(json.dumps(failures))
    comparison, _ = written(planted)
    assert list(comparison["failed"]) == ["debate"]
    assert comparison["failed"]["debate"]["reason"] == "loss is NaN"
    assert comparison["failed"]["debate"]["title"].startswith("debate of 3 agents")


def test_reads_of_the_test_split_are_those_of_all_variants(planted):
    main = Path(planted["workdir"])
    for place, seed in ((main, 0), (main / "variants" / "run_1", 1)):
        reads.begin(place, {"configuration": "c", "seed": seed, "test": "arithmetic:"})
    assert written(planted)[0]["test_reads"] == {"times": 2, "configurations": 1}


def test_the_text_says_who_wins_and_what_each_seed_came_to(planted):
    said = text.table(written(planted)[0])
    assert "seed 0   seed 1" in said
    assert "primary: malt_mv minus star_sa_39_equal, the best of 4 rivals" in said
