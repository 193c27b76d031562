"""Small tokenizers of the three families that chat models have, trained on the prompts themselves:
byte-level BPE, and SentencePiece's BPE in its older and its newer form."""

import json
from functools import lru_cache

from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as FastTokenizer

from malt_jax.config import prompts
from malt_jax.text.tokenizer import Tokenizer

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] }}"
    "{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# Llama 3's: the message is stripped, and a control token comes first.
HEADERS = (
    "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m['role'] + '<|im_end|>\\n\\n'"
    " + m['content'] | trim + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_end|>\\n\\n' }}{% endif %}"
)
# Llama 2's and Mistral's: where [INST] is a token, and where it is text.
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + m['content'] + ' [/INST]' }}{% else %}{{ ' ' + m['content'] + eos_token }}"
    "{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'] + eos_token + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
NAMES = {
    "byte_level": ("bytes", (CHATML, HEADERS, ZEPHYR)),
    "prepending": ("prepend", (INST, ZEPHYR, HEADERS)),
    "metaspace_first": ("first", (INST, CHATML, ZEPHYR)),
    "metaspace_always": ("always", (INST, CHATML)),
    "inst_tokens": ("first+inst", (INST,)),
}
_CONTROL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|end|>"]
_TEXTS = [prompts.GENERATOR, prompts.VERIFIER, prompts.REFINER, prompts.DEBATER]
_TEXTS += ["What is 12 + 30? A train is 1,200 m long.\n\nFinal Answer: 42", "a number and the sum "]


@lru_cache
def fast(kind: str) -> FastTokenizer:
    """A tokenizer of one of the kinds in `NAMES`."""
    kind, _, inst = kind.partition("+")
    if kind == "bytes":
        made = FastTokenizer(models.BPE())
        made.normalizer = normalizers.NFC()
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        made.decoder = decoders.ByteLevel()
    else:
        made = FastTokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        alphabet = [chr(i) for i in range(33, 127)]
        made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    of_bytes = [] if kind == "bytes" else [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=[*_CONTROL, *of_bytes],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    made.train_from_iterator(_TEXTS, trainer)
    if kind == "prepend":
        made.pre_tokenizer = pre_tokenizers.Sequence([])
        made.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    elif kind != "bytes":
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind, split=False)
    tokens = [*_CONTROL, *(["[INST]", "[/INST]"] if inst else [])]
    return _only_control(made, tokens)


def _only_control(made: FastTokenizer, control: list[str]) -> FastTokenizer:
    """The bytes of the vocabulary are ordinary tokens."""
    blueprint = json.loads(made.to_str()) | {"added_tokens": []}
    again = FastTokenizer.from_str(json.dumps(blueprint))
    again.add_special_tokens([AddedToken(token, normalized=False) for token in control])
    return again


@lru_cache
def tokenizer(kind: str, template: str | None) -> Tokenizer:
    """With a chat template, or None."""
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return Tokenizer.build(fast(kind), special, chat_template=template)
