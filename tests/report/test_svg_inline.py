import re
from xml.etree import ElementTree

import pytest

from adaptbench.report.figures import svg


@pytest.fixture(scope="module")
def drawn():
    def draw(key, alt="a <b> & c"):
        with svg.canvas(key, alt, height=120) as canvas:
            canvas.axes.plot([0, 1], [1, 2], "o-", color=svg.ATTACK)
            canvas.axes.set_xlabel("MACs <per> sample")
        return canvas.svg

    return draw


def test_it_is_well_formed_text_in_the_colours_of_the_page(drawn):
    text = drawn("one")
    root = ElementTree.fromstring(text)
    assert root.get("role") == "img"
    assert root.get("aria-label") == "a <b> & c"
    assert "MACs <per> sample" in [node.text for node in root.iter("text")]
    assert "var(--attack)" in text
    assert set(re.findall(r"#[0-9a-f]{6}", text)) <= {"#000000", "#ffffff"}


def test_nothing_global_and_no_address_is_left(drawn):
    text = drawn("one")
    for unwanted in ("<style", "<metadata", "http", "xmlns", "font-family", "<!DOCTYPE"):
        assert unwanted not in text


def test_ids_are_used_prefixed_and_do_not_meet(drawn):
    ids = [set(re.findall(r' id="([^"]+)"', drawn(key))) for key in ("one", "two")]
    assert ids[0]
    assert all(name.startswith("one-") for name in ids[0])
    assert not ids[0] & ids[1]
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', drawn("one")))
    assert used == ids[0]


def test_the_same_drawing_has_the_same_bytes(drawn):
    assert drawn("one") == drawn("one")
