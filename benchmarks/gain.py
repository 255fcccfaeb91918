"""What the unlabeled scans are worth: methods trained on the same labels, scored on the same held-out cases.

    python benchmarks/gain.py phantoms --out semivox-work/gain            # 3 seeds on the demo's phantoms
    python benchmarks/gain.py DATA --preset hippocampus-lite --budget 8m --methods supervised dual --seeds 0

Repeating the command resumes. Writes OUT/comparison.json and OUT/table.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from semivox.cli.options import seconds
from semivox.cli.show import interval_text
from semivox.config import load_config
from semivox.data.phantom_set import make_phantoms
from semivox.files import write_text
from semivox.verbs.compare import compare, comparison
from semivox.verbs.demo import METHODS, TEST, TRAIN
from semivox.verbs.progress import show_progress


def main() -> None:
    arguments = parse()
    out = arguments.out
    if arguments.data == "phantoms":
        data = make_phantoms(out / "phantoms", train=TRAIN, test=TEST)
        preset = arguments.preset or "demo"
    else:
        data, preset = Path(arguments.data), arguments.preset
    config = load_config(preset=preset, settings=arguments.set, train={"budget_s": seconds(arguments.budget)})
    cells = compare(
        data,
        arguments.methods,
        config=config,
        out=out,
        seeds=arguments.seeds,
        cases=arguments.cases,
        work=arguments.work or out / "workspace",
        bar=True,
        progress=show_progress,
    )
    table = markdown(comparison(cells), arguments.cases)
    write_text(out / "table.md", table)
    print(table)


def markdown(summary: dict[str, Any], cases: str) -> str:
    """One row a method: mean Dice with its interval, difference to the first with its interval, time."""
    lines = [
        f"| method | Dice, {cases} cases (95 % interval) | difference to {summary['reference']} | training |",
        "|---|---|---|---|",
    ]
    for name, entry in summary["methods"].items():
        difference = summary["difference"].get(name)
        gain = interval_text(difference, sign="+") if difference else ""
        dice = f"{interval_text(entry['interval'])}, n = {entry['interval']['n']}"
        lines.append(f"| `{name}` | {dice} | {gain} | {entry['seconds_training'] / 60:.1f} min |")
    return "\n".join(lines) + "\n"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", help="a data set, or the word phantoms")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--preset")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--cases", choices=("test", "val"), default="test")
    parser.add_argument("--budget")
    parser.add_argument("--set", action="append", default=[])
    return parser.parse_args()


if __name__ == "__main__":
    main()
