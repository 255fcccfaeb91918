"""Values as they are typed: numbers of cases, times, classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress

from semivox.errors import UserError


def labels(text: str) -> int | float | str:
    """Read 8 as a number of cases, 0.1 as a fraction of them, and `all`."""
    text = text.strip().lower()
    if text == "all":
        return text
    with suppress(ValueError, OverflowError):
        value = int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)
        if 0 < value < 1 or (value > 1 and value == round(value)) or text == "1":  # 1.0: one case, or all?
            return value
    expected = "a whole number from 1 on, a fraction below 1, or all"
    raise UserError("This is no number of labels", text, expected, "e.g. --labeled 8, or --labeled all")


def seconds(text: str) -> float:
    """Read `90s`, `30m`, `1.5h`, or a number of minutes, as seconds."""
    match = re.fullmatch(r"\s*(\d{1,7}(?:\.\d+)?)\s*([smh]?)\s*", text, flags=re.ASCII)
    if match is None or float(match[1]) == 0:
        raise UserError("Unknown time", text, "a time such as 90s, 30m or 2h", "e.g. --budget 30m")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "": 60}[match[2]]


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
