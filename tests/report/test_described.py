"""Systems in files: what is written is read, and what files of before leave to their names."""

import pytest
from planted_comparison import comparison, row

from malt_jax.report import described
from malt_jax.report.contract import parse_comparison
from malt_jax.types import System, parse_system

MALT = {
    "name": "malt_mv",
    "title": "MALT, vote",
    "team": "trained",
    "kind": "team",
    "roles": ["generator", "refiner"],
    "votes": 3,
    "decoding": "sampled",
}


def test_what_is_described_needs_no_name() -> None:
    given = {**MALT, "name": "x", "kind": "single", "team": "base", "votes": 9}
    systems = described.by_name({"systems": {"x": {}}, "described": {"x": given}})
    roles = ("generator", "refiner")
    assert systems == {"x": System("x", "MALT, vote", "base", "single", roles, 9)}


@pytest.mark.parametrize(
    ("name", "team", "kind", "votes"),
    [
        ("sa", "base", "single", 1),
        ("ma_mv", "base", "team", 5),
        ("malt", "trained", "team", 1),
        ("debate", "base", "debate", 5),
        ("star_sa_mv", "trained", "team", 5),
        ("n_4_sa_mv", "base", "single", 5),
        ("sa_mv_seed_1", "base", "single", 5),
        ("untrained_verifier", "trained", "team", 1),
        ("ma in runs/malt_mv", "base", "team", 1),
    ],
)
def test_names_of_earlier_versions(name: str, team: str, kind: str, votes: int) -> None:
    system = described.before(name, k=5)
    assert (system.team, system.kind, system.votes) == (team, kind, votes)


@pytest.mark.parametrize(
    "fault",
    [{"team": "malt"}, {"kind": "swarm"}, {"color": "red"}, {"roles": None}],
)
def test_a_description_amiss_is_refused(fault: dict) -> None:
    with pytest.raises(ValueError, match="describes no system"):
        parse_system(MALT | fault)
    planted = comparison() | {"rows": [row("sa") | {"system": MALT | fault}]}
    with pytest.raises(ValueError, match=r"rows\[0\]: .*describes no system"):
        parse_comparison(planted)


def test_rows_stand_by_what_they_are_and_not_by_their_names() -> None:
    """A sweep of two values, one pass and vote of each, under names that say nothing."""
    rows = [
        row("n_2")
        | {"name": f"row {i}", "system": MALT | {"votes": votes}, "swept": ["width", value]}
        for i, (value, votes) in enumerate([(4, 1), (4, 3), (2, 1), (2, 3)])
    ]
    main = row("malt_mv") | {"system": MALT}
    untrained = row("ma") | {"name": "no team", "system": MALT | {"team": "base", "votes": 1}}
    parsed = parse_comparison(comparison() | {"rows": [main, untrained, *rows]})
    assert {word: [(x, r.name) for x, r in points] for word, points in parsed.sweeps.items()} == {
        "width": [(2, "row 3"), (4, "row 1")]
    }
    assert [r.name for r in parsed.differences] == ["row 1", "row 3"]
    assert [r.name for r in parsed.rivals] == ["no team"]
    assert parsed.last_role == "refiner"
