"""The store: what comes back, how little is read, odd names, damage, full disks, worker processes."""

from __future__ import annotations

import pickle
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semivox.errors import UserError
from semivox.io.volume import read_image
from semivox.preprocessing.store import Store, sample_foreground


def scan(shape: tuple[int, ...] = (2, 70, 65, 50), scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(0).normal(size=shape) * scale).astype(np.float32)


def label(shape: tuple[int, ...] = (70, 65, 50)) -> np.ndarray:
    return (np.random.default_rng(1).random(shape) * 4).astype(np.uint8)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_what_is_written_comes_back(store: Store) -> None:
    assert not store.has_image("a")
    store.write_image("a", scan(), {"grid": {"shape": [1, 2], "affine": [[1.5, 0.0]]}, "name": "ä"})
    assert store.has_image("a")
    assert not store.has_label("a")
    store.write_label("a", label())
    assert store.has_label("a")
    image = store.image("a")[:]
    assert image.dtype == np.float32
    assert np.allclose(image, scan(), rtol=2**-11, atol=1e-6)
    assert np.array_equal(store.label("a")[:], label())
    assert store.label("a")[:].dtype == np.uint8
    assert (store.image("a").shape, store.label("a").shape) == ((2, 70, 65, 50), (70, 65, 50))
    assert store.meta("a") == {"grid": {"shape": [1, 2], "affine": [[1.5, 0.0]]}, "name": "ä"}


@pytest.mark.parametrize("extreme", [-70_000.0, 1.7e6, 65.0, 2049.0])
def test_large_values_are_kept_exactly(store: Store, extreme: float) -> None:
    image = scan((1, 9, 9, 9))
    image[0, 0, 0, 0] = extreme
    store.write_image("a", image, {})
    assert np.array_equal(store.image("a")[:], image)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (4, 3, 200, 5), (1, 64, 64, 48), (3, 65, 1, 97)])
def test_any_shape_and_any_part(store: Store, shape: tuple[int, ...]) -> None:
    image = scan(shape).round(2).astype(np.float16).astype(np.float32)
    store.write_image("a", image[:, ::-1], {})
    source, wanted = store.image("a"), image[:, ::-1]
    rng = np.random.default_rng(0)
    for _ in range(20):
        low = [int(rng.integers(n)) for n in shape]
        high = [int(rng.integers(first, n)) + 1 for first, n in zip(low, shape, strict=True)]
        key = tuple(slice(*pair) for pair in zip(low, high, strict=True))
        assert np.array_equal(source[key], wanted[key])
    assert np.array_equal(source[0, :, 0], wanted[0, :, 0])


def test_every_finite_half_comes_back_exactly_as_numpy_converts_it(store: Store) -> None:
    """Subnormal ones, both zeros and the largest included; and a single voxel."""
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.abs(halves) <= 64]
    store.write_image("a", halves.astype(np.float32)[None, None, None], {})
    found = store.image("a")[0, 0, 0]
    assert found.dtype == np.float32 and len(found) > 40_000
    assert np.array_equal(found.view(np.int32), halves.astype(np.float32).view(np.int32))
    assert store.image("a")[0, 0, 0, 5] == halves[5]


def test_what_is_read_may_be_changed(store: Store) -> None:
    store.write_image("a", scan(), {})
    store.write_label("a", label())
    for source in (store.image("a"), store.label("a")):
        before = source[:]
        source[:][...] = 3
        assert np.array_equal(source[:], before)


NAMES = ["left knee 3", "Ünïcödé 心臓", "site/a\\b", "site/ab", "sitea/b", "sitea\\b"]
NAMES += [".hidden", "a.image", "100%", "x" * 180]


def test_any_case_name(store: Store) -> None:
    for value, name in enumerate(NAMES):
        store.write_label(name, np.full((2, 2, 2), value, np.uint8))
        store.write_image(name, np.full((1, 2, 2, 2), value, np.float32), {})
    for value, name in enumerate(NAMES):
        assert store.label(name)[0, 0, 0] == value == store.image(name)[0, 0, 0, 0]
    files = list(store.folder.iterdir())
    assert len(files) == 2 * len(NAMES) and store.folder / "left knee 3.image.b2nd" in files


