"""The index of methods is what the code says, each method can be cited, and the pages follow from both."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from semivox.errors import UserError
from semivox.methods import METHODS
from semivox.methods.base import Method
from semivox.methods.catalogue import cite, describe, describe_method, list_methods, read_index

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = DOCS / "reference" / "methods"
MAKE = runpy.run_path(str(DOCS / "make_reference.py"))
REMEDY = "run `make reference` (python docs/make_reference.py) and commit what it writes"


def test_the_index_is_fresh() -> None:
    assert MAKE["build_index"]() == read_index(), f"src/semivox/methods/index.json is stale: {REMEDY}"


def test_the_pages_are_fresh() -> None:
    found = {page.name: page.read_text(encoding="utf-8") for page in PAGES.glob("*.md")}
    assert found == MAKE["reference_pages"](), f"docs/reference/methods is stale: {REMEDY}"


@pytest.mark.parametrize("name", METHODS)
def test_each_method_can_be_cited(name: str) -> None:
    assert name in MAKE["citations"](), (
        f"{name} has no citation: add an entry with keywords = {{{name}}} to"
        f" src/semivox/methods/citations.bib, then {REMEDY}"
    )


def test_entries_are_whole() -> None:
    for name, text in MAKE["citations"]().items():
        assert text.count("{") == text.count("}"), name
        assert "author = {" in text and "title = {" in text and "year = {" in text, name
        assert "keywords" not in text, name


def test_the_thirteen_methods_of_the_comparison_have_citations() -> None:
    names = "ua_mt sassnet dtc mc_net mc_net_plus ss_net mcf bcp luseg ml_rpl urpc cpcl ac_mt"
    assert set(names.split()) <= set(MAKE["citations"]())


class Toy(Method):
    """Does nothing
    much.

    A remark.

    Source: nobody, "Nothing",
    2020.
    """

    batch = (3, 1)

    class Config(Method.Config):
        kind: Literal["a", "b"] = Field("a", description="one | other")
        share: float = Field(0.5, gt=0, le=1, description="a share")
        count: int | None = Field(None, ge=1, description="how many")
        pair: tuple[str, bool] = Field(("x", True), description="two things")


def test_a_method_in_plain_values() -> None:
    entry = describe(Toy, "here:Toy", "@misc{x}")
    assert (entry["summary"], entry["text"]) == ("Does nothing much.", ["A remark."])
    assert entry["source"] == 'nobody, "Nothing", 2020.'
    assert (entry["labeled_patches"], entry["unlabeled_patches"]) == (3, 1)
    assert [(option["name"], option["values"], option["default"]) for option in entry["options"]] == [
        ("kind", "a | b", "a"),
        ("share", "number > 0 and <= 1", 0.5),
        ("count", "whole number >= 1 | null", None),
        ("pair", "[name, true | false]", ["x", True]),
    ]
    page = MAKE["method_page"]("toy", entry)
    assert "| `pair` | [name, true \\| false] | `[x, true]` | two things |" in page
    assert "| `kind` | a \\| b | `a` | one \\| other |" in page
    assert page.endswith("## Cite\n\n```bibtex\n@misc{x}\n```\n")


def test_names_lead_to_methods() -> None:
    assert list(list_methods())[: len(METHODS)] == list(METHODS)
    assert cite("dual").startswith("@article{")
    with pytest.raises(UserError, match="did you mean dual"):
        describe_method("duel")
