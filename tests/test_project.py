"""The project's own files agree with each other: environments, commands, notebooks, licences, addresses."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sysconfig
import tomllib

import pytest
import yaml

from miniclip_helpers.cli import build_parser

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))
TEXTS = {".py", ".ipynb", ".md", ".yml", ".yaml", ".toml", ".cff", ".json", ".txt", ""}


def read(name):
    return (ROOT / name).read_text(encoding="utf8")


def tracked():
    """The project's files: what git tracks or would; in a copy without git all but what was built."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode == 0 and listed.stdout:
        return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    built = {".git", ".venv", ".uv", "build", "dist", "__pycache__"}
    return [file for file in ROOT.rglob("*") if file.is_file() and not built & set(file.relative_to(ROOT).parts)]


def texts():
    return [file for file in tracked() if file.suffix in TEXTS and file.stat().st_size < 3_000_000]


def makefile_targets():
    return set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))


def subcommands(parser):
    """{name: parser} of what a parser branches into."""
    (subparsers,) = (action for action in parser._actions if hasattr(action, "choices") and isinstance(action.choices, dict))
    return subparsers.choices


def commands():
    """The subcommands of miniclip."""
    return subcommands(build_parser())


def test_environment_yml_is_in_step_with_pyproject():
    environment = yaml.safe_load(read("environment.yml"))
    *plain, last = environment["dependencies"]
    assert plain == [f"python{PROJECT['project']['requires-python']}", "pip"]
    assert last == {"pip": ["-e ."]}, "the package brings its own dependencies; a second list would fall out of step"


def test_makefile_has_the_documented_targets_and_help_names_them():
    wanted = {"run", "test", "test-long", "test-oldest", "test-python", "lab", "figures", "site", "bench", "clean", "help"}
    assert wanted <= makefile_targets()
    shown = re.findall(r'@echo ".*?make ([a-z-]+)', read("Makefile"))
    assert set(shown) == makefile_targets() - {"help"}


@pytest.mark.skipif(not shutil.which("make"), reason="make is not on this machine")
def test_make_alone_prints_help():
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "ARGS")
    }
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, env=environment, check=True)
    assert "make run" in done.stdout and done.stderr == ""


def test_lab_leaves_every_part_of_nbgrader_out():
    """What nbgrader switches on in JupyterLab for everybody; a learner would trip over it."""
    on = pathlib.Path(sysconfig.get_path("data"), "etc", "jupyter", "jupyter_server_config.d", "nbgrader.json")
    if not on.is_file():
        pytest.skip("nbgrader is not in this environment")
    extensions = json.loads(on.read_text(encoding="utf8"))["ServerApp"]["jpserver_extensions"]
    off = re.findall(r"'(nbgrader[\w.]+)': False", read("Makefile"))
    assert sorted(off) == sorted(extensions) and '"disabledExtensions": {"@jupyter/nbgrader": true}' in read("Makefile")


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "notebooks/README.md", "tests/README.md"])
def test_commands_in_the_documents_exist(document):
    text = read(document)
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))
    makes = re.findall(r"(?:^|[`\s])make ([a-z-]+)", code)
    calls = re.findall(r"(?:^|[`\s])miniclip ([a-z][a-z-]+)", code)
    assert makes and (calls or document == "tests/README.md")
    assert set(makes) <= makefile_targets()
    assert set(calls) <= commands().keys()
    assert set(re.findall(r"(?:^|[`\s])miniclip coursework ([a-z-]+)", code)) <= subcommands(commands()["coursework"]).keys()


def test_readme_shows_every_command_with_options_that_exist():
    rows = re.findall(r"^\| `miniclip ([a-z-]+)([^`]*)`", read("README.md"), re.MULTILINE)
    parsers = commands()
    assert {name for name, _ in rows} == parsers.keys()
    for name, arguments in rows:
        parser = parsers[name]
        if parser._subparsers:  # a command of several parts
            parser = subcommands(parser)[arguments.split()[0]]
        for option in re.findall(r"(?<!\S)(--?[a-z][a-z-]*)", arguments):
            assert option in parser._option_string_actions, f"{name} {option}"


def test_readme_lists_the_notebooks_that_exist():
    listed = re.findall(r"\]\(notebooks/([\w.]+)\.ipynb\)", read("README.md"))
    there = sorted(file.stem for file in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
    if not there:
        pytest.skip("no notebook is built yet")
    assert listed == there


def test_addresses_are_the_one_in_pyproject():
    address = PROJECT["project"]["urls"]["Repository"].removeprefix("https://github.com/")
    readme = read("README.md")
    badges = re.findall(
        r"colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)/blob/main/notebooks/([\w.]+)\.ipynb", readme
    )
    assert [stem for _, stem in badges] == re.findall(r"\]\(notebooks/([\w.]+)\.ipynb\)", readme)
    binder = re.findall(r"mybinder\.org/v2/gh/([\w.-]+/[\w.-]+)/", readme)
    citation = yaml.safe_load(read("CITATION.cff"))["repository-code"].removeprefix("https://github.com/")
    assert {*(owner for owner, _ in badges), *binder, citation} == {address} and binder


def test_version_is_one():
    version = PROJECT["project"]["version"]
    assert yaml.safe_load(read("CITATION.cff"))["version"] == version
    assert re.search(r"^## (\S+)", read("CHANGELOG.md"), re.MULTILINE).group(1) == version


def test_licence_holds_both_texts():
    text = read("LICENSE")
    assert "Permission is hereby granted, free of charge" in text
    assert read("data/LICENSES/CC-BY-4.0.txt").strip() in text
    assert {"LICENSE", "data/LICENSES/*"} <= set(PROJECT["project"]["license-files"])


def test_ci_runs_the_same_steps_everywhere():
    steps = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]["test"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["bash .ci/run"]
    assert read(".ci/run").rstrip().endswith("make test")
    assert subprocess.run(["bash", "-n", ROOT / ".ci/run"], check=False).returncode == 0


def test_no_file_names_a_place_of_one_machine_or_a_registry():
    place = re.compile(r"(?<![\w.])/(?:root|home|tmp|mnt|work)/[\w./-]+")
    registry = re.compile(
        "|".join(("py" + r"pi\.org", "python" + r"hosted\.org", "npm" + r"js\.(?:org|com)", r"deb\." + r"debian\.org"))
    )
    found = []
    for file in texts():
        if file.name == "Dockerfile":  # its places are the container's
            continue
        text = file.read_text(encoding="utf8", errors="replace")
        found += [
            f"{file.relative_to(ROOT)}: {match}" for pattern in (place, registry) for match in pattern.findall(text)
        ]
    assert found == []


def test_nothing_built_is_tracked():
    names = {file.relative_to(ROOT).as_posix() for file in tracked()}
    assert "uv.lock" not in names
    assert not [name for name in names if name.startswith((".venv/", ".uv/", "build/")) or "__pycache__" in name]


def test_notebooks_keep_no_widget_state():
    notebooks = list((ROOT / "notebooks").glob("*.ipynb"))
    assert len(notebooks) == 12
    for file in notebooks:
        metadata = json.loads(file.read_text(encoding="utf8"))["metadata"]
        assert "widgets" not in metadata and "papermill" not in metadata, file.name
