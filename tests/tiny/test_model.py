"""The shipped base model: it loads everywhere, and it behaves as its corpus does."""

import json
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest

from malt_jax import models
from malt_jax.runtime import mesh
from malt_jax.sampler import Request, Sampler, Sampling
from malt_jax.tasks import arithmetic
from malt_jax.tiny import corpus, pretrain

DIRECTORY = Path(pretrain.__file__).parent / "model"
CHAT = [{"role": "user", "content": "Solve: 7+8-2+9-4"}]


@pytest.fixture(scope="module")
def model():
    return models.load(DIRECTORY)


def test_it_is_tiny(model):
    assert sum(leaf.size for leaf in jax.tree.leaves(model.params)) <= 3_000_000
    assert (DIRECTORY / "model.safetensors").stat().st_size <= 4_000_000


def test_it_is_what_the_script_writes(model, tmp_path):
    assert model.config == pretrain.config(model.tokenizer.vocab_size)
    pretrain.tokenizer().save(tmp_path)
    for file in tmp_path.iterdir():
        assert file.read_text() == (DIRECTORY / file.name).read_text()


def test_transformers_computes_the_same_logits(model):
    torch = pytest.importorskip("torch")
    from transformers import LlamaForCausalLM

    other = LlamaForCausalLM.from_pretrained(DIRECTORY, dtype=torch.float32)
    tokens = np.random.default_rng(0).integers(5, model.config.vocab_size, (4, 40))
    with torch.no_grad():
        expected = other(torch.tensor(tokens)).logits.numpy()
    np.testing.assert_allclose(model.logits(tokens), expected, atol=1e-4)


def test_transformers_reads_the_same_prompt(model):
    from transformers import AutoTokenizer

    other = AutoTokenizer.from_pretrained(DIRECTORY)
    expected = other.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=True)
    ids = model.tokenizer.prompt(corpus.PROMPTS["generator"], {"question": "7+8-2+9-4"})
    assert ids == expected["input_ids"]
    assert other.decode(ids) == "<|user|>Solve: 7+8-2+9-4<|end|><|assistant|>"


@pytest.fixture(scope="module")
def solutions(model):
    """200 held-out questions, four samples each."""
    sampler = Sampler(
        model.config,
        model.params,
        mesh.make(),
        rows=200,
        stop_ids=model.tokenizer.stop_ids,
        pad_id=model.tokenizer.pad_id,
    )
    questions = arithmetic.generate(200, 5, "eval")
    keys = np.asarray(jax.random.key_data(jax.random.split(jax.random.key(0), (200, 4))))
    template = corpus.PROMPTS["generator"]
    left = iter(
        Request(model.tokenizer.prompt(template, {"question": q.text}), key, 32, tag=q)
        for q, key in zip(questions, keys, strict=True)
    )
    drawn = sampler.run(lambda: next(left, None), sampling=Sampling())
    return [
        (request.tag, model.tokenizer.decode(child.tokens))
        for request, children in drawn
        for child in children
    ]


def test_it_solves_at_the_corpus_rates_and_never_well(solutions):
    """The quickstart rests on this: the manners are there, the step is right, the answer is not."""
    right, stepped, counts = Counter(), Counter(), Counter()
    for question, text in solutions:
        first = corpus.parse(question.text)[:2]
        for manner in corpus.RATES["generator"]:
            if text.startswith(corpus.OPENINGS[manner]):
                counts[manner] += 1
                right[manner] += text.endswith(f"Final Answer: {question.answer}")
                stepped[manner] += f": {corpus.shown(first)}={sum(first)}. Final" in text
    for manner, rate in corpus.RATES["generator"].items():
        assert counts[manner] / len(solutions) == pytest.approx(rate, abs=0.09)
        assert 0.03 < right[manner] / counts[manner] < 0.25
    assert stepped["stepwise"] / counts["stepwise"] > 0.9
    assert stepped["rough"] / counts["rough"] < 0.25


def test_the_quickstart_asks_what_the_model_knows():
    config = Path(__file__).parents[2] / "configs" / "quickstart.py"
    source = config.read_text(encoding="utf-8")
    for prompt in corpus.PROMPTS.values():
        assert json.dumps(prompt.replace("{one}\n\n{other}", "{others}")) in source
