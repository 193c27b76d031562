"""CommonsenseQA (Talmor et al., arXiv 1811.00937): one of five choices, named by its letter."""

import re
from collections.abc import Mapping, Sequence

from malt_jax.tasks.extract import Rules, marked
from malt_jax.tasks.task import Choices, Hub, Row, Task, id_field, text_field
from malt_jax.types import Question

_LETTERS: Choices = tuple((letter, "") for letter in "ABCDE")
_LABELLED = re.compile(r"\(?([A-Za-z])\s*(?:[).:,]|\s-\s)\s*(\S.*)?$", re.DOTALL)
# An opening "A" is more often the article than the choice.
_CAPITAL = re.compile(r"[B-Z](?![\w'\u2019])|A(?=\s+(?:because|since|as|is|and|or)\b)")
_IN_PARENTHESES = re.compile(r"\(\s*([A-Za-z])\s*\)")
_ANSWER_IS = re.compile(
    r"\b(?:(?:answer|choice|option)[\s*_]+is\b\s*:?|answer[\s*_]*[:\uff1a])(.*?)(?=\.(?:\s|$)|\n|$)",
    re.IGNORECASE,
)
# A letter that stands alone; "A" may be the article and "I" the pronoun.
_ALONE = re.compile(
    r"(?<![\w'\u2019(-])(?:[B-HJ-Z]|A(?!\s+(?!is\b|because\b|since\b|fits\b)[a-z]))(?![\w'\u2019-])"
)
# Letters that are named to be ruled out: "(A) and (B) are wrong", "neither A nor B", "not (A)".
_LETTER = r"(?:(?i:option|choice|answer)\s+)?(?:\([A-Za-z]\)|(?<![\w'\u2019])[A-Z](?![\w'\u2019]))"
_SERIES = rf"{_LETTER}(?:(?:\s*,\s*|\s+)(?:(?:and|or|nor)\s+)?{_LETTER}){{0,5}}"
_RULED_OUT = re.compile(
    rf"\b(?i:(?:\w+n['\u2019]t|cannot|can\s+not)(?:\s+be)?|not(?:\s+(?:be|go))?(?:\s+(?:at|in|to|from))?|neither|never|rather\s+than"
    rf"|instead\s+of|(?:anything|any|all|everything)\s+but|unlike(?:ly)?|except|exclud(?:e|ing)"
    rf"|avoid(?:ing)?|eliminat(?:e|ing)|reject(?:ing)?|rul(?:e|ing)\s+out|discard(?:ing)?|skip(?:ping)?"
    rf"|ignor(?:e|ing)|dismiss(?:ing)?|doubt(?:\s+(?:that\s+)?it(?:\s+is|['\u2019]s))?|opposite\s+of|over"
    rf"|(?:wrong|incorrect|worst|bad)\s+(?:answers?|choices?|options?)(?:\s+(?:is|are))?:?"
    rf")\s+(?:the\s+|an?\s+)?{_LETTER}"
    rf"(?:(?:\s*,\s*{_LETTER}){{0,5}}\s*,?\s+(?:and|or|nor)\s+{_LETTER}){{0,5}}"
    rf"|{_SERIES}\s+(?:is|are|was|were|can|could|does|do|would|will|has|have)(?:n['\u2019]?t|\s*not|\s+never)\b"
    r"[^.;,]*"
    rf"|{_SERIES}\s+(?:won['\u2019]t\b|has\s+nothing\b)[^.;,]*"
    rf"|{_SERIES}\s+(?:can|could|should|must|may)\s+be\s+"
    r"(?:ruled\s+out|eliminated|excluded|discarded|rejected|dismissed|ignored)\b"
    rf"|{_SERIES}(?:,\s+which\s+is|\s+that\s+is)\s+(?:wrong|incorrect|false)\b"
    rf"|{_SERIES}\??\s*[-:\u2013]?\s*(?:\w+ly\s+)?(?i:not|no|wrong|incorrect|false)(?=[.,;!]|\s*$)"
    rf"|\b(?i:rul(?:e|ing)\s+out|eliminat(?:e|ing)|exclud(?:e|ing)|discard(?:ing)?)\s+{_SERIES}(?=\s*[:;])"
    rf"|{_SERIES}\s+(?:(?:may|might|would|could)\s+be|is|are|was|were|seems?|looks?)\s+"
    r"(?:\w+ly\s+|both\s+|all\s+|also\s+)?(?:an?\s+|the\s+)?(?:worst|least\s+\w+|wrong|incorrect|false|out|ruled\s+out|mistake|trap|distractor"
    r"|eliminated|excluded|unlikely|irrelevant|unrelated|poor|bad|weak|worse"
    r"|(?:tempting|possible|plausible|close)(?=,?\s+but\b))\b(?:\s+choice\b)?"
    rf"|{_SERIES}(?:\s+makes?\s+no\s+sense|\s+fails?|\??,?\s+[Nn]o)\b"
    r"(?!\s+(?:doubt|question|matter|other|one)\b)"
    rf"|\b(?i:although|though|while)\s+{_SERIES}\s+(?:is|are|may|might|could)\b[^,]*,"
)
_REASON = re.compile(r",?\s+(?:because|since|as|unlike)\b", re.IGNORECASE)
_LATEX_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}")
_MATH = re.compile(r"\\[()\[\]]")
_OPENING = re.compile(
    r"^(?:the\s+)?(?:correct\s+|right\s+|best\s+)?(?:answer|choice|option)\s*(?:is)?\s*:?\s*", re.I
)
_LISTED = re.compile(r"^\(([A-Z])\) (.*)$", re.MULTILINE)
_EDGES = " \t\r\n\"'`*_$.,;:!?"


