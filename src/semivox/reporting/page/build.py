"""Put the report of a run together and write it: one HTML file that needs no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter

from semivox.errors import UserError
from semivox.files import write_text
from semivox.progress import Report
from semivox.reporting.page import charts, content
from semivox.reporting.page.source import CaseVolumes, RunFacts, Scored, read_case
from semivox.reporting.page.viewer import MOST_VOXELS, colors, viewer_case
from semivox.reporting.planes import planes_figure
from semivox.reporting.style import class_color
from semivox.reporting.surfaces import surface_figure
from semivox.version import __version__

WORST = 5
_MARK = '<meta name="generator" content="semivox'
_NO_REPORT = "a report of semivox, which a new one may replace"


def write_report(
    path: Path, run: RunFacts, scored: Scored | None, *, progress: Report = lambda *facts: None
) -> None:
    """Write the page of one run.

    Args:
        path: the HTML file; an older report is replaced.
        run: what was trained.
        scored: predictions and their scores; None: only what was trained on what, and the curves.
        progress: called with (cases drawn, cases, name).

    Raises:
        UserError: another file has that name, or it cannot be written.
    """
    check_place(path)
    parts: dict[str, Any] = {"scores": None, "failures": [], "cases": [], "all_cases": None, "viewer": None}
    curves = [] if run.log is None else _curves(run.log, run.plan.class_names[1:])
    if scored is not None:
        parts |= _scored_parts(run, scored, progress)
    parts["charts"] = [*parts.pop("first_charts", []), *curves, *parts.pop("last_charts", [])]
    split = run.split
    write_page(
        path,
        "report.html.j2",
        title=run.title,
        subtitle=f"{len(split.labeled)} labeled and {len(split.unlabeled)} unlabeled scans",
        sections=_sections(parts),
        tiles=content.tiles(run, scored),
        notes=content.notes(run, scored),
        facts=content.facts(run),
        lists=[
            (name, cases)
            for name, cases in (
                ("Labeled", split.labeled),
                ("Unlabeled", split.unlabeled),
                ("Validation", split.val),
            )
            if cases
        ],
        quality=_quality(scored),
        legend=[(name, class_color(index)) for index, name in enumerate(run.plan.class_names) if index],
        **parts,
    )


def check_place(path: Path) -> None:
    """Refuse to overwrite a file that is no report.

    Raises:
        UserError: there is such a file.
    """
    if path.is_dir():
        raise UserError(
            "The report needs the name of a file", "a folder", "FILE.html", f"-o {path / 'report.html'}", path
        )
    if path.exists() and _MARK not in path.read_text(encoding="utf-8", errors="replace")[:2000]:
        raise UserError(
            "There is another file of this name", "no report", _NO_REPORT, "choose another -o", path
        )


def write_page(path: Path, template: str, **values: Any) -> None:
    """Render a template and write it; every text in it is escaped."""
    environment = Environment(
        loader=PackageLoader("semivox.reporting.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
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


def _curves(log: pd.DataFrame, class_names: Sequence[str]) -> list[dict[str, str]]:
    found = [{"svg": charts.learning_curve(log), "text": "Losses, as weighted in the sum"}]
    if (validation := charts.validation_curve(log, class_names)) is not None:
        found.append({"svg": validation, "text": "Dice of the validation cases while training"})
    return found


def _scored_parts(run: RunFacts, scored: Scored, progress: Report) -> dict[str, Any]:
    """Tables, pictures and viewer of the cases."""
    table, dice = content.score_table(scored)
    drawn, bins, shown = [], np.zeros((charts.BINS, 3)), []
    chosen = _chosen(scored.table)
    names = list(content.by_case(scored.table).index)
    for done, name in enumerate(names):
        wanted, has_probs = name in chosen, (scored.folder / f"{name}.npz").is_file()
        case = read_case(name, scored, run) if wanted or has_probs else None
        if case is not None and case.probs is not None:
            bins += charts.reliability_bins(case.probs, case.truth)
        if wanted:
            drawn.append(_drawn(name, chosen[name], case, run, scored))
            shown += [] if case is None else [viewer_case(name, case) | {"focus": _focus(case)}]
        progress(done + 1, len(names), name)
    first = [
        {
            "svg": charts.score_chart(scored.table, dice),
            "text": "Dot: a case; diamond and bar: mean, 95 % interval",
        }
    ]
    last = []
    if bins.any():
        error = charts.calibration_error(bins)
        text = f"Probabilities near the structures against reality; expected calibration error {error:.3f}"
        last.append({"svg": charts.reliability_chart(bins), "text": text})
    return {
        "scores": table,
        "failures": content.failures(scored.table),
        "cases": drawn,
        "cases_text": "White: reference. Color: prediction. Each plane shows the slice with most foreground.",
        "all_cases": content.case_table(scored.table),
        "first_charts": first,
        "last_charts": last,
        "viewer": _viewer(shown, run) if shown else None,
        "coarser": any(case["voxels"] > MOST_VOXELS for case in shown),
    }


def _viewer(cases: list[dict[str, Any]], run: RunFacts) -> dict[str, Any]:
    palette = colors(run.plan.class_names)
    white = {**palette, **{channel: [0, *[255] * (len(palette["I"]) - 1)] for channel in "RGB"}}
    return {"cases": cases, "colors": palette, "white": white}


def _chosen(table: pd.DataFrame) -> dict[str, str]:
    """Choose the cases to draw, and say why: the worst, the one in the middle, the best."""
    names = [str(name) for name in content.by_case(table).index]
    chosen = {
        name: "worst" if place == 0 else f"{place + 1}. worst" for place, name in enumerate(names[:WORST])
    }
    for place, text in ((len(names) // 2, "in the middle"), (len(names) - 1, "best")):
        chosen.setdefault(names[place], text)
    return chosen


def _drawn(name: str, rank: str, case: CaseVolumes | None, run: RunFacts, scored: Scored) -> dict[str, Any]:
    planes = surface = None
    if case is not None:
        names = run.plan.class_names
        planes = webp(planes_figure(case.scan, case.found, case.truth, case.doubt, class_names=names))
        surface = webp(surface_figure(case.truth, case.found, case.spacing_mm))
    text, failed = content.case_text(scored.table, name), content.failed_text(scored.table, name)
    return {"name": name, "rank": rank, "text": text, "failed": failed, "planes": planes, "surface": surface}


def _focus(case: CaseVolumes) -> list[float]:
    """Return where the viewer opens, in mm: where most voxels are wrong, else in the foreground."""
    wrong = case.truth != case.found
    mask = wrong if wrong.any() else case.truth > 0
    place = np.unravel_index(int(gaussian_filter(mask.astype(np.float32), 2).argmax()), mask.shape)
    return [float(value) for value in (case.affine @ [*place, 1])[:3]]


def _quality(scored: Scored | None) -> content.Table | None:
    """Lay out `quality.csv` of `predict`, if it is there: which scans to look at first, and why."""
    if scored is None or not (file := scored.folder / "quality.csv").is_file():
        return None
    table = pd.read_csv(file, keep_default_na=False)
    if "flag" in table:
        table = table[table["flag"].astype(str).str.lower().isin(("true", "1", "yes", "look"))]
    if table.empty:
        return None
    rows = [
        [f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row]
        for row in table.itertuples(index=False)
    ]
    return content.Table(
        list(table.columns), rows, "Predicted without the reference, by quality.csv of semivox predict."
    )


def _sections(parts: Mapping[str, Any]) -> list[tuple[str, str]]:
    every = (("scores", "Scores"), ("cases", "Cases"), ("viewer", "Viewer"), ("all_cases", "All cases"))
    ids = {"all_cases": "all"}
    found = [(ids.get(key, key), text) for key, text in every if parts.get(key)]
    return [*found, ("protocol", "What was trained on what")]
