"""The page as a real browser shows it, with a comparison in which two titles are attacks; skipped
where there is no Chromium."""

from collections.abc import Iterator
from pathlib import Path

import chromium
import pytest
from planted import ATTACK, CHAIN, SYSTEMS, tree, write_json, write_run, write_trees
from planted_comparison import comparison

from malt_jax import report

LISTED = """new Promise((done) => {
  const wait = () => document.querySelector(".tree") ? done(true) : setTimeout(wait, 20);
  wait();
})"""
OPEN = """(async () => {
  for (const query of [".tree", ".node", ".node .node", ".node .node .node"]) {
    const details = document.querySelector(query);
    await new Promise((done) => {
      details.addEventListener("toggle", done, { once: true });
      details.open = true;
    });
  }
  return [...document.querySelectorAll(".node[open] > .completion")].map((e) => e.textContent);
})()"""
SHOWN = "[...document.querySelectorAll('.tree')].filter((e) => !e.hidden).length"
RELEASE = (
    "document.getElementById('filters').dispatchEvent(new Event('input')); "
    "new Promise((done) => setTimeout(done, 400))"
)
COUNT = "document.getElementById('shown').textContent"
REMEMBERED = "new Promise((done) => setTimeout(() => done(location.hash), 300))"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[chromium.Page, Path]]:
    program = chromium.find()
    if program is None:
        pytest.skip("needs chromium on PATH (apt-get install chromium)")
    folder = tmp_path_factory.mktemp("run")
    write_run(folder)
    write_trees(folder / "eval" / "malt", tree("held-out", n=1))
    planted = comparison()
    for row in (planted["rows"][0], planted["rows"][12]):  # a system and an ablation
        row["title"] = ATTACK
    write_json(folder / "comparison.json", planted)
    with chromium.browser(program, tmp_path_factory.mktemp("profile")) as page:
        yield page, report.write(folder)


@pytest.fixture
def page(opened: tuple[chromium.Page, Path]) -> chromium.Page:
    """The report, opened anew."""
    page, index = opened
    page.errors.clear()
    page.screen(1200)
    page.open(index)
    page.run(LISTED)
    return page


@pytest.fixture
def view(opened: tuple[chromium.Page, Path]) -> chromium.Page:
    """The report with a tree unfolded, for tests that change nothing in it; opened anew where
    another test has had it before."""
    page, index = opened
    page.screen(1200)
    if not page.run("window.unchanged === true"):
        page.open(index)
        page.run(LISTED)
        page.run(OPEN)
        page.run("window.unchanged = true")
    return page


def test_the_tree_unfolds_and_model_text_stays_text(page: chromium.Page) -> None:
    texts = page.run(OPEN)
    assert len(texts) == 3
    assert all(text.startswith(ATTACK) for text in texts)
    assert page.run("document.title") == "MALT on arithmetic, tiny-llama-2m"
    assert page.run("document.querySelectorAll('img, pre script, pre b').length") == 0
    assert page.errors == []
    assert page.violations() == []


def test_values_stand_as_numbers_beside_their_colour(page: chromium.Page) -> None:
    page.run(OPEN)
    chips = "[...document.querySelectorAll('.tree[open] .node > summary .chip')]"
    assert page.run(f"{chips}.map((e) => e.textContent)[0]") == "0.56"  # 5 of 9 leaves are even
    colours = page.run(
        f"{chips}.filter((e) => ['0.00', '1.00'].includes(e.textContent))"
        ".map((e) => e.textContent + getComputedStyle(e).backgroundColor)"
    )
    assert len(set(colours)) == 2


def choose(page: chromium.Page, **values: str) -> None:
    for name, value in values.items():
        page.run(f"document.forms.filters.elements.{name}.value = '{value}'")
    page.run(RELEASE)


def tick(page: chromium.Page, kind: str, on: bool = True) -> None:
    page.run(f"document.querySelector('[value={kind}]').checked = {str(on).lower()}; {RELEASE}")


def press(page: chromium.Page, *keys: str) -> None:
    for key in keys:
        page.run(
            "document.activeElement.dispatchEvent("
            f"new KeyboardEvent('keydown', {{key: '{key}', bubbles: true, cancelable: true}}))"
        )


