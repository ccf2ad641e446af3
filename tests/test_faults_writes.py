"""Every write of the package goes through `runtime.writing` or `runtime.writing_folder`: read out of its source, with a list of the exceptions and why; and what those two promise."""

import ast
import errno
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading

import pytest
from conftest import ROOT

from miniclip_helpers import runtime
from miniclip_helpers.errors import MiniclipError
from miniclip_helpers.runtime import whole

PACKAGE = ROOT / "miniclip_helpers"
WRITES = {"write_text", "write_bytes", "copyfile", "shutil.copy", "copy2", "copytree", "move", "copyfileobj", "save_file", "write_table", "ParquetWriter", "savez", "savetxt",
          "save_pretrained", "symlink_to", "touch", "rename", "execute_notebook", "write_index", "sqlite3.connect", "os.replace", "os.rename", "np.save", "torch.save", "shutil.unpack_archive",
          "nbformat.write", "image.save", "picture.save", "bare.save", "figure.savefig"}
INSIDE = "its caller gives it a folder or a file of runtime.writing"
SCRATCH = "scratch of one process, in the system's folder for temporary files"
MEMORY, READS, NOWHERE = "into memory", "opened to be read, or to be locked", "/dev/null"
SQLITE = "SQLite's own journal makes it whole"
ALLOWED = {
    ("app/serving.py", "show"): SCRATCH, ("app/serving.py", "open_browser"): SCRATCH, ("app/serving.py", "_write_kernel"): SCRATCH,
    ("cli/__init__.py", "main"): NOWHERE, ("cli/__init__.py", "entry"): NOWHERE, ("cli/training.py", "train_model"): NOWHERE,
    ("coursework/course.py", "_fill"): "a new folder, moved in whole or file by file", ("coursework/course.py", "_recorded"): READS,
    ("coursework/gradebook.py", "check"): SQLITE, ("coursework/kernels.py", "__init__"): SCRATCH, ("coursework/kernels.py", "start"): SCRATCH,
    ("coursework/limits.py", "_allow"): READS, ("coursework/sandbox.py", "_child"): SCRATCH, ("coursework/sandbox.py", "serve_kernel"): SCRATCH,
    ("datasets/duplicates.py", "copies"): MEMORY, ("datasets/example.py", "_file"): MEMORY,
    ("datasets/example.py", "write_example"): "photos made to learn with; the same call writes them all again",
    ("datasets/example.py", "_write_broken"): "broken on purpose", ("datasets/shards.py", "_write_shard"): INSIDE,
    ("datasets/writing.py", "_write_parquet"): INSIDE, ("datasets/writing.py", "_write_pictures"): INSIDE,
    ("downloads.py", "_from_one"): "a part that is synced, and has the right checksum, takes its name; a part alone is never read",
    ("downloads.py", "_write"): "the part, which is gone on from", ("downloads.py", "unpack_member"): INSIDE,
    ("embedding/cache.py", "_open"): SQLITE, ("embedding/cache.py", "_begin_anew"): "a damaged cache is set aside",
    ("embedding/workers.py", "_start"): SCRATCH, ("finetuning/export.py", "_save_tokenizer"): INSIDE, ("finetuning/export.py", "_write_json"): INSIDE,
    ("finetuning/export.py", "write_with_code"): INSIDE, ("finetuning/hub.py", "save"): INSIDE, ("images.py", "bare_jpeg"): MEMORY,
    ("index/searchers.py", "size_of"): "counts bytes and keeps none", ("model/saving.py", "save_model"): INSIDE, ("plots/style.py", "few_colours"): MEMORY,
    ("plots/style.py", "to_png"): MEMORY, ("plots/svg.py", "to_svg"): MEMORY, ("plots/svg.py", "_packed"): MEMORY,
    ("runtime/whole.py", "_lock"): READS, ("runtime/whole.py", "sync"): READS, ("runtime/whole.py", "_new_file"): "where `writing` writes aside",
    ("runtime/whole.py", "writing"): "the one renaming", ("runtime/whole.py", "_take_place"): "the one of folders", ("runtime/whole.py", "bring_back"): "the way back",
    ("series/results.py", "result"): "a line a result while a notebook runs; the next run begins the file anew",
    ("series/running.py", "_worker"): "what a notebook's process says while it runs", ("training/processes.py", "run_processes"): SCRATCH,
}


