"""Write what is generated from the code: the index of methods and their reference pages.

make reference        # after a change of a method's docstring, options, table line or citation
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from semivox.files import write_json, write_text
from semivox.methods import METHODS, method_class
from semivox.methods.catalogue import INDEX_FILE, describe, patches, read_index, shown

PAGES = Path(__file__).parent / "reference" / "methods"
CITATIONS = INDEX_FILE.with_name("citations.bib")
ENTRY = re.compile(r"^@\w+\{.*?^\}", flags=re.MULTILINE | re.DOTALL)
KEYWORDS = re.compile(r"^\s*keywords\s*=\s*\{(.*?)\},?\n", flags=re.MULTILINE)


def main() -> None:
    write_json(INDEX_FILE, build_index())
    pages = reference_pages()
    for old in PAGES.glob("*.md"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        write_text(PAGES / name, text)


def build_index() -> dict[str, dict[str, Any]]:
    """Describe every method of the package from its class; imports them all."""
    cited = citations()
    return {name: describe(method_class(name), METHODS[name], cited.get(name, "")) for name in METHODS}


def citations() -> dict[str, str]:
    """Return the BibTeX entries of each method, by name; also of methods that are not registered."""
    found: dict[str, str] = {}
    for entry in ENTRY.findall(CITATIONS.read_text(encoding="utf-8")):
        names, text = KEYWORDS.search(entry), KEYWORDS.sub("", entry)
        for name in names[1].split(",") if names else ():
            known = found.get(name.strip())
            found[name.strip()] = f"{known}\n\n{text}" if known else text
    return found


def reference_pages() -> dict[str, str]:
    """Return the reference pages in Markdown by file name: one a method, and `index.md`."""
    index = read_index()
    pages = {f"{name}.md": method_page(name, entry) for name, entry in index.items()}
    lines = ["# Methods", "", "| name | what it is |", "|---|---|"]
    lines += [f"| [`{name}`]({name}.md) | {_cell(entry['summary'])} |" for name, entry in index.items()]
    add = "How to [add your own](../../how-to/add-a-method.md)."
    lines += ["", f"Generated from the code by `make reference`. {add}"]
    return {"index.md": "\n".join(lines) + "\n", **pages}


def method_page(name: str, entry: dict[str, Any]) -> str:
    """Return a page of Markdown about one method."""
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


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


if __name__ == "__main__":
    main()
