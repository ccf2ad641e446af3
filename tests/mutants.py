"""Mutation testing: small faults are put into the package, one at a time, and the tests must notice each.

The faults are mutmut's: its operators, found by its visitor. The running is done here, for three reasons. mutmut swaps functions at run time, and the package
shows and judges the source of functions (`checks.solution`, the exercises' verdicts); it leaves decorated functions out; and its processes would not see a
fault in what the command line starts. Here each mutant is a file in a copy of the tree, and each runs in a process forked from one that has imported torch.

What is left out, by rule and before any result is seen: whatever is outside functions, annotations and docstrings (so does mutmut), and *wording*: texts that
hold a space, and all inside an f-string. Wording is drawn apart, so that the score can be told with and without it.
A mutant in a line that no test reaches counts as a survivor. A mutant is drawn by a digest of the seed and of itself: an edit elsewhere does not change the sample.
"""

import argparse
import contextlib
import dataclasses
import gc
import hashlib
import json
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time

with contextlib.suppress(ImportError):  # Windows has neither it nor forks
    import resource

ROOT = pathlib.Path(__file__).resolve().parent.parent
SLOW = 12  # seconds of computing: a test that takes longer alone is not asked
PATIENCE = 600  # seconds on the clock for one mutant, or one test
COPIED = ("miniclip_helpers", "tests")  # the rest of the tree is linked, but for what is made here and is no part of it:
LEFT_OUT = (".git", ".venv", ".uv", ".hypothesis", ".pytest_cache", ".ruff_cache", ".benchmarks", "build", "dist")

_TRAINING = ["test_training", "test_training_loop", "test_training_presets", "test_train_processes", "test_processes", "test_scale", "test_locked", "test_text_head", "test_mini",
             "test_small_encoders", "test_gradient_cache", "test_multi_view", "test_shares", "test_comparison", "test_encoder_weights", "test_same_weights", "test_edge_numbers"]
TESTS = {
    "losses": ["test_losses", "test_processes", "test_gradient_cache", "test_edge_numbers", "test_scale"],
    "metrics": ["test_metrics", "test_metrics_blocks", "test_metrics_mutants", "test_metrics_statistics", "test_edge_numbers", "test_retrieval"],
    "model": ["test_model", "test_encoders", "test_small_encoders", "test_locked", "test_training", "test_mini", "test_edge_numbers", "test_attacks"],
    "tokenizers": ["test_tokenizers", "test_encoders", "test_edge_numbers"],
    "index": ["test_index", "test_edge_numbers", "test_search", "test_attacks"],
    "training": _TRAINING,
    "checks": ["test_checks", "test_checks_judging", *(f"exercises/test_nb{number:02}" for number in range(12)), "exercises/test_rarer_mistakes"],
}


# Whose tests start processes of their own, where lines are reached that nothing here can see: asked where no test is known to reach a line.
ELSEWHERE = {"training": ["test_train_processes", "test_processes"]}


