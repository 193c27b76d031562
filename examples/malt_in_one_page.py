"""MALT from the first sample to the trained team: `python examples/malt_in_one_page.py`.

A generator solves, a verifier checks, a refiner answers (arXiv 2412.01928). Every question grows a
tree of 3 x 3 x 3 samples. The leaves are graded, and a node is worth the mean of its children.
Nodes above a threshold become SFT data; a good and a bad child of one parent, a DPO pair. So each
role learns what made the team right. The tiny model that ships with the package does sums; two CPU
cores need some minutes. `python -m malt_jax.main` does the same exactly, resumably and on many
devices; this page is for reading, and takes the shortest way that is still the method.
"""

from collections.abc import Callable
from functools import partial
from importlib.resources import files
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from malt_jax import credit, models, tasks
from malt_jax.grading import verdict
from malt_jax.learn.losses import Pairs, sigmoid, token_logprobs
from malt_jax.models import llama, lora
from malt_jax.runtime import mesh
from malt_jax.sampler import Request, Sampler, Sampling
from malt_jax.tasks import arithmetic
from malt_jax.tasks.votes import majority
from malt_jax.types import Grade, Question

PROMPTS = {  # what the tiny model was pretrained with; a role sees what its prompt names
    "generator": "Solve: {question}",
    "verifier": "Check: {question}\n{generator}",
    "refiner": "Refine: {question}\n{generator}\n{verifier}",
}
N, NEW_TOKENS, BATCH, BETA = 3, 24, 32, 0.2
THETA = 0.3  # 0.5 in the paper; this base is seldom right
MODEL = models.load(files("malt_jax") / "tiny" / "model")
CONFIG, PARAMS, TOKENIZER = MODEL.config, MODEL.params, MODEL.tokenizer
SAMPLER = Sampler(
    CONFIG, PARAMS, mesh.make(), 96, TOKENIZER.stop_ids, TOKENIZER.pad_id, siblings=N, kv_gib=0.5
)
TASK = tasks.get("arithmetic")


class Node(NamedTuple):
    """One sample: the prompt and completion as token ids, and the texts of its path by role."""

    prompt: list[int]
    completion: list[int]
    texts: dict[str, str]


def sample(role: str, adapter: Any, paths: list[dict[str, str]], n: int, key: Any) -> list[Node]:
    """`n` samples of a role for every path of texts, path by path."""
    seen = [name for name in ("question", *PROMPTS) if f"{{{name}}}" in PROMPTS[role]]
    prompts = [
        TOKENIZER.prompt(PROMPTS[role], {name: path[name] for name in seen}) for path in paths
    ]
    keys = np.asarray(jax.random.key_data(jax.random.split(key, (len(paths), n))))
    requests = (Request(prompt, keys[i], NEW_TOKENS, tag=i) for i, prompt in enumerate(prompts))
    done = SAMPLER.run(lambda: next(requests, None), [adapter], sampling=Sampling(1.0))
    completions = {request.tag: children for request, children in done}
    return [
        Node(prompts[i], child.tokens, paths[i] | {role: TOKENIZER.decode(child.tokens)})
        for i in range(len(paths))
        for child in completions[i]
    ]


def grow(questions: list[Question], adapters: dict, branching: dict, key: Any) -> list[list[Node]]:
    """The trees of all questions, a list a depth: node i of a depth has parent i // n above it."""
    paths, levels = [{"question": question.text} for question in questions], []
    for role, role_key in zip(PROMPTS, jax.random.split(key, len(PROMPTS)), strict=True):
        levels.append(sample(role, adapters.get(role), paths, branching[role], role_key))
        paths = [node.texts for node in levels[-1]]
    return levels


def grades(questions: list[Question], leaves: list[Node]) -> list[Grade]:
    """The verdict on every leaf's final answer."""
    n = len(leaves) // len(questions)
    references = [question.answer for question in questions for _ in range(n)]
    texts = [leaf.texts["refiner"] for leaf in leaves]
    return [verdict(TASK, *pair) for pair in zip(texts, references, strict=True)]


def positives(nodes: list[Node], values: np.ndarray) -> list[Node]:
    """SFT data of a role: its samples of value strictly above the threshold."""
    return [n for n, good in zip(nodes, credit.label(values, THETA), strict=True) if good]


def pairs(nodes: list[Node], values: np.ndarray) -> list[tuple[Node, Node]]:
    """DPO data of a role: of every parent with both kinds of children, the best and the worst."""
    siblings = values.reshape(-1, N)
    best, worst = siblings.argmax(1), siblings.argmin(1)
    contrast = credit.label(siblings.max(1), THETA) & ~credit.label(siblings.min(1), THETA)
    return [(nodes[i * N + best[i]], nodes[i * N + worst[i]]) for i in np.flatnonzero(contrast)]


