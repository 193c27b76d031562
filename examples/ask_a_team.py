"""What a run left, asked from Python: `python examples/ask_a_team.py runs/quickstart "7+8-2+9-4"`.

The roles are shown while they write; then five passes vote; then the critique is replaced by one of
our own, and the later roles write again.
"""

import sys

import malt_jax
from malt_jax.serve.backend import Began, Delta


def main(source: str, question: str) -> None:
    """Asks the team of a work directory."""
    team = malt_jax.Team.load(source)
    for event in team.stream(question):
        if isinstance(event, Began):
            print(f"\n{event.role}: ", end="")
        elif isinstance(event, Delta):
            print(event.text, end="", flush=True)
    solution = team.solve(question, votes=5)
    print(f"\n\nfive passes: {solution.answer or 'no answer'} {dict(solution.votes)}")
    print(f"{solution.tokens_read} tokens read, {solution.tokens_written} written")
    first, *critics = [role.name for role in team.roles][:-1]
    said = solution.transcript[0]
    edited = {first: said[first]} | dict.fromkeys(critics, "Wrong. Begin again.")
    again = team.solve(question, votes=1, written=edited)
    print(f"told that it is wrong, the last role writes: {again.text}")


if __name__ == "__main__":
    main(*sys.argv[1:])