def sources(module, root=ROOT):
    """The files of a module of the package: one, or a folder's."""
    file = root / "miniclip_helpers" / f"{module}.py"
    return [file] if file.exists() else sorted((root / "miniclip_helpers" / module).glob("*.py"))


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One fault. path: of the file in the tree; before and after: the source of the node; text: the whole file with the fault in it, a function that makes it."""

    module: str
    path: str
    line: int
    function: str
    before: str
    after: str
    twin: int  # the same change at the same function's next place
    wording: bool
    text: object = dataclasses.field(compare=False, repr=False)

    @property
    def name(self):
        return hashlib.sha256(repr((self.path, self.function, self.before, self.after, self.twin)).encode()).hexdigest()[:12]

    def __str__(self):
        return f"{self.name} {self.path}:{self.line} {self.function}: {self.before} -> {self.after}"


def mutants(module, root=ROOT):
    """Every `Mutant` of a module of the package."""
    return [mutant for file in sources(module, root) for mutant in _mutants_of(module, file, root)]


def _mutants_of(module, file, root):
    import libcst as cst
    from libcst.metadata import MetadataWrapper, ParentNodeProvider, PositionProvider
    from mutmut.mutation.file_mutation import MutationVisitor
    from mutmut.mutation.mutators import mutation_operators
    from mutmut.mutation.pragma_handling import IgnoredCode

    class Visitor(MutationVisitor):
        def _skip_node_and_children(self, node):
            return not isinstance(node, cst.FunctionDef) and super()._skip_node_and_children(node)

    wrapper = MetadataWrapper(cst.parse_module(file.read_text(encoding="utf8")))
    visitor = Visitor(mutation_operators, IgnoredCode(set(), set(), set()))
    tree = wrapper.visit(visitor)
    place, parent = wrapper.resolve(PositionProvider), wrapper.resolve(ParentNodeProvider)
    found, twins = [], {}
    for mutation in visitor.mutations:
        if not isinstance(mutation.contained_by_top_level_function, cst.FunctionDef):
            continue
        above = [mutation.original_node]
        while above[-1] in parent:
            above.append(parent[above[-1]])
        names = [node.name.value for node in reversed(above) if isinstance(node, (cst.FunctionDef, cst.ClassDef))]
        key = (".".join(names), tree.code_for_node(mutation.original_node).strip(), tree.code_for_node(mutation.mutated_node).strip())
        twins[key] = twins.get(key, -1) + 1
        prose = isinstance(mutation.original_node, cst.SimpleString) and " " in mutation.original_node.value
        text = _Text(tree, mutation.original_node, mutation.mutated_node)
        found.append(Mutant(module, file.relative_to(root).as_posix(), place[mutation.original_node].start.line, *key, twins[key],
                            prose or any(isinstance(node, cst.FormattedString) for node in above[1:]), text))
    return found


@dataclasses.dataclass(frozen=True)
class _Text:
    tree: object
    before: object
    after: object

    def __call__(self):
        return self.tree.deep_replace(self.before, self.after).code


def by_text(module, path, before, after, root=ROOT):
    """A `Mutant` by hand: `before`, which stands once in the file, becomes `after`."""
    source = (root / path).read_text(encoding="utf8")
    if source.count(before) != 1:
        raise ValueError(f"{path} holds {before!r} {source.count(before)} times, expected once")
    line = source[: source.index(before)].count("\n") + 1
    return Mutant(module, path, line, "", before, after, 0, False, lambda: source.replace(before, after))


def sample(found, number, seed):
    """`number` of the mutants, drawn by digest, from each module as many as its share of all (at least one), in a random order."""
    modules = {module: sorted((m for m in found if m.module == module), key=lambda m: _digest(seed, m)) for module in dict.fromkeys(m.module for m in found)}
    share = {module: max(1, number * len(some) / len(found)) for module, some in modules.items()}
    quota = {module: int(part) for module, part in share.items()}
    for module in sorted(share, key=lambda m: quota[m] - share[m])[: max(0, number - sum(quota.values()))]:
        quota[module] += 1
    return sorted((m for module, some in modules.items() for m in some[: quota[module]]), key=lambda m: _digest(seed, m))


def _digest(seed, mutant):
    return hashlib.sha256(f"{seed} {mutant.name}".encode()).hexdigest()


def copy_tree(folder, root=ROOT):
    """A working copy of the tree in `folder`: the package and the tests copied, all else linked."""
    folder.mkdir(parents=True)
    for item in root.iterdir():
        if item.name in COPIED:
            shutil.copytree(item, folder / item.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif item.name not in LEFT_OUT:
            (folder / item.name).symlink_to(item)
    data = folder.parent / "shared"  # beside the tree, where the tests look for it
    if (root.parent / "shared").is_dir() and not data.is_symlink():
        data.symlink_to(root.parent / "shared")
    return folder


# --- processes

def warm_up(heavy=True):
    """Import what tests import, once, and nothing of the package; compute nothing, so that a fork finds no threads."""
    import importlib

    import torch

    torch.set_num_threads(1)
    torch.set_num_threads = lambda number: None  # the tests ask for two: beside each other they would take the cores from one another
    import hypothesis

    hypothesis.settings.register_profile("mutants", derandomize=True, database=None)  # the same verdict each time
    hypothesis.settings.load_profile("mutants")
    names = ["pytest", "_pytest.python", "scipy.stats", "faiss", "safetensors.torch"]
    for name in names + heavy * ["coverage", "sklearn.linear_model", "sklearn.metrics", "torchvision.transforms.v2", "timm", "transformers",
                                 "transformers.models.clip.modeling_clip", "tokenizers", "pandas", "open_clip", "clip"]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()  # a collection in a fork would go through, and copy, all that is imported here
    if "miniclip_helpers" in sys.modules:
        raise RuntimeError("the package is imported already: no mutant would be seen")


def _forked(work, output, limit):
    """Fork; the child does `work()` within `limit` seconds of computing, its output in the file `output`. Returns the process id."""
    process = os.fork()
    if process:
        return process
    try:
        os.setsid()  # a group of its own, so that all it starts can be ended with it
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(handle, 1), os.dup2(handle, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        code = work()
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 70
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(code)


def _enter(tree):
    """Make `tree` the one whose package and tests are imported, here and in what is started from here."""
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    os.environ |= {"PYTHONPATH": str(tree), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "MINICLIP_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    os.environ.pop("PYTEST_ADDOPTS", None)


def _pytest(tree, tests, plugin, temporary):
    """Run tests in this process; 97 where the package is not that of `tree`."""
    import pytest

    options = ["-x", "-q", "--no-header", "--tb=line", "-p", "no:cacheprovider", "-p", "no:faulthandler", "-p", "no:unraisableexception", f"--basetemp={temporary}", "-W", "ignore"]
    code = pytest.main([*options, *tests], plugins=[plugin])
    package = sys.modules.get("miniclip_helpers")
    return int(code) if package is None or pathlib.Path(package.__file__).is_relative_to(tree) else 97


def _computed():
    """Seconds of computing so far, of this process and of those it started: a busy machine does not change them."""
    own, started = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + started.ru_utime + started.ru_stime


class _Apart:
    """A pytest plugin that tells which lines of the package each test reaches. Each runs in a fork of its own, so that none stands on another's fixtures and
    caches; but for the exercises, which share none and are many.
    """

    def __init__(self, files, told, fork):
        self.files, self.told, self.fork = files, told, fork

    def pytest_runtest_protocol(self, item, nextitem):
        found = self._in_a_fork(item) if self.fork else self._measured(item, nextitem)
        found = found or {"test": item.nodeid, "good": False, "why": "no answer", "seconds": 0, "lines": {}}
        with open(self.told, "a", encoding="utf8") as out:
            out.write(json.dumps(found) + "\n")
        return True

    def _in_a_fork(self, item):
        read, write = os.pipe()
        process = os.fork()
        if not process:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (4 * SLOW, 4 * SLOW))
            signal.alarm(PATIENCE)
            with os.fdopen(write, "w") as out:
                json.dump(self._measured(item, None), out)
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as answer:
            got = answer.read()
        os.waitpid(process, 0)
        return json.loads(got) if got else None

    def _measured(self, item, nextitem):
        import coverage
        from _pytest.runner import runtestprotocol

        started = _computed()
        measured = coverage.Coverage(data_file=None, include=self.files, config_file=False, messages=False)
        measured.start()
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        measured.stop()
        data = measured.get_data()
        why = "".join(str(report.longrepr)[:1000] for report in reports if not report.passed)
        return {"test": item.nodeid, "good": not why and all(report.passed for report in reports), "why": why, "seconds": _computed() - started,
                "lines": {file: sorted(data.lines(file)) for file in data.measured_files()}}


def cover(files, modules, workspace, processes=2):
    """Run test files (names as in `TESTS`), each test alone. Returns a list of {test, good, why, seconds, lines {path: lines}}."""
    trees = [copy_tree(workspace / f"cover{n}") for n in range(processes)]
    wanted, told = list(files), []

    def work(tree, name, out):
        _enter(tree)
        here = [str(file) for module in modules for file in sources(module, tree)]
        return _pytest(tree, [f"tests/{name}.py"], _Apart(here, out, not name.startswith("exercises/")), tree / "tmp")

    def jobs():
        for name in wanted:
            out = workspace / f"cover-{name.replace('/', '-')}.jsonl"
            told.append(out)
            yield name, out

    for _, (name, _), code, _, output in _pool(jobs(), trees, lambda tree, job: (lambda: work(tree, *job)), lambda job: 3600, 3600):
        if code not in (0, 5):
            raise RuntimeError(f"the tests of {name} could not be run unmutated (exit {code}):\n{output[-2000:]}")
    found = [json.loads(line) for out in told if out.exists() for line in out.read_text(encoding="utf8").splitlines()]
    for one in found:
        one["lines"] = {path[path.index("miniclip_helpers/"):]: lines for path, lines in one["lines"].items()}
    return found


def _pool(jobs, trees, work, limit, patience=PATIENCE):
    """Each job in a fork, one at a time in each tree. Yields (tree, job, exit code or None past its limit, seconds, output)."""
    jobs, free, running = iter(jobs), list(trees), {}
    more = True
    try:
        while more or running:
            while more and free:
                job = next(jobs, None)
                more = job is not None
                if more:
                    tree = free.pop()
                    output = tree.parent / f"{tree.name}.txt"
                    process = _forked(work(tree, job), output, int(limit(job)))
                    running[process] = (tree, job, output, time.monotonic())
            for process, (tree, job, output, started) in list(running.items()):
                ended, status = os.waitpid(process, os.WNOHANG)
                late = time.monotonic() > started + patience
                if ended or late:
                    _kill(process)
                    if not ended:
                        os.waitpid(process, 0)
                    del running[process]
                    free.append(tree)
                    shutil.rmtree(tree / "tmp", ignore_errors=True)
                    text = output.read_text(encoding="utf8", errors="replace") if output.exists() else ""
                    code = os.waitstatus_to_exitcode(status) if ended else None
                    yield tree, job, None if code in (-signal.SIGXCPU, -signal.SIGKILL) else code, time.monotonic() - started, text
            time.sleep(0.02)
    finally:
        for process in running:  # the runner is told to end, or fails: its forks are groups of their own and would go on
            _kill(process)


def _kill(group):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def reaching(mutant, covered):
    """The tests that reach the mutant's line, quickest first, and the seconds they take."""
    def of(files, reached):
        allowed = tuple(f"tests/{name}.py::" for name in files)
        return [one for one in covered if one["good"] and one["seconds"] < SLOW and one["test"].startswith(allowed) and reached(one)]

    some = of(TESTS[mutant.module], lambda one: mutant.line in one["lines"].get(mutant.path, ())) or of(ELSEWHERE.get(mutant.module, ()), lambda one: True)
    some.sort(key=lambda one: one["seconds"])
    return [one["test"] for one in some], sum(one["seconds"] for one in some)