def test_the_search_looks_into_questions_answers_and_texts(page: chromium.Page) -> None:
    assert page.run(SHOWN) == 60
    choose(page, q="NAÏVE 数学")
    assert page.run(COUNT) == "1 of 90 shown"
    choose(page, q="ann has 12 apples")
    assert page.run(SHOWN) == 1
    choose(page, q="step one of refiner [2, 2, 2]")
    assert page.run(SHOWN) > 50
    choose(page, q="no such words")
    assert page.run(COUNT) == "0 of 90 shown"
    page.run("document.getElementById('reset').click()")
    assert page.run(f"new Promise((done) => setTimeout(() => done({SHOWN}), 400))") == 60


def test_all_trees_can_be_reached(page: chromium.Page) -> None:
    assert page.run(COUNT) == "90 of 90 shown, the first 60 are listed"
    page.run("document.getElementById('more').click(); new Promise((d) => setTimeout(d, 300))")
    assert page.run(SHOWN) == 90
    assert page.run("document.getElementById('more').hidden")
    assert page.run(COUNT) == "90 of 90 shown"


def test_the_trained_teams_answers_are_a_forest_of_their_own(page: chromium.Page) -> None:
    page.run(f"document.querySelector('[name=of][value=trained]').checked = true; {RELEASE}")
    assert page.run(COUNT) == "1 of 1 shown"
    assert page.run("document.querySelector('[data-kind=unsolved]').textContent") == "0"
    texts = page.run(OPEN)
    assert texts[0].startswith("Step one of generator")
    assert page.run(REMEMBERED) == "#trees?of=trained&tree=held-out"
    page.run("location.hash = '#trees?q=apples'")
    page.run("new Promise((done) => setTimeout(done, 300))")
    assert page.run("document.querySelector('[name=of][value=training]').checked")
    assert page.errors == []


def test_kinds_narrow_each_other_down(page: chromium.Page) -> None:
    tick(page, "unsolved")
    unsolved = page.run(SHOWN)
    right = "[...document.querySelectorAll('.tree:not([hidden]) .score')].map((e) => e.textContent)"
    assert 0 < unsolved < 60
    assert page.run(right) == ["0 of 27 right"] * unsolved
    tick(page, "broken")
    assert page.run(SHOWN) == 0  # no right first answer leads anywhere where none is right
    tick(page, "unsolved", False)
    assert 0 < page.run(SHOWN) < 60


def test_the_value_range_takes_its_ends_in(page: chromium.Page) -> None:
    choose(page, **{"from": "1"})
    right = "[...document.querySelectorAll('.tree:not([hidden]) .score')].map((e) => e.textContent)"
    assert set(page.run(right)) == {"27 of 27 right"}
    choose(page, **{"from": "0.05", "to": "0.95"})
    assert set(page.run(right)) == {"14 of 27 right"}
    assert 0 < page.run(SHOWN) < 60


def test_what_is_chosen_stands_in_the_address_and_is_read_from_it(
    page: chromium.Page, opened: tuple[chromium.Page, Path]
) -> None:
    choose(page, q="18 & 1%", to="0.5")
    tick(page, "rescued")
    tick(page, "disagreement")
    hash_text = page.run(REMEMBERED)
    assert hash_text == "#trees?q=18+%26+1%25&to=0.5&kind=rescued&kind=disagreement"
    page.run("location.hash = '#results'")
    assert page.run("document.getElementById('search').value") == "18 & 1%"
    page.run("location.hash = '#trees?q=apples&kind=unsolved&tree=q001'")
    wait = "new Promise((done) => setTimeout(() => done("
    assert page.run(f"{wait} document.getElementById('search').value), 400))") == "apples"
    assert page.run("document.querySelector('[value=rescued]').checked") is False
    assert page.run("document.querySelector('.tree[open] .text').textContent").startswith("Ann has")
    assert page.run(REMEMBERED) == "#trees?q=apples&kind=unsolved&tree=q001"
    assert page.errors == []


