"""Run a notebook with other parameters, as papermill does: for models and data that are not the notebook's own."""

import papermill
from conftest import ROOT

from miniclip_helpers.series.results import collect


def execute(stem, changes, folder, monkeypatch):
    """Run every cell of the notebook `stem` with `changes` to its parameters; an error in one is raised.
    Returns ({result: value}, names of figures).

    folder: where caches, figures and results go. Ranges are not looked at. A parameter that the notebook does not have is an error.
    """
    book = ROOT / "notebooks" / f"{stem}.ipynb"
    known = papermill.inspect_notebook(str(book))
    assert set(changes) <= set(known), f"{stem} has no parameter {set(changes) - set(known)}"
    for name, value in {"CACHE": folder / "cache", "FIGURES": folder / "figures", "RESULTS": folder / "results.json", "OFFLINE": "1", "PROGRESS": "0", "PROFILE": "smoke",
                        "NOTEBOOK": stem}.items():
        monkeypatch.setenv(f"MINICLIP_{name}", str(value))
    papermill.execute_notebook(str(book), str(folder / "executed.ipynb"), parameters=changes, cwd=str(folder), kernel_name="python3", progress_bar=False)
    return collect(folder / "results.json", stem, "smoke")[0], {path.stem for path in (folder / "figures").glob("*.png")}
