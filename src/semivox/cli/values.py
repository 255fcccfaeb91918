"""Values as they are typed: numbers of cases, times, classes."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from semivox.errors import UserError


def number(text: str) -> int | float:
    """Read 8 as a number of cases and 0.1 as a fraction."""
    return int(text) if re.fullmatch(r"\s*[-+]?\d+\s*", text) else float(text)


def seconds(text: str) -> float:
    """Read `90s`, `30m`, `1.5h`, or a number of minutes, as seconds."""
    match = re.fullmatch(r"\s*(\d{1,7}(?:\.\d+)?)\s*([smh]?)\s*", text, flags=re.ASCII)
    if match is None or float(match[1]) == 0:
        raise UserError("Unknown time", text, "a time such as 90s, 30m or 2h", "e.g. --budget 30m")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "": 60}[match[2]]


def one_data(data: Path | None, positional: Path | None) -> Path:
    """Return the data set that was named with --data or without it."""
    if (data is None) == (positional is None):
        found = "no data set" if data is None else f"{positional} and --data {data}"
        raise UserError("One data set is needed", found, "one folder", f"semivox {sys.argv[-1]} -d FOLDER")
    return data or positional or Path()


def class_values(texts: Sequence[str]) -> dict[str, int]:
    """Read `NAME=VALUE` of each class."""
    result: dict[str, int] = {}
    for text in texts:
        name, _, value = (part.strip() for part in text.rpartition("="))
        if not name or name in result or not re.fullmatch(r"-?\d{1,9}", value, re.ASCII) or int(value) == 0:
            expected = "--class NAME=VALUE, an integer other than 0, each name once"
            raise UserError("A class is malformed", f"--class {text}", expected, "e.g. --class liver=1")
        result[name] = int(value)
    return result
