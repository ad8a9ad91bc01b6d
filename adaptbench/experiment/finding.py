"""Where suites and studies are found by name, and what they call themselves."""

from __future__ import annotations

from pathlib import Path

from adaptbench.errors import SuiteError
from adaptbench.located_yaml import read
from adaptbench.registry import did_you_mean

PACKAGE = Path(__file__).parent.parent


def find_suite(name: str) -> Path:
    """A path, then ``suites/NAME.yaml`` here, then the package's.

    Raises:
        SuiteError: nowhere; the message lists what there is.
    """
    given = Path(name)
    if given.suffix in {".yaml", ".yml"} or given.is_file():
        if given.is_file():
            return given
        raise SuiteError(
            f"there is no suite file {given}.", todo="Check the path; `adaptbench list suites` shows the names."
        )
    for folder in suite_folders():
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    known = suite_names()
    raise SuiteError(
        f"no suite is called '{name}'.",
        todo=f"{did_you_mean(name, known)}Suites: {', '.join(known)}; a path to a YAML file works too.",
    )


def suite_folders() -> list[Path]:
    """Where names are looked up: here, the wheel's package data, an editable checkout."""
    return [p for p in (Path("suites"), PACKAGE / "_suites", PACKAGE.parent / "suites") if p.is_dir()]


def suite_names() -> list[str]:
    """Every suite that a name finds."""
    return sorted({file.stem for folder in suite_folders() for file in folder.glob("*.yaml")})


KEYS = {"study": "graphs", "serving": "arrivals", "decoding": "decoders"}
"""Kind → the key that only files of this kind have."""


def kind_named(name: str) -> str:
    """Of what kind a file is: of `KEYS`, else "suite".

    Raises:
        SuiteError: there is no such file.
    """
    value = read(find_suite(name)).value
    return next((kind for kind, key in KEYS.items() if isinstance(value, dict) and key in value), "suite")


def suite_title(name: str) -> str:
    """The title that a suite or study gives itself.

    Raises:
        SuiteError: there is no such file, or it is no mapping.
    """
    path = find_suite(name)
    value = read(path).value
    if not isinstance(value, dict):
        raise SuiteError(f"{path}: a suite is a mapping of keys.", todo="See suites/bench.yaml.")
    return str(value.get("title", ""))


def list_suites() -> tuple[list[tuple[str, str]], list[str]]:
    """Names with their titles, and a line for each file that cannot be read."""
    titles: list[tuple[str, str]] = []
    broken: list[str] = []
    for name in suite_names():
        try:
            titles.append((name, suite_title(name)))
        except SuiteError as error:
            broken.append(error.seen)
    return titles, broken
