"""Random keys: a sample's follows from (seed, stream, question id, path) and nothing else, so that
it is the same whatever is sampled beside it."""

import hashlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

_SAMPLING = 0xFFFFFFFF  # sets a node's own stream apart from its children's keys


def node_keys(
    seed: int, stream: str, question_id: str, paths: Sequence[tuple[int, ...]]
) -> np.ndarray:
    """The keys of a question's samples by their paths, all of one length: uint32[N, 2]. The sampler
    folds the position of a token in."""
    return np.asarray(_keys(seed, _words(stream, question_id), np.array(paths, np.int32)))


def _words(stream: str, question_id: str) -> np.ndarray:
    digest = hashlib.sha256(f"{stream}\0{question_id}".encode()).digest()
    return np.frombuffer(digest[:8], "<u4").astype(np.uint32)


@jax.jit
def _keys(seed: int, words: Array, paths: Array) -> Array:
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), words[0]), words[1])

    def of(path: Array) -> Array:
        folded = key
        for step in (*path, jnp.uint32(_SAMPLING)):
            folded = jax.random.fold_in(folded, step)
        return jax.random.key_data(folded)

    return jax.vmap(of)(paths)
