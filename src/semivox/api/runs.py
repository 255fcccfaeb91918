"""Train a model, report on its run, and show it in a notebook."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from semivox.api.arguments import AnyPath, Anything, checked, needed, optional, settings, verb
from semivox.errors import UserError
from semivox.progress import ProgressFactory, no_progress

if TYPE_CHECKING:
    import pandas as pd

    from semivox.reporting.page.notebook import Picture

    _Base = Path
else:
    _Base = type(Path())

REPORT = "report.html"


@verb
def train(
    data: AnyPath,
    *,
    method: str | None = None,
    labeled: int | float | Literal["all"] | None = None,
    preset: str | None = None,
    config: Anything = None,
    out: AnyPath | None = None,
    work: AnyPath | None = None,
    fresh: bool = False,
    extend: bool = False,
    diagnose: bool = False,
    bar: bool = False,
    progress: ProgressFactory = no_progress,
) -> TrainedRun:
    """Train a model; plan and prepare what is missing. The same call resumes an interrupted run.

    Args:
        data: a raw folder (nnU-Net raw or MSD layout) or a workspace.
        method: registered name, see `semivox.methods()`.
        labeled: number of labels to use, a fraction below 1, or `all`.
        out: the run folder; default: one in `runs/`, by data set, preset, method, labels and seed.
        extend: train a finished run for more iterations, on the longer schedule.
        diagnose: compare pseudo-labels with labels that training does not see; the weights stay the same.
        bar: show the training progress bar.

    Returns:
        The run folder, with `model.safetensors` and `model.yaml` for `predict`, and, if there are validation
        cases, `report.html`. In a notebook its `show(case)` draws a case.

    Examples:
        run = semivox.train("Heart", method="dual", labeled=8, preset="lite")
    """
    if fresh and extend:
        do = "leave out one: fresh deletes the run that extend would continue"
        raise UserError("fresh and extend contradict each other", do=do)
    chosen = settings(config, preset, method={"name": method}, split={"labeled": labeled})
    checked(chosen, data, training=True)
    from semivox.inference.model import require_model
    from semivox.preprocessing.workspace import prepare_data
    from semivox.reporting.diagnosis import save_diagnosis
    from semivox.reporting.planes import draw_case, draw_sheet
    from semivox.run import Run
    from semivox.training.runs import labels_alone, train_run

    if out is not None:
        if Path(out).resolve() == Path(data).resolve():
            raise UserError("The run folder is the data set itself", path=out, do="choose another -o folder")
        run = Run(Path(out))
        run.check(chosen, labels_alone(chosen), fresh=fresh, extend=extend)
        if chosen.train.init is not None and (fresh or not run.is_begun):
            require_model(Path(chosen.train.init))
    workers = 2 if chosen.train.workers else 0  # no process at all where none is wanted
    workspace, split, plan = prepare_data(
        Path(data), config=chosen, work=optional(work), workers=workers, on_case=draw_case, progress=progress
    )
    if chosen.train.selection == "val" and not split.val:
        do = "keep some with --val N, or leave out train.selection"
        raise UserError("The checkpoint cannot be chosen by validation", "no validation cases", "some", do)
    name = f"{len(split.labeled)}l_fold{chosen.split.fold or 0}_seed{chosen.train.seed}"
    place = (workspace.dataset.name, chosen.preset or "default", chosen.method.name, name)
    title = f"{workspace.dataset.name}: pseudo-labels, least certain first"
    finished = train_run(
        workspace, split, plan, chosen, Path(out or Path("runs", *place)),
        fresh=fresh, extend=extend, diagnose=diagnose,
        draw=partial(save_diagnosis, title=f"{chosen.method.name} on {workspace.dataset.name}"),
        sheet=partial(draw_sheet, title, plan.class_names, rows=True),
        bar=bar,
    )  # fmt: skip
    if split.val:
        report_after_training(finished, progress)
    return TrainedRun(finished)


@verb
def report(
    model: AnyPath,
    predictions: AnyPath | None = None,
    out: AnyPath | None = None,
    *,
    images: AnyPath | None = None,
    data: AnyPath | None = None,
    progress: ProgressFactory = no_progress,
) -> Path:
    """Write the report of a run: one HTML file that needs no network.

    Args:
        model: a run folder.
        predictions: a folder of its predictions with scores from `evaluate`; default: the run's validation
            cases, which are segmented and scored if that has not happened yet.
        out: the file; default: `report.html` in the run folder, or in that of the predictions.
        images: folder of the scans, if they are no longer where `predict` read them.
        data: the run's data set, if it has been moved.
    """
    from semivox.reporting.page.build import check_place, write_report
    from semivox.reporting.page.source import read_run, read_scored, score_validation

    run, folder = read_run(Path(model), optional(data)), optional(predictions)
    target = optional(out) or (folder or run.folder) / REPORT
    check_place(target)
    if folder is None and run.split.val:
        folder = score_validation(run, progress)
    scored = None if folder is None else read_scored(folder, run, optional(images))
    with progress("report") as shown:
        write_report(target, run, scored, progress=shown)
    return target


@verb
def compare_runs(
    runs: Anything,
    out: AnyPath = "comparison.html",
    *,
    data: AnyPath | None = None,
    progress: ProgressFactory = no_progress,
) -> Path:
    """Write one page about several runs side by side, with paired differences to the first.

    Args:
        runs: run folders, compared on their validation cases; or folders of predictions with scores.
        out: the HTML file.
        data: the data set of the runs, if it has been moved.
    """
    from semivox.reporting.page.build import check_place
    from semivox.reporting.page.compare import read_columns, write_comparison

    given = runs if isinstance(runs, (list, tuple)) else [runs]
    folders = [needed(run, "runs") for run in given]
    if len(folders) < 2:
        raise UserError("A comparison needs several runs", f"{len(folders)}", "two or more folders")
    check_place(Path(out))
    columns = read_columns(folders, progress, optional(data))
    if data is not None and not any(column.run for column in columns):
        raise UserError("--data is for run folders", "only folders of predictions", do="leave it out")
    with progress("report") as shown:
        write_comparison(Path(out), columns, progress=shown)
    return Path(out)


def report_after_training(run: Path, progress: ProgressFactory) -> None:
    """Write the report of a run that has validation cases; tell what hinders it, and continue."""
    from semivox.run import Run

    if Run(run).is_current(REPORT):
        return
    try:
        report(run, out=run / REPORT, progress=progress)
    except UserError as error:
        print(f"no report was written: {error}", file=sys.stderr)


class TrainedRun(_Base):
    """The folder of a run: a path, with what a notebook wants to see of it.

    Examples:
        >>> import semivox, tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> data = semivox.make_phantoms(folder / "data", train=3, test=1, shape=(24, 24, 16))
        >>> tiny = {"net": {"width": 2}, "train": {"iterations": 1, "workers": 0}, "split": {"val": 1},
        ...         "plan": {"patch": (16, 16, 16)}}
        >>> places = {"work": folder / "work", "out": folder / "run"}
        >>> run = semivox.train(data, method="supervised", config=tiny, **places)
        >>> run.name, run.report.name
        ('run', 'report.html')
        >>> run.scores["case"].tolist()
        ['phantom_002']
        >>> picture = run.show("phantom_002")  # in a notebook, the last line of a cell is displayed
        >>> picture._repr_png_()[1:4]
        b'PNG'
    """

    def with_segments(self, *parts: Any) -> Path:
        """Return plain paths from `/` and `parent`."""
        return Path(*parts)

    @property
    def report(self) -> Path:
        """The HTML page that training wrote if there were validation cases."""
        return Path(self) / REPORT

    @property
    def scores(self) -> pd.DataFrame:
        """One row a validation case and class."""
        from semivox.evaluation.summary import read_metrics
        from semivox.run import VALIDATION

        return read_metrics(Path(self) / VALIDATION / "metrics.csv")

    def show(self, case: str) -> Picture:
        """Segment a training, validation or test case and draw it in three planes.

        The reference is outlined, too, if the case is labeled or for validation; the label of an unlabeled
        or test case is not opened.

        Args:
            case: its name in the data set.
        """
        from semivox.datasets.dataset import open_dataset
        from semivox.inference.model import load_model
        from semivox.inference.predictor import predict_case
        from semivox.inference.sources import Scan, read_scan
        from semivox.io.volume import read_label
        from semivox.reporting.page.notebook import draw_case
        from semivox.reporting.page.source import read_run

        run = read_run(Path(self))
        known = open_dataset(run.data).case(case)
        image = read_scan(Scan(case, known.images), trust_image_geometry=True)
        truth = None
        if run.split.roles().get(case) in ("labeled", "val") and known.label is not None:
            truth = read_label(known.label, run.plan.class_values, ignore=run.plan.ignore_value).array
        found = predict_case(load_model(Path(self)), image, uncertainty=True)
        return draw_case(image, found.label, truth, found.uncertainty, run.plan.class_names)

    def _repr_html_(self) -> str:
        from html import escape

        link = f', <a href="{escape(self.report.resolve().as_uri())}">report</a>'
        return f"<code>{escape(str(self))}</code>" + link * self.report.is_file()
