"""Train on phantoms with few labels from Python, segment other phantoms, and print their scores.

python examples/phantoms.py OUT [ITERATIONS]
"""

import sys
from pathlib import Path

import semivox


def main(out: Path, iterations: int = 300) -> None:
    data = semivox.make_phantoms(out / "phantoms", train=8, test=2)
    run = semivox.train(
        data,
        preset="phantoms-lite",
        method="dual",
        labeled=3,  # the label files of the other five are never opened
        config={"train": {"iterations": iterations, "workers": 0}},
        work=out / "work",
        out=out / "run",
    )
    semivox.predict(run, data / "imagesTs", out / "segmentations")
    scores = semivox.evaluate(out / "segmentations", data=data)
    print(scores[["case", "class", "dice", "hd95_mm"]].to_string(index=False))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:3]))
