"""Prompts are, id for id, what transformers' chat templates make of the same message: every shipped
prompt, with three families of tokenizers."""

from functools import lru_cache

import families
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from malt_jax import recipe
from malt_jax.config import prompts
from malt_jax.models import gguf
from malt_jax.text import placeholders
from malt_jax.text.tokenizer import Tokenizer

KINDS = [(kind, template) for kind, templates in families.NAMES.values() for template in templates]
QUESTION = "  A train is 1,200 m long.\nIt's 12 (or 30?) wagons of a café – how long is each?\n"
ANSWERS = ("12 + 30 = 42\n\nFinal Answer: 42", " The step is right.\n", "", "123456 a\t\tb\n\n\n")


@lru_cache
def shipped() -> list[str]:
    """The prompts of every recipe's roles and debaters."""
    parsed = [recipe.parse(recipe.load(name).to_dict()) for name in recipe.names()]
    of_roles = [role.prompt for settings in parsed for role in settings.roles.values()]
    debaters = [settings.eval.debate.prompt for settings in parsed]
    texts = [prompts.GENERATOR, prompts.VERIFIER, prompts.REFINER, prompts.DEBATER]
    return list(dict.fromkeys([*texts, *of_roles, *debaters]))


def reference(tokenizer: Tokenizer) -> transformers.PreTrainedTokenizerFast:
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.fast, **tokenizer.special
    )
    theirs.chat_template = tokenizer.chat_template
    return theirs


def whole(theirs: transformers.PreTrainedTokenizerFast, text: str) -> list[int]:
    chat = [{"role": "user", "content": text}]
    return theirs.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]


def filled(template: str, shift: int = 0) -> dict[str, str]:
    texts = {"question": QUESTION, "hint": "a number"}
    names = placeholders.fields(template)
    return {
        name: texts.get(name, ANSWERS[(i + shift) % len(ANSWERS)]) for i, name in enumerate(names)
    }


def test_there_are_prompts_to_compare():
    assert len(shipped()) >= 4
    assert any("{hint}" in prompt for prompt in shipped())


@pytest.mark.parametrize(("kind", "template"), KINDS)
def test_every_shipped_prompt_is_the_whole_texts_ids(kind, template):
    tokenizer = families.tokenizer(kind, template)
    theirs = reference(tokenizer)
    for prompt in shipped():
        for shift in range(len(ANSWERS)):
            fields = filled(prompt, shift)
            message = placeholders.fill(prompt, fields.__getitem__)
            assert tokenizer.prompt(prompt, fields) == whole(theirs, message), prompt


@pytest.mark.parametrize(("kind", "template"), KINDS)
def test_any_text_in_a_field_is_as_in_the_whole(kind, template):
    tokenizer = families.tokenizer(kind, template)
    theirs = reference(tokenizer)
    plain = st.text(st.characters(codec="ascii", exclude_characters="<[\x1c\x1d\x1e\x1f"))

    @given(plain, plain)
    def holds(first: str, second: str) -> None:
        prompt = "Is {a}{b}? It is{b}: {a}."
        fields = {"a": first, "b": second}
        message = placeholders.fill(prompt, fields.__getitem__)
        assert tokenizer.prompt(prompt, fields) == whole(theirs, message)

    holds()


@pytest.mark.parametrize("kind", ["bytes", "prepend", "first", "always"])
def test_without_a_chat_template_the_message_is_a_plain_text(kind):
    tokenizer = families.tokenizer(kind, None)
    fields = filled(prompts.GENERATOR)
    message = placeholders.fill(prompts.GENERATOR, fields.__getitem__)
    assert tokenizer.prompt(prompts.GENERATOR, fields) == tokenizer.fast.encode(message).ids


@pytest.mark.parametrize(("kind", "template"), KINDS)
@pytest.mark.parametrize("text", ["</s>", "<|im_end|>", "<s>[INST] x", "<unk>", "[/INST]", "é</s>"])
def test_the_text_of_a_control_token_stays_text(kind, template, text):
    tokenizer = families.tokenizer(kind, template)
    prompt = "Q{a}{b}. Then {a}!"

    def controls(first: str, second: str) -> list[int]:
        ids = tokenizer.prompt(prompt, {"a": first, "b": second})
        return [i for i in ids if i in tokenizer.control_ids]

    plain = controls("x", "y")
    assert controls(text, text) == plain
    for cut in range(1, len(text)):  # two fields side by side that make it up
        assert controls(text[:cut], text[cut:]) == plain
    said = tokenizer.decode(tokenizer.prompt(prompt, {"a": text, "b": ""}), control=True)
    assert said.replace(" ", "").count(text.replace(" ", "")) >= 2


@pytest.mark.parametrize(("kind", "template"), KINDS)
def test_a_prompt_has_no_more_ids_than_its_room(kind, template):
    tokenizer = families.tokenizer(kind, template)
    for prompt in shipped():
        fields = filled(prompt)
        room = tokenizer.overhead(prompt) + sum(len(tokenizer.encode(t)) for t in fields.values())
        once = len(placeholders.fields(prompt)) == prompt.count("{")
        assert not once or len(tokenizer.prompt(prompt, fields)) <= room


def test_the_hint_joins_the_words_round_it():
    """Encoded apart, "is a" was "is", " " and "a"."""
    tokenizer = families.tokenizer("bytes", families.CHATML)
    ids = tokenizer.prompt("X is {hint} and", {"hint": "a number"})
    assert [tokenizer.fast.id_to_token(i) for i in ids].count("Ġ") == 0


def test_smollm2_reads_every_shipped_prompt_as_in_transformers(smollm2_gguf):
    tokenizer = gguf.tokenizer(gguf.open_file(smollm2_gguf))
    theirs = reference(tokenizer)
    for prompt in shipped():
        fields = filled(prompt)
        message = placeholders.fill(prompt, fields.__getitem__)
        assert tokenizer.prompt(prompt, fields) == whole(theirs, message)


TURNS = [("user", " What is 2+2?\n"), ("assistant", "4, é. "), ("user", "  And {question}?")]


@pytest.mark.parametrize(("kind", "template"), KINDS)
@pytest.mark.parametrize("turns", [TURNS[:1], TURNS])
def test_a_conversation_is_the_whole_texts_ids(kind, template, turns):
    tokenizer = families.tokenizer(kind, template)
    chat = [{"role": role, "content": text} for role, text in turns]
    ids = reference(tokenizer).apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    assert tokenizer.conversation(turns) == ids


@pytest.mark.parametrize(("kind", "template"), KINDS)
@pytest.mark.parametrize("text", ["</s>", "<|im_end|>", "[/INST]"])
def test_no_turn_brings_a_control_token_in(kind, template, text):
    tokenizer = families.tokenizer(kind, template)

    def controls(said: str) -> list[int]:
        turns = [("user", said), ("assistant", said), ("user", said)]
        return [i for i in tokenizer.conversation(turns) if i in tokenizer.control_ids]

    assert controls(text) == controls("x")


def test_a_conversation_without_a_chat_template_is_a_line_a_turn():
    tokenizer = families.tokenizer("bytes", None)
    whole_text = "\n".join(text for _, text in TURNS)
    assert tokenizer.decode(tokenizer.conversation(TURNS)) == whole_text


def test_a_turn_that_the_chat_template_leaves_out_is_named():
    tokenizer = families.tokenizer(KINDS[0][0], "{{ messages[-1]['content'] }}")
    with pytest.raises(ValueError, match=r"chat template: leaves out turn 1 \(user\)"):
        tokenizer.conversation(TURNS)
