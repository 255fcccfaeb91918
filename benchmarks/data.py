"""Reading training patches: the store beside the published way, other layouts, and patches a second.

    python benchmarks/data.py CASE.h5                  # a published file, e.g. of the left atrium
    python benchmarks/data.py CASE.h5 --layouts        # codecs, filters and blocks that were not chosen, too

All in one thread, from the page cache; processor times. Prints Markdown.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import torch

from peers.data import read_case, read_patch
from semivox.patches.augment import Augmentation
from semivox.patches.sampling import Patches, cut, random_start
from semivox.preprocessing import store as layout
from semivox.preprocessing.store import Store
from timing import head, paired, parser_of, row, timed

PATCH = (112, 112, 80)
_C, _F = blosc2.Codec, blosc2.Filter
LAYOUTS = [  # chunk, block, codec, level, filter
    ((64, 64, 48), (16, 16, 48), _C.ZSTD, 1, _F.SHUFFLE),
    ((64, 64, 48), (16, 16, 48), _C.ZSTD, 1, _F.NOFILTER),
    ((64, 64, 48), (16, 16, 48), _C.LZ4, 1, _F.SHUFFLE),
    ((64, 64, 48), (16, 16, 48), _C.LZ4, 1, _F.NOFILTER),
    ((64, 64, 48), (16, 16, 48), _C.LZ4HC, 1, _F.NOFILTER),
    ((64, 64, 48), (16, 16, 48), _C.LZ4HC, 5, _F.SHUFFLE),
    ((64, 64, 48), (16, 16, 48), _C.LZ4HC, 5, _F.BITSHUFFLE),
    ((64, 64, 48), (16, 16, 48), _C.LZ4HC, 5, _F.NOFILTER),
    ((64, 64, 48), (16, 16, 48), _C.LZ4HC, 9, _F.NOFILTER),
    ((64, 64, 48), (16, 16, 16), _C.LZ4HC, 5, _F.NOFILTER),
    ((64, 64, 48), (32, 32, 48), _C.LZ4HC, 5, _F.NOFILTER),
    ((64, 64, 96), (16, 16, 96), _C.LZ4HC, 5, _F.NOFILTER),
    ((32, 32, 48), (16, 16, 48), _C.LZ4HC, 5, _F.NOFILTER),
    ((256, 256, 96), (16, 16, 96), _C.LZ4HC, 5, _F.NOFILTER),
]


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("case", type=Path, help="h5 file with image and label")
    parser.add_argument("--layouts", action="store_true")
    parser.add_argument("--repeats", type=int, default=21)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    image, label = read_case(arguments.case)
    head("chunk", "block", "codec", "ratio", "peer CPU", "ours CPU", "CPU ratio", "write")
    for one in LAYOUTS if arguments.layouts else [current()]:
        measure(arguments.case, image, label, one, arguments.repeats)
    if not arguments.layouts:
        samples(image, label, arguments.repeats)


def current() -> tuple[Any, ...]:
    """The layout that the store uses."""
    how = layout._COMPRESSION
    return layout._CHUNK, layout._BLOCK, how["codec"], how["clevel"], how["filters"][0]


def measure(case: Path, image: np.ndarray, label: np.ndarray, how: tuple[Any, ...], repeats: int) -> None:
    """Write the case in one layout, read patches beside the peer, and print the row."""
    chunk, block, codec, level, filter_ = how
    layout._CHUNK, layout._BLOCK = chunk, block
    layout._COMPRESSION.update(codec=codec, clevel=level, filters=[filter_])
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        spent = timed(lambda: write(store, image, label)).cpu
        bytes_ = sum(path.stat().st_size for path in Path(folder).iterdir())
        theirs, ours = count(), count()
        pair = paired(
            lambda: read_patch(case, PATCH, np.random.default_rng(next(theirs))),
            lambda: read(store, np.random.default_rng(next(ours))),
            repeats,
        )
    sides = [" x ".join(map(str, part)) for part in (chunk, block)]
    ratio = f"{(image.nbytes + label.nbytes) / bytes_:.2f}"
    times = [f"{1e3 * side.cpu:.2f} ms" for side in pair[:2]]
    how_named = f"{codec.name} {level} {filter_.name}"
    row(*sides, how_named, ratio, *times, f"{pair.ratio.cpu:.1f}", f"{1e3 * spent:.0f} ms")


def write(store: Store, image: np.ndarray, label: np.ndarray) -> None:
    store.write_image("case", image[None], {})
    store.write_label("case", label)


def read(store: Store, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A random patch and its label, both files opened for it, as a loader does."""
    image = store.image("case")
    start = random_start(image.shape[-3:], PATCH, rng)
    return cut(image, start, PATCH), cut(store.label("case"), start, PATCH)


def samples(image: np.ndarray, label: np.ndarray, repeats: int) -> None:
    """Patches a second of one worker process, augmentation included."""
    print()
    head("patch", "augmentation", "CPU a patch", "patches a second and worker")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        write(store, image, label)
        for patch in (PATCH, (64, 64, 48)):
            for preset in ("crop", "rotflip", "intensity", "strong", "full"):
                draw = sampler(store, patch, preset)
                cpu = np.mean([timed(draw).cpu for _ in range(2 * repeats + 1)][1:])
                row(" x ".join(map(str, patch)), preset, f"{1e3 * cpu:.1f} ms", f"{1 / cpu:.0f}")


def sampler(store: Store, patch: tuple[int, int, int], preset: Any) -> Callable[[], object]:
    """Draw labeled patches, half of them centred on the foreground."""
    augment = Augmentation(preset, flip_left_right=preset != "full")
    patches = Patches(["case"], store, patch, augment, truth=store, foreground_share=0.5)
    numbers = count()
    return lambda: patches[next(numbers)]


if __name__ == "__main__":
    main()
