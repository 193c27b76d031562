"""Pretrains the quickstart's base model on `corpus` and writes it as a Hugging Face directory.

    python -m malt_jax.tiny.pretrain --out=malt_jax/tiny/model

The same seed gives the same files on the same machine and versions. The questions are those of the
task's "pretrain" split: neither MALT's training nor its evaluation has any of them.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags
from jax import Array
from tokenizers import Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer
from tqdm import tqdm

from malt_jax.learn import optim
from malt_jax.learn.losses import token_logprobs
from malt_jax.models import LlamaConfig, Params, hf, llama
from malt_jax.models.config import Rope
from malt_jax.tasks import arithmetic
from malt_jax.text.tokenizer import Tokenizer
from malt_jax.tiny import corpus

QUESTIONS = 40_000
CLEAN_STEPS, CLEAN_LR = 2000, 3e-3
MIXED_STEPS, MIXED_LR = 1000, 1e-3
"""First each role's good manner alone, to learn sums and copying; then the mixture."""
SCALE, AMPLITUDE, PERIODS = 4.0, 0.25, (2, 4, 5, 10, 20, 40, 100, 200)
"""Of the first parameters, see `start`."""
ROWS = {"generator": 8, "verifier": 12, "refiner": 16, "debater": 2}
"""Texts a step."""
GOOD: corpus.Rates = {
    "generator": {"stepwise": 1.0},
    "verifier": {"recheck": 1.0},
    "refiner": {"follow": 1.0},
}
"""Good manners alone."""
WIDTHS = {"generator": 36, "verifier": 57, "refiner": 78, "debater": 76}
"""The longest text of a role, in tokens; batches are padded to it."""

CONTROL = ("<pad>", "<unk>", "<|user|>", "<|assistant|>", "<|end|>")
NUMBERS = tuple(str(number) for number in range(100))
MARKS = "+-=.,: \n"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


class Texts(NamedTuple):
    """Prompts with completions, one a row, padded on the right. All that follows the question is
    learned: the tokens from `starts` on, before `ends`."""

    tokens: np.ndarray  # int32[B, T]
    starts: np.ndarray  # int32[B]
    ends: np.ndarray  # int32[B]


Step = Mapping[str, Texts]
"""A batch a role."""


def tokenizer() -> Tokenizer:
    """A token for each number below 100, mark and word of the corpus; all else is `<unk>`.

    Texts that do not meet within a number or a word encode alike apart and joined.
    """
    entries = (*CONTROL, *NUMBERS, *MARKS, *corpus.words())
    vocab = {entry: i for i, entry in enumerate(entries)}
    fast = FastTokenizer(models.WordLevel(vocab, "<unk>"))
    fast.pre_tokenizer = pre_tokenizers.Split(Regex(r"[A-Za-z]+|[1-9][0-9]|[\s\S]"), "isolated")
    fast.decoder = decoders.Fuse()
    fast.add_special_tokens(list(CONTROL))
    special = {"unk_token": "<unk>", "pad_token": "<pad>", "eos_token": "<|end|>"}
    return Tokenizer.build(fast, special, chat_template=CHAT_TEMPLATE)


def config(vocab_size: int) -> LlamaConfig:
    """A Llama of 0.35 million parameters."""
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=96,
        intermediate_size=256,
        num_layers=3,
        num_heads=3,
        num_kv_heads=3,
        head_dim=32,
        context=256,
        norm_eps=1e-5,
        rope=Rope(),
        tied=True,
    )


def batches(words: Tokenizer, seed: int, steps: int, rates: corpus.Rates) -> Iterator[Step]:
    """The steps of a phase, a batch a role; each text is drawn anew, the questions are fixed."""
    rng = random.Random(f"{seed} {rates}")
    texts = [question.text for question in arithmetic.generate(QUESTIONS, seed, "pretrain")]
    for _ in range(steps):
        drawn = [corpus.documents(rng, rng.choice(texts), rates) for _ in range(max(ROWS.values()))]
        yield {
            role: _batch(words, [texts[role] for texts in drawn[:rows]], WIDTHS[role])
            for role, rows in ROWS.items()
        }