def found(package=PACKAGE):
    """(file, function, call) of each write that does not stand inside `with runtime.writing...`."""
    rows = set()
    for file in sorted(package.rglob("*.py")):
        name = file.relative_to(package).as_posix()

        def visit(node, function, aside, name=name):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                function = node.name
            if isinstance(node, ast.With):
                aside = aside or any("writing" in ast.unparse(item.context_expr).split("(")[0] for item in node.items)
            if isinstance(node, ast.Call) and not aside and (call := writes(node)):
                rows.add((name, function, call))
            for child in ast.iter_child_nodes(node):
                visit(child, function, aside)

        visit(ast.parse(file.read_text(encoding="utf8")), "", False)
    return rows


def writes(node):
    """What a call writes with, or ""."""
    said = ast.unparse(node.func)
    last = said.rpartition(".")[2]
    if last == "open" and said != "Image.open":
        modes = [value.value for value in [*node.args[: 1 if said.endswith(").open") else 2], *(word.value for word in node.keywords if word.arg == "mode")]
                 if isinstance(value, ast.Constant) and isinstance(value.value, str) and len(value.value) < 4]
        return "open" if any(set(mode) & set("wax+") for mode in modes) or said == "os.open" else ""
    if last == "write_index" and said != "faiss.write_index":
        return ""
    return last if last in WRITES or said in WRITES else ""


def test_every_write_is_aside_or_has_a_reason():
    rows = found()
    new = sorted(row for row in rows if row[:2] not in ALLOWED)
    assert not new, f"written in place: {new}; write through runtime.writing or runtime.writing_folder, or say here why not"
    gone = sorted(set(ALLOWED) - {row[:2] for row in rows} - {("downloads.py", "_write")})
    assert not gone, f"no longer there: {gone}"


@pytest.mark.parametrize("source", ["path.write_text('x')", "with open(path, 'w') as file:\n    file.write('x')", "with path.open('ab') as f: pass", "open(path, mode='r+')",
                                    "os.replace(a, b)", "save_file(state, path)", "faiss.write_index(index, name)", "shutil.copyfile(a, b)", "os.open(path, os.O_CREAT)"])
def test_a_write_in_place_is_seen(source, tmp_path):
    lines = source.replace("\n", "\n    ")
    (tmp_path / "new.py").write_text(f"def keep(path):\n    {lines}\n", encoding="utf8")
    assert [row[:2] for row in found(tmp_path)] == [("new.py", "keep")]
    (tmp_path / "new.py").write_text(f"def keep(path):\n    with runtime.writing(path) as path:\n        {lines.replace(chr(10), chr(10) + '    ')}\n", encoding="utf8")
    assert not found(tmp_path)


@pytest.fixture
def calls(monkeypatch):
    """The syncs and renames that the system is asked for, in order."""
    done, sync, replace, swap = [], whole.sync, os.replace, whole.swap
    monkeypatch.setattr(whole, "sync", lambda path: (done.append(("sync", pathlib.Path(path).name)), sync(path)))
    monkeypatch.setattr(os, "replace", lambda old, new: (done.append(("replace", pathlib.Path(new).name)), replace(old, new)))
    monkeypatch.setattr(whole, "swap", lambda one, other: (done.append(("swap", pathlib.Path(other).name)), swap(one, other))[1])
    return done


def test_what_is_written_is_on_the_disk_before_it_has_its_name_and_then_the_name_is(tmp_path, calls):
    place = tmp_path / "new" / "x.txt"
    with runtime.writing(place) as aside:
        aside.write_text("1")
    assert calls == [("sync", tmp_path.name), ("sync", aside.name), ("replace", "x.txt"), ("sync", "new")]
    for last in (("replace", "run"), ("swap", "run")):
        calls.clear()
        with runtime.writing_folder(tmp_path / "run") as aside:
            (aside / "a").write_text("1")
        assert sorted(calls[:2]) == [("sync", aside.name), ("sync", "a")][::1 if aside.name < "a" else -1] and calls[2:] == [last, ("sync", tmp_path.name)]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_sync_that_fails_is_an_error_and_the_old_file_stays(code, tmp_path, monkeypatch):
    place = tmp_path / "x.txt"
    place.write_text("old")

    def fsync(handle):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(MiniclipError, match=f"x.txt' cannot be written .{os.strerror(code)}.; what was there is kept: .*another place"), runtime.writing(place) as aside:
        aside.write_text("new")
    (tmp_path / "run").mkdir()
    with pytest.raises(MiniclipError, match="run' cannot be written"), runtime.writing_folder(tmp_path / "run") as aside:
        (aside / "a").write_text("new")
    assert place.read_text() == "old" and sorted(path.name for path in tmp_path.rglob("*")) == ["run", "x.txt"]


