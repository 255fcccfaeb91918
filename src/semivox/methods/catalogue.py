"""Every method with its options, citation and reference page, read without importing torch.

The index behind it, `index.json`, is generated from the classes by `make reference`.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semivox.errors import UserError, unknown
from semivox.methods import METHODS, method_class, method_table

if TYPE_CHECKING:
    from semivox.methods.base import Method

INDEX_FILE = Path(__file__).with_name("index.json")
OUTSIDE = "from another package; `semivox methods NAME` loads it"
_KINDS = {"boolean": "true | false", "array": "list", "string": "name", "integer": "whole number"}
_LIMITS = (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<"))


def read_index() -> dict[str, dict[str, Any]]:
    """Return the description of each method of the package by name, in the order of the table."""
    index: dict[str, dict[str, Any]] = json.loads(INDEX_FILE.read_text(encoding="utf-8"))
    return index


def describe(kind: type[Method], where: str, bibtex: str = "") -> dict[str, Any]:
    """Describe a method in plain values: summary, text, source, batch, options, BibTeX.

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
                "description": (field.description or "")
                + (_networks(kind) if name in ("net", "nets") else ""),
            }
            for name, field in kind.Config.model_fields.items()
        ],
        "bibtex": bibtex,
    }


def list_methods() -> dict[str, dict[str, Any]]:
    """Return every registered method as `describe` has it; the package's own come first.

    Methods of other packages are named with their class only, since describing one imports it.
    """
    table = method_table().items()
    others = {name: {"class": where, "summary": OUTSIDE} for name, where in table if name not in METHODS}
    return {**read_index(), **others}


def describe_method(name: str) -> dict[str, Any]:
    """Describe one method; one of another package is imported.

    Raises:
        UserError: unknown name (the nearest one is named), or a class that cannot be loaded.
    """
    known = list_methods()
    if name not in known:
        raise unknown("method", name, sorted(known))
    entry = known[name]
    return entry if name in METHODS else describe(method_class(name), entry["class"])


def cite(name: str) -> str:
    """Return the BibTeX entries of a method.

    Raises:
        UserError: unknown name, or a method without citation.
    """
    entry = describe_method(name)
    if not entry["bibtex"]:
        where, wanted = entry["class"], "an entry in citations.bib of semivox.methods"
        raise UserError(f"No citation is known for {name}", where, wanted, "ask the authors of that package")
    return str(entry["bibtex"])


def patches(entry: dict[str, Any]) -> str:
    """Return e.g. `2 labeled, 2 unlabeled`."""
    return f"{entry['labeled_patches']} labeled, {entry['unlabeled_patches']} unlabeled"


def shown(value: Any) -> str:
    """Write a default as one types it after `--set`."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"[{', '.join(map(shown, value))}]" if isinstance(value, list) else str(value)


def _networks(kind: type[Method]) -> str:
    """Write which networks a method takes, see `Segmenter`."""
    others = "" if kind.needs_levels else ", monai:CLASS" if kind.needs_features else ", resunet, monai:CLASS"
    return f": vnet, resnet34, unet3d{others}"


def _joined(text: str) -> str:
    return " ".join(text.split())


def _values(schema: dict[str, Any]) -> str:
    """Write what an option may be, from its JSON schema: `xor | or`, `number >= 0`, `true | false`."""
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " | ".join(map(_values, schema["anyOf"]))
    if "prefixItems" in schema:
        return "[" + ", ".join(map(_values, schema["prefixItems"])) + "]"
    kind = schema.get("type", "value")
    limits = [f"{sign} {schema[key]:g}" for key, sign in _LIMITS if key in schema]
    return f"{_KINDS.get(kind, kind)} {' and '.join(limits)}".strip()
