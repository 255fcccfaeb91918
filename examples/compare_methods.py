"""Train two methods on the same phantoms and labels, and write a page that compares them case by case.

python examples/compare_methods.py OUT [ITERATIONS]
"""

import sys
from pathlib import Path

import semivox


def main(out: Path, iterations: int = 300) -> None:
    data = semivox.make_phantoms(out / "phantoms", train=10, test=1)
    runs = []
    for method in ("supervised", "ua_mt"):
        run = semivox.train(
            data,
            preset="phantoms-lite",
            method=method,
            labeled=3,
            config={
                "split": {"val": 3},
                "method": {"name": method, "options": {}},
                "train": {"iterations": iterations, "workers": 0},
            },
            work=out / "work",
            out=out / method,
        )
        print(f"{method}: mean Dice {run.scores['dice'].mean():.3f}")
        runs.append(run)
    page = semivox.compare_runs(runs, out / "comparison.html")
    print(f"open {page} in a browser")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:3]))