def test_what_is_no_fault_of_the_writing_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), runtime.writing(tmp_path / "x.txt"):
        (tmp_path / "absent").read_text()
    with pytest.raises(ZeroDivisionError), runtime.writing_folder(tmp_path / "run"):
        1 / 0  # noqa: B018
    with pytest.raises(MiniclipError, match=r"y\.txt' cannot be written .No space left on device.; free some space"), runtime.writing(tmp_path / "y.txt"):
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(whole.fcntl is None, reason="without locks nobody can tell what is left from what is being written")
@pytest.mark.parametrize("write, make", [(runtime.writing, pathlib.Path.touch), (runtime.writing_folder, pathlib.Path.mkdir)])
def test_the_next_writer_clears_away_what_a_killed_one_left_and_no_other(write, make, tmp_path):
    place = tmp_path / "run.json"
    with write(place) as busy:
        left = busy.with_name(busy.name.replace("-0", "-1"))
        make(left)  # what nobody holds
        assert runtime.is_aside(busy.name) and not runtime.is_aside(".run.json") and not runtime.is_aside("run.miniclip-0.json")
        with write(place) as second:
            assert second == left and busy.exists()
            if second.is_dir():
                (second / "a").touch()
        if busy.is_dir():
            (busy / "b").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_many_writers_of_one_name_leave_one_whole(tmp_path):
    """Eight threads, a file and a folder each, again and again: each result is one writer's, and nothing is left."""
    ready, faults = threading.Barrier(8), []

    def write(number):
        ready.wait()
        try:
            for turn in range(15):
                with runtime.writing(tmp_path / "x") as aside:
                    aside.write_text(f"{number} " * 1000)
                with runtime.writing_folder(tmp_path / "run") as aside:
                    for name in "ab":
                        (aside / name).write_text(f"{number} {turn}")
                assert len(set((tmp_path / "x").read_text().split())) == 1
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults, faults
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "x"] and (tmp_path / "run" / "a").read_text() == (tmp_path / "run" / "b").read_text()


def test_where_folders_cannot_change_places_the_old_one_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr(whole, "swap", lambda one, other: False)
    for text in ("first", "second"):
        with runtime.writing_folder(tmp_path / "run") as aside:
            (aside / "a").write_text(text)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    real = os.replace

    def cut(old, new):
        real(old, new)
        raise SystemExit("killed here")  # between the two steps; and no way back
    with monkeypatch.context() as patch, pytest.raises(SystemExit):  # noqa: PT012
        patch.setattr(os, "replace", cut)
        with runtime.writing_folder(tmp_path / "run") as aside:
            (aside / "a").write_text("third")
    assert not (tmp_path / "run").exists()
    runtime.check_replaceable(tmp_path / "run", ["a"])
    assert (tmp_path / "run" / "a").read_text() == "second" and [path.name for path in tmp_path.iterdir()] == ["run"]


def test_links_are_followed_and_devices_are_left_alone(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "x.json").write_text("old")
    (tmp_path / "x.json").symlink_to(tmp_path / "far" / "x.json")
    (tmp_path / "run").symlink_to(tmp_path / "far")
    with runtime.writing(tmp_path / "x.json") as aside:
        aside.write_text("new")
    assert (tmp_path / "x.json").is_symlink() and (tmp_path / "far" / "x.json").read_text() == "new"
    with runtime.writing_folder(tmp_path / "run") as aside:
        (aside / "a").write_text("1")
    assert (tmp_path / "run").is_symlink() and [path.name for path in (tmp_path / "far").iterdir()] == ["a"]
    os.mkfifo(tmp_path / "pipe")
    for place, words in ((tmp_path / "pipe", "a device or a pipe"), (pathlib.Path(os.devnull), "a device or a pipe"), (tmp_path / "far", "it is a folder")):
        with pytest.raises(MiniclipError, match=words), runtime.writing(place):
            raise AssertionError("not reached")
    assert not pathlib.Path(os.devnull).is_file()


