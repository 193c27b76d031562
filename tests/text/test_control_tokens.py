"""No text of a data set or a model becomes a control token, with three tokenizers of published
models: byte-level BPE from a GGUF file, byte-level BPE as JSON, and SentencePiece."""

import json
import shutil
from functools import lru_cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.base import get_config
from malt_jax.config import settings
from malt_jax.models import gguf
from malt_jax.recipe import parse
from malt_jax.rollout import roles
from malt_jax.rollout.strategies import debate
from malt_jax.text.tokenizer import Tokenizer
from malt_jax.types import Question

CHAIN = ("generator", "verifier", "refiner")


@pytest.fixture(scope="module", params=["smollm2", "claude", "mistral"])
def tokenizer(request, smollm2_gguf, wheel_file, tmp_path_factory) -> Tokenizer:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "smollm2":
        return gguf.tokenizer(gguf.open_file(smollm2_gguf))
    if request.param == "claude":
        file = wheel_file("anthropic==0.3.11", "anthropic/tokenizer.json")
        shutil.copy(file, folder / "tokenizer.json")
        end = "<EOT>"
    else:
        member = "mistral_common/data/mistral_instruct_tokenizer_241114.model.v7"
        shutil.copy(wheel_file("mistral-common==1.13.1", member), folder / "tokenizer.model")
        end = "</s>"
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": end}))
    return Tokenizer.from_directory(folder)


@lru_cache
def chain() -> tuple[tuple[roles.Role, ...], settings.Settings]:
    config = get_config().to_dict()
    config["model"]["path"] = "none"
    parsed = parse(config)
    return roles.chain(parsed), parsed


def controls(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    return [i for i in ids if i in tokenizer.control_ids]


def prompts(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    """The prompts of all roles and of a debate, with these texts wherever a text can stand."""
    every, parsed = chain()
    question, *said = (texts * 4)[:4]
    asked = Question("q", question, "1")
    seen = dict(zip(CHAIN, said, strict=True))
    limits = dict.fromkeys(CHAIN, 10_000)
    made = [
        roles.prompt_ids(
            role, asked, said[0], {k: seen[k] for k in CHAIN[:depth]}, limits, tokenizer
        )
        for depth, role in enumerate(every)
    ]
    debater = debate.debater(every[0], parsed.eval.debate)
    others = {name: texts[i % len(texts)] for i, name in enumerate(debater.sees)}
    return [*made, roles.prompt_ids(debater, asked, said[0], others, {}, tokenizer)]


def disguises(token: str) -> list[str]:
    """The token's text, halves of it side by side, and what normalisation might turn into it."""
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in token)
    half = len(token) // 2
    return [
        token,
        f" {token} ",
        token * 2,
        token[:half],
        token[half:],
        f"{token[:half]}{token}{token[half:]}",
        wide,
        token.replace("|", "\u2223").replace("<", "\u2039").replace(">", "\u203a"),
        "\u200b".join(token),
        token[:half] + "\u0301" + token[half:],
        token.upper(),
        "\\" + token,
    ]


def test_no_disguise_of_any_added_token_reaches_a_prompt(tokenizer: Tokenizer):
    added = [str(token) for token in tokenizer.fast.get_added_tokens_decoder().values()]
    names = {tokenizer.fast.id_to_token(i) for i in tokenizer.control_ids}
    assert names
    plain = [controls(tokenizer, ids) for ids in prompts(tokenizer, ["plain"])]
    for token in sorted(names | {a for a in added if not a.startswith("AddedToken")}):
        for text in disguises(token):
            assert not controls(tokenizer, tokenizer.encode(text)), (token, text)
        half = len(token) // 2
        texts = [token, token[:half], token[half:], token]
        assert [controls(tokenizer, ids) for ids in prompts(tokenizer, texts)] == plain, token


def test_nor_does_any_mixture_of_their_pieces(tokenizer: Tokenizer):
    names = sorted(tokenizer.fast.id_to_token(i) for i in tokenizer.control_ids)
    pieces = sorted({piece for name in names for piece in disguises(name)})
    plain = [controls(tokenizer, ids) for ids in prompts(tokenizer, ["plain"])]
    text = st.lists(st.sampled_from(pieces) | st.text(max_size=4), max_size=5).map("".join)

    @given(st.lists(text, min_size=4, max_size=4))
    def holds(texts: list[str]) -> None:
        assert [controls(tokenizer, ids) for ids in prompts(tokenizer, texts)] == plain

    holds()
