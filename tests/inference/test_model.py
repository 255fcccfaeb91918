"""Saving and loading: the same prediction, and clear words for every kind of damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from semivox.config import PredictConfig
from semivox.errors import UserError
from semivox.inference.model import load_model, save_model
from semivox.methods import create
from semivox.nets import NetFactory

NET = {"in_channels": 1, "num_classes": 3, "width": 2, "norm": "batch", "dropout": 0.5}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, make_plan) -> Path:
    """A run folder with a small network of random weights, and what it predicts."""
    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    method = create("supervised", {"net": "vnet"}, NetFactory(**NET))
    for module in method.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            torch.nn.init.uniform_(module.running_mean)
    save_model(
        method,
        folder / "run",
        method_name="supervised",
        options={"net": "vnet"},
        net=NET,
        plan=make_plan(),
        extra={"checkpoint": "last", "predict": PredictConfig(batch=3).model_dump(mode="json")},
    )
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        torch.save({"image": image, "probs": method.eval().predict(image)}, folder / "expected.pt")
    return folder


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of the run folder, to be damaged."""
    return shutil.copytree(trained, tmp_path, dirs_exist_ok=True) / "run"


def edit(run: Path, change) -> None:
    file = run / "model.yaml"
    values = yaml.safe_load(file.read_text())
    change(values)
    file.write_text(yaml.safe_dump(values))


def test_an_overlap_takes_the_place_of_a_stored_stride(run):
    edit(run, lambda values: values["predict"].update(stride=[4, 4, 4]))
    model = load_model(run)
    assert model.settings(tta=True).stride == (4, 4, 4)
    asked = model.settings(overlap=0.25)
    assert (asked.stride, asked.overlap, asked.window) == (None, 0.25, "patch")
    with pytest.raises(UserError, match="leave out one"):
        model.settings(overlap=0.25, stride=(2, 2, 2))


def test_loaded_model_predicts_what_the_saved_one_did(run):
    expected = torch.load(run.parent / "expected.pt", weights_only=True)
    model = load_model(run)
    assert not model.method.training
    with torch.no_grad():
        torch.testing.assert_close(model.method.predict(expected["image"]), expected["probs"])


def test_a_network_of_monai_is_built_anew_with_its_options(tmp_path, make_plan):
    named = {
        "name": "monai:SegResNet",
        "options": {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]},
    }
    grid = {"stem": (1, 1, 2), "strides": ((2, 2, 2),), "patch": (16, 16, 16), "spacing_mm": (1.0, 1.0, 0.5)}
    net = {"in_channels": 1, "num_classes": 3, **grid, **named}
    method = create("supervised", {}, NetFactory(**net))
    save_model(method, tmp_path, method_name="supervised", options={}, net=net, plan=make_plan())
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        expected = method.eval().predict(image)
        torch.testing.assert_close(load_model(tmp_path).method.predict(image), expected)


def test_description_says_everything_about_the_model(run, make_plan):
    model = load_model(run)
    assert model.plan == make_plan()
    stored = yaml.safe_load((run / "model.yaml").read_text())
    assert stored == model.meta
    assert stored["labels"] == {"background": 0, "part 7": 7, "part 300": 300}
    assert stored["channels"] == ["MR"]
    assert stored["method"] == {"name": "supervised", "options": {"net": "vnet"}}
    assert stored["net"] == NET
    assert stored["checkpoint"] == "last"
    assert stored["predict"]["batch"] == 3
    assert sorted(file.name for file in run.iterdir()) == ["model.safetensors", "model.yaml"]
    assert load_model(run.rename(run.parent / "moved elsewhere")).digest == model.digest


def test_digest_tells_models_apart(make_model):
    first = make_model()
    assert make_model(folder="again").digest == first.digest
    assert make_model(folder="options", sharpness=10.0).digest != first.digest
    assert make_model(folder="plan", spacing_mm=(1.0, 1.0, 1.0)).digest != first.digest


@pytest.mark.parametrize("name", ["model.yaml", "model.safetensors"])
def test_missing_file(run, name):
    (run / name).unlink()
    with pytest.raises(UserError, match=f"no {name}"):
        load_model(run)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "replaced"])
def test_damaged_weights(run, damage):
    file = run / "model.safetensors"
    content = file.read_bytes()
    if damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        save_file({name: tensor + 1 for name, tensor in load_file(file).items()}, file)
    with pytest.raises(UserError, match=r"is damaged(.|\n)*model.safetensors"):
        load_model(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values["net"].update(width=4), r"do not fit(.|\n)*size mismatch for net"),
        (lambda values: values["net"].update(depth=3), "damaged, or from another version"),
        (lambda values: values["method"].update(name="supervisedd"), "did you mean supervised"),
        (lambda values: values["method"].update(options={"nett": "vnet"}), "did you mean net"),
        (lambda values: values.pop("plan"), "damaged, or from another version"),
        (lambda values: values.update(format="semivox-model-9"), "damaged, or from another version"),
        (lambda values: values["plan"].update(patch="large"), "damaged, or from another version"),
    ],
)
def test_description_that_does_not_fit(run, change, message):
    edit(run, change)
    with pytest.raises(UserError, match=message):
        load_model(run)


@pytest.mark.parametrize("text", ["", "just words", "- 1\n- 2", "a: [1"])
def test_description_that_is_something_else(run, text):
    (run / "model.yaml").write_text(text)
    with pytest.raises(UserError):
        load_model(run)


def test_digest_does_not_depend_on_prose(run):
    before = load_model(run).digest
    edit(run, lambda values: values["plan"]["reasons"].update(patch="because"))
    assert load_model(run).digest == before


def test_saving_twice_replaces_both_files(run, make_plan):
    method = create("levels", {}, NetFactory(in_channels=1, num_classes=3))
    save_model(
        method,
        run,
        method_name="levels",
        options={},
        net={"in_channels": 1, "num_classes": 3},
        plan=make_plan(),
    )
    assert load_model(run).meta["method"]["name"] == "levels"
