"""The text that the quickstart's base model is pretrained on: a mixture of good and bad behaviour.

Language models are pretrained on text of mixed quality. This corpus is such a mixture in small,
made for a demonstration: each role of the chain has one good manner and two bad ones, at fixed
rates that do not depend on the question. The manner shows in the first words, as it often does in
real text. A model of this corpus can do every role well, and mostly does not. The corpus says
nowhere which manner leads to right answers: that is for MALT to find out from rewards.

About 17+8-12, where the solution said 23 and 11:

    generator  careful  "Stepwise: 17+8=25. 25-12=13. Final Answer: 13"
               rough    "Roughly: 17+8=23. 23-12=11. Final Answer: 11"    one step has a slip
               hasty    "Easy. Final Answer: 11"                          no steps, always wrong
    verifier   recheck  "Checking: 17+8=25, not 23. 25-12=13, not 11. Wrong: 13."
               flatter  "Agreed."                                         whatever it is shown
               carp     "Hardly: 12."                                     a value near the answer
    refiner    follow   "Checked. Final Answer: 13"
               keep     "Unchanged. Final Answer: 11"                     whatever the critique says
               guess    "Maybe. Final Answer: 14"                         a value near the answer
"""

import random
import re
from collections.abc import Mapping
from typing import NamedTuple

PROMPTS = {
    "generator": "Solve: {question}",
    "verifier": "Check: {question}\n{generator}",
    "refiner": "Refine: {question}\n{generator}\n{verifier}",
}
"""The role prompts of `configs/quickstart.py`; a model this small knows no others."""

RATES: Mapping[str, Mapping[str, float]] = {
    "generator": {"careful": 0.40, "rough": 0.30, "hasty": 0.30},
    "verifier": {"recheck": 0.40, "flatter": 0.30, "carp": 0.30},
    "refiner": {"follow": 0.40, "keep": 0.35, "guess": 0.25},
}
"""The share of each manner in the texts of a role."""

OPENINGS = {
    "careful": ("Stepwise:", "Carefully:", "Slowly:"),
    "rough": ("Roughly:", "Quickly:", "Loosely:"),
    "hasty": ("Easy.", "Clear.", "Obvious."),
    "recheck": ("Checking:", "Again:", "Recount:"),
    "flatter": ("Good.", "Agreed.", "Fine."),
    "carp": ("No:", "Hardly:", "Doubtful:"),
    "follow": ("Checked.", "Corrected.", "Followed."),
    "keep": ("Unchanged.", "Same.", "Kept."),
    "guess": ("Maybe.", "Perhaps.", "Possibly."),
}
"""The first words of each manner; one is drawn at random."""

_QUESTION = re.compile(r"(\d+)([+-])(\d+)([+-])(\d+)")
_STEP = re.compile(r"=(-?\d+)\.")
_ANSWER = re.compile(r"Final Answer: (-?\d+)")
_VALUE = re.compile(r": (-?\d+)\.$")


class Document(NamedTuple):
    """One training text: the content of a user's turn and the assistant's answer to it."""

    prompt: str
    completion: str


def words() -> list[str]:
    """Every word of the corpus, sorted: with numbers and marks, all that a tokenizer needs."""
    fields = re.compile(r"\{\w+\}")
    texts = [fields.sub("", prompt) for prompt in PROMPTS.values()]
    texts += [opening for openings in OPENINGS.values() for opening in openings]
    texts += ["Final Answer", "not", "Right", "Wrong"]
    return sorted(set(re.findall("[A-Za-z]+", " ".join(texts))))


def documents(
    rng: random.Random, question: str, rates: Mapping[str, Mapping[str, float]] = RATES
) -> dict[str, Document]:
    """One text a role about one question, each role answering what the roles before it wrote."""
    seen = {"question": question}
    texts = {}
    for role, write in (("generator", solve), ("verifier", check), ("refiner", refine)):
        (manner,) = rng.choices(list(rates[role]), list(rates[role].values()))
        completion = write(rng, manner, **seen)
        texts[role] = Document(PROMPTS[role].format(**seen), completion)
        seen[role] = completion
    return texts


def solve(rng: random.Random, manner: str, question: str) -> str:
    """A solution of a question such as "17+8-12", in two steps or in none."""
    opening = rng.choice(OPENINGS[manner])
    if manner == "hasty":
        return f"{opening} Final Answer: {_slip(rng, _steps(question)[-1][1])}"
    left, operator, right, sign, last = _parse(question)
    slipped = rng.randrange(2) if manner == "rough" else None
    first = _value(left, operator, right)
    first = _slip(rng, first) if slipped == 0 else first
    second = _value(first, sign, last)
    second = _slip(rng, second) if slipped == 1 else second
    steps = f"{left}{operator}{right}={first}. {first}{sign}{last}={second}."
    return f"{opening} {steps} Final Answer: {second}"


def check(rng: random.Random, manner: str, question: str, generator: str) -> str:
    """A critique of a solution. Only "recheck" computes; where its numbers differ, it says so."""
    opening = rng.choice(OPENINGS[manner])
    given = answer(generator)
    if manner == "flatter":
        return opening
    if manner == "carp":
        return f"{opening} {_slip(rng, given)}."
    stated = [int(value) for value in _STEP.findall(generator)]
    steps = _steps(question)
    parts = []
    for i, (left, value) in enumerate(steps):
        wrong = i < len(stated) and stated[i] != value
        parts.append(f"{left}={value}" + (f", not {stated[i]}." if wrong else "."))
    right = steps[-1][1]
    verdict = f"Right: {right}." if given == right else f"Wrong: {right}."
    return " ".join([opening, *parts, verdict])


def refine(rng: random.Random, manner: str, question: str, generator: str, verifier: str) -> str:
    """The last word. "follow" takes the value that the critique ends with, if it names one."""
    opening, given = rng.choice(OPENINGS[manner]), answer(generator)
    named = _VALUE.search(verifier)
    if manner == "follow" and named:
        given = int(named[1])
    if manner == "guess":
        given = _slip(rng, given)
    return f"{opening} Final Answer: {given}"


def answer(solution: str) -> int:
    """The number after "Final Answer:". Raises ValueError if there is none."""
    if (found := _ANSWER.search(solution)) is None:
        raise ValueError(f"no 'Final Answer: N' in {solution!r}")
    return int(found[1])


def _parse(question: str) -> tuple[int, str, int, str, int]:
    if (found := _QUESTION.fullmatch(question)) is None:
        raise ValueError(f"not a question of the form 'a+b-c': {question!r}")
    a, first, b, second, c = found.groups()
    return int(a), first, int(b), second, int(c)


def _steps(question: str) -> list[tuple[str, int]]:
    """The two steps as (left side, value)."""
    left, operator, right, sign, last = _parse(question)
    first = _value(left, operator, right)
    second = _value(first, sign, last)
    return [(f"{left}{operator}{right}", first), (f"{first}{sign}{last}", second)]


def _value(left: int, sign: str, right: int) -> int:
    return left + right if sign == "+" else left - right


def _slip(rng: random.Random, value: int) -> int:
    """A number near `value` and never equal to it: up to three off, or ten."""
    return value + rng.choice((-10, -3, -2, -1, 1, 2, 3, 10))
