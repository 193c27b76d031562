"""Systems as data: which there are, which passes they share, and what a new one takes."""

from dataclasses import replace

import pytest
from recipes import change, good

from malt_jax import recipe
from malt_jax.config import settings
from malt_jax.evaluate import passes, systems
from malt_jax.types import System, main_system

SHOWN = ("sa", "sa_mv", "ma", "ma_mv", "malt", "malt_mv", "debate")


def parsed(**changes) -> settings.Settings:
    config = good()
    for key, value in changes.items():
        change(config, key.replace("__", "."), value)
    return recipe.parse(config)


def test_the_systems_of_the_default_chain():
    by_name = {s.name: s for s in systems.chosen(parsed(eval__systems=SHOWN))}
    assert tuple(by_name) == SHOWN
    chain = ("generator", "verifier", "refiner")
    assert by_name["sa"] == System("sa", "single agent", "base", "single", chain[:1])
    assert by_name["malt_mv"] == System("malt_mv", "MALT, vote", "trained", "team", chain, 3)
    assert by_name["debate"].roles == ("generator",)
    assert [s.name for s in by_name.values() if s.trained] == ["malt", "malt_mv"]


def test_they_stand_in_the_order_of_tables_not_of_the_setting():
    chosen = systems.chosen(parsed(eval__systems=("malt", "sa")))
    assert [system.name for system in chosen] == ["sa", "malt"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval__systems": ("malt", "gpt")}, r"config.eval.systems: 'gpt' is not one of"),
        ({"eval__systems": ()}, r"config.eval.systems: empty; "),
        ({"eval__single_agent": "gpt"}, r"config.eval.single_agent: 'gpt' is not one of"),
        (
            {"eval__single_agent": "refiner"},
            r"config.eval.single_agent: 'refiner' cannot be asked with the question alone",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        systems.chosen(parsed(**changes))


def test_the_single_agent_may_be_any_role_that_sees_the_question_alone():
    """A planner before the generator was graded in its place."""
    config = good()
    config["roles"]["planner"] = {**config["roles"]["generator"], "prompt": "Plan: {question}"}
    config["chain"] = ("planner", "verifier")
    config["eval"]["systems"] = SHOWN
    first = recipe.parse(config)
    assert systems.single_role(first).name == "planner"
    assert passes.place(systems.single_agent(first), first) == "base"
    named = recipe.parse(change(config, "eval.single_agent", "generator"))
    single = {s.name: s for s in systems.chosen(named)}
    assert single["sa_mv"].roles == single["debate"].roles == ("generator",)
    drawn = passes.draws(systems.chosen(named), named)
    assert {place: draw.roles for place, draw in drawn.items()} == {
        "base/only-generator": ("generator",),
        "base": ("planner", "verifier"),
        "malt": ("planner", "verifier"),
    }


def test_systems_share_passes():
    """Of the untrained team the longest chain is drawn, and single agents read its first role."""
    few = parsed(eval__systems=("sa", "sa_mv", "malt"))
    drawn = passes.draws(systems.chosen(few), few)
    assert [(d.place, d.label, len(d.roles), d.count) for d in drawn.values()] == [
        ("base", "ma", 1, 3),
        ("malt", "malt", 3, 3),
    ]
    everything = parsed(eval__systems=SHOWN)
    drawn = passes.draws(systems.chosen(everything), everything)
    assert [(d.place, len(d.roles)) for d in drawn.values()] == [("base", 3), ("malt", 3)]


def test_other_decoding_and_more_votes_are_drawn_apart():
    given = parsed()
    team = systems.untrained_team(given)
    greedy, more = replace(team, decoding="greedy"), replace(team, votes=9)
    assert passes.place(greedy, given) == "base/greedy"
    assert passes.place(more, given) == "base/votes-9"
    drawn = passes.draws([team, replace(greedy, name="ma_greedy"), more], given)
    assert [(d.count, d.greedy, d.label) for d in drawn.values()] == [
        (3, False, "ma"),
        (1, True, "ma_greedy"),
        (9, False, "ma"),
    ]


def test_the_main_system_is_the_trained_teams_vote_if_there():
    chosen = systems.chosen(parsed(eval__systems=SHOWN))
    order = []
    while chosen:
        order.append(main_system(chosen))
        chosen.remove(order[-1])
    assert [system.name for system in order] == [
        "malt_mv", "malt", "ma_mv", "ma", "sa_mv", "sa", "debate"
    ]  # fmt: skip
    single_vote = systems.chosen(parsed(eval__systems=SHOWN, eval__votes=1))
    assert main_system(single_vote).name == "malt_mv"
