"""Numbers as papers write them: 8/255."""

from __future__ import annotations

import re
from typing import Any

_FRACTION = re.compile(r"\s*([-+]?[\d.]+(?:e[-+]?\d+)?)\s*/\s*([\d.]+)\s*", re.IGNORECASE)


def parse_fraction(value: Any) -> Any:
    """The number that a text like "8/255" or "0.03" stands for; anything else unchanged.

    >>> parse_fraction("8/255") == 8 / 255
    True
    """
    if not isinstance(value, str):
        return value
    if (match := _FRACTION.fullmatch(value)) and float(match[2]):
        return float(match[1]) / float(match[2])
    try:
        return float(value)
    except ValueError:
        return value