def test_where_a_shell_sends_what_is_printed_is_no_place_for_a_file(tmp_path):
    """`command --json /dev/stdout > log`: to follow the link, and put a new file there, would take the log from under the command."""
    code = "import sys; from miniclip_helpers import runtime\nprint('printed before', flush=True)\nwith runtime.writing(sys.argv[1]) as aside: aside.write_text('new')"
    (tmp_path / "link").symlink_to("/dev/stdout")
    for place in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"):
        with open(tmp_path / "log", "wb") as log:
            done = subprocess.run([sys.executable, "-c", code, place], stdout=log, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)})
        assert done.returncode == 1 and "it is a device or a pipe, and no file" in done.stderr, place
        assert (tmp_path / "log").read_text() == "printed before\n" and sorted(path.name for path in tmp_path.iterdir()) == ["link", "log"]


def test_a_link_into_a_store_of_contents_is_replaced_and_the_store_is_not(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "5d41").write_text("old")
    (tmp_path / "store" / "5d41").chmod(0o444)
    (tmp_path / "x.json").symlink_to("store/5d41")
    with runtime.writing(tmp_path / "x.json") as aside:
        aside.write_text("new")
    assert (tmp_path / "x.json").read_text() == "new" and not (tmp_path / "x.json").is_symlink()
    assert [path.read_text() for path in (tmp_path / "store").iterdir()] == ["old"]
    (tmp_path / "later").symlink_to("far.json")
    with runtime.writing(tmp_path / "later") as aside:
        aside.write_text("1")
    assert (tmp_path / "later").is_symlink() and (tmp_path / "far.json").read_text() == "1"


def test_long_names_that_begin_alike_keep_out_of_each_others_way(tmp_path, monkeypatch):
    monkeypatch.setattr(whole, "swap", lambda one, other: False)
    first, second = (tmp_path / f"{'experiment with a long name ' * 3}{end}" for end in ("a.b", "b.b"))
    with runtime.writing_folder(first) as one, runtime.writing_folder(second) as other:
        assert whole._names(first)[0] != whole._names(second)[0] and runtime.is_aside(one.name) and runtime.is_aside(other.name)
    old = one.with_name(f"{one.name}.old")
    first.rename(old)  # as one that was killed between two steps leaves it
    whole.bring_back(second)
    assert old.is_dir() and not first.exists()
    whole.bring_back(first)
    assert first.is_dir() and not old.exists()


