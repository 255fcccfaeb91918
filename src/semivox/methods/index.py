"""The index of methods, generated from the code and read without importing torch: `semivox methods`."""

from __future__ import annotations

import inspect
import json
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semivox.methods import METHODS, method_class

if TYPE_CHECKING:
    from semivox.methods.base import Method

INDEX_FILE = Path(__file__).with_name("index.json")
_ENTRY = re.compile(r"^@\w+\{.*?^\}", flags=re.MULTILINE | re.DOTALL)
_KEYWORDS = re.compile(r"^\s*keywords\s*=\s*\{(.*?)\},?\n", flags=re.MULTILINE)

_LIMITS = (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<"))


def read_index() -> dict[str, dict[str, Any]]:
    """What `build_index` wrote: name -> description, in the order of the table of methods."""
    text = (resources.files("semivox") / "methods" / "index.json").read_text(encoding="utf-8")
    index: dict[str, dict[str, Any]] = json.loads(text)
    return index


def build_index() -> dict[str, dict[str, Any]]:
    """Describe every method of the package from its class; imports them all."""
    cited = citations()
    return {name: describe(method_class(name), METHODS[name], cited.get(name, "")) for name in METHODS}


def describe(kind: type[Method], where: str, bibtex: str = "") -> dict[str, Any]:
    """A method in plain values: summary, text, source, batch, options, BibTeX.

    The docstring's first paragraph is the summary, the one that begins with "Source:" the source.

    Args:
        kind: its class.
        where: "module:Class".
        bibtex: its entries.
    """
    paragraphs = inspect.cleandoc(kind.__doc__ or "").split("\n\n")
    source = next((text for text in paragraphs if text.startswith("Source:")), "")
    schema = kind.Config.model_json_schema(mode="serialization")
    return {
        "class": where,
        "summary": _joined(paragraphs[0]),
        "text": [_joined(text) for text in paragraphs[1:] if text != source],
        "source": _joined(source.removeprefix("Source:")),
        "labeled_patches": kind.batch[0],
        "unlabeled_patches": kind.batch[1],
        "options": [
            {
                "name": name,
                "values": _values(schema["properties"][name]),
                "default": json.loads(json.dumps(field.get_default(call_default_factory=True))),
                "description": field.description or "",
            }
            for name, field in kind.Config.model_fields.items()
        ],
        "bibtex": bibtex,
    }


def citations() -> dict[str, str]:
    """The BibTeX entries of each method, by name; also of methods that are not registered."""
    text = (resources.files("semivox") / "methods" / "citations.bib").read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for entry in _ENTRY.findall(text):
        names = _KEYWORDS.search(entry)
        for name in names[1].split(",") if names else ():
            known = found.get(name.strip())
            entry_text = _KEYWORDS.sub("", entry)
            found[name.strip()] = f"{known}\n\n{entry_text}" if known else entry_text
    return found


def _joined(text: str) -> str:
    return " ".join(text.split())


def _values(schema: dict[str, Any]) -> str:
    """What an option may be, from its JSON schema: `xor | or`, `number >= 0`, `true | false`."""
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " | ".join(map(_values, schema["anyOf"]))
    if "prefixItems" in schema:
        return "[" + ", ".join(map(_values, schema["prefixItems"])) + "]"
    kind = {"boolean": "true | false", "array": "list", "string": "name", "integer": "whole number"}
    limits = [f"{sign} {schema[key]:g}" for key, sign in _LIMITS if key in schema]
    return " ".join(
        [kind.get(schema.get("type", ""), schema.get("type", "value")), " and ".join(limits)]
    ).strip()