def test_a_patch_reads_only_its_chunks(store: Store) -> None:
    """A quarter of the file is destroyed: the first corner is still readable, the whole is not."""
    store.write_image("a", scan((1, 128, 128, 96)), {})
    path = store.image("a").path
    content = bytearray(path.read_bytes())
    first, last = len(content) // 2, len(content) * 3 // 4
    content[first:last] = bytes(last - first)
    path.write_bytes(content)
    corner = store.image("a")[:, :64, :64, :48]
    assert np.allclose(corner, scan((1, 128, 128, 96))[:, :64, :64, :48], rtol=1e-3, atol=1e-6)
    with pytest.raises(UserError, match=r"(?s)a\.image\.b2nd.*delete that file and run semivox prepare"):
        store.image("a")[:]


@pytest.mark.parametrize("damage", ["empty", "garbage", "half", "short"])
@pytest.mark.parametrize("kind", ["image", "label"])
def test_a_damaged_file_is_named_with_the_remedy(store: Store, kind: str, damage: str) -> None:
    store.write_image("a", scan(), {})
    store.write_label("a", label())
    path = getattr(store, kind)("a").path
    content = path.read_bytes()
    damaged = {
        "empty": b"",
        "garbage": b"\0garbage" * 99,
        "half": content[: len(content) // 2],
        "short": content[:-1],
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(UserError, match="delete that file and run semivox prepare again") as error:
        getattr(store, kind)("a")
    assert error.value.path == path


def test_an_unprepared_case_is_not_called_damaged(store: Store) -> None:
    for read in (store.image, store.label, store.meta, store.foreground_voxels):
        with pytest.raises(UserError, match="not prepared"):
            read("nobody")


def test_foreground_voxels_are_foreground_and_always_the_same(store: Store) -> None:
    classes = label()
    store.write_label("a", classes)
    voxels = store.foreground_voxels("a")
    assert voxels.shape == (9_999, 3)
    assert len(np.unique(voxels, axis=0)) == 9_999
    found, counts = np.unique(classes[tuple(voxels.T)], return_counts=True)
    assert (found.tolist(), counts.tolist()) == ([1, 2, 3], [3333] * 3)
    store.write_label("b", classes)
    assert np.array_equal(store.foreground_voxels("b"), voxels)
    assert np.abs(voxels.mean(0) - (34.5, 32, 24.5)).max() < 1.0


def test_small_classes_give_all_their_voxels() -> None:
    classes = np.zeros((30, 30, 30), np.uint8)
    classes[0, 0, :5], classes[10:20] = 1, 2
    voxels = sample_foreground(classes, 100)
    values = classes[tuple(voxels.T)]
    assert (np.sum(values == 1), np.sum(values == 2)) == (5, 50)
    assert sample_foreground(classes * 0, 100).shape == (0, 3)


def test_a_label_without_foreground(store: Store) -> None:
    store.write_label("a", np.zeros((3, 4, 5), np.uint8))
    assert store.foreground_voxels("a").shape == (0, 3)


def test_stores_and_open_arrays_travel_to_other_processes(store: Store) -> None:
    store.write_image("a", scan(), {})
    opened = store.image("a")
    opened[0, 0]
    for copy in (pickle.loads(pickle.dumps(store)).image("a"), pickle.loads(pickle.dumps(opened))):
        assert np.array_equal(copy[:], opened[:])


def _read(source: Any, out: Any) -> None:
    out.send(float(np.abs(source[:]).sum()))


def test_a_forked_process_reads_what_its_parent_has_open(store: Store) -> None:
    store.write_image("a", scan(), {})
    opened = store.image("a")
    opened[:]
    context = get_context("fork")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_read, args=(opened, send))
    process.start()
    try:
        assert receive.poll(20), "the child hangs"
        assert receive.recv() == float(np.abs(opened[:]).sum())
    finally:
        process.kill()
        process.join()


def test_images_are_compressed(store: Store) -> None:
    smooth = np.linspace(0, 3, 96, dtype=np.float32) * np.ones((1, 96, 96, 1), np.float32)
    store.write_image("a", smooth, {})
    assert store.image("a").path.stat().st_size < smooth.nbytes / 10


@pytest.mark.real
def test_real_scans_shrink_by_three_and_lose_nothing_that_matters(store: Store, real_data: Path) -> None:
    image = read_image([next((real_data / "la2018" / "imagesTr").iterdir())]).array
    store.write_image("a", image, {})
    assert store.image("a").path.stat().st_size < image.nbytes / 2.5
    assert np.abs(store.image("a")[:] - image).max() < 2e-3