def test_the_trees_are_walked_by_keyboard(page: chromium.Page) -> None:
    press(page, "/")
    assert page.run("document.activeElement.id") == "search"
    focus = "document.activeElement.querySelector('.role, .text').textContent"
    page.run("document.querySelector('.tree > summary').focus()")
    press(page, "ArrowRight")
    page.run("new Promise((done) => setTimeout(done, 50))")
    press(page, "ArrowDown")
    assert page.run(focus) == "generator 1"
    press(page, "ArrowDown")
    assert page.run(focus) == "generator 2"
    press(page, "ArrowLeft")
    assert page.run(focus).startswith("Question q-attack")
    press(page, "ArrowLeft", "ArrowDown")
    assert page.run(focus).startswith("Question q-long")
    press(page, "End")
    assert page.run("document.activeElement.parentElement.matches('.tree:last-child')")


def test_long_lists_are_folded(page: chromium.Page) -> None:
    summary = "[...document.querySelectorAll('details.more > summary')].map((e) => e.textContent)"
    assert "3 more differences, between the other systems" in page.run(summary)
    shown = "[...document.querySelectorAll('.paired th')].filter((e) => e.checkVisibility())"
    assert not page.run(f"{shown}.some((e) => e.textContent === 'ma minus sa')")
    page.run("document.querySelectorAll('details.more').forEach((e) => e.open = true)")
    assert page.run(f"{shown}.some((e) => e.textContent === 'ma minus sa')")


def test_a_script_in_a_title_stays_text(view: chromium.Page) -> None:
    texts = view.run("[...document.querySelectorAll('.suite th')].map((e) => e.textContent)")
    assert any(text.startswith(ATTACK) for text in texts)
    assert view.run("document.querySelectorAll('img, .suite script').length") == 0
    assert view.run("document.title") == "MALT on arithmetic, tiny-llama-2m"


@pytest.mark.parametrize(("width", "kind"), [(390, "narrow"), (700, "wide"), (1200, "wide")])
def test_no_two_labels_of_the_compute_plot_overlap(
    view: chromium.Page, width: int, kind: str
) -> None:
    view.screen(width)
    hits = view.run(f"""(() => {{
      const labels = [...document.querySelectorAll('.compute.{kind} .label')];
      const boxes = labels.map((e) => e.getBoundingClientRect());
      const hit = (a, b) => Math.min(a.right, b.right) > Math.max(a.left, b.left)
        && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2;
      return [boxes.length, boxes.every((box) => box.width > 0),
        boxes.filter((a, i) => boxes.slice(0, i).some((b) => hit(a, b))).length];
    }})()""")
    assert hits == [11, True, 0]


@pytest.mark.parametrize("width", [390, 768, 1200])
def test_the_page_never_scrolls_sideways(view: chromium.Page, width: int) -> None:
    view.screen(width)
    assert view.run("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("width", [390, 1200])
def test_no_name_of_a_role_or_system_is_broken(view: chromium.Page, width: int) -> None:
    """On a phone "generator" stood in nine lines of one letter each."""
    view.screen(width)
    names = "|".join([*CHAIN, *SYSTEMS])
    broken = view.run(f"""[...document.querySelectorAll("th, td, b, .name, .role")].filter((e) => {{
      if (!/^({names})$/.test(e.textContent.trim()) || !e.checkVisibility()) return false;
      const range = document.createRange();
      range.selectNodeContents(e);
      return new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size > 1;
    }}).map((e) => e.textContent)""")
    assert broken == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_both_themes(view: chromium.Page, scheme: str) -> None:
    """WCAG AA asks for 4.5 to 1."""
    view.screen(1200, scheme)
    assert min(view.contrasts()) >= 4.5


def test_the_policy_stops_what_is_put_in_by_hand(page: chromium.Page) -> None:
    """The policy is in force, and the empty list of violations above means something."""
    page.run(
        "(() => { const script = document.createElement('script');"
        "script.append('window.foreign = 1'); document.body.append(script);"
        "const image = new Image(); image.src = 'data:image/gif;base64,AA';"
        "document.body.append(image); })()"
    )
    assert page.run("window.foreign === undefined")
    assert set(page.violations()) == {"require-trusted-types-for", "img-src"}