def test_what_was_moved_aside_comes_back_whatever_its_number_and_through_a_link(tmp_path):
    (tmp_path / "link").symlink_to("run.d")
    for number in (2, 7):
        (tmp_path / f".run.d.miniclip-{number}.d.old").mkdir()
        (tmp_path / f".run.d.miniclip-{number}.d.old" / str(number)).touch()
    (tmp_path / ".run.d.miniclip-x.d.old").mkdir()  # nobody's
    runtime.check_replaceable(tmp_path / "link", ["2", "7"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [".run.d.miniclip-x.d.old", "link", "run.d"] and [path.name for path in (tmp_path / "run.d").iterdir()] == ["7"]


@pytest.mark.skipif(whole.fcntl is None, reason="there are no locks")
@pytest.mark.parametrize("write", [runtime.writing, runtime.writing_folder])
def test_a_file_system_where_nothing_can_be_held_is_written_all_the_same(write, tmp_path, monkeypatch):
    monkeypatch.setattr(whole, "_is", lambda handle, path: False)  # one that numbers a file anew each time it is asked
    for _ in range(2):
        with write(tmp_path / "x"):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_file_systems_that_know_no_syncing_are_written_and_a_mac_is_told_to_flush_its_disk(tmp_path, monkeypatch):
    asked = []

    def fsync(handle):
        asked.append("fsync")
        raise OSError(code, os.strerror(code))

    def flush(handle, command):
        asked.append(command)
        if code == errno.ENOTSUP:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    for code in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
        whole.sync(tmp_path)
        with runtime.writing(tmp_path / "x") as aside:
            aside.write_text(str(code))
        assert (tmp_path / "x").read_text() == str(code) and asked.count("fsync") == 3
        asked.clear()
    if whole.fcntl is not None:
        monkeypatch.setattr(whole.fcntl, "F_FULLFSYNC", 51, raising=False)
        monkeypatch.setattr(whole.fcntl, "fcntl", flush)
        for code, expected in ((errno.EIO, [51]), (errno.ENOTSUP, [51, "fsync"])):  # noqa: B007, flush sees it
            whole.sync(tmp_path / "x")
            assert asked == expected
            asked.clear()


def test_a_fault_of_another_file_is_not_laid_on_the_one_that_is_written(tmp_path):
    for error in (OSError(errno.EIO, "Input/output error", str(tmp_path / "photo.jpg")), BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
                  ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), runtime.Unwritten(tmp_path / "other", OSError(errno.EIO, "Input/output error"))):
        with pytest.raises(type(error)) as raised, runtime.writing(tmp_path / "x.txt"):
            raise error
        assert raised.value is error
    with pytest.raises(runtime.Unwritten, match=r"x\.txt' cannot be written"), runtime.writing(tmp_path / "x.txt") as aside:
        raise OSError(errno.EIO, "Input/output error", os.path.relpath(aside))
    with pytest.raises(runtime.Unwritten, match="run' cannot be written"), runtime.writing_folder(tmp_path / "run") as aside, runtime.writing(aside / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_folder_that_holds_only_what_was_left_aside_is_free(tmp_path):
    (tmp_path / ".captions.json.miniclip-0.json").touch()
    assert runtime.check_replaceable(tmp_path, []) is None
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(MiniclipError, match=r"thesis\.txt|something else"):
        runtime.check_replaceable(tmp_path, [])


WRITER = """import sys
from miniclip_helpers import runtime
from miniclip_helpers.errors import MiniclipError
try:
    with runtime.writing('x') as aside:
        aside.write_bytes(b'new' * 9000)
    with runtime.writing_folder('run') as aside:
        for name in 'ab':
            (aside / name).write_bytes(b'new' * 9000)
except MiniclipError as error:
    sys.exit(f'miniclip: {error}')"""
ASIDES = [".x.miniclip-0", *(f".run.miniclip-0/{name}" for name in ("", "a", "b"))]


def traced(folder, call, how):
    """The writer under strace, where the call `call` to the system goes wrong: (exit code, what it said, whether it was struck)."""
    places = [word for name in (*ASIDES, ".", "x", "run") for word in ("-P", str(folder / name))]
    command = ["strace", "-f", "-qq", "-o", str(folder.parent / "trace"), *places, "-e", f"trace={call}", "-e", f"inject={call}:{how}", sys.executable, "-c", WRITER]
    done = subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    said = "\n".join(line for line in done.stderr.splitlines() if "resolved into" not in line)
    return done.returncode, said, "INJECTED" in (trace := (folder.parent / "trace").read_text(encoding="utf8")) or "SIGKILL" in trace


def test_faults_of_the_system_itself(tmp_path):
    """Independent of Python: strace lets the n-th write, fsync or rename of the real process fail, or kills it there; n grows until nothing is struck any more."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed (Debian: apt-get install strace)")
    folder, struck = tmp_path / "place", 0
    for call in ("write", "fsync", "rename", "renameat2"):
        for how in ("error=EIO", "error=ENOSPC", "signal=SIGKILL"):
            for number in range(1, 9):
                shutil.rmtree(folder, ignore_errors=True)
                (folder / "run").mkdir(parents=True)
                for name in ("x", "run/a", "run/b"):
                    (folder / name).write_bytes(b"old")
                code, said, hit = traced(folder, call, f"{how}:when={number}")
                if not hit and re.search("ptrace|not permitted", said):
                    pytest.skip(f"strace may not trace here: {said}")
                if not hit:
                    assert code == 0, said
                    break
                struck, case = struck + 1, (call, how, number, code, said)
                held = {name: (folder / name).read_bytes()[:3] for name in ("x", "run/a", "run/b")}
                assert all((folder / name).stat().st_size in (3, 27000) for name in held) and held["run/a"] == held["run/b"], (case, held)
                if "error" in how:
                    assert code == 1 and re.fullmatch(r"miniclip: '(x|run)' cannot be written .*another place\s*", said), case
                    assert sorted(path.name for path in folder.iterdir()) == ["run", "x"], case
                else:
                    assert code in (-9, 137) or not said, case
                    subprocess.run([sys.executable, "-c", WRITER], cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
                    assert sorted(path.name for path in folder.iterdir()) == ["run", "x"], case
    print(f"{struck} faults of the system, 0 broken")
    assert struck >= 20
