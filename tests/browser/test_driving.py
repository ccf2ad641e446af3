"""Which browser is taken, and what is said where there is none: tests are skipped then, and do not fail."""

import os

import pytest

from .driving import executable


@pytest.fixture
def browsers(tmp_path, monkeypatch):
    """Function of a name and a shell script that is the browser of this name; no other one is found."""
    if os.name != "posix":
        pytest.skip("shell scripts")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("MINICLIP_BROWSER", raising=False)

    def write(name, script):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
        return str(tmp_path / name)

    return write


def test_a_browser_that_is_there_but_does_not_start(browsers):
    assert "looked for chromium, " in executable()[1]
    browsers("chromium", "echo >&2 'Command requires the chromium snap'; exit 1")
    assert executable()[0] is None and "does not start: Command requires the chromium snap; MINICLIP_BROWSER=" in executable()[1]
    works = browsers("google-chrome", "echo Chrome 1.0")
    assert executable() == (works, None), "the next one is tried"


def test_a_browser_that_is_named(browsers, monkeypatch, tmp_path):
    browsers("chromium", "exit 0")
    for named, said in ((browsers("broken", "exit 3"), "does not start: it ends with 3"), (str(tmp_path), "does not start"), (str(tmp_path / "none"), "which is not there")):
        monkeypatch.setenv("MINICLIP_BROWSER", named)
        assert executable()[0] is None and f"MINICLIP_BROWSER names {named}, which" in executable()[1] and said in executable()[1]
    works = browsers("another", "exit 0")
    monkeypatch.setenv("MINICLIP_BROWSER", works)
    assert executable() == (works, None)
