"""Put the report of a run together and write it: one HTML file that needs no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from semivox.errors import UserError
from semivox.evaluation.metrics import FAILURES
from semivox.evaluation.summary import MEAN_ROW, class_rows, summarise
from semivox.files import write_text
from semivox.inference.outputs import QUALITY, doubtful
from semivox.progress import Report
from semivox.reporting.page import charts, content
from semivox.reporting.page.charts import Chart
from semivox.reporting.page.source import CaseVolumes, RunFacts, Scored, read_case
from semivox.reporting.page.viewer import colormaps, viewer_case
from semivox.reporting.planes import planes_figure
from semivox.reporting.style import class_color
from semivox.reporting.surfaces import surface_figure
from semivox.version import __version__

WORST = 5
_MARK = '<meta name="generator" content="semivox'


def write_report(
    path: Path, run: RunFacts, scored: Scored | None, *, progress: Report = lambda *facts: None
) -> None:
    """Write the page of one run.

    Without `scored`, it tells only what was trained on what, and shows the curves. `progress` is called with
    (cases drawn, cases, name).

    Raises:
        UserError: another file has that name, or it cannot be written.
    """
    check_place(path)
    curves = [] if run.log is None else charts.training_curves(run.log, run.plan.class_names[1:])
    nothing: dict[str, Any] = {"charts": curves, "scored": None, "viewer": None}
    values = nothing if scored is None else _scored(run, scored, curves, progress)
    legend = [(name, class_color(index)) for index, name in enumerate(run.plan.class_names) if index]
    write_page(
        path, "report.html.j2", title=run.title, run=run, facts=content.facts(run), legend=legend,
        time=content.time_text(run), **values,
    )  # fmt: skip


def check_place(path: Path) -> None:
    """Refuse to overwrite a file that is no report."""
    if path.is_dir():
        do = f"-o {path / 'report.html'}"
        raise UserError("The report needs the name of a file", "a folder", "FILE.html", do, path)
    if path.exists() and _MARK not in path.read_text(encoding="utf-8", errors="replace")[:2000]:
        what, expected = "There is another file of this name", "a report of semivox, to be replaced"
        raise UserError(what, "no report", expected, "choose another -o", path)


def write_page(path: Path, template: str, **values: Any) -> None:
    """Render a template and write it; every text in it is escaped."""
    environment = Environment(
        loader=PackageLoader("semivox.reporting.page"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    page = environment.get_template(template).render(
        version=__version__,
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        css=_shipped("templates/report.css"),
        viewer_js=_shipped("templates/viewer.js"),
        niivue=_shipped("vendor/niivue.umd.js") if values.get("viewer") else "",
        **values,
    )
    write_text(path, page.encode("utf-8", "backslashreplace").decode())


def webp(figure: Figure | None) -> str | None:
    """Return a picture as base64 of a WebP, a fifth of a PNG's size."""
    if figure is None:
        return None
    buffer = io.BytesIO()
    figure.savefig(buffer, format="webp", facecolor=figure.get_facecolor(), pil_kwargs={"quality": 82})
    return base64.b64encode(buffer.getvalue()).decode()


def _shipped(name: str) -> Markup:
    return Markup((resources.files("semivox.reporting.page") / name).read_text(encoding="utf-8"))


def _scored(run: RunFacts, scored: Scored, curves: list[Chart], progress: Report) -> dict[str, Any]:
    """Make tables, pictures and viewer of the cases, and the charts in the order of the page."""
    table, names = scored.table, [str(name) for name in content.by_case(scored.table).index]
    ranks, drawn, shown, bins = _ranks(names), [], [], np.zeros((charts.BINS, 3))
    for done, name in enumerate(names, start=1):
        saved = (scored.folder / f"{name}.npz").is_file()
        case = read_case(name, scored, run) if name in ranks or saved else None
        if case is not None and case.probs is not None:
            bins += charts.reliability_bins(np.moveaxis(case.probs, -1, 0), case.truth)
        if name in ranks:
            text, failed = content.case_text(table, name)
            about: dict[str, Any] = {"name": name, "rank": ranks[name], "text": text, "failed": failed}
            drawn.append(about | _pictures(case, run.plan.class_names))
            shown += [] if case is None else [viewer_case(name, case)]
        progress(done, len(names), name)
    scores, dice = content.score_table(summarise(table), scored)
    counted = class_rows(table)["status"]
    reliability = [charts.reliability_chart(bins)] if bins.any() else []
    return {
        "scored": scored,
        "scores": scores,
        "dice": dice.loc[MEAN_ROW if MEAN_ROW in dice.index else dice.index[0]],
        "failures": content.failures(table),
        "failed": int(counted.isin(FAILURES).sum()),
        "tried": len(counted),
        "charts": [charts.score_chart(table, dice), *curves, *reliability],
        "cases": drawn,
        "all_cases": content.case_table(table),
        "quality": doubtful(scored.folder / QUALITY),
        "viewer": {"cases": shown, **colormaps(run.plan.class_names)} if shown else None,
    }


def _ranks(names: Sequence[str]) -> dict[str, str]:
    """Choose the cases to draw, and say why: the worst, the one in the middle, the best."""
    ranks = {name: f"{place}. worst" if place > 1 else "worst" for place, name in enumerate(names[:WORST], 1)}
    best = {names[-1]: "best" if len(names) > 1 else ""}
    return {names[len(names) // 2]: "in the middle"} | ranks | best


def _pictures(case: CaseVolumes | None, class_names: Sequence[str]) -> dict[str, str | None]:
    if case is None:
        return {"planes": None, "surface": None}
    planes = planes_figure(case.scan, case.found, case.truth, case.doubt, class_names=class_names)
    return {
        "planes": webp(planes), "surface": webp(surface_figure(case.truth, case.found, case.scan.spacing))
    }  # fmt: skip
