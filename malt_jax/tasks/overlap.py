"""Whether a question stands in another set of questions as well."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from malt_jax.types import Question

NGRAM = 13

# As in Pandoc, a dollar sign opens a formula before a character that is not a space, and closes it
# after one and not before a digit: "$3 and $5" is two prices.
_FORMULA = r"\$\$.+?\$\$|\\\[.+?\\\]|\$(?=\S)[^$]*?(?<=\S)\$(?!\d)"
_DELIMITERS = re.compile(r"^(?:\$+|\\\[)|(?:\$+|\\\])$|\s")
_TOKEN = re.compile(_FORMULA + r"|\d+(?:[.,]\d+)*|[^\W\d_]+|[^\w\s]|_", re.DOTALL)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3})")
_QUOTES = str.maketrans("\u2018\u2019\u201c\u201d", "''\"\"")
_IS_WORD = re.compile(r"[\w+\-*/=<>^\\]")
_HAS_VALUE = re.compile(r"[\d+\-*/=<>^\\]")
_NUMBER_WORD = re.compile(
    r"zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven"
    r"|eigh|nine)teen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty|hundred|thousand|million|dozen"
    r"|half|third|quarter|twice|thrice|double|triple"
)

Overlap = Literal["overlap_exact", "overlap_ngram"]


def tokens(text: str) -> list[str]:
    """Words, numbers, punctuation marks and LaTeX formulas, without case, spacing, quote style."""
    matches = _TOKEN.findall(text.translate(_QUOTES).casefold())
    return [_DELIMITERS.sub("", _THOUSANDS.sub("", t)).rstrip(".,;") or t for t in matches]


def key(text: str) -> str:
    """The normalised text, by which duplicates and exact overlaps are found."""
    return " ".join(tokens(text))


class OverlapIndex:
    """Finds what a question shares with a fixed set of questions.

    Exactly: equal `key`s. By n-gram: a run of 13 words in common (a number or a formula is a word,
    punctuation is not), where the numbers and formulas of one of the two questions, in order and
    with number words, are a subsequence of the other's. The second condition keeps apart problems
    made from one template, which share long runs and differ in a number. A question of fewer than
    13 words has no such run and overlaps exactly or not at all.
    """

    def __init__(self, questions: Iterable[Question]) -> None:
        self._keys: set[str] = set()
        self._numbers_by_gram: dict[tuple[str, ...], list[list[str]]] = {}
        for question in questions:
            of_question = tokens(question.text)
            self._keys.add(" ".join(of_question))
            words = _words(of_question)
            for gram in set(_grams(words)):
                self._numbers_by_gram.setdefault(gram, []).append(_numbers(words))

    def find(self, text: str) -> Overlap | None:
        of_text = tokens(text)
        if " ".join(of_text) in self._keys:
            return "overlap_exact"
        words = _words(of_text)
        numbers = _numbers(words)
        for gram in _grams(words):
            for others in self._numbers_by_gram.get(gram, ()):
                shorter, longer = sorted((numbers, others), key=len)
                if _is_subsequence(shorter, longer):
                    return "overlap_ngram"
        return None


def _words(tokens: Sequence[str]) -> list[str]:
    return [token for token in tokens if _IS_WORD.match(token)]


def _grams(words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return (tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1))


def _numbers(words: Sequence[str]) -> list[str]:
    return [word for word in words if _HAS_VALUE.search(word) or _NUMBER_WORD.fullmatch(word)]


def _is_subsequence(shorter: Sequence[str], longer: Sequence[str]) -> bool:
    rest = iter(longer)
    return all(item in rest for item in shorter)
