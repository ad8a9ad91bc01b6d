"""Take the pictures of docs/gallery.md and of the README in headless Chromium, from runs and committed summaries.

python docs/gallery_pictures.py runs/bench [runs/EARLIER]

Needs Debian's chromium on the PATH and a finished run of suites/bench.yaml; the page of a
difference needs an earlier one. Pictures are reduced to 128 colours.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "docs" / "pictures"
PUBLISHED = ROOT / "reports" / "published"
STUDY = "replicate-eenet.json"


@dataclass(frozen=True)
class Picture:
    """One file. page: which. width, height: of the window in CSS pixels. at: heading to scroll to; None is the top."""

    name: str
    page: str
    width: int = 1200
    height: int = 800
    dark: bool = False
    at: str | None = None


GALLERY = (
    Picture("bench-light", "bench"),
    Picture("bench-dark", "bench", dark=True),
    Picture("bench-taken-back", "bench", at="taken back"),
    Picture("bench-clock", "bench", at="clock"),
    Picture("bench-narrow", "bench", width=390, height=844),
    Picture("study", "study"),
    Picture("difference", "difference"),
    Picture("leaderboard", "leaderboard"),
)


def pages(runs: list[Path], room: Path) -> Iterator[tuple[str, Path]]:
    """name → file, each made as its command makes it."""
    from adaptbench.report.leaderboard import leaderboard
    from adaptbench.report.leaderboard_page import write_leaderboard
    from adaptbench.report.page import write_report
    from adaptbench.report.study_page import study_page
    from adaptbench.results.studies import StudyRun

    yield "bench", write_report([runs[0]], room / "bench.html")
    if len(runs) > 1:
        yield "difference", write_report([runs[1], runs[0]], room / "difference.html")
    kept = leaderboard(sorted(PUBLISHED.glob("*.json")))
    yield "leaderboard", write_leaderboard(kept, room / "leaderboard.html")
    study = room / "study.html"
    study.write_text(study_page(StudyRun.read(PUBLISHED / STUDY)), encoding="utf-8")
    yield "study", study


def take(found: dict[str, Path]) -> Iterator[tuple[str, bytes]]:
    from PIL import Image
    from playwright.sync_api import sync_playwright

    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for picture in GALLERY:
            if picture.page not in found:
                continue
            window = browser.new_page(
                viewport={"width": picture.width, "height": picture.height},
                color_scheme="dark" if picture.dark else "light",
                reduced_motion="reduce",
            )
            window.goto(found[picture.page].resolve().as_uri())
            if picture.at:
                heading = window.locator("h2", has_text=picture.at).first
                heading.evaluate("element => element.scrollIntoView()")
            shot = Image.open(io.BytesIO(window.screenshot())).convert("RGB")
            reduced = shot.quantize(128, dither=Image.Dither.NONE)
            kept = io.BytesIO()
            reduced.save(kept, "PNG", optimize=True)
            yield picture.name, kept.getvalue()
            window.close()
        browser.close()


def main() -> None:
    runs = [Path(word) for word in sys.argv[1:]] or [ROOT / "runs" / "bench"]
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as room:
        for name, content in take(dict(pages(runs, Path(room)))):
            (PICTURES / f"{name}.png").write_bytes(content)
            sys.stdout.write(f"docs/pictures/{name}.png, {len(content) // 1000} kB\n")


if __name__ == "__main__":
    main()
