"""What every registered method must do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch

import semivox.methods
from semivox.errors import UserError
from semivox.methods import METHODS, create, method_class
from semivox.methods.base import Batch, Method, PairMethod, TeacherMethod
from semivox.methods.heads import MultiDecoderMethod
from semivox.nets import NetFactory

Factory = Callable[..., Any]
NET = NetFactory(in_channels=1, num_classes=2, width=2, dropout=0.0)
SHAPE = (32, 16, 16)
NEED_LABELS = {"bcp", "labels_only", "sdcl", "self_training"} | {
    "supervised", "supervised_pair", "supervised_matched"
}  # fmt: skip
"""Methods that learn nothing from unlabeled patches without pseudo-labels of a stage before."""


OUT_OF_RANGE = [
    *(("bcp", *pair) for pair in (("pretraining", 1), ("cuboid", 1), ("neighbours", 8), ("alpha", -1))),
    ("bcp", "teacher_mode", "off"),
    *(("dual", *pair) for pair in (("alpha", 101), ("temperature", 0), ("pull_fraction", 0))),
    *(("ss_net", *pair) for pair in (("variant", "code"), ("rows", 1), ("memory_size", 1), ("epsilon", 0))),
    *(("ua_mt", *pair) for pair in (("passes", 7), ("passes", 0), ("threshold_end", 1.5), ("noise_std", -1))),
    ("ua_mt", "distance", "l1"),
]


def patches(labeled: int, unlabeled: int, *, foreground: bool = True) -> tuple[Batch, Batch]:
    """A bright box on noise; the box is the label."""
    image = 0.3 * torch.randn(labeled + unlabeled, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    label = torch.zeros(labeled + unlabeled, *SHAPE, dtype=torch.int64)
    if foreground:
        label[:, 4:12, 5:13, 3:11] = 1
        image += 2.0 * label.unsqueeze(1)
    return Batch(image[:labeled], label[:labeled] if labeled else None), Batch(image[labeled:], None)


def build(name: str, net: NetFactory = NET) -> Method:
    torch.manual_seed(0)
    return create(name, {}, net)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("labeled", "unlabeled"), [(2, 2), (2, 0), (0, 2), (1, 3)])
@pytest.mark.parametrize("foreground", [True, False])
def test_finite_losses_and_gradients(
    name: str, step: Factory, labeled: int, unlabeled: int, foreground: bool
) -> None:
    method = build(name)
    losses = method.losses(*patches(labeled, unlabeled, foreground=foreground), step())
    assert losses and all(loss.shape == () and loss.dtype == torch.float32 for loss in losses.values())
    assert all(bool(torch.isfinite(loss)) for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    gradients = [parameter.grad for parameter in method.parameters() if parameter.grad is not None]
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    assert gradients or (not labeled and name in NEED_LABELS)


@pytest.mark.parametrize(
    ("name", "options", "without_labels", "without_unlabeled"),
    [
        ("ac_mt", {}, "sup", "consistency"),
        ("ad_mt", {"threshold": 0}, "sup", "pseudo"),
        ("cpcl", {}, "sup l2u u2l", "l2u u2l"),
        ("cpcl", {"variant": "released"}, "sup l2u u2l", "l2u u2l"),
        ("cross_match", {"threshold_start": 0, "threshold_end": 0}, "sup", "ip tkd dkd"),
        ("dtc", {}, "sup_dice sup_sdf", ""),
        ("dual", {}, "sup_a sup_b cr", "cps efs pgl"),
        ("luseg", {}, "sup_a sup_b cdr", "pseudo contrast"),
        ("luseg", {"variant": "released"}, "sup_a sup_b cdr", "pseudo contrast"),
        ("luseg", {"margin": 1.0}, "sup_a sup_b cdr", "pseudo contrast"),
        ("mc_net", {}, "sup_transposed sup_trilinear", ""),
        ("mcf", {}, "sup_a sup_b cdr", "dcpl"),
        ("ml_rpl", {"mutual_on_labeled": False}, "sup_transposed sup_nearest", "mutual"),
        ("sassnet", {}, "sup_dice sup_sdf", "adversarial"),
        ("ss_net", {}, "sup contrast", ""),
        ("ua_mt", {}, "sup", "consistency"),
        ("ua_mt", {"consistency_on_labeled": True}, "sup", ""),
        ("urpc", {}, "sup", "pyramid"),
    ],
)
def test_terms_over_nothing_are_0_and_no_others(
    name: str, options: dict[str, Any], without_labels: str, without_unlabeled: str, step: Factory
) -> None:
    torch.manual_seed(0)
    method = create(name, options, replace(NET, width=4, num_classes=3))
    for labeled, unlabeled, zero in ((0, 2, without_labels), (2, 0, without_unlabeled), (1, 3, "")):
        losses = method.losses(*patches(labeled, unlabeled), step(5))
        assert {key for key, loss in losses.items() if loss.item() == 0} == set(zero.split()), losses


@pytest.mark.parametrize("name", METHODS)
def test_works_where_features_merge_voxels(name: str, step: Factory) -> None:
    """On an automatic plan the features are coarser than the image; labels and predictions are not."""
    plan = {"stem": (2, 2, 1), "strides": ((2, 2, 2), (2, 2, 1)), "along_plan": True}
    method = build(name, replace(NET, **plan))
    labeled, unlabeled = patches(2, 2)
    total = torch.stack(list(method.losses(labeled, unlabeled, step()).values())).sum()
    total.backward()
    assert bool(torch.isfinite(total))
    with torch.no_grad():
        assert method.eval().predict(unlabeled.image).shape == (2, 2, *SHAPE)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("labeled", "unlabeled"), [(2, 2), (2, 0), (0, 2)])
def test_critic_and_networks_are_trained_apart(
    name: str, step: Factory, labeled: int, unlabeled: int
) -> None:
    """`losses` leaves no gradient in the critic, `critic_losses` none outside; modes and buffers stay."""
    method = build(name)
    critic = {parameter for group in method.critic_parameters() for parameter in group["params"]}
    assert critic <= set(method.parameters())
    batches = patches(labeled, unlabeled)
    torch.stack(list(method.losses(*batches, step()).values())).sum().backward()
    assert all(parameter.grad is None for parameter in critic)

    method.zero_grad()
    buffers = {key: value.clone() for key, value in method.named_buffers()}
    losses = method.critic_losses(*batches, step())
    assert bool(losses) == bool(critic)
    for loss in losses.values():
        assert loss.shape == () and loss.dtype == torch.float32 and bool(torch.isfinite(loss))
        loss.backward()
    trained = {parameter for parameter in method.parameters() if parameter.grad is not None}
    assert trained == critic and all(bool(torch.isfinite(p.grad).all()) for p in critic)
    assert all(torch.equal(buffers[key], value) for key, value in method.named_buffers())
    assert all(module.training and p.requires_grad for module in method.modules() for p in critic)


@pytest.mark.parametrize("name", METHODS)
def test_the_first_steps_lower_the_supervised_loss(name: str, step: Factory) -> None:
    """The first tenth of a run, in which ramps have hardly begun."""
    method = build(name)
    optimiser = torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9)
    labeled, unlabeled = patches(2, 2)
    history, steps = [], 40 if name == "ss_net" else 16  # Dice without cross-entropy begins slowly
    for iteration in range(steps):
        losses = method.losses(labeled, unlabeled, at := step(iteration, 10 * steps))
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
        method.after_step(at)
        history.append(sum(loss.item() for key, loss in losses.items() if key.startswith("sup")))
    assert history[-1] < 0.95 * history[0]


@pytest.mark.parametrize("name", METHODS)
def test_patches_may_grow_during_a_run(name: str, step: Factory) -> None:
    """Nothing that a method keeps depends on the size of the patches."""
    method = build(name)
    for iteration, sides in enumerate((SHAPE, (48, 32, 16))):
        image = torch.randn(4, 1, *sides, generator=torch.Generator().manual_seed(0))
        label = (image[:2, 0] > 1).long()
        losses = method.losses(Batch(image[:2], label), Batch(image[2:], None), at := step(iteration + 5))
        assert all(bool(torch.isfinite(loss)) for loss in losses.values())
        method.after_step(at)


@pytest.mark.parametrize("name", METHODS)
def test_pseudo_labels_are_classes_on_the_grid_of_the_image(name: str) -> None:
    method = build(name, NetFactory(in_channels=2, num_classes=3, width=2))
    image = torch.randn(2, 2, 16, 16, 32)
    with torch.no_grad():
        found = method.pseudo_labels(image)
    assert any(pseudo.probs is not None for pseudo in found.values())
    for pseudo in found.values():
        assert pseudo.label.shape == (2, 16, 16, 32) and pseudo.label.dtype == torch.int64
        assert 0 <= int(pseudo.label.min()) <= int(pseudo.label.max()) < 3
        if pseudo.valid is not None:
            assert pseudo.valid.shape == pseudo.label.shape and pseudo.valid.dtype == torch.bool
        if pseudo.probs is not None:
            assert pseudo.label.equal(pseudo.probs.argmax(dim=1))


@pytest.mark.parametrize("name", METHODS)
def test_prediction(name: str) -> None:
    method = build(name, NetFactory(in_channels=2, num_classes=3, width=2)).eval()
    image = torch.randn(1, 2, 16, 16, 32)
    probs, members = method.predict(image), method.predict_members(image)
    assert probs.shape == (1, 3, 16, 16, 32) and probs.dtype == torch.float32
    torch.testing.assert_close(probs.sum(dim=1), torch.ones(1, 16, 16, 32))
    torch.testing.assert_close(method.combine(members), probs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert method.predict(image).dtype == torch.float32
    several = isinstance(method, PairMethod | TeacherMethod | MultiDecoderMethod)
    assert len(members) == 3 if name in {"ad_mt", "mc_net_plus"} else len(members) == 1 + several
    if not isinstance(method, TeacherMethod | MultiDecoderMethod):
        torch.testing.assert_close(torch.stack(list(members.values())).mean(dim=0), probs)


@pytest.mark.parametrize("name", METHODS)
def test_state_survives(name: str) -> None:
    first, second = build(name).eval(), create(name, {}, NET).eval()
    image = torch.randn(1, 1, *SHAPE)
    assert not torch.equal(first.predict(image), second.predict(image))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.predict(image), second.predict(image))


@pytest.mark.parametrize("name", METHODS)
def test_losses_do_not_depend_on_the_layout(name: str, step: Factory) -> None:
    def run(layout: torch.memory_format) -> dict[str, float]:
        method = build(name).to(memory_format=layout)
        labeled, unlabeled = patches(2, 2)
        labeled = Batch(labeled.image.contiguous(memory_format=layout), labeled.label)
        unlabeled = Batch(unlabeled.image.contiguous(memory_format=layout), None)
        return {key: loss.item() for key, loss in method.losses(labeled, unlabeled, step(5)).items()}

    assert run(torch.channels_last_3d) == pytest.approx(run(torch.contiguous_format), rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_options_are_frozen_and_described(name: str) -> None:
    config = method_class(name).Config()
    assert all(field.description for field in config.model_fields.values())
    with pytest.raises(ValueError):
        config.nothing = 1  # type: ignore[attr-defined]


def test_batches_a_step() -> None:
    sizes = {name: method_class(name).batch for name in METHODS}
    assert sizes["bcp"] == (4, 4)
    assert sizes["dual"] == (2, 2)
    assert sizes["supervised"] == (4, 0)
    assert sizes["supervised_pair"] == (2, 0)
    assert sizes["supervised_matched"] == (2, 0)
    assert {sizes[name] for name in ("ac_mt", "cpcl", "ua_mt", "urpc")} == {(2, 2)}
    supervised = {name for name in METHODS if not method_class(name).batch[1]}
    assert supervised == {"labels_only", "supervised", "supervised_matched", "supervised_pair"}


def test_supervised_ignores_unlabeled_patches(step: Factory) -> None:
    labeled, unlabeled = patches(2, 2)
    method = build("supervised_pair")
    with_them = method.losses(labeled, unlabeled, step())
    without = method.losses(labeled, Batch(unlabeled.image[:0], None), step())
    assert {k: v.item() for k, v in with_them.items()} == {k: v.item() for k, v in without.items()}


@pytest.mark.parametrize("name", ["supervised", "supervised_pair"])
def test_supervised_takes_mixtures_on_request(name: str, step: Factory) -> None:
    """The network sees the two patches, and both again after they swapped the voxels of a cuboid."""
    labeled, unlabeled = patches(2, 0)
    plain, mixing = build(name), create(name, {"mix": "paste"}, NET)
    mixing.load_state_dict(plain.state_dict())
    batches = []
    for method in (plain, mixing):
        net = method.net if name == "supervised" else method.net_a
        net.register_forward_pre_hook(lambda module, args: batches.append(args[0]))
        method.losses(labeled, unlabeled, step())
    assert torch.equal(batches[0], labeled.image) and torch.equal(batches[1][:2], labeled.image)
    mixed = batches[1][2:]
    assert not torch.equal(mixed, labeled.image)
    torch.testing.assert_close(mixed.sum(dim=0), labeled.image.sum(dim=0))


def test_supervised_pair_has_the_first_term_of_dual(step: Factory) -> None:
    labeled, unlabeled = patches(2, 0)
    dual, pair = build("dual"), build("supervised_pair")
    assert dual.state_dict().keys() == pair.state_dict().keys()
    expected = dual.losses(labeled, unlabeled, step())
    found = pair.losses(labeled, unlabeled, step())
    for key in ("sup_a", "sup_b"):
        torch.testing.assert_close(found[key], expected[key])


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("superviced", {}, "did you mean supervised"),
        ("zzz", {}, "choose one of these"),
        ("dual", {"tua": 0.5}, r"(?s)Unknown setting: method\.options\.tua.*did you mean tau"),
        ("dual", {"tau": 2}, "less than or equal to 1"),
        ("dual", {"cr_mask": "and"}, "xor"),
        ("dual", {"nets": ["vnet", "vnett"]}, "did you mean vnet"),
        ("supervised", {"net": "unet"}, "did you mean unet3d"),
        ("dual", {"nets": ["vnet"]}, "nets"),
        *((name, {option: value}, option) for name, option, value in OUT_OF_RANGE),
    ],
)
def test_mistakes_are_explained(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        create(name, options, NET)


def test_other_packages_register_by_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("mine", "semivox.methods.supervised:SupervisedMatched", "semivox.methods"),
        EntryPoint("dual", "nowhere:Nothing", "semivox.methods"),
        EntryPoint("broken", "nowhere:Nothing", "semivox.methods"),
        EntryPoint("faulty", "faulty_methods:Mine", "semivox.methods"),
        EntryPoint("function", "semivox.methods:create", "semivox.methods"),
    ]
    (tmp_path / "faulty_methods.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(semivox.methods, "entry_points", lambda group: points)
    assert method_class("mine").__name__ == "SupervisedMatched"
    assert method_class("dual").__name__ == "Dual"
    for name, found in (("broken", "nowhere"), ("faulty", "ZeroDivisionError"), ("function", "create")):
        with pytest.raises(UserError, match=f"(?s)The method {name} cannot be loaded.*found:.*{found}"):
            method_class(name)


def test_tables_are_read_without_torch() -> None:
    code = (
        "import sys, semivox.methods, semivox.nets; assert 'torch' not in sys.modules, 'torch was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
