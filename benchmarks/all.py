"""Every benchmark of docs/performance.md and docs/scale.md, one after the other, under one commit.

    OMP_NUM_THREADS=1 ADAPTBENCH_DATA=… python benchmarks/all.py [NAME …] [--out runs/benchmarks] [--keep]

Each is a process of its own with a JSON of its own in `--out`, which begins empty, so that no part is of an earlier
day. `all.json` beside them says which commit all were made by, how long each took and which failed. With `--keep`, and
only where none failed and all name this commit, the files take the places of the committed ones and the pages are
written anew. A ratio is one of arms that ran in turn in one process; no two scripts share a ratio.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from kept import heading, keep

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS: dict[str, tuple[str, ...]] = {
    "performance": (),
    "fast_slow": ("--pictures", "24"),
    "block_queues": ("--blocks", "10"),
    "host_syncs": (),
    "compiled_nodes": ("--blocks", "10"),
    "half_precision": ("--blocks", "5", "--crafted", "24"),
    "scale": (),
}
"""Name → arguments, as the committed files were made."""
PAGES = {"half_precision": "performance"}
"""Whose page another one's script writes."""


def commit_of(found: dict[str, Any]) -> str:
    """The commit that a benchmark's file says it was made by."""
    return str(found.get("commit") or (found.get("git") or {}).get("revision") or "")


def run(name: str, arguments: tuple[str, ...], place: Path) -> dict[str, Any]:
    """One script in a process of its own; what it prints goes to the terminal."""
    began = time.monotonic()
    words = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *arguments, "--json", str(place)]
    done = subprocess.run(words, check=False)
    made = json.loads(place.read_text(encoding="utf-8")) if place.exists() else {}
    return {"seconds": round(time.monotonic() - began, 1), "exit": done.returncode, "commit": commit_of(made)}


def unfit(told: dict[str, Any]) -> list[str]:
    """Why what was made may not take the place of what is committed; nothing where it may."""
    found = [f"{name} ended with exit code {part['exit']}" for name, part in told["parts"].items() if part["exit"]]
    found += [
        f"{name} names commit {part['commit'][:9] or 'none'}"
        for name, part in told["parts"].items()
        if not part["exit"] and part["commit"] != told["commit"]
    ]
    return [*found, "files differ from the commit"] if told["dirty"] else found


def main(asked: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(SCRIPTS)}; default: all")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="a folder that is not there yet")
    parser.add_argument("--keep", action="store_true", help="replace the committed files and write the pages")
    options = parser.parse_args(asked)
    if unknown := [name for name in options.names if name not in SCRIPTS]:
        raise SystemExit(f"no benchmark is called '{unknown[0]}'; there are {', '.join(SCRIPTS)}.")
    if options.out.exists():
        raise SystemExit(f"{options.out} is there already: move it away, or name another --out.")
    options.out.mkdir(parents=True)
    told = heading(parts={})
    names = options.names or list(SCRIPTS)
    for name in names:
        told["parts"][name] = run(name, SCRIPTS[name], options.out / f"{name}.json")
        keep(told, options.out / "all.json", name, told["parts"][name])
    if reasons := unfit(told):
        raise SystemExit(f"{options.out}: {'; '.join(reasons)}.{' Nothing was kept.' if options.keep else ''}")
    if options.keep:
        for name in names:
            shutil.copy(options.out / f"{name}.json", ROOT / "benchmarks" / f"{name}.json")
        for page in dict.fromkeys(PAGES.get(name, name) for name in names):
            subprocess.run([sys.executable, str(ROOT / "docs" / f"{page}_page.py")], check=True)


if __name__ == "__main__":
    main()
