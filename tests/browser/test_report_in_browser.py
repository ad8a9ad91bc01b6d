import csv

import pytest
from axe_playwright_python.sync_playwright import Axe

pytestmark = pytest.mark.browser

# texts of figures that stick out of their drawing
CLIPPED = """() => [...document.querySelectorAll("svg.plot")].flatMap((svg) => {
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text")].filter((text) => {
    const box = text.getBoundingClientRect();
    return box.left < frame.left - 1 || box.right > frame.right + 1
      || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
  }).map((text) => `${svg.getAttribute("aria-label").slice(0, 40)}: ${text.textContent}`);
})"""
# figure texts that lie on one another
COLLIDING = """() => [...document.querySelectorAll("svg.plot")].flatMap((svg) => {
  const boxes = [...svg.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
  const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4;
  return boxes.flatMap(([one, a], place) =>
    boxes.slice(place + 1).filter(([, b]) => meet(a, b)).map(([other]) => `${one} | ${other}`));
})"""
WIDE = "() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
# elements wider than the window that no scrolling container holds
STICKING_OUT = """() => [...document.querySelectorAll("main *, header *")].filter((node) =>
  !node.closest(".scroll, pre, svg, caption")
  && node.getBoundingClientRect().right > document.documentElement.clientWidth + 1
).map((node) => node.tagName + "." + node.className)"""
COLOURS = "() => { const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]; }"
# whatever is read at a contrast below that of WCAG AA, as [contrast, text]
CONTRAST = """() => {
  const part = (v) => (v / 255 <= .04045 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => .2126 * part(r) + .7152 * part(g) + .0722 * part(b);
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const behind = (node) => {
    const found = parse(getComputedStyle(node).backgroundColor);
    return found.length < 4 || found[3] > 0 ? found : behind(node.parentElement);
  };
  const ratio = (node) => {
    const style = getComputedStyle(node);
    const [a, b] = [parse(node.closest("svg") ? style.fill : style.color), behind(node)].map(light);
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  };
  const read = "p, li, td, th, dt, dd, h1, h2, h3, h4, summary, button, figcaption, svg.plot text, nav a, .under";
  return [...document.querySelectorAll(read)]
    .filter((node) => node.textContent.trim() && node.getClientRects().length)
    .map((node) => [ratio(node), node.textContent.trim().slice(0, 40)])
    .filter(([found]) => !(found >= 4.5));
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["report", "awkward", "difference", "study", "serving", "history", "leaderboard"])
def test_axe_finds_no_violation(visit, name, scheme):
    """Every rule of axe-core, with everything that folds opened."""
    with visit(name, scheme=scheme) as page:
        page.evaluate("document.querySelectorAll('details').forEach((node) => { node.open = true; })")
        found = Axe().run(page).response
        assert found["passes"], "axe looked at nothing"
        assert [(rule["id"], node["target"]) for rule in found["violations"] for node in rule["nodes"]] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 768, 400, 320])
@pytest.mark.parametrize("name", ["report", "awkward", "difference", "study", "serving", "history", "leaderboard"])
def test_it_fits_the_window_and_nothing_is_cut(visit, name, width, scheme):
    with visit(name, width, scheme) as page:
        for details in page.query_selector_all("details"):
            details.evaluate("(node) => { node.open = true; }")
        scroll, client = page.evaluate(WIDE)
        assert scroll <= client
        assert page.evaluate(STICKING_OUT) == []
        assert page.evaluate(CLIPPED) == []
        assert page.evaluate(COLLIDING) == []
        assert page.evaluate(CONTRAST) == []


def test_the_theme_follows_the_system_and_the_toggle(visit):
    with visit("report", scheme="light") as page:
        light = page.evaluate(COLOURS)
        page.emulate_media(color_scheme="dark")
        dark = page.evaluate(COLOURS)
        assert dark != light
        button = page.get_by_role("button", name="Show the page light")
        button.focus()
        page.keyboard.press("Enter")
        assert page.evaluate(COLOURS) == light
        page.get_by_role("button", name="Show the page dark").click()
        assert page.evaluate(COLOURS) == dark
        page.emulate_media(media="print")
        assert page.evaluate(COLOURS)[0] == "rgb(255, 255, 255)"


def test_figures_follow_the_theme(visit):
    paint = "() => getComputedStyle(document.querySelector('svg.plot text')).fill"
    with visit("report", scheme="light") as page:
        light = page.evaluate(paint)
        page.emulate_media(color_scheme="dark")
        assert page.evaluate(paint) != light


def test_a_table_opens_and_downloads_by_keyboard(visit, tmp_path):
    with visit("report", accept_downloads=True) as page:
        summary = page.locator("#exits details.behind > summary")
        summary.focus()
        page.keyboard.press("Enter")
        assert page.locator("#table-exits").is_visible()
        button = page.locator("button[data-table=table-exits]")
        button.focus()
        with page.expect_download() as caught:
            page.keyboard.press("Enter")
        assert caught.value.suggested_filename == "table-exits.csv"
        caught.value.save_as(tmp_path / "exits.csv")
    with (tmp_path / "exits.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["model", "condition", "exit or nodes run", "inputs", "share [share]"]
    clean = [row for row in rows if row["model"] == "Softmax threshold" and row["condition"] == "clean"]
    assert sum(float(row["share [share]"]) for row in clean) == pytest.approx(1)
    assert sum(int(row["inputs"]) for row in clean) == 80


def test_a_grouped_table_downloads_with_its_groups_and_no_formula(visit, tmp_path):
    with visit("awkward", accept_downloads=True) as page:
        page.evaluate(
            "() => { const sign = document.querySelector('#table-attacks tbody th span.signed');"
            " sign.lastChild.textContent = '=1+1;@x'; }"
        )
        page.evaluate("() => { delete document.querySelector('#table-attacks tbody tr:nth-child(2) th').dataset.t; }")
        with page.expect_download() as caught:
            page.locator("button[data-table=table-attacks]").click()
        caught.value.save_as(tmp_path / "overview.csv")
    with (tmp_path / "overview.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0][:2] == ["model", "condition"]
    assert rows[1][0] == f"<b>{'unbroken' * 9}</b>"
    assert rows[1][1] == "'=1+1;'@x", "where a semicolon parts the columns, what follows it is a cell too"
    assert float(rows[1][2]) <= 1


def test_columns_sort_both_ways_with_what_is_missing_last(visit):
    with visit("difference") as page:
        for details in page.query_selector_all("details"):
            details.evaluate("(node) => { node.open = true; }")
        head = page.locator("#table-counted thead th", has_text="difference")
        values = """() => {
          const column = [...document.querySelectorAll("#table-counted thead th")]
            .findIndex((cell) => cell.textContent.includes("difference"));
          return [...document.querySelectorAll("#table-counted tbody tr")]
            .map((row) => parseFloat(row.cells[column].dataset.v));
        }"""
        head.get_by_role("button").click()
        up = [value for value in page.evaluate(values) if value == value]
        assert head.get_attribute("aria-sort") == "ascending"
        assert up == sorted(up)
        head.get_by_role("button").click()
        down = page.evaluate(values)
        assert [value for value in down if value == value] == up[::-1]
        assert all(value != value for value in down[len(up) :])


def test_the_leaderboard_is_filtered_in_all_of_its_tables(visit):
    visible = """(key) => [...document.querySelectorAll(`#${key} tbody tr`)].filter((row) => !row.hidden)
      .map((row) => [...row.cells].map((cell) => (cell.querySelector(".signed") ?? cell).textContent.trim()))"""
    with visit("leaderboard") as page:
        everything = page.evaluate(visible, "table-counted")
        page.locator("select[data-column=data]").select_option("CIFAR-10")
        page.locator("select[data-column=net]").select_option("BlockDrop")
        rows = page.evaluate(visible, "table-counted")
        assert rows == [row for row in everything if row[:2] == ["BlockDrop", "CIFAR-10"]]
        assert rows
        assert {tuple(row[:2]) for row in page.evaluate(visible, "table-timed")} == {("BlockDrop", "CIFAR-10")}
        assert " of " in page.locator("#filters output").inner_text()
        page.get_by_role("button", name="All", exact=True).click()
        page.wait_for_function("() => !document.querySelector('#table-counted tbody tr[hidden]')")
        assert page.evaluate(visible, "table-counted") == everything
    with visit("leaderboard", java_script_enabled=False) as page:
        assert not page.locator("#filters").is_visible()
        assert page.locator("#table-counted").is_visible()


def test_footnotes_are_told_where_they_are_needed(visit):
    with visit("report") as page:
        mark = page.locator("#table-attacks td sup a").first
        note = page.locator(mark.get_attribute("href"))
        assert mark.locator("xpath=ancestor::td").get_attribute("title") in note.inner_text()


def test_without_script_everything_is_readable(visit):
    with visit("report", java_script_enabled=False) as page:
        assert page.locator("button:visible").count() == 0
        assert page.locator("#table-verdict").is_visible()
        assert page.locator("svg.plot").first.is_visible()


def test_headings_of_columns_are_printed(visit):
    """What sorts is a button, and buttons were not printed: tables had no headings on paper."""
    with visit("study") as page:
        page.emulate_media(media="print")
        assert page.locator("#published-table thead button").first.is_visible()
        assert not page.locator("button.csv").first.is_visible()


@pytest.mark.parametrize("name", ["report", "study", "difference"])
def test_a_heading_keeps_its_figure_on_paper(visit, name):
    """A heading, its first words and a legend stay with what follows, and no page holds a footer alone."""
    with visit(name) as page:
        page.emulate_media(media="print")
        parted = (
            "(nodes) => nodes.filter((node) => getComputedStyle(node).breakAfter !== 'avoid').map((n) => n.textContent)"
        )
        assert page.locator("h2, h3, h2 + p, h3 + p").evaluate_all(parted) == []
        assert not page.locator("footer").is_visible()


def test_it_prints_on_paper(visit, tmp_path):
    with visit("report", scheme="dark") as page:
        page.pdf(path=tmp_path / "report.pdf", format="A4", print_background=True)
    assert (tmp_path / "report.pdf").stat().st_size > 20_000
