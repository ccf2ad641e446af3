"""Build an nbgrader course out of the series: source with solutions and hidden tests, release for students, a gradebook with the points."""

import contextlib
import json
import logging
import os
import pathlib
import shutil
import sqlite3
import sysconfig
import tempfile

from .. import runtime
from ..errors import DataError, MiniclipError, UsageError
from ..series.running import pick
from . import guide
from .folders import Said, check_nbgrader
from .source import source_version

MANIFEST, GRADEBOOK = "course.json", "gradebook.db"


def build(out, notebooks=(), seed=None, say=print):
    """Make an nbgrader course in the folder `out`, or bring one up to date; return {assignment: "built" or "as it was"}.

    notebooks: names like "04"; all by default. seed: fixes the inputs of the hidden tests; by default that of the course, 0 for a new one. The
    same call gives the same files, the gradebook's keys aside. A `UsageError`, and nothing is touched: a folder that holds something else, a
    change to an assignment that was handed in, and one to a source that was edited since it was built.
    """
    out, stems = pathlib.Path(out).absolute(), sorted(pick(notebooks))
    if not stems:
        raise MiniclipError(f"there are no notebooks in '{runtime.notebooks_dir()}'; unset MINICLIP_NOTEBOOKS, or let it name a folder that has some")
    check_nbgrader()
    (known_seed, held), recorded = _held(out), _recorded(out)
    seed = known_seed if seed is None else seed
    sources = {stem: _source_text(stem, seed) for stem in stems}
    todo = {stem: text for stem, text in sources.items() if stem not in recorded or not _stands(out, stem, text, held)}
    _check_free(out, todo, held, recorded)
    if out.exists():
        with tempfile.TemporaryDirectory() as fresh:
            _fill(pathlib.Path(fresh), todo, held, seed, out / GRADEBOOK if recorded else pathlib.Path(fresh, GRADEBOOK))
            _move_in(pathlib.Path(fresh), out)
    else:
        with runtime.writing_folder(out) as fresh:
            _fill(fresh, todo, held, seed, fresh / GRADEBOOK)
    done = {stem: "built" if stem in todo else "as it was" for stem in stems}
    say("\n".join(f"{stem}: {what}" for stem, what in done.items()))
    say(f"\nThe course stands in {out}. Read its README.md; give students what is in release/, and nothing else.")
    return done


