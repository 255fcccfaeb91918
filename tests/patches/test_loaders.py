"""Loaders: a patch depends on seed, stream, iteration and slot, and on nothing else."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from semivox.config import TrainConfig
from semivox.io.volume import IGNORE
from semivox.patches.loaders import build_loaders
from semivox.patches.sampling import Patches, cut, most_probable, random_start, start_around, with_background


class Part:
    """Stands for a compressed array on disk: it can only be sliced, and counts the voxels that were read."""

    def __init__(self, array: np.ndarray, read: Counter[str], name: str) -> None:
        self.array, self.read, self.name, self.shape = array, read, name, array.shape

    def __getitem__(self, key: Any) -> np.ndarray:
        part = self.array[key]
        self.read[self.name] += part.size
        return part

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise AssertionError("the whole volume was read")


class MemoryStore:
    """The store's reading methods; images (1, X, Y, Z) count their voxels, labels follow from images."""

    def __init__(self, shapes: dict[str, tuple[int, int, int]], unlabeled: tuple[str, ...] = ()) -> None:
        self.read: Counter[str] = Counter()
        self.unlabeled = unlabeled
        self.averaged: dict[str, np.ndarray] = {}
        self.images = {
            name: (np.arange(np.prod(shape)).reshape(1, *shape) + 10_000 * (i + 1)).astype(np.float32)
            for i, (name, shape) in enumerate(shapes.items())
        }

    def has_image(self, name: str) -> bool:
        return name in self.images

    def has_label(self, name: str) -> bool:
        return name in self.images and name not in self.unlabeled

    def image(self, name: str) -> Part:
        return Part(self.images[name], self.read, name)

    def label(self, name: str) -> Part:
        if name in self.unlabeled:
            raise AssertionError(f"the label of the unlabeled case {name} was opened")
        return Part(label_of(self.images[name][0]), self.read, name + " label")

    def has_shares(self, name: str) -> bool:
        return name in self.averaged

    def shares(self, name: str) -> Part:
        return Part(self.averaged[name], self.read, name + " shares")

    def foreground_voxels(self, name: str) -> np.ndarray:
        if name in self.unlabeled:
            raise AssertionError(f"the label of the unlabeled case {name} was used")
        return np.argwhere(label_of(self.images[name][0]) == 1)


def label_of(image: np.ndarray) -> np.ndarray:
    """Class 1 where the voxel's number is a multiple of 11; 0 in padding."""
    return ((image % 11 == 0) & (image > 0)).astype(np.uint8)


SHAPES = {"a": (9, 8, 7), "b": (8, 8, 6), "c": (10, 9, 6), "d": (8, 10, 8), "e": (9, 9, 9)}


def plan_of(
    patch: tuple[int, int, int] = (6, 6, 4), *class_names: str, ignore_value: int | None = None
) -> SimpleNamespace:
    names = ("background", *(class_names or ("a",)))
    return SimpleNamespace(
        patch=patch, spacing_mm=(1.0, 1.0, 1.0), class_names=names, ignore_value=ignore_value
    )


def loaders(
    *,
    store: Any = None,
    labeled: str = "abc",
    unlabeled: str = "de",
    plan: Any = None,
    batch: tuple[int, int] = (2, 3),
    **options: Any,
) -> dict[str, Any]:
    """Loaders of cases named by a letter each; by default labels may be opened for a, b and c."""
    names = TrainConfig.model_fields.keys() & options.keys() - {"iterations"}
    settings = {name: options.pop(name) for name in names}
    return build_loaders(
        store or MemoryStore(SHAPES, unlabeled=("d", "e")),
        SimpleNamespace(labeled=tuple(labeled), unlabeled=tuple(unlabeled)),  # type: ignore[arg-type]
        plan or plan_of(),
        TrainConfig(**{"workers": 0, "augment": "rotflip", **settings}),
        batch_labeled=batch[0],
        batch_unlabeled=batch[1],
        **{"iterations": 6, **options},
    )


def drawn(**options: Any) -> dict[str, list[dict[str, Any]]]:
    return {name: list(loader) for name, loader in loaders(**options).items()}


def of_one(store: Any, patch: tuple[int, int, int], **options: Any) -> list[dict[str, Any]]:
    """Labeled batches of the case a alone, one patch each unless said otherwise."""
    plan = options.pop("plan", None) or plan_of(patch)
    made = drawn(store=store, labeled="a", unlabeled="", plan=plan, **{"batch": (1, 0), **options})
    return made["labeled"]