def run(found, covered, workspace, processes=2, told=print):
    """Run mutants. Returns {name: "killed", "hung", "survived" or "unreached"}; `told` is called with (verdict, seconds, mutant, last line)."""
    verdicts, jobs = {}, []
    for mutant in found:
        tests, seconds = reaching(mutant, covered)
        if tests:
            jobs.append((mutant, tests, seconds))
        else:
            verdicts[mutant.name] = "unreached"
            told("unreached", 0, mutant, "")
    return verdicts | tried(jobs, workspace, processes, told)


def tried(jobs, workspace, processes=2, told=print, root=ROOT):
    """Run jobs (mutant, its tests, their seconds of computing) in copies of `root`. Returns {name: verdict} as `run` does."""
    verdicts, written = {}, {}
    trees = [copy_tree(workspace / f"tree{n}", root) for n in range(processes)]
    clock = iter(range(1_000_000_000, 2_000_000_000))  # each file its own time of change, so that no compiled file is taken for another's

    def put(file, text):
        file.write_text(text, encoding="utf8")
        os.utime(file, (next(clock),) * 2)

    def work(tree, job):
        file = tree / job[0].path
        written[tree] = (file, file.read_text(encoding="utf8"))
        put(file, job[0].text())

        def inside():
            _enter(tree)
            return _pytest(tree, job[1], None, tree / "tmp")

        return inside

    for tree, (mutant, _, _), code, seconds, output in _pool(jobs, trees, work, lambda job: 20 + 8 * job[2]):
        put(*written.pop(tree))
        if code in (3, 70, 97) or code == 4 and "ERROR collecting" not in output and "ImportError while loading" not in output:
            raise RuntimeError(f"{mutant} could not be tried (exit {code}):\n{output[-2000:]}")
        verdicts[mutant.name] = "survived" if code == 0 else "hung" if code is None else "killed"
        last = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
        told(verdicts[mutant.name], seconds, mutant, last[-1][:200] if last else "")
    return verdicts


