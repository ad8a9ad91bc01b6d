"""What a reader asks of a run's page: each answer stands above the fold of 1440 × 900, or one click away."""

import io
import zipfile

import pytest

pytestmark = pytest.mark.browser

FOLD = """(words) => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_ELEMENT);
  const found = [];
  while (walker.nextNode()) {
    const node = walker.currentNode, box = node.getBoundingClientRect();
    const whole = box.height && box.top >= 0 && box.bottom <= innerHeight;
    if (whole && words.every((word) => node.innerText?.includes(word)))
      found.push(node.innerText.trim());
  }
  return found.sort((a, b) => a.length - b.length)[0] ?? "";
}"""


def seen(page, *words):
    """The smallest element in the window that says all of it."""
    return page.evaluate(FOLD, [str(word) for word in words])


def click(page, name):
    page.get_by_role("link", name=name, exact=True).click()
    page.wait_for_function(
        "(id) => Math.abs(document.getElementById(id).getBoundingClientRect().top - 30) < 90",
        arg={"The attacks, in words": "attacks", "Reproduce it": "reproduce"}[name],
    )


def test_is_it_faster_here(visit):
    with visit("report") as page:
        assert seen(page, "Less time")
        row = page.locator("#table-verdict tbody tr", has_text="Softmax threshold")
        assert seen(page, "Softmax threshold", "%", row.locator("td").nth(2).inner_text().splitlines()[0])
        assert "batch 256" in seen(page, "time saved").replace("\n", " ")


def test_what_does_an_attacker_get_knowing_what(visit):
    with visit("report") as page:
        assert seen(page, "Under attack")
        assert page.locator("#table-verdict thead th", has_text="under the worst attack").is_visible()
        click(page, "The attacks, in words")
        assert "white box" in seen(page, "knows", "may change", "ILFO")
        assert "8/255" in seen(page, "ILFO", "may change")


def test_which_figure_is_measured(visit):
    with visit("report") as page:
        for chip in ("MACs counted", "time measured", "energy modelled"):
            assert seen(page, chip) == chip


def test_can_i_redo_it(visit):
    with visit("report") as page:
        click(page, "Reproduce it")
        assert seen(page, "git checkout", "pip install", "adaptbench run")
        assert page.locator("#versions").is_visible()
        assert page.locator("#hashes").is_visible()


def test_what_changed_since_last_time(visit):
    with visit("report") as page:
        click(page, "Reproduce it")
        assert "adaptbench report A B" in seen(page, "What changed since")
        page.locator("nav.toc a", has_text="Verdict").click()
        assert "writes what changed between two" in page.locator("#verdict .since").inner_text()


def test_everything_comes_in_one_download(visit, tmp_path):
    with visit("report", accept_downloads=True) as page:
        with page.expect_download() as caught:
            page.get_by_role("button", name="Download everything").click()
        caught.value.save_as(tmp_path / "all.zip")
        tables = page.locator("button.csv").count()
    archive = zipfile.ZipFile(io.BytesIO((tmp_path / "all.zip").read_bytes()))
    assert archive.testzip() is None
    assert len([name for name in archive.namelist() if name.startswith("tables/")]) == tables
    assert "adaptbench run" in archive.read("reproduce.txt").decode()
    assert "models:" in archive.read("suite.yaml").decode()
    assert archive.read("tables/table-verdict.csv").decode().splitlines()[0].startswith("model,")


def test_rows_are_filtered_and_lead_to_where_they_come_from(visit):
    with visit("report") as page:
        page.get_by_label("Filter rows").first.fill("ilfo softmax")
        shown = page.locator("#table-cases tbody tr:visible")
        assert shown.count() == 2
        assert "2 of" in page.locator("#cases .filter [aria-live]").first.inner_text()
        shown.first.locator("th a").click()
        origin = page.locator(shown.first.locator("th a").get_attribute("href"))
        assert origin.is_visible(), "the details that hold it are opened"
        assert "digits/softmax-threshold/ilfo/b1" in origin.inner_text()


def test_paper_shows_what_is_folded_and_folds_it_again(visit):
    with visit("report") as page:
        folded = page.locator("details:not([open])").count()
        page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
        assert page.locator("details:not([open])").count() == 0
        page.evaluate("() => dispatchEvent(new Event('afterprint'))")
        assert page.locator("details:not([open])").count() == folded > 0


@pytest.mark.parametrize("width", [390, 768])
def test_the_verdict_is_cards_where_the_window_is_narrow(visit, width):
    with visit("report", width) as page:
        row = page.locator("#table-verdict tbody tr").first.bounding_box()
        assert row["x"] >= 0
        assert row["x"] + row["width"] <= width
        for cell in page.locator("#table-verdict tbody tr").first.locator("td").all():
            box = cell.bounding_box()
            assert box["x"] + box["width"] <= width, "no figure of the verdict is off the window"


def test_the_first_column_stays_where_a_table_is_wider_than_the_window(visit):
    with visit("report", 390) as page:
        page.locator("#cases .scroll").first.evaluate("(node) => { node.scrollLeft = 300; }")
        assert page.locator("#table-cases tbody th").first.bounding_box()["x"] == pytest.approx(0, abs=1)
