"""A team whose sampler says what a function tells it, at once."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from malt_jax.sampler import Completion

Say = Callable[[str, tuple[int, ...]], str]
"""(question id, path) -> a completion."""


def telling(team: Any, say: Say) -> Any:
    """`team` with a sampler that does what `say` says."""

    def completed(text: str) -> Completion:
        tokens = [*team.tokenizer.encode(text), team.tokenizer.end_id]
        return Completion(tokens, *np.zeros((2, len(tokens)), np.float32), True)

    def run(take: Callable, *_, **__) -> Iterator[tuple]:
        while (request := take()) is not None:
            open_tree, ask = request.tag
            texts = [say(open_tree.tree.question.id, path) for path in ask.paths]
            yield request, [completed(text) for text in texts]

    mesh = getattr(team.sampler, "mesh", None)
    return replace(team, sampler=SimpleNamespace(mesh=mesh, run=run))
