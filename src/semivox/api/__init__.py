"""The Python API: one function a command, with the same name; `semivox.train(...)` is `semivox.api.train`.

Several functions share these arguments:

* `config`: settings as a `Config` (from `load_config`), a dictionary, or the path of a YAML file; `preset`,
  `method` and `labeled` are shorthands on top of it.
* `work`: the workspace of a raw folder, where plan and prepared scans go; default `semivox-work/NAME`.
* `fresh`: start over instead of resuming: delete what an earlier call wrote.
* `workers`: worker processes; 0 works in this process.
* `progress`: shows progress, e.g. `semivox.progress.show_progress`.

All of them raise a `UserError` for whatever the caller can mend: wrong arguments or settings, unusable files,
a full disk. Names (method, options, preset, device) are checked before any scan is opened. Nothing imports
torch before it is needed.
"""

from semivox.api.data import (
    check,
    fetch,
    import_dataset,
    info,
    load_config,
    machine,
    make_phantoms,
    open_dataset,
    plan,
    prepare,
)  # fmt: skip
from semivox.api.experiments import benchmark, demo, load_grid, methods, replicate
from semivox.api.predictions import evaluate, export_dicom_seg, predict, predict_image, pseudo_label, rank
from semivox.api.runs import compare_runs, report, train

__all__ = [
    "benchmark", "check", "compare_runs", "demo", "evaluate", "export_dicom_seg", "fetch",
    "import_dataset", "info", "load_config", "load_grid", "machine", "make_phantoms", "methods",
    "open_dataset", "plan", "predict", "predict_image", "prepare", "pseudo_label", "rank", "replicate",
    "report", "train",
]  # fmt: skip