def same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    return len(one) == len(other) and all(
        a.keys() == b.keys()
        and a["case"] == b["case"]
        and all(torch.equal(a[key], b[key]) for key in a if key != "case")
        for a, b in zip(one, other, strict=True)
    )


def test_batches_have_the_promised_form() -> None:
    made = loaders(batch=(2, 3))
    assert {name: len(loader) for name, loader in made.items()} == {"labeled": 6, "unlabeled": 6}
    labeled, unlabeled = next(iter(made["labeled"])), next(iter(made["unlabeled"]))
    assert labeled.keys() == {"image", "label", "case"} and unlabeled.keys() == {"image", "case"}
    assert labeled["image"].shape == (2, 1, 6, 6, 4) and labeled["image"].dtype == torch.float32
    assert labeled["label"].shape == (2, 6, 6, 4) and labeled["label"].dtype == torch.int64
    assert unlabeled["image"].shape == (3, 1, 6, 6, 4)
    assert set(labeled["case"]) <= set("abc") and set(unlabeled["case"]) <= set("de")


@pytest.mark.parametrize("augment", ["crop", "rotflip"])
def test_label_belongs_to_the_image(augment: str) -> None:
    positions = set()
    for batch in drawn(augment=augment, iterations=20)["labeled"]:
        assert np.array_equal(batch["label"].numpy(), label_of(batch["image"][:, 0].numpy()))
        positions |= {int(value) for value in batch["image"].amin(dim=(1, 2, 3, 4))}
    assert len(positions) > 15


@pytest.mark.parametrize("augment", ["crop", "rotflip", "intensity"])
def test_voxels_to_ignore_do_not_count(augment: str) -> None:
    """They are multiples of 7 here."""

    def partial(image: np.ndarray) -> np.ndarray:
        return np.where((image % 7 == 0) & (image > 0), IGNORE, label_of(image)).astype(np.uint8)

    plan = plan_of((8, 6, 4), ignore_value=9)
    whole = drawn(augment=augment, plan=plan)
    store = MemoryStore(SHAPES, unlabeled=("d", "e"))
    store.label = lambda name: Part(partial(store.images[name][0]), store.read, name)  # type: ignore[method-assign]
    found = drawn(augment=augment, plan=plan, store=store)
    assert same(whole["unlabeled"], found["unlabeled"]) and "valid" not in found["unlabeled"][0]
    for before, batch in zip(whole["labeled"], found["labeled"], strict=True):
        assert torch.equal(before["image"], batch["image"]) and bool(before["valid"].all())
        assert batch["valid"].dtype == torch.bool and 0.7 < batch["valid"].float().mean() < 1
        assert torch.equal(batch["label"], before["label"] * batch["valid"])
        if augment != "intensity":
            image = batch["image"][:, 0]
            assert torch.equal(batch["valid"], image % 7 != 0)


def test_labels_of_unlabeled_cases_are_never_opened() -> None:
    store = MemoryStore(SHAPES, unlabeled=("d", "e"))
    with pytest.raises(AssertionError, match="unlabeled case d"):
        store.label("d")
    streams = loaders(store=store, iterations=20, foreground_crops=1.0)
    assert len(list(streams["unlabeled"])) == 20
    assert streams["unlabeled"].dataset.truth is None


def test_only_the_patch_is_read() -> None:
    store = MemoryStore({"a": (32, 32, 32), "b": (32, 32, 32)}, unlabeled=("b",))
    drawn(store=store, labeled="", unlabeled="b", batch=(1, 1), iterations=3)
    assert store.read == {"b": 3 * 6 * 6 * 4}


def test_patches_do_not_share_memory_with_the_store() -> None:
    store = MemoryStore(SHAPES, unlabeled=("d", "e"))
    before = {name: image.copy() for name, image in store.images.items()}
    for batch in loaders(store=store, augment="crop", batch=(1, 0))["labeled"]:
        batch["image"].zero_()
    first = loaders(store=store, augment="crop", batch=(1, 0))["labeled"].dataset[0]
    first["image"].zero_()
    assert all(np.array_equal(store.images[name], image) for name, image in before.items())


@pytest.mark.parametrize("augment", ["rotflip", "intensity", "strong", "full"])
def test_worker_processes_change_nothing(augment: str) -> None:
    single = drawn(augment=augment, workers=0, foreground_crops=0.5)
    several = drawn(augment=augment, workers=2, foreground_crops=0.5)
    assert same(single["labeled"], several["labeled"]) and same(single["unlabeled"], several["unlabeled"])


