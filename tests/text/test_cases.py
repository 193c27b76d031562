"""Tokenizer directories of strangers, read as transformers reads them: the handed ones, and others
of their kinds."""

import json
import os
import shutil
from pathlib import Path

import families
import pytest
import transformers

from malt_jax.models import gguf
from malt_jax.text.tokenizer import Tokenizer

MESSAGE = "What is 12 + 30?"


@pytest.fixture(scope="session")
def smollm2_json(smollm2_gguf, tmp_path_factory) -> Path:
    """The tokenizer.json that the SmolLM2 GGUF becomes."""
    directory = tmp_path_factory.mktemp("smollm2")
    gguf.tokenizer(gguf.open_file(smollm2_gguf)).save(directory)
    return directory / "tokenizer.json"


def theirs(directory: Path) -> list[int]:
    reader = transformers.AutoTokenizer.from_pretrained(directory)
    if reader.chat_template is None:
        return list(reader(MESSAGE)["input_ids"])
    chat = [{"role": "user", "content": MESSAGE}]
    return list(reader.apply_chat_template(chat, add_generation_prompt=True)["input_ids"])


@pytest.mark.parametrize(
    ("case", "stops"),
    [
        ("atd", (2,)),
        ("atj", (2,)),
        ("gen", (2,)),
        ("tools", (2,)),
        ("base", (0,)),
        ("gc1", (0, 2, 5)),
    ],
)
def test_the_handed_directories(cases, smollm2_json, tmp_path, case, stops):
    for file in (cases / "tokenizers" / case).iterdir():
        shutil.copy(file, tmp_path)
    shutil.copy(smollm2_json, tmp_path)
    tokenizer = Tokenizer.from_directory(tmp_path)
    ids = tokenizer.prompt("{question}", {"question": MESSAGE})
    assert ids == theirs(tmp_path)
    assert tokenizer.stop_ids == stops
    controls = {"atd": {49152, 49153, 2}, "atj": {49152, 49153, 2}}.get(case, set())
    assert controls <= set(ids)


def write(directory: Path, kind: str = "bytes", **named: object) -> Path:
    """A directory with one of the small tokenizers; `named` are JSON files."""
    families.fast(kind).save(str(directory / "tokenizer.json"))
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    named["tokenizer_config"] = special | named.get("tokenizer_config", {})
    for name, content in named.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (directory / f"{name}.json").write_text(text)
    return directory


ADDED = {"content": "<|user|>", "lstrip": False, "rstrip": False, "special": True}
ADDED |= {"normalized": False, "single_word": False}
SIZE = families.fast("bytes").get_vocab_size()


@pytest.mark.parametrize("flags", [{}, {"rstrip": True}, {"lstrip": True}, {"special": False}])
@pytest.mark.parametrize("kind", ["bytes", "first"])
def test_declared_tokens_are_control_tokens_with_their_flags(tmp_path, kind, flags):
    size = families.fast(kind).get_vocab_size()
    decoder = {str(size): ADDED | flags, str(size + 1): ADDED | {"content": "<|assistant|>"}}
    config = {"chat_template": families.ZEPHYR, "added_tokens_decoder": decoder}
    write(tmp_path, kind, tokenizer_config=config)
    tokenizer = Tokenizer.from_directory(tmp_path)
    assert {size, size + 1} <= tokenizer.control_ids
    ids = tokenizer.prompt("{question}", {"question": MESSAGE})
    assert ids == theirs(tmp_path)
    assert {size, size + 1} <= set(ids)
    assert not {size, size + 1} & set(tokenizer.encode("<|user|> <|assistant|>"))


def test_a_declared_id_that_no_token_gets_is_refused(tmp_path):
    write(tmp_path, added_tokens={"<|user|>": SIZE + 7})
    with pytest.raises(ValueError, match=rf"added_tokens.json: '<\|user\|>' .* id {SIZE + 7}.*"):
        Tokenizer.from_directory(tmp_path)


