"""Run the notebooks through papermill, each in its own process; time, peak memory and results of each to build/results.json,
and with `update` beside the outputs that they belong to, to notebooks/results.json."""

import contextlib
import json
import os
import pathlib
import time

from .. import plots, runtime
from ..errors import MiniclipError, unknown
from . import results

PROFILES = ("offline", "smoke", "online")


def notebook_names():
    """The notebooks of the series in order, without their suffix."""
    return sorted(path.stem for path in runtime.notebooks_dir().glob("[0-9][0-9]_*.ipynb"))


def pick(names, known=None):
    """Full names for what the user typed: "04", "04_train_from_scratch" or a file name; all of them for nothing. known: those there are, by default the series."""
    known = notebook_names() if known is None else known
    chosen = []
    for name in names or known:
        stem = pathlib.Path(name).name.removesuffix(".ipynb")
        fits = [full for full in known if full == stem or full.split("_")[0] == stem]
        if not fits:
            raise unknown("notebook", name, known)
        chosen += [full for full in fits if full not in chosen]
    return chosen


def _environment(name, profile, figures, records, threads):
    """What the kernel of a notebook sees besides the user's environment."""
    cut = {"MINICLIP_OFFLINE": "1", "HF_HUB_OFFLINE": "1"} if profile != "online" else {}
    if "OMP_WAIT_POLICY" not in os.environ:
        # Waiting threads spin for long by default, which is slow on busy cores; sleeping at once is slow on idle ones. A short spin is near the better of both.
        cut["GOMP_SPINCOUNT"] = os.environ.get("GOMP_SPINCOUNT", "1000")
    return cut | {"MINICLIP_PROGRESS": "0", "MINICLIP_NOTEBOOK": name, "MINICLIP_PROFILE": profile, "MINICLIP_FIGURES": str(figures),
                  "MINICLIP_RESULTS": str(records), "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}


def run_one(name, profile="offline", update=False, threads=None, build=None):
    """Run one notebook in this process's child kernel. Returns {"seconds", "peak_memory_mb", "status", "results", "problems"}.

    The executed notebook goes to build/PROFILE/NAME.ipynb and its figures to build/PROFILE/figures; with `update` (offline only)
    the outputs of a notebook that ran well also go back into notebooks/ and the figures into figures/.
    """
    import papermill

    build = pathlib.Path(build or runtime.build_dir()) / profile
    build.mkdir(parents=True, exist_ok=True)
    records = build / f"{name}.results.jsonl"
    records.unlink(missing_ok=True)
    figures = build / "figures"
    plots.forget_figures(figures, name[:2])
    os.environ.update(_environment(name, profile, figures, records, threads or os.cpu_count() or 1))
    source, executed = runtime.notebooks_dir() / f"{name}.ipynb", build / f"{name}.ipynb"
    start, problems = time.monotonic(), []
    with runtime.writing(executed) as aside:  # papermill writes after each cell; what a notebook that failed holds is kept, too
        try:
            papermill.execute_notebook(str(source), str(aside), parameters=results.parameters(name, profile), kernel_name="python3",
                                       progress_bar=False, log_output=False, cwd=str(source.parent if runtime.in_checkout() else build))
        except papermill.PapermillExecutionError as error:
            problems.append(f"cell {error.exec_count} failed: {error.ename}: {str(error.evalue).splitlines()[0] if error.evalue else ''}")
    seconds = time.monotonic() - start
    found, wrong = results.collect(records, name, profile)
    problems += wrong if not problems else []
    if update and not problems:
        plots.take_figures(figures, runtime.CHECKOUT / "figures", name[:2])
        write_back(executed, source)
    peak = round(runtime.peak_memory_mb(children=True))  # the kernel's, as each notebook has a process of its own
    return {"seconds": round(seconds, 1), "peak_memory_mb": peak, "status": "failed" if problems else "ok", "results": found, "problems": problems}


def _worker(name, log, **options):
    """`run_one` in a process of its own, whose standard error, and so the kernel's, goes to a file."""
    with open(log, "wb") as file:
        os.dup2(file.fileno(), 2)
    return run_one(name, **options)


def write_back(executed, source):
    """Put the outputs of an executed notebook into the committed one, without what changes from run to run: times, paths, widget state."""
    import nbformat

    book = nbformat.read(executed, as_version=4)
    for key in ("papermill", "widgets"):
        book.metadata.pop(key, None)
    book.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    book.metadata["language_info"] = {"name": "python"}
    for cell in book.cells:
        cell.metadata = nbformat.from_dict({key: cell.metadata[key] for key in ("tags", "jupyter") if cell.metadata.get(key)})
        for output in cell.get("outputs", []):
            view = output.get("data", {}).get("application/vnd.jupyter.widget-view+json")
            if view:
                view["model_id"] = ""
            output.get("metadata", {}).clear()
        cell["outputs"] = [o for o in cell["outputs"] if o.get("name") != "stderr"] if "outputs" in cell else cell.get("outputs")
        if cell.cell_type != "code":
            cell.pop("outputs", None)
    with runtime.writing(source) as path:
        nbformat.write(book, path)


@contextlib.contextmanager
def _ended_with(pool):
    """Where the block is stopped, by Ctrl-C too, no further notebook begins, and those that run end now."""
    import multiprocessing

    before = set(multiprocessing.active_children())
    try:
        yield
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - before:
            child.kill()  # to anything less nbclient listens, and waits for a kernel that is gone; a kernel whose parent is gone ends by itself
        raise


def run(names=(), profile="offline", jobs=1, update=False, say=print):
    """Run notebooks, print a table, write build/results.json, and return it: {name: {"seconds", "peak_memory_mb", "status", "results"}}.

    With `update` the rows of notebooks that ran well also go into notebooks/results.json: what the documents say of a run is checked against it.
    """
    import concurrent.futures
    import multiprocessing

    if profile not in PROFILES:
        raise unknown("profile", profile, PROFILES)
    if update and (profile != "offline" or not runtime.in_checkout()):
        raise MiniclipError("only the offline profile of a checkout writes outputs back (--update)")
    chosen, jobs = pick(names), max(1, int(jobs))
    threads = max(1, (os.cpu_count() or 1) // min(jobs, len(chosen)))
    done = {}
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool, _ended_with(pool):
        logs = runtime.build_dir() / profile
        logs.mkdir(parents=True, exist_ok=True)
        waiting = {pool.submit(_worker, name, logs / f"{name}.log", profile=profile, update=update, threads=threads): name for name in chosen}
        say(f"running {len(chosen)} notebook(s), profile {profile}: {', '.join(chosen)}")
        for future in concurrent.futures.as_completed(waiting):
            name = waiting[future]
            done[name] = future.result()
            say(f"  {name}: {done[name]['status']}, {done[name]['seconds']:.0f} s, {done[name]['peak_memory_mb']} MB")
            for problem in done[name]["problems"]:
                say(f"    {problem}")
    done = {name: done[name] for name in chosen}
    folder = runtime.build_dir()
    _write_results(done, folder / "results.json" if profile == "offline" else folder / profile / "results.json")
    if update:
        _write_results({name: row for name, row in done.items() if row["status"] == "ok"}, runtime.notebooks_dir() / "results.json")
    say(_table(done))
    return done


def _write_results(done, file):
    """Put the rows of a run into a file of results; those of other notebooks stay."""
    old = json.loads(file.read_text(encoding="utf8")) if file.exists() else {}
    kept = {name: {key: value for key, value in row.items() if key != "problems"} for name, row in done.items()}
    with runtime.writing(file) as path:
        path.write_text(json.dumps(dict(sorted((old | kept).items())), indent=1) + "\n", encoding="utf8")


def _table(done):
    """The runs as text: a row per notebook, its results under it."""
    width = max(map(len, done))
    lines = ["", f"{'notebook':<{width}}  seconds  memory MB  status"]
    for name, row in done.items():
        lines.append(f"{name:<{width}}  {row['seconds']:7.0f}  {row['peak_memory_mb']:9.0f}  {row['status']}")
        lines += [f"{'':<{width}}    {key} = {value:.4g}" for key, value in row["results"].items()]
    return "\n".join(lines)