def _held(out):
    """(seed, {assignment: {"source": sha256, "release": sha256}}) of the course in `out`, (0, {}) where nothing is; a `UsageError` for anything else."""
    if not (out / MANIFEST).is_file():
        runtime.check_replaceable(out, ())
    if out.exists() and not os.access(out, os.W_OK):
        raise MiniclipError(f"'{out}' cannot be written; name a place that you may write to")
    if not (out / MANIFEST).is_file():
        return 0, {}
    try:
        manifest = json.loads((out / MANIFEST).read_text(encoding="utf8"))
        return int(manifest["seed"]), dict(manifest["assignments"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"'{out / MANIFEST}' is not what a build writes ({type(error).__name__}: {error}); build into a new folder") from error


def _recorded(out):
    """{assignment: the students who handed it in} of the course's gradebook; those in its folder `submitted` count, too. {} where there is no gradebook."""
    if not (out / GRADEBOOK).is_file():
        return {}
    try:
        with contextlib.closing(sqlite3.connect(f"{(out / GRADEBOOK).as_uri()}?mode=ro", uri=True)) as book:
            found = {name: set() for (name,) in book.execute("select name from assignment")}
            for name, student in book.execute("select a.name, s.student_id from submitted_assignment s join assignment a on a.id = s.assignment_id"):
                found[name].add(student)
    except sqlite3.Error as error:
        raise DataError(f"'{out / GRADEBOOK}' cannot be read as nbgrader's gradebook ({error}); put a good copy in its place") from error
    for file in out.glob("submitted/*/*/*.ipynb"):
        found.get(file.parent.name, set()).add(file.parent.parent.name)
    return found


def _source_text(stem, seed):
    import nbformat

    return nbformat.writes(source_version(nbformat.read(runtime.notebooks_dir() / f"{stem}.ipynb", as_version=4), stem, seed)) + "\n"


def _file(folder, version, stem):
    return folder / version / stem / f"{stem}.ipynb"


def _stands(out, stem, text, held):
    """Whether the assignment is there, whole, with this source."""
    source, release = _file(out, "source", stem), _file(out, "release", stem)
    return (stem in held and source.is_file() and source.read_text(encoding="utf8") == text and runtime.sha256(source) == held[stem]["source"]
            and release.is_file() and runtime.sha256(release) == held[stem]["release"])


def _check_free(out, todo, held, recorded):
    """Raise a `UsageError` for each assignment whose source would change although it was edited since it was built, or handed in."""
    problems = []
    for stem, text in todo.items():
        source = _file(out, "source", stem)
        if stem not in held or not source.is_file() or source.read_text(encoding="utf8") == text:
            continue
        if runtime.sha256(source) != held[stem]["source"]:
            problems.append(f"source/{stem} was edited since it was built")
        if recorded.get(stem):
            problems.append(f"{stem} was handed in by {len(recorded[stem])} student(s), and this build (another seed, or another version) would change it")
    if problems:
        raise UsageError("\n  - ".join([f"the course in '{out}' is left as it is; build into a new folder, or leave these out with --notebooks:", *problems]))


def _fill(folder, todo, held, seed, gradebook):
    """Write the assignments of `todo` and the course's own files into a new folder, the points into the gradebook."""
    for stem, text in todo.items():
        _file(folder, "source", stem).parent.mkdir(parents=True)
        _file(folder, "source", stem).write_text(text, encoding="utf8")
    for stem in todo:
        _generate(folder, stem, gradebook)
    fresh = {stem: {version: runtime.sha256(_file(folder, version, stem)) for version in ("source", "release")} for stem in todo}
    assignments = dict(sorted((held | fresh).items()))
    texts = {"nbgrader_config.py": guide.CONFIG, "README.md": guide.readme(list(assignments)), "rubrics.md": guide.rubrics(list(assignments)),
             MANIFEST: json.dumps({"made by": "miniclip coursework build", "seed": seed, "assignments": assignments}, indent=1) + "\n"}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf8")


def _move_in(fresh, out):
    """Put what was built into the folder that stands; each file whole or not at all, the list of what was built last."""
    files = sorted((file for file in fresh.rglob("*") if file.is_file()), key=lambda file: (file.name == MANIFEST, file))
    for file in files:
        place = out / file.relative_to(fresh)
        if not place.is_file() or place.read_bytes() != file.read_bytes():
            with runtime.writing(place) as aside:
                shutil.copyfile(file, aside)


def _generate(root, stem, gradebook):
    """nbgrader's own generate_assignment: root/source/stem becomes root/release/stem, and its points stand in the gradebook."""
    from nbgrader.converters import GenerateAssignment
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config import Config

    config = Config({"CourseDirectory": {"root": str(root.resolve()), "db_url": f"sqlite:///{gradebook.resolve()}", "assignment_id": stem} | guide.COURSE,
                     "ClearSolutions": guide.CLEARED})
    said = Said()
    log = logging.Logger("nbgrader")
    log.addHandler(said)
    try:
        with scripts_on_path():
            GenerateAssignment(coursedir=CourseDirectory(config=config, log=log), config=config, log=log).start()
    except (Exception, SystemExit) as error:  # nbgrader raises its own kinds, SystemExit among them
        raise MiniclipError("\n  ".join([f"nbgrader could not make the release of {stem}: {error}", *said.lines[-5:]])) from error


@contextlib.contextmanager
def scripts_on_path():
    """The folder of this environment's commands first on PATH: for a new gradebook nbgrader calls `alembic` by its name, whether the environment is activated or not."""
    path = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join(filter(None, [sysconfig.get_path("scripts"), path]))
    try:
        yield
    finally:
        os.environ["PATH"] = path