@pytest.mark.parametrize(
    ("generation", "config", "stops"),
    [
        ({"eos_token_id": [2, 4]}, {"eos_token_id": [3]}, (2, 4)),
        ({}, {"eos_token_id": [4, 3]}, (2, 3, 4)),
        (None, {"eos_token_id": 4}, (2, 4)),
        ({"eos_token_id": 4}, None, (2, 4)),
        (None, {"eos_token_id": None}, (2,)),
    ],
)
def test_stop_ids_are_those_of_transformers_generation_config(tmp_path, generation, config, stops):
    named = {"generation_config": generation, "config": config}
    write(tmp_path, **{name: fields for name, fields in named.items() if fields is not None})
    assert Tokenizer.from_directory(tmp_path).stop_ids == stops


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("generation_config", {"eos_token_id": [2, -1]}, r"generation_config.json.*-1"),
        ("generation_config", {"eos_token_id": "</s>"}, r"generation_config.json.*'</s>'"),
        ("config", {"eos_token_id": [True]}, r"config.json.*True"),
        ("config", {"eos_token_id": 2**40}, r"config.json.*1099511627776"),
        ("generation_config", "[1]", r"generation_config.json: expected a JSON object"),
        ("generation_config", '{"a": 1, "a": 2}', r"generation_config.json.*'a' stands twice"),
        ("generation_config", "[" * 100_000, r"generation_config.json: not JSON"),
        ("config", f'{{"a": {"9" * 5000}}}', r"config.json: not JSON"),
        ("tokenizer_config", {"eos_token": 5}, r"tokenizer_config.json: eos_token"),
        ("tokenizer_config", {"chat_template": 5}, r"tokenizer_config.json: chat_template"),
        ("tokenizer_config", {"chat_template": [{"name": "x"}]}, r"tokenizer_config.json: chat_t"),
        ("tokenizer_config", {"added_tokens_decoder": {"x": {}}}, r"added_tokens_decoder"),
        ("tokenizer_config", {"eos_token": "<nope>"}, r"eos_token '<nope>'"),
        ("added_tokens", {"<|user|>": "1"}, r"added_tokens.json: '<\|user\|>'"),
    ],
)
def test_files_that_are_not_in_order_are_named(tmp_path, name, content, words):
    write(tmp_path, **{name: content})
    with pytest.raises(ValueError, match=words) as caught:
        Tokenizer.from_directory(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json"]
)
def test_a_fifo_is_not_waited_for(tmp_path, name):
    write(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name}: not a regular file"):
        Tokenizer.from_directory(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'{"model": {"type": "BPE"}}'])
def test_a_broken_tokenizer_json_is_named(tmp_path, content):
    write(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"tokenizer.json: not a readable tokenizer"):
        Tokenizer.from_directory(tmp_path)


def test_a_broken_chat_template_is_named_with_its_file(tmp_path):
    write(tmp_path, tokenizer_config={"chat_template": "{% if %}"})
    with pytest.raises(ValueError, match=r"tokenizer_config.json: chat template: line 1"):
        Tokenizer.from_directory(tmp_path).prompt("{q}", {"q": "x"})
    (tmp_path / "chat_template.jinja").write_text("{{ messages.__class__.__mro__ }}")
    with pytest.raises(ValueError, match=r"chat_template.jinja: chat template: .*unsafe"):
        Tokenizer.from_directory(tmp_path).prompt("{q}", {"q": "x"})


@pytest.mark.parametrize("adds", [None, True, False])
def test_bos_stands_before_a_plain_message_as_in_transformers(tmp_path, adds):
    """The post-processor decides, and so it does in what is saved."""
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    Tokenizer.build(families.fast("first"), special, adds_bos=bool(adds)).save(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    fields = json.loads(file.read_text())
    if adds is None:
        del fields["add_bos_token"]
        file.write_text(json.dumps(fields))
    tokenizer = Tokenizer.from_directory(tmp_path)
    assert tokenizer.adds_bos == bool(adds)
    assert tokenizer.prompt("{q}", {"q": MESSAGE}) == theirs(tmp_path)


def test_texts_that_do_not_come_back_are_known():
    latin = families.tokenizer("bytes", None)
    assert latin.keeps("naïve — 12\n x̂ ﬁ")
    fast = families.fast("first")
    blueprint = json.loads(fast.to_str())
    blueprint["model"]["byte_fallback"] = False
    poor = Tokenizer.build(type(fast).from_str(json.dumps(blueprint)), {"eos_token": "</s>"})
    assert poor.keeps("What is 12 + 30?")
    assert not poor.keeps("What is 12 × 30?")


def test_an_added_token_that_strips_is_one_the_data_cannot_feed(tmp_path):
    decoder = {str(SIZE): ADDED | {"rstrip": True, "lstrip": True}}
    template = "{% for m in messages %}{{ m['content'] }} <|user|> {{ m['content'] }}{% endfor %}"
    config = {"chat_template": template, "added_tokens_decoder": decoder}
    write(tmp_path, tokenizer_config=config)
    tokenizer = Tokenizer.from_directory(tmp_path)
    spaced = f"  {MESSAGE} \n"
    ids = tokenizer.prompt("{question}", {"question": spaced})
    chat = [{"role": "user", "content": spaced}]
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert ids == reader.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    assert ids.count(SIZE) == 1
