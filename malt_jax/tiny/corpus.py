"""The text that the quickstart's base model is pretrained on: a mixture of good and bad behaviour.

Language models are pretrained on text of mixed quality. This corpus is such a mixture in small,
made for a demonstration. A question is a sum of five digits, and no turn has room for all of it:
the generator does one step and guesses the rest, the verifier does two more, the refiner the last.
Each role has one good manner and two bad ones, at fixed rates that depend neither on the question
nor on what the role reads. A verifier and a refiner are most often in a bad one. The manner shows
in the first words, as it often does in real text. The corpus says nowhere which manner leads to
right answers: that is for MALT to find out from rewards.

About 7+8-2+9-4, whose value is 18:

    generator  stepwise  "Stepwise: 7+8=15. Final Answer: 22"       one step, the rest is a guess
               rough     "Roughly: 7+8=13. Final Answer: 14"        its step has a slip
               hasty     "Easy. Final Answer: 21"                   a guess
    verifier   recheck   "Checking: Right. 15-2=13+9=22."           two more steps
                         "Checking: Wrong. 7+8=15."                 or the first one, if it is amiss
               flatter   "Agreed."                                  whatever it is shown
               carp      "Hardly: 24."                              a value near the answer
    refiner    follow    "Checked. 22-4=18. Final Answer: 18"       one more step
               keep      "Unchanged. Final Answer: 22"              whatever the critique says
               guess     "Maybe. Final Answer: 23"                  a value near the answer

A solution guesses the truth no more often than any of six other values, three to five away on both
sides, so that neither its likeliest answer nor a vote tells it.
"""

import random
import re
from collections.abc import Mapping
from typing import NamedTuple

PROMPTS = {
    "generator": "Solve: {question}",
    "verifier": "Check: {question}\n{generator}",
    "refiner": "Refine: {question}\n{generator}\n{verifier}",
    "debater": "Solve: {question}\n{one}\n\n{other}",
}
"""The prompts of `configs/quickstart.py`; a model this small knows no others. A debater reads two
solutions and writes as a generator does."""

Rates = Mapping[str, Mapping[str, float]]

RATES: Rates = {
    "generator": {"stepwise": 0.70, "rough": 0.15, "hasty": 0.15},
    "verifier": {"recheck": 0.36, "flatter": 0.40, "carp": 0.24},
    "refiner": {"follow": 0.36, "keep": 0.40, "guess": 0.24},
}
"""The share of each manner in the texts of a role."""

READ: Rates = {
    "generator": RATES["generator"],
    "verifier": {"recheck": 0.70, "flatter": 0.15, "carp": 0.15},
}
"""The share of each manner in what a later role reads: enough good ones to learn from."""

OPENINGS = {
    "stepwise": ("Stepwise:", "Carefully:", "Slowly:"),
    "rough": ("Roughly:", "Quickly:"),
    "hasty": ("Easy.", "Clear."),
    "recheck": ("Checking:", "Again:", "Recount:"),
    "flatter": ("Good.", "Agreed."),
    "carp": ("No:", "Hardly:"),
    "follow": ("Checked.", "Corrected.", "Followed."),
    "keep": ("Unchanged.", "Same."),
    "guess": ("Maybe.", "Perhaps."),
}
"""The first words of each manner; one is drawn at random."""

SPREAD = (-5, -4, -3, 0, 3, 4, 5)
"""How far a guess lies from the truth: the gaps keep a blurred mode off it."""

_TERM = re.compile(r"[+-]?\d+")
_ANSWER = re.compile(r"Final Answer: (-?\d+)")
_STEP = re.compile(r"=(-?\d+)\.")
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
    texts += ["Final Answer", "Right", "Wrong"]
    return sorted(set(re.findall("[A-Za-z]+", " ".join(texts))))


