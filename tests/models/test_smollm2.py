"""A real model end to end: SmolLM2-135M-Instruct and its tokenizer, held to transformers."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from malt_jax.models import Model, hf, load
from malt_jax.runtime import mesh
from malt_jax.sampler import Request, Sampler, Sampling

torch = pytest.importorskip("torch")

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
TEXTS = [
    "",
    " ",
    "\n\n\t x",
    "  leading and trailing  ",
    "I'd say they're 1,234.50 (or 12%), won't you?",
    "def f(x):\n    return {'a': [x ** 2, 0x1F]}  # done\r\n",
    "naïve café Straße — Ελληνικά 日本語 한국어 العربية 🙂👩‍👩‍👧 e\u0301",
    "\\boxed{\\frac{1}{2}} $x_1^{2}$ #### 42 <<48/2=24>>",
    "\x00\x1b\u200b\ufeff\U0010ffff",
    "٣x½ 12abc34",
]


@pytest.fixture(scope="module")
def model(smollm2_gguf) -> Model:
    return load(smollm2_gguf)


@pytest.fixture(scope="module")
def reference(smollm2_gguf):
    return transformers.AutoTokenizer.from_pretrained(
        smollm2_gguf.parent, gguf_file=smollm2_gguf.name
    )


@pytest.fixture(scope="module")
def questions(shared_data) -> list[str]:
    lines = (shared_data / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["question"] for line in lines]


def test_token_ids_equal_transformers_on_varied_text(model, reference):
    for text in TEXTS:
        assert model.tokenizer.encode(text) == reference(text)["input_ids"], repr(text)


def test_token_ids_equal_transformers_on_every_question(model, reference, questions):
    """Except where a number follows blanks that do not belong to it, in 16 questions.

    transformers has no entry for the `smollm` pre-tokenizer when it reads GGUF and takes GPT-2's,
    which leaves the last blank with the number. The model was trained with every digit apart.
    """
    assert len(questions) == 1319
    alike = [text for text in questions if not re.search(r"\s\s\d|¾", text)]
    assert len(alike) > 1300
    for text in alike:
        assert model.tokenizer.encode(text) == reference(text)["input_ids"], text


def test_digits_stand_apart_from_the_blanks_before_them(model):
    tokens = [model.tokenizer.fast.id_to_token(i) for i in model.tokenizer.encode("a   12 ½")]
    assert tokens == ["a", "ĠĠĠ", "1", "2", "Ġ", "Â½"]


def test_every_question_decodes_to_itself(model, questions):
    for question in questions:
        assert model.tokenizer.decode(model.tokenizer.encode(question)) == question


def test_every_control_token_becomes_ordinary_text(model):
    control = {model.tokenizer.fast.id_to_token(i) for i in model.tokenizer.control_ids}
    assert len(control) == 17
    assert {"<|im_start|>", "<|im_end|>", "<|endoftext|>", "<repo_name>"} < control
    for token in control:
        ids = model.tokenizer.encode(f"a {token} b{token}")
        assert not model.tokenizer.control_ids & set(ids)
        assert model.tokenizer.decode(ids) == f"a {token} b{token}"

    # The vocabulary lacks some control characters and the bytes that begin the fourth plane.
    texts = st.text(
        st.characters(max_codepoint=0x2FFFF, exclude_categories=["Cs", "Cc"]), max_size=9
    )

    @given(st.lists(st.one_of(texts, st.sampled_from(sorted(control)))))
    def in_any_text(parts):
        ids = model.tokenizer.encode("".join(parts))
        assert not model.tokenizer.control_ids & set(ids)
        assert model.tokenizer.decode(ids) == "".join(parts)

    in_any_text()


def test_prompts_equal_transformers_chat_template(model, reference):
    content = "Solve this:\nWhat is 2 + 2?\nEnd with \\boxed{}."
    chat = [{"role": "user", "content": content}]
    theirs = reference.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    template = "Solve this:\n{question}\nEnd with \\boxed{}."
    assert model.tokenizer.prompt(template, {"question": "What is 2 + 2?"}) == theirs
    assert SYSTEM in model.tokenizer.decode(theirs)
    assert model.tokenizer.stop_ids == (reference.convert_tokens_to_ids("<|im_end|>"),)
    assert model.tokenizer.end_id == model.tokenizer.stop_ids[0]


@pytest.mark.parametrize("layers", [2, pytest.param(30, marks=pytest.mark.slow)])
def test_greedy_continuations_equal_transformers_to_the_token(
    model, smollm2_gguf, questions, layers, tmp_path
):
    """Of the first layers, written as a model of their own; of the file itself, which transformers
    takes minutes to dequantise, in the slow test."""
    template = "{question}\nThink step by step and end with Final Answer: X"
    tokenizer = model.tokenizer
    prompts = [tokenizer.prompt(template, {"question": text}) for text in questions[:8]]
    config = replace(model.config, num_layers=layers)
    kept = {i: model.params["layers"][i] for i in range(layers)}
    params = model.params | {"layers": kept}
    sampler = Sampler(config, params, mesh.make(), 8, tokenizer.stop_ids, tokenizer.pad_id)
    key = np.zeros((1, 2), np.uint32)
    left = iter([Request(prompt, key, 64, tag=i) for i, prompt in enumerate(prompts)])
    rows = sampler.run(lambda: next(left, None), sampling=Sampling(temperature=0.0))
    ours = {request.tag: children[0].tokens for request, children in rows}

    source, file = smollm2_gguf.parent, smollm2_gguf.name
    if layers < model.config.num_layers:
        hf.save(tmp_path, config, params)
        source, file = tmp_path, None
    reference = transformers.AutoModelForCausalLM.from_pretrained(
        source, gguf_file=file, dtype=torch.float32
    ).eval()
    assert len(reference.model.layers) == layers
    width = max(map(len, prompts))
    padded = [[tokenizer.pad_id] * (width - len(prompt)) + prompt for prompt in prompts]
    real = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    with torch.no_grad():
        theirs = reference.generate(
            torch.tensor(padded),
            attention_mask=torch.tensor(real),
            max_new_tokens=64,
            do_sample=False,
            eos_token_id=list(tokenizer.stop_ids),
            pad_token_id=tokenizer.pad_id,
        )
    for index, row in enumerate(theirs[:, width:].tolist()):
        assert len(ours[index]) > 16
        assert ours[index] == row[: len(ours[index])]
        assert set(row[len(ours[index]) :]) <= {tokenizer.pad_id}
