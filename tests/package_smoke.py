"""Install a built wheel into an empty environment, away from the checkout, and run a suite from it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

LIMIT = 25_000_000


def main(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for needed in ("adaptbench/_suites/bench.yaml", "adaptbench/_attacks/ilfo.yaml", "adaptbench/py.typed"):
        assert needed in names, f"{needed} is not in the wheel"
    weights = sum(i.file_size for i in zipfile.ZipFile(wheel).infolist() if "/shipped/" in i.filename)
    assert 0 < weights < LIMIT, f"checkpoints take {weights} bytes"
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        venv.create(room / "py", with_pip=True)
        python = room / "py" / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "-q", f"{wheel}[attacks]"], check=True)
        tool = room / "py" / "bin" / "adaptbench"
        subprocess.run([tool, "run", "ci", "--limit", "40", "--out", "run"], cwd=room, check=True)
        subprocess.run([tool, "report", "run"], cwd=room, check=True)
        assert (room / "reports" / "run.html").stat().st_size > 10_000
        again = ["--limit", "40", "--out", "again", "--baseline", "run"]
        subprocess.run([tool, "run", "ci", *again], cwd=room, check=True)
    sys.stdout.write("the wheel works on its own\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