def documents(
    rng: random.Random, question: str, rates: Rates = RATES, read: Rates = READ
) -> dict[str, Document]:
    """One text a role about one question. A role's own text has the manners of `rates`, and what it
    reads of the roles before it those of `read`."""
    seen = {"question": question}
    texts = {}
    for role, write in (("generator", solve), ("verifier", check), ("refiner", refine)):
        completion = write(rng, _manner(rng, rates[role]), **seen)
        texts[role] = Document(PROMPTS[role].format(**seen), completion)
        if role in read:
            seen[role] = write(rng, _manner(rng, read[role]), **seen)
    first, second, completion = (
        solve(rng, _manner(rng, rates["generator"]), question) for _ in range(3)
    )
    prompt = PROMPTS["debater"].format(question=question, one=first, other=second)
    return texts | {"debater": Document(prompt, completion)}


def solve(rng: random.Random, manner: str, question: str) -> str:
    """A solution of a question such as "7+8-2+9-4": a step or none, and a guess."""
    opening, terms = rng.choice(OPENINGS[manner]), parse(question)
    guess = sum(terms) + rng.choice(SPREAD)
    if manner == "hasty":
        return f"{opening} Final Answer: {guess}"
    first = terms[0] + terms[1]
    first = _slip(rng, first) if manner == "rough" else first
    return f"{opening} {shown(terms[:2])}={first}. Final Answer: {guess}"


def check(rng: random.Random, manner: str, question: str, generator: str) -> str:
    """A critique of a solution. Only "recheck" computes: it goes on from a right first step, and
    does that step where it is wrong or missing."""
    opening = rng.choice(OPENINGS[manner])
    if manner == "flatter":
        return opening
    if manner == "carp":
        return f"{opening} {_slip(rng, answer(generator))}."
    a, b, c, d, _ = parse(question)
    stated = _STEP.search(generator)
    if stated is None or int(stated[1]) != a + b:
        return f"{opening} Wrong. {shown([a, b])}={a + b}."
    return f"{opening} Right. {shown([a + b, c])}={shown([a + b + c, d])}={a + b + c + d}."


def refine(rng: random.Random, manner: str, question: str, generator: str, verifier: str) -> str:
    """The last word. "follow" does the step after those of the critique, be it the last or not; of
    a critique without steps it takes the value, if there is one."""
    opening, given = rng.choice(OPENINGS[manner]), answer(generator)
    if manner == "guess":
        given = _slip(rng, given)
    if manner == "follow":
        if value := _VALUE.search(verifier):
            given = int(value[1])
        if value := _STEP.search(verifier):
            terms, done = parse(question), 4 if "Right" in verifier else 2
            step = [int(value[1]), terms[done]]
            given = sum(step)
            opening = f"{opening} {shown(step)}={given}."
    return f"{opening} Final Answer: {given}"


def answer(solution: str) -> int:
    """The number after "Final Answer:". Raises ValueError if there is none."""
    if (match := _ANSWER.search(solution)) is None:
        raise ValueError(f"no 'Final Answer: N' in {solution!r}")
    return int(match[1])


def parse(text: str) -> list[int]:
    """The signed terms of a sum: "7+8-2" is [7, 8, -2]. Raises ValueError for other text."""
    terms = _TERM.findall(text)
    if not terms or "".join(terms) != text:
        raise ValueError(f"not a sum of the form 'a+b-c': {text!r}")
    return [int(term) for term in terms]


def shown(terms: list[int]) -> str:
    """Signed terms as a sum: [7, 8, -2] is "7+8-2"."""
    return str(terms[0]) + "".join(f"{term:+d}" for term in terms[1:])


def _manner(rng: random.Random, rates: Mapping[str, float]) -> str:
    (manner,) = rng.choices(list(rates), list(rates.values()))
    return manner


def _slip(rng: random.Random, value: int) -> int:
    """A number near `value` and never equal to it."""
    return value + rng.choice((-3, -2, -1, 1, 2, 3))
