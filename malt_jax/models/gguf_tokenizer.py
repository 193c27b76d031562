"""The tokenizer of a GGUF file."""

from dataclasses import replace
from typing import Any

from absl import logging
from gguf import GGUFReader, TokenType
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer

from malt_jax.models.gguf_metadata import architecture, named, needed, path, value
from malt_jax.text.tokenizer import Tokenizer

_GPT2_SPLIT = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPECIAL = {
    "bos": "bos",
    "eos": "eos",
    "unk": "unknown",
    "pad": "padding",
    "eot": "eot",
    "eom": "eom",
}
_PRE = {"qwen2": "qwen2", "qwen3": "qwen2"}  # where a file does not say how text is split
# The metadata has places for some of the tokens that end a text; Qwen's published generation
# configs name this one as well.
_FAMILY_STOPS = {"qwen2": "<|endoftext|>", "qwen3": "<|endoftext|>"}
_BYTE_SPLITS = {"llama-bpe": _LLAMA3_SPLIT, "qwen2": _LLAMA3_SPLIT.replace("{1,3}", "")}


def _pre_tokenizer(kind: str) -> pre_tokenizers.PreTokenizer | None:
    if kind in ("default", "gpt-2", "gpt2"):
        return _GPT2_SPLIT
    if kind == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, _GPT2_SPLIT])
    if kind in _BYTE_SPLITS:
        split = pre_tokenizers.Split(Regex(_BYTE_SPLITS[kind]), behavior="isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return pre_tokenizers.Sequence([split, byte_level])
    return None


@named
def tokenizer(reader: GGUFReader) -> Tokenizer:
    """Builds the tokenizer from the metadata: byte-level BPE, split as tokenizer.ggml.pre says or,
    where it is missing, as the architecture's tokenizers do. It stops at eos, eot and eom.

    Raises ValueError naming the key for other kinds of tokenizer.
    """
    if (model := value(reader, "tokenizer.ggml.model")) != "gpt2":
        raise ValueError(
            f"{path(reader)}: tokenizer.ggml.model: {model!r} is not supported, only 'gpt2'"
            " (byte-level BPE); use the Hugging Face directory"
        )
    arch = architecture(reader)
    if (kind := value(reader, "tokenizer.ggml.pre", _PRE.get(arch))) is None:
        logging.warning(
            "%s: tokenizer.ggml.pre is missing; text is split as by GPT-2, which gives other ids"
            " than the model was trained on if its tokenizer splits otherwise",
            path(reader),
        )
        kind = "default"
    pre_tokenizer = _pre_tokenizer(kind)
    if pre_tokenizer is None:
        raise ValueError(
            f"{path(reader)}: tokenizer.ggml.pre: {kind!r} is not one of 'gpt-2', 'smollm',"
            " 'llama-bpe', 'qwen2'; use the Hugging Face directory"
        )
    tokens: list[str] = needed(reader, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ", 1)) for merge in needed(reader, "tokenizer.ggml.merges")]
    types = value(reader, "tokenizer.ggml.token_type", [TokenType.NORMAL] * len(tokens))
    vocabulary = {token: i for i, token in enumerate(tokens)}
    # Llama 3 takes a piece that is a token as it stands, before any merging.
    fast = FastTokenizer(models.BPE(vocabulary, merges, ignore_merges=kind == "llama-bpe"))
    if kind == "qwen2":
        fast.normalizer = normalizers.NFC()
    fast.pre_tokenizer = pre_tokenizer
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens(_added(tokens, types, TokenType.CONTROL))
    fast.add_tokens(_added(tokens, types, TokenType.USER_DEFINED))
    ids = {name: value(reader, f"tokenizer.ggml.{key}_token_id") for name, key in _SPECIAL.items()}
    if wrong := [f"{name} {i}" for name, i in ids.items() if not _is_id(i, tokens)]:
        raise ValueError(f"{path(reader)}: tokenizer.ggml: {wrong[0]} is not a token's id")
    stops = [vocabulary[token] for token in [_FAMILY_STOPS.get(arch)] if token in vocabulary]
    special = {name: i for name, i in ids.items() if i is not None}
    stops += [special.pop(name) for name in ("eot", "eom") if name in special]
    built = Tokenizer.build(
        fast,
        {f"{name}_token": tokens[i] for name, i in special.items()},
        chat_template=value(reader, "tokenizer.chat_template"),
        adds_bos=bool(value(reader, "tokenizer.ggml.add_bos_token", kind == "llama-bpe")),
        also_stops=stops,
    )
    return replace(built, origin=str(path(reader)))


def _is_id(i: Any, tokens: list[str]) -> bool:
    return i is None or (isinstance(i, int) and 0 <= i < len(tokens))


def _added(tokens: list[str], types: list[int], wanted: TokenType) -> list[AddedToken]:
    special = wanted == TokenType.CONTROL
    return [
        AddedToken(token, normalized=False, special=special)
        for token, kind in zip(tokens, types, strict=True)
        if kind == wanted
    ]