@pytest.mark.parametrize("augment", ["intensity", "full"])
def test_a_later_start_is_the_tail_of_the_whole_run(augment: str) -> None:
    whole = drawn(iterations=6, augment=augment, soft_labels=True)
    for start in (1, 5):
        tail = drawn(iterations=6, start=start, augment=augment, soft_labels=True)
        assert all(same(tail[name], whole[name][start:]) for name in whole)
    assert len(loaders(iterations=9, start=9)["labeled"]) == 0


@pytest.mark.parametrize("start", [0, 3])
def test_two_ranks_together_draw_the_doubled_batch(start: int) -> None:
    one = drawn(batch=(4, 6), start=start)
    ranks = [drawn(batch=(2, 3), start=start, rank=rank, world=2) for rank in (0, 1)]
    for name in one:
        together = [
            {
                key: first[key] + second[key] if key == "case" else torch.cat([first[key], second[key]])
                for key in first
            }
            for first, second in zip(ranks[0][name], ranks[1][name], strict=True)
        ]
        assert same(one[name], together)


def test_seed_iteration_slot_and_stream_all_matter() -> None:
    store = MemoryStore({"a": (40, 40, 40)})
    options: dict[str, Any] = {"labeled": "a", "unlabeled": "a", "store": store, "batch": (2, 2)}
    first, other = drawn(**options), drawn(seed=1, **options)
    assert same(first["labeled"], drawn(seed=0, **options)["labeled"])
    images = [batch["image"][slot] for batch in first["labeled"] for slot in (0, 1)]
    images += [batch["image"][slot] for batch in first["unlabeled"] for slot in (0, 1)]
    images += [batch["image"][slot] for batch in other["labeled"] for slot in (0, 1)]
    assert len({image.numpy().tobytes() for image in images}) == 36


def test_global_random_numbers_are_left_alone() -> None:
    torch.manual_seed(0)
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1]
    drawn(augment="intensity", workers=0)
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(before_numpy, np.random.get_state()[1])


def test_every_round_has_every_case_once_in_a_new_order() -> None:
    cases = [name for batch in drawn(batch=(2, 0), iterations=30)["labeled"] for name in batch["case"]]
    rounds = [tuple(cases[i : i + 3]) for i in range(0, 60, 3)]
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds)
    assert len(set(rounds)) >= 5


def test_crops_are_uniform_over_all_positions_with_the_last() -> None:
    seen: Counter[int] = Counter()
    for batch in of_one(
        MemoryStore({"a": (9, 4, 5)}), (4, 4, 4), augment="crop", batch=(4, 0), iterations=300
    ):
        seen.update(int(image[0, 0, 0, 0]) - 10_000 for image in batch["image"])
    assert set(seen) == {20 * x + z for x in range(6) for z in range(2)}
    assert sum((count - 100) ** 2 / 100 for count in seen.values()) < 31.3


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_foreground_crops_are_centred_on_a_foreground_voxel_as_far_as_the_volume_allows(share: float) -> None:
    store = MemoryStore({"a": (12, 12, 12)})
    store.foreground_voxels = lambda name: np.array([[6, 0, 11]])  # type: ignore[method-assign]
    expected = store.images["a"][:, 4:8, 0:4, 8:12]
    batches = of_one(store, (4, 4, 4), augment="crop", iterations=400, foreground_crops=share)
    hits = [np.array_equal(batch["image"][0], expected) for batch in batches]
    assert abs(np.mean(hits) - share) < 0.07


def test_foreground_crops_of_a_case_without_foreground_are_random() -> None:
    store = MemoryStore(SHAPES, unlabeled=("d", "e"))
    store.foreground_voxels = lambda name: np.zeros((0, 3), int)  # type: ignore[method-assign]
    batches = drawn(store=store, foreground_crops=1.0)["labeled"]
    assert len({batch["image"].numpy().tobytes() for batch in batches}) == 6


def test_small_volumes_repeat_their_border_and_have_background_there() -> None:
    store = MemoryStore({"a": (3, 9, 4)})
    options: dict[str, Any] = {"labeled": "a", "unlabeled": "a", "augment": "crop", "foreground_crops": 0.5}
    made = drawn(store=store, plan=plan_of((6, 6, 6)), iterations=20, **options)
    seen = set()
    for batch in made["labeled"]:
        for image, label in zip(batch["image"].numpy(), batch["label"].numpy(), strict=True):
            assert image.shape == (1, 6, 6, 6)
            first = int(image[0, 1, 0, 1] - 10_000) // 4
            part = store.images["a"][0][:, first : first + 6]
            assert np.array_equal(image[0], np.pad(part, [(1, 2), (0, 0), (1, 1)], "edge"))
            assert np.array_equal(label, np.pad(label_of(part), [(1, 2), (0, 0), (1, 1)]))
            seen.add(first)
    assert seen == {0, 1, 2, 3}
    assert made["unlabeled"][0]["image"].shape == (3, 1, 6, 6, 6)


