"""The wall between data and control tokens, and the chat conventions of a tokenizer."""

import json
import string
from pathlib import Path

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer

from malt_jax.text.tokenizer import Tokenizer

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] | trim"
    " + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# Control, and among them: inside the base vocabulary, the result of a merge, added but not special.
CONTROL = ("<|end|>", "<|im_start|>", "<|im_end|>", "<|sys|>", "<think>", "ab")


def byte_tokenizer(ignore_merges: bool = False) -> FastTokenizer:
    """Byte-level BPE with two merges, ab and cd; ab is a special token nevertheless."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<|end|>", "<|im_start|>", "<|im_end|>", *alphabet, "ab", "cd"]
    vocabulary = {word: i for i, word in enumerate(words)}
    bpe = models.BPE(vocabulary, [("a", "b"), ("c", "d")], ignore_merges=ignore_merges)
    fast = FastTokenizer(bpe)
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens(["<|im_start|>", "<|im_end|>", "<|sys|>", "ab"])
    fast.add_tokens([AddedToken("<think>", special=False)])
    return fast


def made(chat_template: str | None = CHATML, *, ignore_merges=False, **rest) -> Tokenizer:
    special = {"eos_token": "<|end|>", "bos_token": "<|im_start|>"}
    return Tokenizer.build(
        byte_tokenizer(ignore_merges), special, chat_template=chat_template, **rest
    )


TOKENIZER = made()
TEXT = st.lists(st.one_of(st.text(max_size=8), st.sampled_from(CONTROL))).map("".join)


def test_the_control_tokens_are_all_known():
    assert {TOKENIZER.fast.id_to_token(i) for i in TOKENIZER.control_ids} == set(CONTROL)
    assert TOKENIZER.control_ids & set(TOKENIZER.fast.encode("".join(CONTROL)).ids)


@given(TEXT)
def test_encode_never_yields_a_control_id_and_keeps_the_text(text):
    ids = TOKENIZER.encode(text)
    assert not TOKENIZER.control_ids & set(ids)
    assert TOKENIZER.decode(ids) == text


@pytest.mark.parametrize("text", CONTROL)
def test_no_control_token_survives_as_a_whole_word(text):
    """With ignore_merges a piece that stands in the vocabulary is taken before any merge."""
    tokenizer = made(ignore_merges=True)
    assert not tokenizer.control_ids & set(tokenizer.encode(text))
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_ordinary_text_is_encoded_as_ever():
    text = "a cd, über 12\n\n  <|im_en"
    assert TOKENIZER.encode(text) == TOKENIZER.fast.encode(text).ids
    assert TOKENIZER.fast.token_to_id("cd") in TOKENIZER.encode("cd")


def test_lone_surrogates_become_question_marks():
    assert TOKENIZER.decode(TOKENIZER.encode("a\ud83dz")) == "a?z"


def test_decode_leaves_special_tokens_out():
    ids = TOKENIZER.fast.encode("<|im_start|>hi<|im_end|><|end|>").ids
    assert len(ids) == 5
    assert TOKENIZER.decode(ids) == "hi"


def test_prompt_is_the_chat_template_with_the_fields_in_it():
    ids = TOKENIZER.prompt("Q: {question}\nA: {answer}", {"question": "1+1?", "answer": "2"})
    expected = "<|im_start|>user\nQ: 1+1?\nA: 2<|im_end|>\n<|im_start|>assistant\n"
    assert TOKENIZER.fast.decode(ids, skip_special_tokens=False) == expected
    assert ids[0] == TOKENIZER.fast.token_to_id("<|im_start|>")


@given(TEXT)
def test_a_field_stands_between_the_two_halves_of_the_chat(text):
    before, after = "<|im_start|>user\nQ: ", "!<|im_end|>\n<|im_start|>assistant\n"
    assert TOKENIZER.prompt("Q: {question}!", {"question": text}) == [
        *TOKENIZER.fast.encode(before).ids,
        *TOKENIZER.encode(text),
        *TOKENIZER.fast.encode(after).ids,
    ]


def test_fields_are_not_filled_twice():
    ids = TOKENIZER.prompt("{a}|{b}", {"a": "{b}", "b": "\ue000a\ue001"})
    assert "{b}|\ue000a\ue001" in TOKENIZER.decode(ids)


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("\\boxed{} {q}", "\\boxed{} Q"),
        ("\\boxed{42} {q}", "\\boxed{42} Q"),
        ("\\frac{{a}}{{b}} {q}", "\\frac{a}{b} Q"),
        ("{ q } {{q}} {q}", "{ q } {q} Q"),
        ("{q}{q}", "QQ"),
    ],
)
def test_braces(template, filled):
    assert filled in TOKENIZER.decode(TOKENIZER.prompt(template, {"q": "Q"}))


@pytest.mark.parametrize(
    ("template", "fields", "message"),
    [
        ("{question}", {}, r"\{question\} has no field.*\{\{question\}\}"),
        ("hi", {"question": "x"}, "'question' has no placeholder"),
        ("{{question}}", {"question": "x"}, "no placeholder"),
        ("\ue000", {}, "reserved"),
    ],
)
def test_placeholders_and_fields_must_agree(template, fields, message):
    with pytest.raises(ValueError, match=message):
        TOKENIZER.prompt(template, fields)


def test_a_chat_template_that_drops_the_message_is_refused():
    with pytest.raises(ValueError, match="drops the field 'q'"):
        made("{{ 'hello' }}").prompt("{q}", {"q": "x"})


def test_without_a_chat_template_the_message_follows_the_bos_token_if_there_is_one():
    plain = made(None, adds_bos=True)
    bos = plain.fast.token_to_id("<|im_start|>")
    assert plain.prompt("Q {q}", {"q": "x"}) == [bos, *plain.encode("Q "), *plain.encode("x")]
    assert made(None).prompt("Q {q}", {"q": "x"})[0] != bos
    assert plain.end_id == plain.fast.token_to_id("<|end|>")


def test_the_clock_of_chat_templates_stands_still():
    template = "{{ strftime_now('%d %b %Y') }} {{ messages[0]['content'] }}"
    assert TOKENIZER.decode(made(template).prompt("{q}", {"q": "x"})) == "26 Jul 2024 x"


def test_chat_templates_are_sandboxed():
    with pytest.raises(Exception, match="unsafe"):
        made("{{ messages.__class__.__mro__ }}").prompt("{q}", {"q": "x"})


def test_end_and_stop_ids():
    end, turn = (TOKENIZER.fast.token_to_id(t) for t in ("<|end|>", "<|im_end|>"))
    assert TOKENIZER.end_id == turn
    assert TOKENIZER.stop_ids == (end, turn)
    assert made(also_stops=[7]).stop_ids == (end, turn, 7)
    assert TOKENIZER.pad_id == turn
    refusing = CHATML + "{% if messages | length > 1 %}{{ raise_exception('one') }}{% endif %}"
    assert made(refusing).end_id == end


def test_a_special_token_without_an_id_is_refused():
    with pytest.raises(ValueError, match=r"eos_token '<nope>'"):
        Tokenizer.build(byte_tokenizer(), {"eos_token": "<nope>"})
    with pytest.raises(ValueError, match="eos_token is missing"):
        Tokenizer.build(byte_tokenizer(), {})


def test_saving_keeps_everything_and_transformers_agrees(tmp_path):
    original = made(also_stops=[7], adds_bos=True)
    original.save(tmp_path)
    again = Tokenizer.from_directory(tmp_path)
    text = string.printable + "<|im_end|> ü 12"
    assert again.encode(text) == original.encode(text)
    assert again.stop_ids == original.stop_ids
    assert (again.end_id, again.pad_id) == (original.end_id, original.pad_id)
    assert (again.vocab_size, again.adds_bos) == (original.vocab_size, True)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    chat = [{"role": "user", "content": "cd über 12?"}]
    rendered = theirs.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    assert rendered == again.prompt("{q}", {"q": "cd über 12?"})
    assert theirs.eos_token == "<|end|>"


def write(directory: Path, **files: dict) -> None:
    byte_tokenizer().save(str(directory / "tokenizer.json"))
    for name, content in files.items():
        (directory / f"{name}.json").write_text(json.dumps(content))


def test_a_directory_as_hugging_face_writes_them(tmp_path):
    eos = {"content": "<|end|>", "lstrip": False, "special": True}
    named = [{"name": "tool", "template": "x"}, {"name": "default", "template": CHATML}]
    write(
        tmp_path,
        tokenizer_config={"eos_token": eos, "chat_template": named, "pad_token": None},
        generation_config={"eos_token_id": [0, 2, 5]},
    )
    read = Tokenizer.from_directory(tmp_path)
    assert read.stop_ids == (0, 2, 5)
    assert read.chat_template == CHATML
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0]['content'] }}<|end|>")
    assert Tokenizer.from_directory(tmp_path).end_id == 0


def test_code_that_comes_with_a_tokenizer_is_refused(tmp_path):
    write(tmp_path, tokenizer_config={"eos_token": "<|end|>", "auto_map": {"AutoTokenizer": "t.T"}})
    with pytest.raises(ValueError, match=r"tokenizer_config.json.*auto_map"):
        Tokenizer.from_directory(tmp_path)


def test_a_directory_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"neither tokenizer\.json nor tokenizer\.model"):
        Tokenizer.from_directory(tmp_path)
