"""Which number a statement answers with, and the grader of every task whose answer is one."""

import itertools
import re
from fractions import Fraction

from malt_jax.tasks import extract, numeric
from malt_jax.tasks.extract import Rules, marked
from malt_jax.tasks.numeric import (
    BARE_PREFIX,
    BARE_SUFFIX,
    Number,
    canonical,
    clean,
    scan,
    unspaced,
    whole,
)
from malt_jax.tasks.task import Choices

# What follows a value to say that it is none.
DENIES_LAST = re.compile(
    r"(?:\s+[a-z]+){0,3}?[\s}]*(?:,\s*(?:which|that))?\s(?:(?:is|are|was|were|would\s+be)(?:\s+\w+ly)?(?:(?:n['\u2019]t|\s+not)"
    r"\s+(?:right|correct|it\b|possible|valid|allowed|enough|an?\s+(?:solution|answer|option)"
    r"|the\s+(?:\w+\s+)?(?:solution|answer))|\s+(?:wrong|incorrect|false|impossible|extraneous|invalid"
    r"|rejected)|\s+too\s+(?:many|much|few|little|large|small|big|high|low|long|short)(?!\s+by)\b)"
    r"|(?:cannot|can['\u2019]t)\s+(?:be\s+(?:right|correct|it\b|the\s+answer)|work)"
    r"|(?:does|do)(?:n['\u2019]t|\s+not)\s+(?:work|fit|satisfy|count)|fails?(?=[\s,.;]|$)"
    r"|(?:does|do|is|are)(?:n['\u2019]t|\s+not)(?=\s*(?:[.,;]|$)))",
    re.IGNORECASE,
)
# The rest of a measure behind its first number: " feet 6 inches".
MEASURE_GOES_ON = re.compile(
    r"\s*(?P<unit>feet|foot|ft|yards?|hours?|hrs?|h|minutes?|mins?|pounds?|lbs?|gallons?|quarts?|years?"
    r"|months?|weeks?|days?|met(?:er|re)s?|m|kilograms?|kg|km)\b\.?\s*(?:,\s*)?(?:and\s+)?"
    r"\d[\d.]*\s*(?!(?P=unit))(?:inch(?:es)?|in|feet|ft|minutes?|mins?|seconds?|secs?|s|ounces?|oz|quarts?|pints?"
    r"|months?|weeks?|days?|hours?|hrs?|centimet(?:er|re)s?|cm|grams?|g|met(?:er|re)s?|m)\b"
    r"(?!\s+(?:an?|per|each|every|long)\b)",
    re.IGNORECASE,
)
_ASIDE = re.compile(r"\([^()]*\)")
_EQUALS = re.compile(r"(?<![<>!])[=≈](?!>)|[-=]>|[\u2192\u21d2]")
_CALCULATOR = re.compile(r"<<[^<>]*>>")  # GSM8K's own
_SUM = re.compile(r"\d\s*[-+*/^x]\s*[$(]?\d", re.IGNORECASE)
# "30 - 23, which equals 7": words in the place of "=".
_WORKED_OUT = re.compile(
    r"(?P<sum>(?:\d\s*(?:[-+*/^x]|plus|minus|times|divided\s+by|(?:%\s?|percent\s)?of)"
    r"|\b(?:half|twice|double|triple)(?:\s+of)?)\s*[$(]?\d(?:[\d,]*\d)?(?:\.\d+)?"
    r"\)?%?(?:\s+[a-z]+){0,2}?)(?:\s*[,;(]+\s*|\s+)(?:(?:which|that|this|it)\s+)?"
    r"(?:is|equals|gives|giving|makes|making|leaves|leaving|yields|totals|so|i\.\s?e\.,?"
    r"|comes?\s+to|results?\s+in|resulting\s+in)\s+(?=[$€£]?-?[$€£]?\d)",
    re.IGNORECASE,
)
# Between two numbers of a list, with the next one's first character; "18,00" is none.
_BETWEEN = re.compile(r"[\s*_$€£]*(?:,\s|[;&]|,?\s+and\s)[\s*_$€£]*(?:-|\.|\d)?", re.IGNORECASE)
# What a sentence says besides its answer: "After 3 years", "of the 20 students", "Day 5:".
_REASON = re.compile(r"[,;]?\s+(?:because|since)\b", re.IGNORECASE)
_LEADING_CLAUSE = re.compile(
    r"\s*(?:if|when|since|because|as|given|after|while|with)\b[^,]*,(?!\d)", re.IGNORECASE
)
_TRAILING_CLAUSE = re.compile(
    r"[,;]?\s+(?:which|because|since|if|when|where|assuming|given|so that)\b", re.IGNORECASE
)
_BESIDE = re.compile(
    r"\b(?:after|before|in|for|of|to|from|per|every|each|over|during|within|on|at|with|by|between|than"
    r"|the|these|those|all|both|his|her|its|their|my|our|your|day|week|month|year|step|part|to\s+\w+)\s*"
    r"(?:(?:the|these|those|all|first|last|next|about)\s*)?[$€£]?$",
    re.IGNORECASE,
)
_STATES = re.compile(r"\b(?:is|are|equals)\b", re.IGNORECASE)
# Words and signs that make another value, or a bound, of the number after or before them.
_CHANGES_NEXT = re.compile(
    r"(?:\b(?:not|never|cannot(?:\s+be)?|except|excluding|but|half|twice|double|triple|thrice|than"
    r"|instead\s+of|below|above|under|over|between|exceeds?|(?:square|cube|root|percent)\s+of)\b"
    r"\s*(?:of\b\s*)?(?:the\b\s*)?|n['\u2019]t\s+(?:be\s+)?"
    r"|(?:±|\+/-)\s*|(?:sqrt|√|log|ln|sin|cos|tan)\s*[({]*|[<>≤≥≠]\s*|!=\s*)[$€£]?$",
    re.IGNORECASE,
)
_NUMBER_NEXT = r"\s*\(?[$€£]?\.?\d"
_CHANGES_LAST = re.compile(
    rf"\.\d|,(?!00(?!\d))\d|\s*(?:[-+*/^x:]|to|times|plus|minus|less|take\s+away|over|divided\s+by){_NUMBER_NEXT}"
    rf"|(?:\s+[a-z]+){{1,2}}\s*[+*]{_NUMBER_NEXT}|\s+\d[\d,.]*\s*$|\s*(?:±|\+/-|√)|\+\s*$"
    rf"|\s+(?:less|more|fewer|greater)\s+than{_NUMBER_NEXT}|\s+(?:vs\.?|versus){_NUMBER_NEXT}"
    rf"|(?:\s+degrees?)?\s+below\s+(?:zero|0)\b|\s+(?:ten|hundred|thousand|million)ths?\b"
    rf"|\s?(?:%|percent)\s+of{_NUMBER_NEXT}|\s*(?:squared|cubed|doubled|halved|tripled|to\s+the\s+power)\b|\s*[<>≤≥≠]|\s+e\d"
    r"|\s?(?:[xyz]|\\?pi|π)\s*(?:$|[.,;)+*/^=-])|!(?=\s*[-+*/^])",
    re.IGNORECASE,
)
_VERBS = re.compile(
    r"\s[^\d.;=]*\b(?:costs?|weighs?|holds?|contains?|shares?|earns?|pays?|equals?|totals?|makes?)\b"
    r"\s*(?:(?:about|only|exactly|a\s+total\s+of)\b\s*)?[$€£]?$",
    re.IGNORECASE,
)
_GOES_ON = re.compile(r"[^,.;]*\band\s*")
_IS_WHAT = re.compile(
    r"(?:\s+[a-z]+)?\s+(?:is|are|was|were)\s+(?:the|how|his|her|its|their|what|my|our)\b"
)
_LISTED_FIRST = re.compile(r"^\s*1[.)]\s+(?=[$€£]?-?\d)")
_NO_ANSWER = re.compile(r"^\W*no\s+(?:answer|solution)\b|\b(?:is|are)\s+no\s+solutions?\b", re.I)
_HASHES = re.compile(r"^\s*####(?!#)(.*)$", re.MULTILINE)
_SENTENCE_END = re.compile(r"[.!?;](?=\s)")


