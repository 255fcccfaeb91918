"""Which scans to annotate next."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from semivox.config import PredictConfig
from semivox.datasets.dataset import open_dataset
from semivox.datasets.splits import Split, save_splits
from semivox.errors import UserError
from semivox.inference.model import load_model, save_model, start_from
from semivox.inference.rank import order, pooled, rank, standardised
from semivox.methods import create
from semivox.nets import NetFactory
from semivox.preprocessing.fingerprint import fingerprint
from semivox.preprocessing.planner import make_plan
from semivox.settings import PlanConfig

NET = {"in_channels": 1, "num_classes": 3, "width": 2}


@pytest.fixture
def run(phantoms, tmp_path):
    """An untrained model with 2 labeled and 3 unlabeled cases."""
    dataset = open_dataset(phantoms)
    names = [case.name for case in dataset.pool("train")]
    split = Split(labeled=tuple(names[:2]), unlabeled=tuple(names[2:5]))
    config = PlanConfig(spacing_mm=(2.5, 2.5, 2.5), patch=(16, 16, 16))
    plan = make_plan(dataset, fingerprint(dataset, split), config)
    torch.manual_seed(0)
    method = create("supervised", {}, NetFactory(**NET))
    save_model(method, tmp_path / "run", method_name="supervised", options={}, net=NET, plan=plan)
    save_splits(tmp_path / "run" / "splits.json", [split])
    return tmp_path / "run"


def test_every_unlabeled_scan_is_ranked_without_its_label(run, phantoms, tmp_path):
    seen = []
    table = rank(
        load_model(run, "cpu"), run, open_dataset(phantoms), tmp_path / "out", config=PredictConfig(),
        draw=lambda path, samples, captions: seen.append((path.name, len(samples), captions)),
    )  # fmt: skip
    assert set(table["case"]) == {case.name for case in open_dataset(phantoms).pool("train")[2:5]}
    assert table["rank"].tolist() == [1, 2, 3]
    assert seen == [("rank.png", 3, [f"{i}. {name}" for i, name in enumerate(table["case"], start=1)])]
    assert (tmp_path / "out" / "rank.csv").is_file()
    rank(load_model(run, "cpu"), run, open_dataset(phantoms), tmp_path / "out", config=PredictConfig())
    foreign = tmp_path / "foreign" / "rank.csv"
    foreign.parent.mkdir()
    foreign.write_text("mine")
    with pytest.raises(UserError, match="did not write"):
        rank(load_model(run, "cpu"), run, open_dataset(phantoms), foreign.parent, config=PredictConfig())
    assert foreign.read_text() == "mine"


def test_orders_by_hand():
    points = np.array([[0.0], [1.0], [5.0], [9.0]])  # the last is labeled
    doubt = np.array([0.1, 0.4, 0.2])
    assert order(doubt, points, 3, "uncertainty", 0)[0] == [1, 2, 0]
    chosen, distances = order(doubt, points, 3, "diversity", 0)
    assert chosen == [0, 2, 1] and distances.tolist() == [9.0, 1.0, 4.0]
    assert order(doubt, points, 3, "both", 0)[0] == [1, 2, 0]  # 3/3 * 8, then 2/3 * 4 against 1/3 * 1
    orders = {tuple(order(doubt, points, 3, "random", seed)[0]) for seed in range(20)}
    assert len(orders) > 3 and all(sorted(one) == [0, 1, 2] for one in orders)


def test_constant_features_do_not_count():
    found = standardised(np.array([[1.0, 7.0], [3.0, 7.0]]))
    np.testing.assert_allclose(found, [[-1.0, 0.0], [1.0, 0.0]])


def test_features_are_those_of_the_coarsest_map():
    method = create("supervised", {}, NetFactory(**NET)).eval()
    image = torch.rand(2, 1, 16, 16, 16)
    with pooled(method) as found, torch.no_grad():
        method.predict(image)
    with torch.no_grad():
        expected = method.net.encode(image)[-1].mean((2, 3, 4))
    assert len(found) == 1
    torch.testing.assert_close(found[0], expected)


def test_nothing_to_rank(run, phantoms, tmp_path):
    names = [case.name for case in open_dataset(phantoms).pool("train")]
    save_splits(run / "splits.json", [Split(labeled=tuple(names))])
    with pytest.raises(UserError, match="There is no unlabeled scan to rank"):
        rank(load_model(run, "cpu"), run, open_dataset(phantoms), tmp_path / "out", config=PredictConfig())


def test_another_data_set_is_named_as_such(run, phantoms, tmp_path):
    dataset, out, config = open_dataset(phantoms), tmp_path / "out", PredictConfig()
    other = replace(dataset, class_names=("background", "liver", "spleen"))
    with pytest.raises(UserError, match="trained on another data set"):
        rank(load_model(run, "cpu"), run, other, out, config=config)
    fewer = replace(dataset, cases=dataset.cases[:2])
    with pytest.raises(UserError, match=r"not fit the run's split(.|\n)*add the missing cases"):
        rank(load_model(run, "cpu"), run, fewer, out, config=config)


def test_training_starts_from_a_run_that_fits(run):
    plan = load_model(run, "cpu").plan
    torch.manual_seed(1)
    method = create("supervised", {}, NetFactory(**NET))
    torch.manual_seed(0)
    expected = create("supervised", {}, NetFactory(**NET)).state_dict()
    start_from(method, run, plan)
    for name, value in method.state_dict().items():
        torch.testing.assert_close(value, expected[name])
    with pytest.raises(UserError, match="other class_names"):
        start_from(method, run, plan.model_copy(update={"class_names": ("background", "a", "b")}))
    with pytest.raises(UserError, match="leave out --init"):
        start_from(create("supervised", {}, NetFactory(**{**NET, "width": 4})), run, plan)
