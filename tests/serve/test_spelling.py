"""Text that is shown while it is drawn is, piece by piece, the text of all tokens."""

import families
import pytest
import small
from hypothesis import given
from hypothesis import strategies as st

from malt_jax.serve.spelling import Spelling
from malt_jax.text.tokenizer import Tokenizer

KINDS = ["bytes", "prepend", "first", "always"]
TEXT = "It's 12 + 30 = 42 – é, 漢字 and 😀.\n\n  Final Answer: 42"


def spelled(tokenizer: Tokenizer, passes: list[list[int]], stop=()) -> tuple[Spelling, list[str]]:
    spelling = Spelling(tokenizer, stop)
    return spelling, [*(spelling.feed(ids) for ids in passes), spelling.end()]


def cut(ids: list[int], sizes: list[int]) -> list[list[int]]:
    """The ids in passes of these sizes, as long as there are some."""
    passes, at = [], 0
    for size in [*sizes, len(ids)]:
        passes.append(ids[at : at + size])
        at += size
    return passes


@pytest.mark.parametrize("kind", KINDS)
@given(sizes=st.lists(st.integers(0, 7), max_size=40))
def test_the_pieces_are_the_whole_text_wherever_passes_end(kind, sizes):
    tokenizer = families.tokenizer(kind, None)
    ids = tokenizer.encode(TEXT)
    spelling, shown = spelled(tokenizer, cut(ids, sizes))
    assert "".join(shown) == spelling.text == tokenizer.decode(ids)
    assert spelling.tokens == len(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_no_piece_ends_inside_a_character(kind):
    tokenizer = families.tokenizer(kind, None)
    ids = tokenizer.encode(TEXT)
    _, shown = spelled(tokenizer, [[i] for i in ids])
    assert not any("\ufffd" in piece for piece in shown)


def test_control_tokens_are_not_shown_and_cost_no_space():
    tokenizer = families.tokenizer("first", None)
    ids, end = tokenizer.encode("one two three"), tokenizer.end_id
    mixed = [i for token in ids for i in (token, end)]
    _, shown = spelled(tokenizer, [[i] for i in mixed])
    assert "".join(shown) == tokenizer.decode(ids) == "one two three"


@pytest.mark.parametrize(
    ("stop", "text", "tokens"),
    [
        (("cde",), "ab", 5),  # over three tokens
        (("f",), "abcde", 6),
        (("xyz",), "abcdefgh", 8),
        (("gh!",), "abcdefgh", 8),  # begun, and not come to
        (("def", "b"), "a", 2),  # the one that comes first
        (("abc",), "", 3),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 8])
def test_a_stop_string_ends_the_text_before_it(stop, text, tokens, size):
    """And counts the tokens up to its end, whatever more the pass drew."""
    tokenizer = small.tokenizer()
    spelling, shown = spelled(tokenizer, cut(tokenizer.encode("abcdefgh"), [size] * 8), stop)
    assert "".join(shown) == spelling.text == text
    assert spelling.tokens == tokens
    assert spelling.stopped == (tokens < 8 or text == "")


def test_what_may_become_a_stop_string_is_held_back():
    tokenizer = small.tokenizer()
    spelling = Spelling(tokenizer, ("\n\nQ:",))
    assert spelling.feed(tokenizer.encode("one\n")) == "one"
    assert spelling.feed(tokenizer.encode("\nA")) == "\n\nA"
    assert spelling.feed(tokenizer.encode("\n\nQ: two")) == ""
    assert spelling.stopped