def test_empty_streams_are_absent() -> None:
    assert loaders(batch=(2, 0)).keys() == {"labeled"}
    assert loaders(batch=(0, 2)).keys() == {"unlabeled"}
    assert loaders(unlabeled="").keys() == {"labeled"}


def test_starts_by_hand() -> None:
    assert start_around((5, 0, 9), (10, 10, 10), (4, 4, 4)) == (3, 0, 6)
    assert start_around((1, 2, 3), (3, 10, 4), (6, 4, 4)) == (-1, 0, 0)
    assert random_start((4, 3, 2), (4, 4, 5), np.random.default_rng(0)) == (0, 0, -1)
    part = cut(np.arange(1, 28).reshape(3, 3, 3), (-1, 1, 2), (3, 2, 2))
    expected = [[[0, 0], [0, 0]], [[6, 0], [9, 0]], [[15, 0], [18, 0]]]
    assert np.array_equal(part, expected)


def test_case_order_does_not_depend_on_the_batch() -> None:
    patches = Patches("abc", None, (1, 1, 1), lambda *a: a[:2], key=(3, 0))
    order = [patches.case(position) for position in range(12)]
    small = drawn(seed=3, batch=(1, 0), iterations=12)["labeled"]
    large = drawn(seed=3, batch=(4, 0), iterations=3)["labeled"]
    assert [name for batch in small for name in batch["case"]] == order
    assert [name for batch in large for name in batch["case"]] == order


def test_classes_of_one_side_switch_left_right_flips_off_unless_settings_say_otherwise() -> None:
    """Values rise along x, also in a patch that was mirrored along y; a flip or turn would show."""
    paired = plan_of((6, 6, 4), "left kidney", "right kidney")

    def rises(**options: Any) -> bool:
        batches = drawn(plan=paired, iterations=12, **options)["labeled"]
        return all((batch["image"].diff(dim=2) > 0).all() for batch in batches)

    assert rises()
    assert not rises(flip_left_right=True)
    assert not all((batch["image"].diff(dim=2) > 0).all() for batch in drawn(iterations=12)["labeled"])


class Averaged(MemoryStore):
    """Two classes whose shares of a voxel are not whole: left of x = 20 half of each, right of it none."""

    def __init__(self, side: int = 40) -> None:
        super().__init__({"a": (side,) * 3, "b": (side,) * 3}, unlabeled=("b",))
        half = np.zeros((2, side, side, side), np.uint8)
        half[0, :20], half[1, :20] = 51, 153
        self.averaged = {"a": half, "b": half[::-1]}

    def label(self, name: str) -> Part:
        return Part(np.where(self.averaged[name][1] > 100, 2, 0).astype(np.uint8), self.read, name + " label")


def rising(side: int) -> np.ndarray:
    """An image that is brighter towards larger x."""
    return np.tile(np.arange(side, dtype=np.float32).reshape(1, side, 1, 1), (1, 1, side, side))


THREE = plan_of((12, 12, 12), "a", "b")


@pytest.mark.parametrize("augment", ["crop", "rotflip", "strong", "full"])
def test_shares_of_the_classes_follow_the_image(augment: str) -> None:
    """The image is brighter towards larger x, so its mean says where the patch is from."""
    store = Averaged()
    store.images["a"] = rising(40)
    sides = Counter[bool]()
    options: dict[str, Any] = {"plan": THREE, "augment": augment, "soft_labels": True}
    for batch in of_one(store, (12, 12, 12), batch=(2, 0), iterations=30, **options):
        soft = batch["soft"]
        assert soft.shape == (2, 3, 12, 12, 12) and soft.dtype == torch.float32
        assert torch.allclose(soft.sum(dim=1), torch.ones(2, 12, 12, 12), atol=1e-5) and soft.min() >= 0
        assert torch.equal(batch["label"] == 2, soft.argmax(dim=1) == 2)
        for image, shares in zip(batch["image"][:, 0], soft, strict=True):
            left, right = shares[2] > 0.59, shares[0] > 0.99
            sides.update({True: int(left.sum()), False: int(right.sum())})
            if left.any() and right.sum() > 400:  # fewer may lie outside the scan, at its dark end
                assert image[left].mean() < image[right].mean()
            assert torch.allclose(shares[1][left], torch.tensor(0.2), atol=1e-2)
    assert min(sides.values()) > 5000