def read_row(row: Row) -> Question:
    """Reads the published nested form (`question.stem`) and the hub's flat columns."""
    question = row.get("question")
    if isinstance(question, Mapping):
        stem, choices = text_field(question, "stem"), _read_choices(question.get("choices"))
    else:
        stem, choices = text_field(row, "question"), _read_choices(row.get("choices"))
    listing = "\n".join(f"({label}) {text}" for label, text in choices)
    text = f"{stem.strip()}\n{listing}" if stem.strip() else ""
    return Question(id_field(row, "id"), text, text_field(row, "answerKey"), choices)


def read(text: str, choices: Choices) -> str | None:
    """The letter that a marked answer names by letter or by the choice's text.

    In this order: the whole text is a choice's text or a letter; it opens with a letter set off by
    punctuation ("B) library", "(B) library") or followed by that choice's text; a letter in
    parentheses, the first; the only choice whose text occurs in it as whole words, where a choice
    within a longer one found there does not count; a capital that opens it; the only letter that
    stands alone in it. What is ruled out, by letter or text ("(A) is wrong", "not a bank"), is
    passed over. Where letter and text disagree the letter counts. Of choices with equal texts the
    first one's letter stands for all.
    """
    labels = choices or _LETTERS
    text = _MATH.sub(" ", _LATEX_TEXT.sub(r"\1", text)).strip(_EDGES)
    text = _OPENING.sub("", text).strip(_EDGES)
    lettered = _lettered(text, labels)
    ruled_out = lettered != text and _RULED_OUT.search(lettered)
    text = _without_ruled_out(lettered if ruled_out else text, labels)
    reasoned = _REASON.split(text, maxsplit=1)[0]
    label = _named(reasoned, labels) or _named(text, labels)
    return _first_of_equals(label, labels) if label else None


def _named(text: str, labels: Choices) -> str | None:
    return (
        _by_whole_text(text, labels)
        or _by_opening(text, labels)
        or next(filter(None, (_label(m, labels) for m in _IN_PARENTHESES.findall(text))), None)
        or _by_mention(text, labels)
        or _label(_capital(text), labels)
        or _by_letter(text, labels)
    )


def fallback(text: str, choices: Choices) -> str | None:
    """What follows the last "answer is" (or "choice is") or "Answer:", else the last letter in
    parentheses that is not ruled out, else the only line that is a letter, a choice or both, else
    the only letter of a completion of one line."""
    for statement in reversed(_ANSWER_IS.findall(text)):
        if label := read(statement, choices):
            return label
    labels = choices or _LETTERS
    text = _without_ruled_out(text, labels)
    for letter in reversed(_IN_PARENTHESES.findall(text)):
        if label := _label(letter, labels):
            return _first_of_equals(label, labels)
    lines = [_MATH.sub(" ", line).strip(_EDGES) for line in text.splitlines()]
    named = {_by_whole_text(line, labels) or _by_opening(line, labels) for line in lines} - {None}
    if len(named) == 1 and (label := named.pop()):
        return _first_of_equals(label, labels)
    label = _by_letter(lines[0], labels) if len(lines) == 1 else None
    return _first_of_equals(label, labels) if label else None


def anywhere(text: str, choices: Choices) -> str | None:
    """What `fallback` finds, else what the last line that names a choice says."""
    if label := fallback(text, choices):
        return label
    return next(filter(None, (read(line, choices) for line in reversed(text.splitlines()))), None)


def reference(answer: str, choices: Choices = ()) -> str | None:
    marks = marked(answer)
    return read(marks[0][0] if marks else answer, choices)