def score(verdicts):
    """The share of mutants that were noticed, a hang among them."""
    return sum(verdict in ("killed", "hung") for verdict in verdicts.values()) / len(verdicts)


# --- planted by hand, one of each module and kind: (module, path, source, fault, tests that must notice)

PLANTED = [
    ("losses", "losses.py", "return logit_scale * image_embeddings @ text_embeddings.T", "return image_embeddings @ text_embeddings.T", "test_losses"),
    ("losses", "losses.py", "return (by_image + by_text).mean() / 2", "return (by_image + by_text).mean() * 2", "test_losses"),
    ("metrics", "metrics/ranking.py", "float((rank <= whole(k, \"K of R@K\")).mean())", "float((rank < whole(k, \"K of R@K\")).mean())", "test_metrics"),
    ("metrics", "metrics/ranking.py", "counts[1][kind, own] -= found[mine, own]", "counts[1][kind, own] += found[mine, own]", "test_metrics"),
    ("model", "model/heads.py", "return (features - self.mean) @ self.weight", "return features @ self.weight", "test_model"),
    ("model", "model/two_towers.py", ".clamp(max=MAX_LOGIT_SCALE)", "", "test_model"),
    ("tokenizers", "tokenizers.py", "for word in words(text)][: self.length]", "for word in words(text)]", "test_tokenizers::test_length_cuts_and_state_comes_back"),
    ("index", "index/searchers.py", "searcher = faiss.IndexFlatIP(width)", "searcher = faiss.IndexFlatL2(width)", "test_index"),
    ("training", "training/loop.py", "return (step + 1) / climb", "return step / climb", "test_training_loop"),
    ("training", "training/batches.py", "return len(self.images) // self.batch_size", "return len(self.images) // self.batch_size + 1", "test_training_loop"),
    ("checks", "checks/core.py", "return found.shape == expected.shape and bool(", "return found.shape == expected.shape or bool(", "test_checks"),
    ("checks", "checks/judging.py", "if verdict.passed is not True:", "if verdict.passed is True:", "test_checks_judging"),
]