def test_without_averaged_shares_they_are_those_of_the_label() -> None:
    for augment in ("rotflip", "full"):
        plain, both = drawn(augment=augment), drawn(augment=augment, soft_labels=True)
        for one, batch in zip(plain["labeled"], both["labeled"], strict=True):
            assert "soft" not in one and torch.equal(one["image"], batch["image"])
            assert torch.equal(one["label"], batch["label"])
            assert torch.equal(batch["soft"].argmax(dim=1), batch["label"])
            if augment == "rotflip":
                assert torch.equal(batch["soft"][:, 1], batch["label"].float())


@pytest.mark.parametrize("augment", ["crop", "full"])
def test_pseudo_labels_come_with_their_cases_only(augment: str) -> None:
    store, pseudo = Averaged(), Averaged()
    options: dict[str, Any] = {"store": store, "labeled": "a", "plan": THREE, "augment": augment}
    assert "soft" not in drawn(unlabeled="b", **options)["unlabeled"][0]
    for batch in drawn(unlabeled="bx", pseudo=pseudo, **options)["unlabeled"]:
        assert set(batch["case"]) == {"b"} and "label" not in batch
        assert batch["soft"].shape == (3, 3, 12, 12, 12)
        assert torch.allclose(batch["soft"].sum(dim=1), torch.ones(3, 12, 12, 12), atol=1e-5)
    assert not any("label" in name for name in store.read if name.startswith("b"))
    pseudo.averaged.clear()
    assert loaders(unlabeled="bx", pseudo=pseudo, **options).keys() == {"labeled"}


def test_deformed_voxels_to_ignore_stay_with_the_image() -> None:
    """Voxels to ignore are bright here; the label outside the scan is known background."""
    store = MemoryStore({"a": (30, 30, 30)})
    x, y, z = np.indices((30, 30, 30))
    unknown = (x - 15) ** 2 + (y - 12) ** 2 + (z - 14) ** 2 < 49
    store.images["a"] = np.where(unknown, 10, 0)[None].astype(np.float32)
    store.label = lambda name: Part(np.where(unknown, IGNORE, 0).astype(np.uint8), store.read, "l")  # type: ignore[method-assign]
    plan = plan_of((24, 24, 24), ignore_value=9)
    for batch in of_one(store, plan.patch, plan=plan, augment="full", iterations=10):
        image, valid = batch["image"][0, 0], batch["valid"][0]
        middle = (image[~valid].mean() + image[valid].mean()) / 2
        assert ((image > middle) == ~valid).float().mean() > 0.97
        assert not batch["label"].any()


def test_full_reads_only_what_the_patch_needs() -> None:
    store = MemoryStore({"a": (96, 96, 96)}, unlabeled=("a",))
    plan = plan_of((16, 16, 16))
    drawn(store=store, unlabeled="a", plan=plan, augment="full", batch=(0, 1), iterations=8)
    assert 0 < store.read["a"] < 8 * 40**3 < 8 * 96**3


def test_full_mirrors_only_where_asked() -> None:
    store = MemoryStore({"a": (24, 24, 24)})
    store.images["a"] = rising(24)

    def upwards(**options: Any) -> list[bool]:
        images = [
            batch["image"][0, 0]
            for batch in of_one(store, (16, 16, 16), augment="full", iterations=30, **options)
        ]
        return [bool(image[-1].mean() > image[0].mean()) for image in images]

    assert all(upwards()) and 5 < sum(upwards(flip_left_right=True)) < 25


def test_shares_by_hand() -> None:
    shares = np.array([[0.2, 0.5, 0.0, 0.3], [0.3, 0.5, 0.0, 0.6]], np.float32).reshape(2, 4, 1, 1)
    assert with_background(shares)[0].ravel() == pytest.approx([0.5, 0.0, 1.0, 0.1])
    assert most_probable(with_background(shares)).ravel().tolist() == [0, 1, 0, 2]
    assert most_probable(with_background(shares[:1])).ravel().tolist() == [0, 0, 0, 0]
    assert most_probable(with_background(2 * shares[:1])).ravel().tolist() == [0, 1, 0, 1]
