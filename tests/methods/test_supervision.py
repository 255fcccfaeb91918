"""Options of the supervised loss: coarser scales and the boundary loss; off, they change nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from semivox.errors import UserError
from semivox.losses.distance import boundary_loss
from semivox.losses.prediction import Prediction
from semivox.losses.supervised import cross_entropy_dice
from semivox.methods import METHODS, create, method_class
from semivox.methods.base import Batch, Method
from semivox.nets import NetFactory, build_net

NET = NetFactory(1, 3, width=4, dropout=0.0, stem=(2, 1, 1), strides=((2, 2, 2),) * 3, along_plan=True)
NETS = ("vnet", "resnet34", "unet3d", "resunet")
WITH = {
    option: [name for name in METHODS if option in method_class(name).Config.model_fields]
    for option in ("deep_supervision", "boundary_weight")
}


def plain_loss(net: Any, labeled: Batch) -> torch.Tensor:
    own = Prediction.of(net(labeled.image))
    return cross_entropy_dice(own.log_probs, own.probs, labeled.target, labeled.valid)


def batches() -> tuple[Batch, Batch]:
    image = torch.randn(4, 1, 32, 16, 16, generator=torch.Generator().manual_seed(0))
    label = (image[:2, 0] > 0).long() + (image[:2, 0] > 1).long()
    return Batch(image[:2], label, valid=image[:2, 0] < 2), Batch(image[2:], None)


def build(name: str, net: NetFactory = NET, **options: Any) -> Method:
    torch.manual_seed(0)
    return create(name, options, net)


def test_which_methods_have_them() -> None:
    one_loss = {"supervised", "supervised_matched", "supervised_pair", "ua_mt", "ac_mt", "ad_mt", "dual"}
    one_loss |= {"cpcl", "cross_match", "luseg", "mcf"}
    assert set(WITH["deep_supervision"]) == one_loss
    assert set(WITH["boundary_weight"]) == one_loss | {"self_training", "labels_only"}


@pytest.mark.parametrize("name", NETS)
def test_heads_of_coarser_levels_leave_the_rest_as_it_is(name: str) -> None:
    torch.manual_seed(0)
    plain = NET(name)
    torch.manual_seed(0)
    deep = NET(name, deep=True)
    state = deep.state_dict()
    assert all(torch.equal(state[key], value) for key, value in plain.state_dict().items())
    added = {key for key in state if key not in plain.state_dict()}
    assert all("coarse_heads" in key for key in added) and bool(added) == (name != "resunet")
    scales = deep.eval().deep(image := batches()[0].image)
    assert tuple(scales[0].shape) == (2, 3, 32, 16, 16)
    assert len(scales) == deep.scales == 3
    torch.testing.assert_close(scales[0], plain.eval()(image))


def naive_coarse(logits: Tensor, label: Tensor, valid: Tensor) -> float:
    """Cross-entropy + Dice with shares of classes among the valid voxels of each block, as loops."""
    count, classes, *sides = logits.shape
    block = [fine // side for fine, side in zip(label.shape[1:], sides, strict=True)]
    probs, total = logits.double().softmax(1), 0.0
    weights = torch.zeros(count, *sides, dtype=torch.float64)
    shares = torch.zeros(count, classes, *sides, dtype=torch.float64)
    for b in range(count):
        for place in torch.cartesian_prod(*map(torch.arange, sides)).tolist():
            part = tuple(slice(p * s, (p + 1) * s) for p, s in zip(place, block, strict=True))
            known, classes_here = valid[b][part], label[b][part]
            weights[(b, *place)] = known.double().mean()
            for k in range(classes):
                if known.any():
                    shares[(b, k, *place)] = (classes_here[known] == k).double().mean()
    for b in range(count):
        entropy = -(weights[b] * (shares[b] * probs[b].log()).sum(0)).sum() / (weights.sum() / count)
        dice = 0.0
        for k in range(1, classes):
            overlap = (weights[b] * shares[b, k] * probs[b, k]).sum()
            size = (weights[b] * (shares[b, k] + probs[b, k])).sum()
            dice += (1 - (2 * overlap + 1) / (size + 1)) / (classes - 1)
        total += float(entropy + dice) / count
    return total


def test_deep_supervision_is_the_weighted_mean_of_three_losses(step: Callable[..., Any]) -> None:
    labeled, unlabeled = batches()
    method = build("supervised_matched", deep_supervision=True)
    _, *coarser = method.net.deep(labeled.image)
    assert labeled.label is not None and labeled.valid is not None
    parts = [naive_coarse(one.detach(), labeled.label, labeled.valid) for one in coarser]
    finest = plain_loss(method.net, labeled).item()
    wanted = (finest + parts[0] / 2 + parts[1] / 4) / 1.75
    assert method.losses(labeled, unlabeled, step())["sup"].item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "share", "background", "terms"),
    [
        ("cpcl", 0.5, True, {"sup": "net"}),
        ("cross_match", 0.25, False, {"sup": "net"}),
        ("luseg", 1.0, False, {"sup_a": "net_a", "sup_b": "net_b"}),
        ("mcf", 1.0, False, {"sup_a": "net_a", "sup_b": "net_b"}),
    ],
)
def test_coarser_scales_and_boundary_of_methods_with_shares_of_the_loss(
    step: Callable[..., Any], name: str, share: float, background: bool, terms: dict[str, str]
) -> None:
    """As many labeled patches as patches: no other patch shares the normalisation."""
    labeled, _ = batches()
    nothing = Batch(labeled.image[:0], None)
    method = build(name, replace(NET, norm="instance"), deep_supervision=True, boundary_weight=2.0)
    found = method.losses(labeled, nothing, step(5))
    assert labeled.label is not None and labeled.valid is not None
    for term, part in terms.items():
        finest, *coarser = getattr(method, part).deep(labeled.image)
        own = Prediction.of(finest)
        wanted = cross_entropy_dice(
            own.log_probs, own.probs, labeled.label, labeled.valid, background=background
        ).item()
        for logits, factor in zip(coarser, (0.5, 0.25), strict=True):
            wanted += factor * naive_coarse(logits.detach(), labeled.label, labeled.valid)
        boundary = boundary_loss(own.probs, labeled.label, labeled.valid, (1.0, 1.0, 1.0)).item()
        assert found[term].item() == pytest.approx(share * (wanted / 1.75 + boundary), rel=1e-5)


@pytest.mark.parametrize(("iteration", "share"), [(0, 0.01), (5, 0.5)])
def test_the_weight_of_the_boundary_loss_grows(
    step: Callable[..., Any], iteration: int, share: float
) -> None:
    labeled, unlabeled = batches()
    method = build("supervised_matched", replace(NET, spacing_mm=(0.5, 1.0, 0.5)), boundary_weight=3.0)
    found = method.losses(labeled, unlabeled, at := step(iteration))["sup"]
    probs = method.net(labeled.image).softmax(1)
    boundary = boundary_loss(probs, labeled.target, labeled.valid, (1.0, 2.0, 1.0))
    wanted = plain_loss(method.net, labeled) + 3.0 * share * boundary
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert at.notes["weight_boundary"].item() == pytest.approx(3.0 * share)


@pytest.mark.parametrize(("option", "value"), [("deep_supervision", True), ("boundary_weight", 1.0)])
def test_every_method_with_an_option_learns_with_it(
    step: Callable[..., Any], option: str, value: Any
) -> None:
    for name in WITH[option]:
        terms = []
        for options in ({}, {option: value}):
            method = build(name, **options)
            torch.manual_seed(1)
            losses = method.losses(*batches(), step(5))
            torch.stack(list(losses.values())).sum().backward()
            grads = [p.grad for p in method.parameters() if p.grad is not None]
            assert all(bool(torch.isfinite(one).all()) for one in grads)
            empty = method.losses(Batch(batches()[0].image[:0], None), batches()[1], step(5))
            assert all(bool(torch.isfinite(one)) for one in empty.values())
            terms.append(next(loss.item() for key, loss in losses.items() if key.startswith("sup")))
        assert terms[0] != terms[1], name


@pytest.mark.parametrize("name", WITH["deep_supervision"])
def test_the_options_in_mixed_precision(step: Callable[..., Any], name: str) -> None:
    method = build(name, deep_supervision=True, boundary_weight=1.0)
    with torch.autocast("cpu", torch.bfloat16):
        losses = method.losses(*batches(), step(5))
    torch.stack(list(losses.values())).sum().backward()
    assert all(bool(torch.isfinite(loss)) for loss in losses.values())
    assert all(loss.dtype == torch.float32 for loss in losses.values())


def test_a_network_without_coarser_logits_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"deep_supervision needs logits of coarser scales(.|\n)*found: +UNet"
    ):
        build("supervised", replace(NET, name="monai:UNet"), deep_supervision=True)
    options = {"init_filters": 8, "dsdepth": 2}
    method = build(
        "supervised", replace(NET, name="monai:SegResNetDS", options=options), deep_supervision=True
    )
    assert method.net.scales == 2
    assert build_net("vnet", in_channels=1, num_classes=2, width=2).scales == 1
