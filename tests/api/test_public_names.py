"""What `import semivox` offers: every public name, and arguments of the wrong kind."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import semivox
from semivox.config import Config

NAMES = [name for name in dir(semivox) if name not in ("UserError", "__version__")]


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_a_documented_function(name: str) -> None:
    function = getattr(semivox, name)
    assert callable(function)
    public = getattr(semivox.api, name)
    assert inspect.getdoc(public)
    for parameter in inspect.signature(public).parameters.values():
        assert parameter.annotation is not parameter.empty, parameter


def test_a_function_and_a_room_of_one_name(tmp_path: Path) -> None:
    """`semivox.benchmark` stays callable after the room of that name was imported."""
    import semivox.benchmark.grid
    import semivox.methods

    assert "dual" in semivox.methods()
    with pytest.raises(semivox.UserError, match="no such folder"):
        semivox.benchmark(tmp_path / "none", {"methods": ["dual"]}, out=tmp_path)


def test_importing_the_package_is_quick() -> None:
    script = (
        "import sys, semivox; assert not {'torch', 'numpy', 'pydantic', 'nibabel'} & set(sys.modules)\n"
        "semivox.plan, semivox.methods(), semivox.load_config(preset='lite')\n"
        "assert not {'torch', 'monai', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "from semivox import *\n"
        "assert train and UserError"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    with pytest.raises(AttributeError, match="did you mean train"):
        semivox.trian


@pytest.mark.parametrize(
    "wrong", [None, 5, ["a.nii.gz"], {"a": 1}, np.zeros(3), "a\0b", "", "~/scans", object()]
)
def test_a_path_of_the_wrong_kind(wrong: Any, tmp_path: Path) -> None:
    for call in (
        lambda: semivox.train(wrong),
        lambda: semivox.prepare(wrong),
        lambda: semivox.check(wrong),
        lambda: semivox.open_dataset(wrong),
        lambda: semivox.predict(wrong, tmp_path, tmp_path),
        lambda: semivox.predict(tmp_path, wrong, tmp_path),
        lambda: semivox.predict_image(tmp_path, wrong),
        lambda: semivox.evaluate(wrong, data=tmp_path),
        lambda: semivox.make_phantoms(wrong),
        lambda: semivox.import_dataset(wrong, tmp_path),
        lambda: semivox.benchmark(tmp_path, wrong, out=tmp_path),
    ):
        with pytest.raises(semivox.UserError):
            call()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"config": {"trian": {}}}, "did you mean train"),
        ({"config": {"train": {"lr": "fast"}}}, "train.lr"),
        ({"config": ["a"]}, "settings"),
        ({"config": 5}, "settings"),
        ({"config": Config(), "preset": "lite"}, "preset"),
        ({"config": Config(), "method": "duall"}, "did you mean dual"),
        ({"method": "duall"}, "did you mean dual"),
        ({"method": 5}, "method"),
        ({"metod": "dual"}, "did you mean method"),
        ({"labeled": "8"}, "labeled"),
        ({"labeled": True}, "labeled"),
        ({"labeled": 1.7}, "labeled"),
        ({"labeled": float("nan")}, "labeled"),
        ({"fresh": 1}, "fresh"),
        ({"out": 5}, "out"),
        ({"preset": "lit"}, "did you mean lite"),
        ({"progress": "bar"}, "progress"),
    ],
)
def test_arguments_of_train_that_mean_nothing(arguments: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(semivox.UserError, match=named):
        semivox.train(tmp_path, **arguments)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda at: semivox.prepare(at, workers=-1), "workers"),
        (lambda at: semivox.prepare(at, workers=1.0), "workers"),
        (lambda at: semivox.evaluate(at, data=at, nsd_tolerance_mm=-1), "nsd_tolerance_mm"),
        (lambda at: semivox.evaluate(at, data=at, references=at), "twice"),
        (semivox.evaluate, "or not at all"),
        (lambda at: semivox.evaluate(at, data=at, cases="all"), "cases"),
        (lambda at: semivox.evaluate(at, data=at, profile="publisht"), "profile"),
        (lambda at: semivox.evaluate(at, data=at, nsd_tolerance_mm=float("inf")), "nsd_tolerance_mm"),
        (lambda at: semivox.make_phantoms(at / "new", classes=3), "classes"),
        (lambda at: semivox.make_phantoms(at / "new", train=-1), "train"),
        (lambda at: semivox.machine(device="tpu"), "device"),
        (lambda at: semivox.load_grid(changes={"methods": ["dual"], "seeds": -1}), "seeds"),
        (lambda at: semivox.load_grid(changes={"methods": ["dual"], "labels": [1.5]}), "labels"),
        (lambda at: semivox.info(at, figure=at / "scan.nii.gz"), r"ending in \.png"),
        (lambda at: semivox.export_dicom_seg(at / "none.nii.gz", at, at / "a.dcm"), "no such segmentation"),
        (lambda at: semivox.predict_image(None, at), "argument: model(.|\n)*None"),
        (lambda at: semivox.compare_runs([at, None]), "argument: runs(.|\n)*None"),
        (lambda at: semivox.make_phantoms(at / "new", shape=(8, 8)), "argument of make_phantoms: shape"),
        (lambda at: semivox.make_phantoms("~/new"), "in place of ~"),
        (lambda at: semivox.evaluate(at, references=at, cases="val"), "leave out --cases"),
        (lambda at: semivox.train(), "data"),
        (lambda at: semivox.predict_image(None, at), "argument: model"),
        (lambda at: semivox.compare_runs([at, None]), "argument: runs"),
    ],
)
def test_arguments_that_mean_nothing(call: Any, named: str, tmp_path: Path) -> None:
    with pytest.raises(semivox.UserError, match=named):
        call(tmp_path)


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    for seed in np.arange(1):
        data = semivox.make_phantoms(tmp_path, train=np.int64(1), test=0, shape=(16, 16, 16), seed=seed)
    assert len(semivox.open_dataset(data).pool("train")) == 1
    with pytest.raises(semivox.UserError, match="train"):
        semivox.make_phantoms(tmp_path / "other", train=np.float64(1.5))


def test_settings_in_every_form(tmp_path: Path) -> None:
    from semivox.api.arguments import settings

    assert semivox.load_config(settings="train.seed=3") == semivox.load_config(settings=["train.seed=3"])
    file = tmp_path / "a.yaml"
    file.write_text("train: {seed: 3}\n")
    for given in (file, str(file), {"train": {"seed": 3}}, semivox.load_config(train={"seed": 3})):
        chosen = settings(given, method={"name": "bcp"}, split={"labeled": None})
        assert (chosen.train.seed, chosen.method.name, chosen.split.labeled) == (3, "bcp", None)