def padded(nodes: list[Node], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens int32[B, width], and which of them are completion: bool[B, width]."""
    tokens = np.full((len(nodes), width), TOKENIZER.pad_id, np.int32)
    said = np.zeros(tokens.shape, bool)
    for row, mask, node in zip(tokens, said, nodes, strict=True):
        end = len(node.prompt) + len(node.completion)
        row[:end], mask[len(node.prompt) : end] = node.prompt + node.completion, True
    return tokens, said


def logprobs(adapter: lora.Adapter, tokens: jax.Array, said: jax.Array) -> jax.Array:
    """log pi(completion | prompt), summed over tokens: float32[B]."""
    hidden, _ = llama.forward(CONFIG, PARAMS, tokens, jnp.ones_like(said), adapter)
    logps = token_logprobs(llama.unembed(CONFIG, PARAMS, hidden[:, :-1]), tokens[:, 1:])
    return jnp.sum(logps * said[:, 1:], -1)  # causal: what is padded on the right changes nothing


def sft_loss(adapter: lora.Adapter, batch: tuple) -> jax.Array:
    """The mean negative log-likelihood of a completion token."""
    return -jnp.sum(logprobs(adapter, *batch)) / jnp.sum(batch[1])


def dpo_loss(adapter: lora.Adapter, batch: tuple) -> jax.Array:
    """-log sigmoid(beta h), h the log-ratio of chosen to rejected against the reference, which is
    the SFT policy (arXiv 2305.18290, equation 7)."""
    chosen, rejected, ref_chosen, ref_rejected = batch
    logps = [logprobs(adapter, *side) for side in (chosen, rejected)]
    counts = [jnp.sum(side[1], -1) for side in (chosen, rejected)]
    return jnp.mean(sigmoid(Pairs(*logps, ref_chosen, ref_rejected, *counts), beta=BETA))


def train(
    adapter: lora.Adapter, loss: Callable, rows: list, batch_of: Callable, rate: float, epochs: int
) -> lora.Adapter:
    """AdamW over whole batches of rows in random order."""
    rng, batches = np.random.default_rng(0), len(rows) // BATCH
    orders = [i for _ in range(epochs) for i in rng.permutation(len(rows))[: batches * BATCH]]
    tx = optax.adamw(optax.cosine_decay_schedule(rate, max(epochs * batches, 1)))

    @jax.jit
    def step(adapter: lora.Adapter, state: Any, batch: Any) -> tuple:
        updates, state = tx.update(jax.grad(loss)(adapter, batch), state, adapter)
        return optax.apply_updates(adapter, updates), state

    state = tx.init(adapter)
    for i in range(0, len(orders), BATCH):
        batch = batch_of([rows[j] for j in orders[i : i + BATCH]])
        adapter, state = step(adapter, state, batch)
    return adapter


def learn(role: str, nodes: list[Node], values: np.ndarray, key: Any) -> lora.Adapter:
    """A role's adapter: SFT on its positives, then DPO on its pairs."""
    width = max(len(node.prompt) + len(node.completion) for node in nodes)
    good, contrast = positives(nodes, values), pairs(nodes, values)
    print(f"{role}: {len(nodes)} samples, {len(good)} for SFT, {len(contrast)} pairs for DPO")
    fresh = lora.init(CONFIG, key, rank=2, alpha=8.0, targets=("o", "down"))
    adapter = train(fresh, sft_loss, good, partial(padded, width=width), 4e-3, epochs=1)
    reference = jax.jit(partial(logprobs, adapter))

    def compared(rows: list[tuple[Node, Node]]) -> tuple:
        sides = [padded(list(side), width) for side in zip(*rows, strict=True)]
        return (*sides, *(reference(*side) for side in sides))

    return train(adapter, dpo_loss, contrast, compared, 1e-3, epochs=2)


def accuracies(questions: list[Question], adapters: dict, key: Any) -> tuple[float, float]:
    """How often one pass of the team is right, and how often a majority vote of three is."""
    leaves = grow(questions, adapters, {"generator": N, "verifier": 1, "refiner": 1}, key)[-1]
    graded = grades(questions, leaves)
    passes = [graded[i : i + N] for i in range(0, len(graded), N)]
    votes = [of[majority([grade.answer for grade in of]) or 0] for of in passes]
    return tuple(np.mean([g.status == "correct" for g in of]) for of in (graded, votes))


def main(train_questions: int = 150, eval_questions: int = 200, seed: int = 0) -> list[tuple]:
    """Grows trees, trains the three roles and prints the team's accuracy before and after."""
    training = arithmetic.generate(train_questions, seed, "train")
    held_out = arithmetic.generate(eval_questions, seed, "eval")
    tree_key, eval_key, *role_keys = jax.random.split(jax.random.key(seed), 2 + len(PROMPTS))
    before = accuracies(held_out, {}, eval_key)
    levels = grow(training, {}, dict.fromkeys(PROMPTS, N), tree_key)
    scores = np.array([grade.score for grade in grades(training, levels[-1])], np.float32)
    values = credit.propagate(scores.reshape(len(training), N, N, N))
    adapters = {
        role: learn(role, nodes, np.asarray(worth).ravel(), role_key)
        for role, nodes, worth, role_key in zip(PROMPTS, levels, values, role_keys, strict=True)
    }
    after = accuracies(held_out, adapters, eval_key)
    for name, (one_pass, vote) in (("untrained", before), ("trained", after)):
        print(f"{name} team: one pass {one_pass:.1%}, vote of {N} {vote:.1%}")
    return [before, after]


if __name__ == "__main__":
    main()
