"""Train on phantoms, look at the report, draw one case, and print the validation scores.

python examples/report.py OUT [ITERATIONS]
"""

import sys
from pathlib import Path

import semivox


def main(out: Path, iterations: int = 300) -> None:
    data = semivox.make_phantoms(out / "phantoms", train=8, test=2)
    run = semivox.train(
        data,
        preset="phantoms-lite",
        method="supervised",
        labeled=4,
        config={"split": {"val": 2}, "train": {"iterations": iterations, "workers": 0}},
        work=out / "work",
        out=out / "run",
    )
    print(f"open {run.report} in a browser")
    print(run.scores[["case", "class", "dice"]].to_string(index=False))
    run.show("phantom_007").save(out / "phantom_007.png")
    scan = min((data / "imagesTs").glob("*.nii.gz"))
    semivox.predict_image(run, scan, uncertainty=True).plot().save(out / "prediction.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:3]))
