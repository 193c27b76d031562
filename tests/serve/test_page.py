"""The page as a real browser shows it, over a backend whose texts are attacks; skipped where there
is no Chromium."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import chromium
import pytest
from serving import FakeBackend, Served, serving

from malt_jax.serve.backend import Options

ATTACK = "<img/src=x/onerror=window.hacked=1> <b>{role}</b> {answer}"
TOKEN = "0123456789abcdef"
CARDS = "[...document.querySelectorAll('article:first-child .ask:last-child .card')]"
TEXTS = f"{CARDS}.map((e) => e.querySelector('pre').textContent)"
STATES = f"{CARDS}.map((e) => e.querySelector('.state').textContent)"
ANSWERED = "article:first-child .ask:last-child .answer"


@dataclass
class Attacking(FakeBackend):
    def text(self, role: str, run: int, options: Options) -> str:
        return ATTACK.format(role=role, answer=self._answers(options)[run])


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    program = chromium.find()
    if program is None:
        pytest.skip("needs chromium on PATH (apt-get install chromium)")
    with chromium.browser(program, tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(Attacking()) as running:
        yield running


@pytest.fixture
def page(browser: chromium.Page, served: Served) -> Iterator[chromium.Page]:
    """The page, opened anew; at the end no script failed and the policy held."""
    served.backend.asked.clear()
    browser.errors.clear()
    browser.screen(1200)
    browser.open(served.url)
    browser.until("document.getElementById('team').textContent.includes('→')")
    yield browser
    assert browser.errors == []
    assert browser.violations() == []
    assert browser.run("window.hacked === undefined")
    assert browser.run("document.querySelectorAll('img, b').length") == 0


def ask(page: chromium.Page, question: str = "1+1", **fields: Any) -> None:
    """Fills the form and presses Enter in it."""
    for name, value in {"question": question, **fields}.items():
        page.run(f"document.getElementById('{name}').value = {json.dumps(str(value))}")
    press(page, "Enter", "document.getElementById('question')")


def press(page: chromium.Page, key: str, where: str = "document.activeElement") -> None:
    event = f"new KeyboardEvent('keydown', {{key: '{key}', bubbles: true, cancelable: true}})"
    page.run(f"{where}.dispatchEvent({event})")


def click(page: chromium.Page, card: int, words: str) -> None:
    page.run(
        f"[...{CARDS}[{card}].querySelectorAll('button')]"
        f".find((e) => e.textContent === '{words}').click()"
    )


def answered(page: chromium.Page, asks: int = 1) -> str:
    page.until(f"document.querySelectorAll('.ask').length === {asks}")
    text: str = page.until(f"document.querySelector('{ANSWERED}')?.textContent")
    return text


def test_the_roles_write_and_what_they_write_stays_text(page: chromium.Page) -> None:
    ask(page, "<i>1+1</i>", seed=7)
    assert answered(page) == "7"
    roles = ("generator", "verifier", "refiner")
    assert page.run(TEXTS) == [ATTACK.format(role=role, answer=7) for role in roles]
    assert page.run(STATES) == ["3 tokens"] * 3
    assert page.run("document.querySelector('h2').textContent") == "<i>1+1</i>"
    assert page.run("document.querySelector('.verdict').textContent") == "the critique agrees"
    assert page.run("document.getElementById('status').textContent") == "Answer: 7"


def test_escape_stops_what_is_written(page: chromium.Page, served: Served) -> None:
    ask(page, "slow")
    page.until("document.querySelector('.card.writing pre')?.textContent")
    press(page, "Escape")
    page.until("document.querySelector('h3 .state').textContent === 'stopped'")
    assert page.run("document.getElementById('stop').disabled")
    ask(page, "2+2")
    assert answered(page, 2) == "0"
    assert served.backend.under_way == 0


def test_votes_are_counted_and_the_pass_that_answers_is_marked(page: chromium.Page) -> None:
    ask(page, votes=3, seed=4)
    assert answered(page) == "4"
    votes = page.run("[...document.querySelectorAll('.votes li')].map((e) => e.textContent)")
    assert votes == ["42 of 3", "51 of 3"]
    wins = f"{CARDS}.map((e, i) => e.classList.contains('wins') ? i : -1).filter((i) => i >= 0)"
    assert page.run(f"{CARDS}.length") == 9
    assert page.run(wins) == [2]


def test_an_edited_critique_is_gone_on_from(page: chromium.Page, served: Served) -> None:
    ask(page, seed=1)
    answered(page)
    click(page, 1, "Edit")
    page.run(f"{CARDS}[1].querySelector('textarea').value = 'wrong: 2'")
    click(page, 1, "Go on from this")
    answered(page, 2)
    generated = ATTACK.format(role="generator", answer=1)
    options = served.backend.asked[-1][1]
    assert options.written == {"generator": generated, "verifier": "wrong: 2"}
    assert options.seed == 1
    assert page.run(STATES) == ["kept", "edited", "3 tokens"]
    assert page.run(TEXTS)[:2] == [generated, "wrong: 2"]


def test_another_sample_is_drawn_of_any_role(page: chromium.Page, served: Served) -> None:
    ask(page, seed=1)
    answered(page)
    click(page, 1, "Another sample")
    answered(page, 2)
    options = served.backend.asked[-1][1]
    assert list(options.written) == ["generator"]
    assert options.seed != 1
    click(page, 0, "Another sample")
    answered(page, 3)
    assert not served.backend.asked[-1][1].written
    last = f"[...{CARDS}[2].querySelectorAll('button')].map((e) => e.textContent)"
    assert page.run(last) == ["Another sample"], "after the last role nobody writes"


def test_an_edit_can_be_thrown_away(page: chromium.Page) -> None:
    ask(page)
    answered(page)
    for away in ("Cancel", "Escape"):
        click(page, 0, "Edit")
        if away == "Escape":
            press(page, "Escape", f"{CARDS}[0].querySelector('textarea')")
        else:
            click(page, 0, away)
        assert page.run("document.activeElement.textContent") == "Edit"
    assert page.run("document.querySelectorAll('.ask').length") == 1


def test_base_and_trained_stand_side_by_side(page: chromium.Page, served: Served) -> None:
    page.run("document.getElementById('compare').click()")
    ask(page)
    answered(page, 2)
    page.until("document.querySelectorAll('.answer').length === 2")
    assert {options.trained for _, options in served.backend.asked} == {True, False}
    tops = "[...document.querySelectorAll('.ask')].map((e) => e.getBoundingClientRect().top)"
    assert len(set(page.run(tops))) == 1


def test_the_transcript_is_exported(page: chromium.Page) -> None:
    page.run("window.saved = []; URL.createObjectURL = (blob) => { saved.push(blob); return '#'; }")
    ask(page, "```\n# 1+1", seed=3, votes=2)
    answered(page)
    for kind in ("json", "markdown"):
        page.run(f"document.getElementById('as-{kind}').click()")
    written, text = page.run("Promise.all(saved.map((blob) => blob.text()))")
    ((question),) = json.loads(written)
    assert question["question"] == "```\n# 1+1"
    (only,) = question["asks"]
    assert only["options"] == {"votes": 2, "seed": 3, "trained": True}
    assert only["passes"][1]["verifier"]["text"] == ATTACK.format(role="verifier", answer=3)
    assert only["answered"]["votes"] == {"3": 2}
    assert "````text\n```\n# 1+1\n````" in text
    assert "**refiner**, pass 2, written:" in text


def test_a_failure_is_told(page: chromium.Page) -> None:
    ask(page, "boom")
    page.until(
        "document.querySelector('.failed')?.textContent === 'the server failed; its log says how'"
    )


def test_a_token_is_asked_for_where_one_is_needed(browser: chromium.Page) -> None:
    with serving(token=TOKEN) as served:
        browser.open(served.url)
        browser.until("!document.getElementById('locked').hidden")
        browser.run(
            f"document.getElementById('token').value = '{TOKEN}';"
            "document.getElementById('token').dispatchEvent(new Event('change'))"
        )
        browser.until("document.getElementById('team').textContent.includes('→')")
        ask(browser)
        assert answered(browser) == "0"


def test_everything_is_reached_by_keyboard_and_named(page: chromium.Page) -> None:
    ask(page)
    answered(page)
    controls = "[...document.querySelectorAll('input, textarea, button, pre')]"
    label = "e.labels?.[0]?.textContent || e.getAttribute('aria-label') || e.textContent"
    assert all(page.run(f"{controls}.map((e) => ({label}).trim())"))
    assert page.run(f"{controls}.every((e) => e.tabIndex === 0)")
    assert page.run("document.getElementById('status').getAttribute('aria-live')") == "polite"


@pytest.mark.parametrize("width", [390, 1300])
def test_the_page_never_scrolls_sideways(page: chromium.Page, width: int) -> None:
    page.screen(width)
    ask(page, "1+1=" * 100, votes=2)
    answered(page)
    assert page.run("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_both_themes(page: chromium.Page, scheme: str) -> None:
    """WCAG AA asks for 4.5 to 1."""
    page.screen(1200, scheme)
    assert min(page.contrasts()) >= 4.5
