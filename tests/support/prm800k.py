r"""A grader of the PRM800K kind, written for the tests from what its authors describe.

The rules (Lightman et al., arXiv 2305.20050, and the notes published with its data): answers are
right if Hendrycks-style normalisation makes them the same string; else a second normalisation takes
LaTeX to plain text (text wrappers, dollar and percent signs, units, degrees, thousands separators,
mixed numbers, case), tuples and intervals must have the same brackets and the same number of parts,
and part by part: equal strings are equal; two fractions that differ as strings are not (answers are
to be reduced); an integer reference asks for an integer; else sympy must simplify the difference to
zero. It is meant to err on the side of refusing.
"""

import re

_UNITS = (
    "degree|cm|centimeter|meter|mile|second|minute|hour|day|week|month|year|foot|feet|inch|yard"
)


def grade(answer: str, reference: str) -> bool:
    """Whether `answer` counts as `reference`."""
    if _squeezed(answer) == _squeezed(reference):
        return True
    given, truth = _plain(answer), _plain(reference)
    if not given:
        return False
    if given == truth:
        return True
    ours, theirs = _parts(given), _parts(truth)
    if len(ours) != len(theirs):
        return False
    if len(theirs) > 1 and (given[0], given[-1]) != (truth[0], truth[-1]):
        return False
    return all(map(_same, ours, theirs))


def _squeezed(text: str) -> str:
    """LaTeX that looks the same as one string: no spacing, \\left, units in \\text; one spelling of
    fractions and roots; 0 before a point; what follows a short "x ="."""
    text = text.replace("\n", "").replace("\\!", "").replace("\\ ", "")
    text = text.replace("\\\\", "\\").replace("tfrac", "frac").replace("dfrac", "frac")
    text = text.replace("\\left", "").replace("\\right", "")
    text = re.sub(r"\^\{?\\circ\}?", "", text).replace("\\$", "").replace("\\%", "")
    text = text.partition("\\text{ ")[0]
    text = re.sub(r"(^|[ {])\.", r"\g<1>0.", text)
    head, _, tail = text.partition("=")
    text = tail if tail and "=" not in tail and len(head) <= 2 else text
    text = re.sub(r"\\sqrt(\w)", r"\\sqrt{\1}", text).replace(" ", "")
    text = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac(\d)\{", r"\\frac{\1}{", text)
    return re.sub(r"^(-?\d+)/(-?\d+)$", r"\\frac{\1}{\2}", text.replace("0.5", "\\frac{1}{2}"))


def _plain(text: str) -> str:
    """Plain text: fractions as (a)/(b), roots as sqrt(a), no braces, spaces or units."""
    text = re.sub(r"^\\text\{(.*)\}$", r"\1", text.strip())
    text = re.sub(r"\\[%$]|[%$]", "", text).replace(" or ", " , ").replace(" and ", " , ")
    text = re.sub(rf"(?:{_UNITS})(?:e?s)?\s*(?:\^\s*\d+)?", "", text)
    text = re.sub(r"\^\s*\{?\\circ\}?", "", text)
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    text = re.sub(r",\\!\s*", "", text)
    text = re.sub(r"\\(?:left|right|text|mathrm|mathbf)(?![a-z])", "", text)
    text = re.sub(r"\\[tdc]?frac(?![a-z])", r"\\frac", text)
    text = re.sub(r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"(?<=\d)\s*(?=\\frac)", "+", text)
    for _ in range(4):
        text = re.sub(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"(\1)/(\2)", text)
        text = re.sub(r"\\sqrt\s*\{([^{}]*)\}", r"sqrt(\1)", text)
    for latex, plain in (("\\pi", "pi"), ("\\infty", "inf"), ("\\cup", "U"), ("\\cdot", "*")):
        text = text.replace(latex, plain)
    text = re.sub(r"^(-?\d+)\s+(\d+/\d+)$", r"\1+\2", text.replace("√", "sqrt").replace("−", "-"))
    text = re.sub(r"\\[,;! ]|[\s{}\\]", "", text.replace("\\{", "").replace("\\}", "")).lower()
    if re.fullmatch(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?", text):
        text = text.replace(",", "")
    return str(int(float(text))) if re.fullmatch(r"-?\d{1,15}\.0*", text) else text


def _parts(text: str) -> list[str]:
    if len(text) > 2 and text[0] in "([" and text[-1] in ")]":
        inside = text[1:-1]
        if not set(inside) & set("()[]") and "," in inside:
            return inside.split(",")
    return [text]


def _same(given: str, truth: str) -> bool:
    if given == truth:
        return True
    fraction = r"\(?-?\d+\)?/\(?-?\d+\)?"
    if re.fullmatch(fraction, given) and re.fullmatch(fraction, truth):
        return False
    integer = r"-?\d+"
    if re.fullmatch(integer, truth) and not re.fullmatch(integer, given):
        return False
    if re.search(r"\^[{(]|\^\d{2}|\^\d+\^|[=<>_!]", given + truth):
        return False
    names = set(re.findall("[a-z]", re.sub("sqrt|frac|pi|inf", "", given + truth)))
    return len(names) <= 2 and _sympy_equal(given, truth)


def _sympy_equal(a: str, b: str) -> bool:
    import sympy
    from sympy.parsing import sympy_parser

    rules = (
        *sympy_parser.standard_transformations,
        sympy_parser.implicit_multiplication_application,
    )
    try:
        expression = sympy_parser.parse_expr(
            f"({a})-({b})".replace("^", "**"), transformations=rules
        )
        return bool(sympy.simplify(expression) == 0)
    except Exception:
        return False
