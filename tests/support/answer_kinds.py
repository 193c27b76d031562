r"""Ways in which a completion states an answer, and ways in which it only seems to.

"%s" stands for the answer: a value of MATH in LaTeX or as it is typed, any reference of MATH, a
number; for CommonsenseQA {L}, {l}, {t} are the right choice's letter and text, {o}, {u} another's.
"""

import json
import re
from pathlib import Path

_KINDS = json.loads(Path(__file__).with_suffix(".json").read_text())
# Right: one value in LaTeX.
VALUES = _KINDS["values"]
# Right: any reference.
ANY = _KINDS["any"]
# Wrong: another value than the formula's, a bound, several values, or none.
NOT_VALUES = _KINDS["not_values"]
# Wrong, of any reference.
NOT_ANY = _KINDS["not_any"]
# Right: typed.
TYPED = _KINDS["typed"]
# Wrong: typed.
NOT_TYPED = _KINDS["not_typed"]
# Right: a number.
NUMBERS = _KINDS["numbers"]
# Wrong: a number.
NOT_NUMBERS = _KINDS["not_numbers"]
# Right: a letter.
LETTERS = _KINDS["letters"]
# Wrong: a letter.
NOT_LETTERS = _KINDS["not_letters"]


def said(kind: str, answer: str) -> str:
    """A completion of this kind."""
    return kind.replace("%s", answer)


def faulty(answer: str) -> str:
    """An answer with another first digit."""
    return re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), answer, count=1)


def typed(latex: str) -> str | None:
    """A formula as one types it without LaTeX; None where that is not known."""
    if re.search(r"\d\s*\\[dt]?frac", latex):
        return None  # a mixed number: 1 1/4 and 11/4 are two
    text = re.sub(r"\\left|\\right|\\!", "", latex).replace("\\,", " ")
    text = re.sub(r"\\pi\s*(?=\\sqrt)", "pi*", text)
    text = re.sub(r"\\[dt]?frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\sqrt\s*(\w)", r"\\sqrt{\1}", text.replace("dfrac", "frac"))
    for _ in range(3):
        text = re.sub(r"\\sqrt\{([^{}]*)\}", r"sqrt(\1)", text)
        text = re.sub(r"\\frac\{(\w+)\}\{(\w+)\}", r"\1/\2", text)
        text = re.sub(r"\\frac\{([^{}]*)\}\{(\w+)\}", r"(\1)/\2", text)
        text = re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"(\1)/(\2)", text)
    text = re.sub(r"\^\{([^{}]*)\}", r"^(\1)", text)
    text = text.replace("\\cdot", "*").replace("\\pi", "pi").replace("\\infty", "infinity")
    return None if "\\" in text or "{" in text else text
