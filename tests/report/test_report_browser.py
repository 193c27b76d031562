"""The page as a real browser shows it; skipped where there is no Chromium."""

from collections.abc import Iterator
from pathlib import Path

import chromium
import pytest
from planted import ATTACK, write_run

from malt_jax import report

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
RELEASE = "document.getElementById('filters').dispatchEvent(new Event('input'))"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[chromium.Page, Path]]:
    program = chromium.find()
    if program is None:
        pytest.skip("needs chromium on PATH (apt-get install chromium)")
    folder = tmp_path_factory.mktemp("run")
    write_run(folder)
    with chromium.browser(program, tmp_path_factory.mktemp("profile")) as page:
        yield page, report.write(folder)


@pytest.fixture
def page(opened: tuple[chromium.Page, Path]) -> chromium.Page:
    """The report, opened anew."""
    page, index = opened
    page.errors.clear()
    page.screen(1200)
    page.open(index)
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


def test_search_and_filters_hide_trees(page: chromium.Page) -> None:
    assert page.run(SHOWN) == 60
    page.run(f"document.getElementById('search').value = 'NAÏVE 数学'; {RELEASE}")
    assert page.run(SHOWN) == 1
    assert page.run("document.getElementById('shown').textContent") == "1 of 60 shown"
    page.run("document.getElementById('search').value = ''")
    page.run(f"document.querySelector('[value=unsolved]').checked = true; {RELEASE}")
    unsolved = page.run(SHOWN)
    right = "[...document.querySelectorAll('.tree:not([hidden]) .score')].map((e) => e.textContent)"
    assert 0 < unsolved < 60
    assert page.run(right) == ["0 of 27 right"] * unsolved
    page.run(f"document.querySelector('[name=kind][value=\"\"]').checked = true; {RELEASE}")
    assert page.run(SHOWN) == 60


@pytest.mark.parametrize("width", [390, 768, 1200])
def test_the_page_never_scrolls_sideways(page: chromium.Page, width: int) -> None:
    page.screen(width)
    page.run(OPEN)
    assert page.run("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_both_themes(page: chromium.Page, scheme: str) -> None:
    """WCAG AA asks for 4.5 to 1."""
    page.screen(1200, scheme)
    ratios = page.run("""(() => {
      const style = getComputedStyle(document.documentElement);
      const light = (name) => {
        const hex = style.getPropertyValue(name).trim().slice(1);
        const [r, g, b] = [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255)
          .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const ratio = (name, back) => {
        const [low, high] = [light(name), light(back)].sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
      };
      return ["--text", "--soft", "--accent"].flatMap(
        (name) => ["--page", "--panel"].map((back) => ratio(name, back)));
    })()""")
    assert min(ratios) >= 4.5


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