def stated(text: str) -> Fraction | None:
    """The number that a statement such as "Total = $18 per day" answers with.

    Remarks in parentheses, and reasons ("because 10 - 4 = 6"), are left out when a number stands
    outside them. Then the first of: the first number after the last "=" (before it in
    "18 = 9 * 2"), the number that the statement opens with, the first number after the first "is",
    "are" or "equals", and what a sentence answers with. So "3 apples and 2 pears" and "3 or 2" are
    both 3: naming two answers earns no more than naming the first. A number that the words beside
    it deny, bound or put into a sum ("not 18", "18 is wrong", "more than 18", "18 + 3") is no
    answer, nor is one that is withdrawn ("18? No, 20"), nor a bare list of different ones ("8, 6");
    what a sum is said to equal ("15 - 6, which is 9") is one.
    """
    text = clean(unspaced(_CALCULATOR.sub(" ", extract.corrected(text))))
    text = _WORKED_OUT.sub(r"\g<sum> = ", _LISTED_FIRST.sub("", text))
    outside = _ASIDE.sub(" ", text)
    if _first(outside):
        text = outside
    if _first(text) is None or _NO_ANSWER.search(text) or _is_list(text):
        return None
    statement = _REASON.split(text, maxsplit=1)[0]
    text = statement if _first(statement) else text
    left, *right_sides = _EQUALS.split(text)
    if right_sides and (result := _first(right_sides[-1])):
        worked_out = whole(left) if _SUM.search(right_sides[-1]) else None
        if worked_out is not None:
            return worked_out
        if whole(left) is not None and whole(right_sides[-1]) not in (None, whole(left)):
            return None  # 99 = 18
        return _unchanged(right_sides[-1], result)
    return _unchanged(*_main_number(text))


