"""Examples in docstrings are executed; those of training run on phantoms."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize("name", ["semivox.errors", "semivox.api.arguments", "semivox.api.runs"])
def test_examples(name: str) -> None:
    found = doctest.testmod(import_module(name), optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    assert found.attempted and not found.failed
