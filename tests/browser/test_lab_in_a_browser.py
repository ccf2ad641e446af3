"""The series' opening notebook in JupyterLab, as a learner meets it: opened, all cells run, its search box used."""

import json
import sys

import pytest

from .driving import ROOT, SECONDS

STEM = "00_start_here"
BADGE = "colab-badge.svg"  # a picture that Colab keeps: the only thing in a notebook that is asked for outside
OPTIONS = ["--allow-root", "--no-browser", "--ServerApp.ip=127.0.0.1", "--ServerApp.port_retries=0", "--IdentityProvider.token=", "--ServerApp.password=", "--LabApp.news_url=",
           "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.expose_app_in_browser=True",
           "--ServerApp.jpserver_extensions={'nbgrader.server_extensions.formgrader': False, 'nbgrader.server_extensions.validate_assignment': False, "
           "'nbgrader.server_extensions.assignment_list': False, 'nbgrader.server_extensions.course_list': False}"]
READY = """async () => {
    const panel = jupyterapp.shell.currentWidget
    await panel.revealed; await panel.sessionContext.ready; await panel.sessionContext.session.kernel.info
    jupyterapp.shell.activateById(panel.id)
}"""
# How many code cells have not run yet.
LEFT = "() => jupyterapp.shell.currentWidget.content.widgets.filter(cell => cell.model.type === 'code' && cell.model.executionCount === null).length"


@pytest.fixture
def lab(running, free_port, private_jupyter, tmp_path):
    """JupyterLab over a folder with a copy of the notebook, without its outputs; nothing is written into notebooks/."""
    notebook = json.loads((ROOT / "notebooks" / f"{STEM}.ipynb").read_text(encoding="utf8"))
    for cell in notebook["cells"]:
        cell["source"] = [line for line in cell["source"] if BADGE not in line]
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / f"{STEM}.ipynb").write_text(json.dumps(notebook), encoding="utf8")
    config = tmp_path / "config" / "labconfig"
    config.mkdir(parents=True)
    (config / "page_config.json").write_text('{"disabledExtensions": {"@jupyter/nbgrader": true, "@jupyterlab/apputils-extension:announcements": true}}')  # as `make lab` starts it
    port = free_port()
    environment = private_jupyter(JUPYTER_CONFIG_PATH=tmp_path / "config")
    server = running([sys.executable, "-m", "jupyterlab", *OPTIONS, f"--ServerApp.port={port}", f"--ServerApp.root_dir={tmp_path / 'series'}"],
                     f"http://127.0.0.1:{port}/api/status", environment, tmp_path)
    server.address = f"http://127.0.0.1:{port}/lab/tree/{STEM}.ipynb?reset"
    return server


def test_the_opening_notebook_in_jupyterlab(lab, open_page):
    page = open_page("lab", lab.address, height=1100, server=lab)
    page.until(lambda: page.page.locator(".jp-Notebook .jp-Cell").count(), "the notebook", SECONDS)
    page.page.evaluate(READY)
    page.shot("opened")
    page.page.evaluate("() => {jupyterapp.commands.execute('notebook:run-all-cells')}")  # not awaited: it ends with the last cell
    page.until(lambda: page.page.evaluate(LEFT) == 0, "all cells to have run", 2 * SECONDS)
    page.opened()
    page.field("Search for").scroll_into_view_if_needed()
    page.shot("run")
    seen = {page.changes(lambda: page.write("Search for", "a ship on the sea")), page.changes(lambda: page.slide("Pictures", times=2))}
    page.says("Found, best first")
    page.live.scroll_into_view_if_needed()
    page.shot("searched")
    seen.add(page.changes(lambda: page.write("Pictures", "3")))
    assert len(seen) == 3
    page.stays(lambda: page.write("Search for", " "), "query is empty")
    page.shot("mistake")