def _is_list(text: str) -> bool:
    """Whether a text is two or more numbers, not all of them equal, and nothing but separators."""
    numbers = list(scan(text))
    return (
        len({number.value for number in numbers}) > 1
        and bool(BARE_PREFIX.fullmatch(text, 0, numbers[0].start))
        and bool(BARE_SUFFIX.fullmatch(text, numbers[-1].end))
        and all(
            _BETWEEN.fullmatch(text, before.end, after.start + 1)
            for before, after in itertools.pairwise(numbers)
        )
    )


def _main_number(text: str) -> tuple[str, Number]:
    """The number that a sentence with some number answers with, and the part where it stands."""
    opening = next(scan(text))
    if BARE_PREFIX.fullmatch(text, 0, opening.start):
        verbs = (n for n in scan(text) if _VERBS.fullmatch(text, opening.end, n.start))
        return text, next(verbs, opening)
    if _IS_WHAT.match(text, opening.end):
        return text, opening
    text = _main_clause(text)
    _, *said = _STATES.split(text, maxsplit=1)
    if said and (number := _first(said[0])):
        return said[0], number
    return text, _answered(text)


def _unchanged(text: str, number: Number) -> Fraction | None:
    """The number's value; None if the words and signs beside it make another of it."""
    before = text[max(0, number.start - 40) : number.start]
    after = (_CHANGES_LAST, DENIES_LAST, MEASURE_GOES_ON)
    changed = _CHANGES_NEXT.search(before) or any(p.match(text, number.end) for p in after)
    return None if changed else number.value


def _main_clause(sentence: str) -> str:
    """What stands beside "If she works 8 hours," and ", which is 2 more", where it has a number."""
    main = _TRAILING_CLAUSE.split(sentence, maxsplit=1)[0]
    main = main if _first(main) else sentence
    clause = _LEADING_CLAUSE.match(main)
    rest = main[clause.end() :] if clause else ""
    return rest if _first(rest) else main


def _answered(sentence: str) -> Number:
    """The number that a sentence with some number is about: its last one in no phrase of time,
    place or belonging ("in 2 hours and 3 minutes")."""
    numbers = list(scan(sentence))
    free, end, beside = [], 0, False
    for number in numbers:
        before = sentence[max(end, number.start - 40) : number.start]
        beside = bool(_BESIDE.search(before) or (beside and _GOES_ON.fullmatch(before)))
        end = number.end
        if not beside and not sentence[end : end + 9].lstrip(" *").startswith(":"):
            free.append(number)
    return (free or numbers)[-1]


def read(text: str) -> str | None:
    """The canonical number of a marked answer."""
    value = stated(text)
    return None if value is None else canonical(value)


def last(text: str) -> str | None:
    """The fallback for an unmarked answer: the number after the last "answer is", "Answer:" or
    "####", else the last number of a text, in canonical form."""
    marked_lines = [line for line in _HASHES.findall(text) if whole(line) is not None]
    for statement in [*reversed(extract.stated(text)), *reversed(marked_lines)]:
        # "The answer is 18. I used 2 steps."
        said = extract.corrected(statement)
        if answer := read(_SENTENCE_END.split(said, maxsplit=1)[0]):
            return answer
        if said != statement:
            return None  # "18. No, that is wrong."
    numbers = list(scan(clean(text)))
    return canonical(numbers[-1].value) if numbers else None


def reference(answer: str, choices: Choices = ()) -> str | None:
    """The canonical number of a reference, marked or not, that has nothing but units after it."""
    marks = marked(answer)
    text = clean(unspaced(marks[0][0] if marks else answer))
    numbers = list(scan(text))
    if len(numbers) != 1 or not BARE_PREFIX.fullmatch(text, 0, numbers[0].start):
        return None
    return canonical(numbers[0].value)


def rules(answer: str, choices: Choices = ()) -> Rules:
    """How numbers are found, and held by value to this reference; without a mark the last number of
    a completion counts. Raises ValueError if the reference is no number."""
    truth = reference(answer)
    if truth is None:
        raise ValueError(f"reference answer {answer!r} is not a number")
    return Rules(truth, read, last, last, numeric.agree)


def _first(text: str) -> Number | None:
    return next(scan(text), None)