@contextlib.contextmanager
def a_workspace():
    """A folder for copies of the tree, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="miniclip-mutants-") as folder:
        yield pathlib.Path(folder).resolve()


def plant(say=print):
    """Try `PLANTED`; then the first of them on a tree whose tests assert nothing, and a fault that is none. Says a line of JSON for each: {verdict, what}."""
    def told(what):
        return lambda verdict, seconds, mutant, last: say(json.dumps({"what": what, "verdict": verdict, "mutant": str(mutant), "noticed": last}))

    jobs = [(by_text(module, f"miniclip_helpers/{path}", before, after), [f"tests/{name}.py" if "::" not in name else f"tests/{name.replace('::', '.py::')}"
             for name in tests.split(",")], 10) for module, path, before, after, tests in PLANTED]
    mutant, tests, _ = jobs[0]
    warm_up(heavy=False)
    with a_workspace() as folder:
        tried(jobs, folder / "planted", told=told("planted"))
        tried([(by_text(mutant.module, mutant.path, mutant.before, mutant.before), tests, 10)], folder / "none", 1, told("no fault"))
        emptied = copy_tree(folder / "root")
        (emptied / tests[0]).write_text("def test_nothing():\n    import miniclip_helpers.losses\n", encoding="utf8")
        tried([(mutant, tests, 10)], folder / "emptied", 1, told("emptied tests"), emptied)


def main():
    """python tests/mutants.py plant | [--seed S] [--number N] [--wording N] [--processes P] [--out FILE]: says each verdict, then the scores."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("what", nargs="?", choices=("sample", "plant"), default="sample")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--number", type=int, default=400)
    parser.add_argument("--wording", type=int, default=0, help="draw as many of the mutants in wording, too")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=pathlib.Path, help="a file of JSON lines, one a mutant")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that what runs is ended, and the copies go
    if args.what == "plant":
        return plant()
    found = [mutant for module in TESTS for mutant in mutants(module)]
    draws = {kind: sample([one for one in found if one.wording == kind], number, args.seed) for kind, number in ((False, args.number), (True, args.wording)) if number}
    print(f"seed {args.seed}: " + ", ".join(f"{len(some)} of {sum(one.wording == kind for one in found)} mutants {'in wording' if kind else 'in code'}"
                                            for kind, some in draws.items()), flush=True)
    files = [name for name in dict.fromkeys(name for tests in (*TESTS.values(), *ELSEWHERE.values()) for name in tests) if (ROOT / "tests" / f"{name}.py").exists()]
    warm_up()
    with a_workspace() as folder:
        covered = cover(files, TESTS, folder, args.processes)
        print(f"{len(covered)} tests, {sum(one['good'] and one['seconds'] < SLOW for one in covered)} of them pass in time and are asked", flush=True)
        for kind, some in draws.items():
            verdicts = run(some, covered, folder / f"{kind}", args.processes, _teller(args.out))
            by_module = {module: [verdicts[one.name] for one in some if one.module == module] for module in TESTS}
            print("; ".join(f"{module} {sum(v in ('killed', 'hung') for v in those)} of {len(those)}" for module, those in by_module.items() if those))
            print(json.dumps({"seed": args.seed, "wording": kind, "mutants": len(some), "score": score(verdicts),
                              **{verdict: list(verdicts.values()).count(verdict) for verdict in ("killed", "hung", "survived", "unreached")}}), flush=True)


def _teller(out):
    def told(verdict, seconds, mutant, last):
        if verdict != "killed":
            print(f"{verdict} {mutant}", flush=True)
        if out:
            with out.open("a", encoding="utf8") as file:
                file.write(json.dumps({"name": mutant.name, "module": mutant.module, "verdict": verdict, "seconds": round(seconds, 1), "mutant": str(mutant), "noticed": last}) + "\n")

    return told


if __name__ == "__main__":
    main()
