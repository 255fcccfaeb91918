"""Write what is generated from the code: the index of methods and their reference pages.

make reference        # after a change of a method's docstring, options, table line or citation
"""

from __future__ import annotations

from pathlib import Path

from semivox.files import write_json, write_text
from semivox.methods.catalogue import INDEX_FILE, build_index, reference_pages

PAGES = Path(__file__).parent / "reference" / "methods"


def main() -> None:
    write_json(INDEX_FILE, build_index())
    pages = reference_pages()
    for old in PAGES.glob("*.md"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        write_text(PAGES / name, text)


if __name__ == "__main__":
    main()
