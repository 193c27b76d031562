"""Other chains of a config's roles, as values of its settings by dotted key."""

from collections.abc import Mapping
from typing import Any

Config = dict[str, Any]
Values = dict[str, Any]


def answering_second(main: Config) -> Values:
    """The first two of three roles: the second also gives the final answer, in the last one's
    tokens. Its prompt is the last one's up to where that shows the second role."""
    first, second, last = main["chain"]
    prompt = main["roles"][last]["prompt"]
    cut = prompt.rfind("\n\n", 0, prompt.find(f"{{{second}}}"))
    return {
        "chain": (first, second),
        f"roles.{second}.prompt": (
            prompt[:cut] if cut > 0 else prompt.replace(f"{{{second}}}", "")
        ),
        f"roles.{second}.max_new_tokens": main["roles"][last]["max_new_tokens"],
    }


def without_second(main: Config) -> Values:
    """The first and the last of three roles; the last one's prompt shows nothing where the second
    role's text stood."""
    first, second, last = main["chain"]
    prompt = main["roles"][last]["prompt"].replace(f"{{{second}}}", "")
    return {"chain": (first, last), f"roles.{last}.prompt": prompt}


def turns(main: Config, count: int, adapters: Mapping[str, str]) -> Values:
    """`count` turns: in each after the first, all roles but the first work again on the last one's
    answer. `adapters` are the roles' by name; the roles of later turns have the same."""
    first, *others = main["chain"]
    values: Values = {}
    chain, before = [first, *others], others[-1]
    for turn in range(2, count + 1):
        for role in others:
            name = f"{role}_{turn}"
            prompt = main["roles"][role]["prompt"].replace(f"{{{first}}}", f"{{{before}}}")
            for other in others:
                if f"{other}_{turn}" in chain:
                    prompt = prompt.replace(f"{{{other}}}", f"{{{other}_{turn}}}")
            values[f"roles.{name}"] = {
                **main["roles"][role], "prompt": prompt, "train": (), "adapter": adapters[role]
            }  # fmt: skip
            chain.append(name)
        before = chain[-1]
    return {**values, "chain": tuple(chain)}
