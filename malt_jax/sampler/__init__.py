"""The sampler: token ids in, token ids and log-probabilities out. It knows no text, no role and
no task.

Continuous batching over a paged KV cache. Every distinct prompt token is computed once
(`prefixes`); the children of a prompt read its pages together and their own apart (`models.paged`);
a row that ends is given to the next child at once, whatever its prompt and its adapter
(`schedule`). A row's tokens depend on its own prompt, key and adapter alone, bit by bit on a CPU in
float32: whatever else a program computes beside it has the same shape or adds exact zeros.
"""

from collections.abc import Callable, Iterator, Sequence

from malt_jax.models.lora import Adapter
from malt_jax.sampler.draw import Sampling
from malt_jax.sampler.request import ByRequest, Completion, Request, Work
from malt_jax.sampler.session import Session
from malt_jax.sampler.spec import Spec, memory

__all__ = ["ByRequest", "Completion", "Request", "Sampler", "Sampling", "Session", "Work"]


class Sampler(Spec):
    """A model on its mesh, ready to sample."""

    def run(
        self,
        take: Callable[[], Request | None],
        adapters: Sequence[Adapter | None] = (None,),
        *,
        sampling: Sampling,
        work: Work | None = None,
    ) -> Iterator[tuple[Request, list[Completion]]]:
        """Yields each request with its children's completions as soon as the last of them ends.

        `take` gives the next request to start, or None if there is none at present; it is asked
        whenever rows are free, so what a caller makes of one result can run beside the others. The
        run ends when it has nothing and nothing is running. `work` is added to as it goes.

        Raises ValueError for a request that does not fit the model's context or the KV budget.
        """
        session = Session(self, adapters, sampling, Work() if work is None else work)
        yield from session.run(take)

    def check(self, prompt: int, max_new_tokens: int, children: int) -> None:
        """Raises ValueError if a request of these lengths could not run; nothing is allocated."""
        memory(self).check(self, prompt, max_new_tokens, children)
