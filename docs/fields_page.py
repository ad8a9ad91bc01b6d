"""Write docs/fields.md from the tables of fields; a test holds the page and the tables together.

python docs/fields_page.py
"""

from __future__ import annotations

import sys
from pathlib import Path

PAGE = Path(__file__).parent / "fields.md"

HEAD = """# Fields

Written by `python docs/fields_page.py` from the tables of fields in `adaptbench/results/`; do not edit.

An estimated figure `X` has `X_ci = [low, high]` (95 %). A figure that does not exist is null with the reason in
`X_missing`; so is one in a list or a map of figures. A unit of 1 is a share or a ratio.
"""


def table(fields: dict) -> list[str]:
    lines = ["| field | form | unit | estimated | what it is |", "|---|---|---|---|---|"]
    for name, field in fields.items():
        meaning = field.meaning.replace("|", "\\|")
        form = f"{field.form} of {field.of}s" if field.of else field.form
        lines.append(f"| `{name}` | {form} | {field.unit} | {'yes' if field.estimated else ''} | {meaning} |")
    return lines


def page() -> str:
    from adaptbench.results.decoding import PARTS as DECODING_PARTS
    from adaptbench.results.schema import FIELDS, PIXEL_COLUMNS, SAMPLE_COLUMNS, WINDOW_COLUMNS
    from adaptbench.results.serving import PARTS as SERVING_PARTS
    from adaptbench.results.study_schema import PARTS
    from adaptbench.results.tables import STEP_COLUMNS

    lines = [HEAD, "## A case of `summary.json`", "", *table(FIELDS)]
    for name, columns in (("samples", SAMPLE_COLUMNS), ("windows", WINDOW_COLUMNS), ("steps", STEP_COLUMNS)):
        told = ", ".join(f"`{column}` {kind}" for column, kind in columns.items())
        lines += ["", f"## A row of `{name}.parquet`", "", f"{told}."]
        if name == "samples":
            more = ", ".join(f"`{column}`" for column in PIXEL_COLUMNS)
            lines += ["", f"Where every pixel is answered also {more}: lists of int64, a number a class."]
    for part, fields in PARTS.items():
        lines += ["", f"## `study.json`: {part}", "", *table(fields)]
    for part, fields in SERVING_PARTS.items():
        lines += ["", f"## `serving.json`: {part}", "", *table(fields)]
    for part, fields in DECODING_PARTS.items():
        lines += ["", f"## `decoding.json`: {part}", "", *table(fields)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")
