"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DataRoot = Annotated[Path | None, typer.Option("--data-root", help="Folder with data sets; also ADAPTBENCH_DATA.")]
Download = Annotated[bool, typer.Option("--download", help="Fetch a missing data set from its publisher.")]
Audited = Annotated[
    str | None,
    typer.Option(
        "--attacks",
        help="Recipes, parted by commas (default: standard, free and label-kept; of texts words and words-black-box; "
        "of series series).",
    ),
]
Size = Annotated[
    str | None,
    typer.Option("--eps", help="Size of the L-infinity ball (default 8/255); of series in their own unit."),
]
Share = Annotated[
    str | None,
    typer.Option("--share", help="Of a text's words (default 0.1), or of a sensor's range (default 0.02)."),
]
Defended = Annotated[
    str | None,
    typer.Option("--defence", help="Puts the net under it: NAME, or 'NAME: {setting: value}'; attacks know it."),
]
Zoo = Annotated[
    Path | None,
    typer.Option("--zoo", help="Folder with your own checkpoints, before the shipped ones; also ADAPTBENCH_ZOO."),
]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say all of it.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Only errors and one line: the verdict.")]
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output, all else on the other.")]
