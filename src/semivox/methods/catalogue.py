"""`methods`: what there is, its options, what to cite, a page for each. Does not import torch."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from semivox.errors import UserError
from semivox.methods import METHODS, method_class, method_table
from semivox.methods.index import describe, read_index

OUTSIDE = "from another package; `semivox methods NAME` loads it"


def list_methods() -> dict[str, dict[str, Any]]:
    """Every registered method, as `semivox.methods.index.describe` has it; the package's own come first.

    Methods of other packages are named with their class only, since describing one imports it.
    """
    others = {
        name: {"class": where, "summary": OUTSIDE}
        for name, where in method_table().items()
        if name not in METHODS
    }
    return {**read_index(), **others}


def describe_method(name: str) -> dict[str, Any]:
    """One method; one of another package is imported.

    Raises:
        UserError: unknown name (the nearest one is named), or a class that cannot be loaded.
    """
    known = list_methods()
    if name not in known:
        closest = get_close_matches(name, known, n=1, cutoff=0.5)
        raise UserError(
            f"Unknown method: {name}",
            found=name,
            expected="one of " + ", ".join(sorted(known)),
            do=f"did you mean {closest[0]}?" if closest else "choose one of these",
        )
    entry = known[name]
    return entry if name in METHODS else describe(method_class(name), entry["class"])


def cite(name: str) -> str:
    """The BibTeX entries of a method.

    Raises:
        UserError: unknown name, or a method without citation.
    """
    entry = describe_method(name)
    if not entry["bibtex"]:
        raise UserError(
            f"No citation is known for {name}",
            found=entry["class"],
            expected="an entry in citations.bib of semivox.methods",
            do="ask the authors of that package",
        )
    return str(entry["bibtex"])


def reference_pages() -> dict[str, str]:
    """The reference pages in Markdown by file name: one a method, and `index.md`."""
    index = read_index()
    pages = {f"{name}.md": method_page(name, entry) for name, entry in index.items()}
    lines = ["# Methods", "", "| name | what it is |", "|---|---|"]
    lines += [f"| [`{name}`]({name}.md) | {_cell(entry['summary'])} |" for name, entry in index.items()]
    lines += [
        "",
        "Generated from the code by `make reference`. How to [add your own](../../how-to/add-a-method.md).",
    ]
    return {"index.md": "\n".join(lines) + "\n", **pages}


def method_page(name: str, entry: dict[str, Any]) -> str:
    """A page of Markdown about one method."""
    lines = [f"# `{name}`", "", entry["summary"], ""]
    lines += [line for text in entry["text"] for line in (text, "")]
    if entry["source"]:
        lines += [f"Source: {entry['source']}", ""]
    lines += [f"Patches a step: {patches(entry)}. Class: `{entry['class']}`.", ""]
    lines += ["## Options", "", "| option | values | default | meaning |", "|---|---|---|---|"]
    lines += [
        f"| `{option['name']}` | {_cell(option['values'])} | `{shown(option['default'])}` |"
        f" {_cell(option['description'])} |"
        for option in entry["options"]
    ]
    if entry["options"]:
        lines += ["", f"Set one with `--set method.options.{entry['options'][0]['name']}=...`."]
    if entry["bibtex"]:
        lines += ["", "## Cite", "", "```bibtex", entry["bibtex"], "```"]
    return "\n".join(lines) + "\n"


def patches(entry: dict[str, Any]) -> str:
    """`2 labeled, 2 unlabeled`."""
    return f"{entry['labeled_patches']} labeled, {entry['unlabeled_patches']} unlabeled"


def shown(value: Any) -> str:
    """A default as one types it after `--set`."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"[{', '.join(map(shown, value))}]" if isinstance(value, list) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
