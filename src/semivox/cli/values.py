"""Values as they are typed: numbers of cases, times."""

from __future__ import annotations

import re
from contextlib import suppress

from semivox.errors import UserError


def number(text: str) -> int | float | str:
    """Read a whole number or another one; a word such as `all` is for the settings to judge."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text.strip().lower()


def seconds(text: str) -> float:
    """Read `90s`, `30m`, `1.5h`, or a number of minutes, as seconds."""
    match = re.fullmatch(r"\s*(\d{1,7}(?:\.\d+)?)\s*([smh]?)\s*", text, flags=re.ASCII)
    if match is None or float(match[1]) == 0:
        raise UserError("Unknown time", text, "a time such as 90s, 30m or 2h", "e.g. --budget 30m")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "": 60}[match[2]]