def _batch(words: Tokenizer, documents: Sequence[corpus.Document], width: int) -> Texts:
    tokens = np.full((len(documents), width), words.pad_id, np.int32)
    starts, ends = np.zeros((2, len(documents)), np.int32)
    for i, document in enumerate(documents):
        prompt = words.prompt("{text}", {"text": document.prompt})
        ids = [*prompt, *words.encode(document.completion), words.end_id]
        tokens[i, : len(ids)] = ids
        question, *_ = document.prompt.split("\n")
        starts[i], ends[i] = 1 + len(words.encode(question)), len(ids)
    return Texts(tokens, starts, ends)


def loss(shape: LlamaConfig, params: Params, step: Step) -> tuple[Array, dict[str, Array]]:
    """Mean negative log-likelihood a learned token, over all roles and for each."""
    sums, counts = {}, {}
    for role, batch in step.items():
        tokens, place = jnp.asarray(batch.tokens), jnp.arange(batch.tokens.shape[1])
        starts, ends = jnp.asarray(batch.starts)[:, None], jnp.asarray(batch.ends)[:, None]
        hidden, _ = llama.forward(shape, params, tokens, place < ends)
        logits = llama.unembed(shape, params, hidden[:, :-1])
        logps = token_logprobs(logits, tokens[:, 1:])
        said = (place[1:] >= starts) & (place[1:] < ends)
        sums[role], counts[role] = -jnp.sum(jnp.where(said, logps, 0.0)), jnp.sum(said)
    total = sum(sums.values(), jnp.zeros(())) / sum(counts.values())
    return total, {role: sums[role] / counts[role] for role in step}


def pretrain(clean: int, mixed: int, seed: int) -> tuple[LlamaConfig, Params, Tokenizer]:
    """The model after `clean + mixed` updates, rounded to float16, and its tokenizer."""
    words = tokenizer()
    shape = config(words.vocab_size)
    params = start(shape, words, seed)
    for steps, peak, rates in ((clean, CLEAN_LR, GOOD), (mixed, MIXED_LR, corpus.RATES)):
        params = phase(shape, params, batches(words, seed, steps, rates), steps, peak)
    return shape, jax.tree.map(lambda leaf: leaf.astype(jnp.float16), params), words


def start(shape: LlamaConfig, words: Tokenizer, seed: int) -> Params:
    """The first parameters. Waves of several lengths in the embeddings of numbers say how far apart
    two of them are, with which sums are learned in fewer steps."""
    params = jax.tree.map(
        lambda leaf: SCALE * leaf if leaf.ndim > 1 else leaf,
        llama.init(shape, jax.random.key(seed)),
    )
    ids = np.array([words.fast.token_to_id(number) for number in NUMBERS])
    angles = 2 * np.pi * np.arange(len(NUMBERS))[:, None] / np.array(PERIODS)
    waves = AMPLITUDE * np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    return params | {"embed": params["embed"].at[ids, : waves.shape[1]].add(waves)}


def phase(
    shape: LlamaConfig, params: Params, data: Iterator[Step], steps: int, peak: float
) -> Params:
    """The parameters after an update a step, under a schedule of their own with that peak of the
    learning rate. Those given are donated."""
    init, update = _optimisation(shape, steps, peak)
    state = init(params)
    bar = tqdm(data, total=steps, unit="step")
    for i, step in enumerate(bar):
        params, state, nll = update(params, state, step)
        if i % 50 == 0:
            bar.set_postfix({role: f"{float(value):.3f}" for role, value in nll.items()})
    return params


@lru_cache
def _optimisation(
    shape: LlamaConfig, steps: int, peak: float
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The compiled start and update of a phase of `steps`."""
    tx = optim.adamw(peak, steps, warmup=0.03, weight_decay=0.05, b1=0.9, b2=0.98, clip_norm=1.0)

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(params: Params, state: Any, step: Step) -> Any:
        gradients, nll = jax.grad(partial(loss, shape), has_aux=True)(params, step)
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, nll

    return jax.jit(tx.init), update


def main(argv: Sequence[str]) -> None:
    """Pretrains and writes the model; 12 minutes on two cores."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; the settings are --out and --seed")
    out = Path(_OUT.value)
    shape, params, words = pretrain(CLEAN_STEPS, MIXED_STEPS, _SEED.value)
    hf.save(out, shape, params)
    words.save(out)


if __name__ == "__main__":
    _OUT = flags.DEFINE_string("out", None, "Directory of the model.", required=True)
    _SEED = flags.DEFINE_integer("seed", 0, "Of the corpus and the first weights.")
    app.run(main)
