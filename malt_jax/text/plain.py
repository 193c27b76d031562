"""Variants of a tokenizer: without its control tokens, for text that must never yield one; for
text that goes on; and for other programs."""

import json
from typing import Any

from tokenizers import Tokenizer as FastTokenizer
from tokenizers import processors


def without_control(fast: FastTokenizer) -> FastTokenizer:
    """The tokenizer without its added tokens, and without what they are called in the vocabulary
    and its merges. Ids stay as they are."""
    blueprint = json.loads(fast.to_str())
    control = {token["content"] for token in blueprint["added_tokens"]}
    blueprint |= {"added_tokens": [], "post_processor": None}
    model = blueprint["model"]
    hidden = control - {model.get("unk_token")}  # the model itself needs its unknown token
    if isinstance(model["vocab"], dict):
        model["vocab"] = {t: i for t, i in model["vocab"].items() if t not in hidden}
    else:  # Unigram: ids are places, so that a piece can only be made the worst of all
        worst = min(score for _, score in model["vocab"]) - 1e6
        model["vocab"] = [[t, worst if t in hidden else s] for t, s in model["vocab"]]
    if "merges" in model:
        model["merges"] = [pair for pair in model["merges"] if not hidden & {*pair, "".join(pair)}]
    return FastTokenizer.from_str(json.dumps(blueprint))


def not_first(fast: FastTokenizer) -> FastTokenizer:
    """The tokenizer for text that does not begin a whole text: SentencePiece's mark of a word is
    put in front of the first word alone."""
    blueprint = json.loads(fast.to_str())
    if not _unmark(blueprint["pre_tokenizer"]):
        return fast
    return FastTokenizer.from_str(json.dumps(blueprint))


def _unmark(pre_tokenizer: dict[str, Any] | None) -> bool:
    """Changes every such step in place; whether there was one."""
    if pre_tokenizer is None:
        return False
    if pre_tokenizer["type"] == "Sequence":
        return sum(_unmark(step) for step in pre_tokenizer["pretokenizers"]) > 0  # all of them
    if pre_tokenizer["type"] != "Metaspace" or pre_tokenizer.get("prepend_scheme") != "first":
        return False
    pre_tokenizer["prepend_scheme"] = "never"
    return True


def with_bos(fast: FastTokenizer, token: str | None) -> FastTokenizer:
    """The tokenizer that puts `token` in front of a plain text by itself, as other programs expect;
    `fast` as it is if it does so already or there is none."""
    bos = None if token is None else fast.token_to_id(token)
    if bos is None or fast.encode("").ids[:1] == [bos]:
        return fast
    changed = FastTokenizer.from_str(fast.to_str())
    changed.post_processor = processors.TemplateProcessing(
        single=[token, "$A"], pair=[token, "$A", "$B:1"], special_tokens=[(token, bos)]
    )
    return changed