def rules(answer: str, choices: Choices = ()) -> Rules:
    """How a letter is found, and held to this reference; without `choices` the letters A to E, and
    the text of an answer "(A) bank".

    Raises:
        ValueError: if the reference answer names none of the choices.
    """
    labelled = _LABELLED.match(answer.strip())
    if not choices and labelled and labelled[2]:
        letter = labelled[1].upper()
        choices = tuple((a, labelled[2] if a == letter else "") for a, _ in _LETTERS)
    truth = reference(answer, choices)
    if truth is None:
        raise ValueError(f"reference answer {answer!r} names none of the choices {choices}")
    return Rules(
        truth,
        lambda text: read(text, choices),
        lambda text: fallback(text, choices),
        lambda text: anywhere(text, choices),
        str.__eq__,
    )


def listed(question: str) -> Choices:
    """The choices that a question's text lists, as `read_row` writes them."""
    return tuple(_LISTED.findall(question))


def _without_ruled_out(text: str, choices: Choices) -> str:
    """A text without the letters that it names to rule them out, or because it lists them all."""
    shortest = sum(len(label) + len(choice) for label, choice in choices)
    if all(choice for _, choice in choices) and len(text) >= shortest:  # compiling takes long
        listing = (rf"\(?{label}[).:]*\s*{re.escape(choice)}" for label, choice in choices)
        text = re.sub(r"[\s,;.]+(?:(?:and|or)\s+)?".join(listing), " ", text, flags=re.IGNORECASE)
    return _RULED_OUT.sub(" ", text).strip(_EDGES)


def _lettered(text: str, choices: Choices) -> str:
    """A text with "(C)" in the place of the third choice's words, and of "(C) " before them: what
    rules out a letter rules out the choice."""
    said = text.casefold()
    named = [pair for pair in choices if pair[1].strip() and pair[1].casefold() in said]
    for label, choice in sorted(named, key=lambda pair: -len(pair[1])):
        head = rf"(?:\({label}\)|\b{label}[).:])\s*"
        text = re.sub(
            rf"(?:{head})?(?<![\w(]){re.escape(choice)}(?!\w)", f"({label})", text, flags=re.I
        )
    return text


def _by_whole_text(text: str, choices: Choices) -> str | None:
    words = _words(text)
    for label, choice in choices:
        if words and words == _words(choice):
            return label
    return _label(text.strip("()[] "), choices)


def _by_opening(text: str, choices: Choices) -> str | None:
    if (match := _LABELLED.match(text)) and (label := _label(match[1], choices)):
        return label
    head, _, rest = text.partition(" ")
    label = _label(head.strip("()"), choices)
    named = [choice for other, choice in choices if other == label]
    return label if named and _words(rest) and _words(rest) == _words(named[0]) else None


def _by_mention(text: str, choices: Choices) -> str | None:
    said = f" {_words(text)} "
    named = {_words(choice) for _, choice in choices if f" {_words(choice)} " in said} - {""}
    longest = [a for a in named if not any(a != b and f" {a} " in f" {b} " for b in named)]
    if len(longest) != 1:
        return None
    return next(label for label, choice in choices if _words(choice) == longest[0])


def _by_letter(text: str, choices: Choices) -> str | None:
    alone = {_label(letter, choices) for letter in _ALONE.findall(text)} - {None}
    return alone.pop() if len(alone) == 1 else None


def _capital(text: str) -> str:
    head = _CAPITAL.match(text)
    return head[0] if head else ""


def _label(letter: str, choices: Choices) -> str | None:
    return next((label for label, _ in choices if letter and label == letter.upper()), None)


def _first_of_equals(label: str, choices: Choices) -> str:
    words = {a: _words(text) for a, text in choices}
    if not words[label]:
        return label
    return next(a for a in words if words[a] == words[label])


def _words(text: str) -> str:
    return " ".join(re.findall(r"[\w']+", text.casefold()))


def _read_choices(listed: object) -> Choices:
    if isinstance(listed, Mapping) and {"label", "text"} <= listed.keys():
        listed = [
            {"label": label, "text": text}
            for label, text in zip(listed["label"], listed["text"], strict=True)
        ]
    if not isinstance(listed, Sequence) or not all(isinstance(c, Mapping) for c in listed):
        raise ValueError("field 'choices' must list objects with a 'label' and a 'text'")
    return tuple((text_field(c, "label").strip(), text_field(c, "text").strip()) for c in listed)


TASK = Task(
    name="csqa",
    hub=Hub("tau/commonsense_qa", None, {"train": "train", "eval": "validation"}),
    answer_hint="the letter of the right choice",
    read_row=read_row,
    reference=reference,
    rules=rules,
    choices=listed,
)
