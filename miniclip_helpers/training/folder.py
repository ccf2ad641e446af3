"""The folder of a run: what stands in it while the run goes on, what it holds when it is done, what another run may touch."""

import csv
import json

from .. import runtime
from ..errors import ModelError, UsageError
from ..model import save_model

GOOD = "last-good"
FINISHED, PARTIAL = {"model.safetensors", "config.json", "split.json", "history.csv"}, {"run.json", "checkpoint.pt", "history.csv", GOOD}


def finished(out, resume):
    """Whether `out` holds a finished run; a `UsageError` where it holds anything that this run may not touch."""
    runtime.bring_back(out)
    if not out.exists() or not out.is_dir():
        runtime.check_replaceable(out, ())
    held = {file.name for file in out.iterdir() if not _unfinished(file)} if out.exists() else set()
    if not held:
        return False
    if FINISHED <= held and resume:
        return True
    if FINISHED <= held:
        raise UsageError(f"'{out}' holds a finished model; give another folder, or --resume to keep it")
    if "run.json" not in held or held - PARTIAL:
        raise UsageError(f"'{out}' holds something else ({', '.join(sorted(held)[:3])}); give a new folder")
    if not resume:
        raise UsageError(f"'{out}' holds an unfinished run; add --resume to go on, or give another folder")
    return False


def _unfinished(file):
    """Whether this is what a writer that was killed in the middle left. `runtime.writing` clears its own away; what the first version left goes here."""
    if runtime.is_aside(file.name):
        return True
    if file.is_file() and any(file.name.startswith(f".{name}.") for name in PARTIAL):
        file.unlink()
        return True
    return False


def check_resumed(out, asked):
    """An unfinished run goes on with the settings that it began with."""
    if not (out / "run.json").is_file():
        return
    try:
        begun = runtime.parse_json((out / "run.json").read_text(encoding="utf8"))
    except ValueError as error:
        raise ModelError(f"'{out / 'run.json'}' is damaged ({error}); remove the folder to start again") from error
    if not isinstance(begun, dict):
        raise ModelError(f"'{out / 'run.json'}' is damaged; remove the folder to start again")
    other = [key for key, value in asked.items() if begun.get(key) != value]
    if other:
        raise UsageError(f"'{out}' was begun with another {', '.join(other)}; use the same settings, or another folder")


def begin(out, asked):
    """Write down what a run was asked for, so that it can be gone on with."""
    out.mkdir(parents=True, exist_ok=True)
    with runtime.writing(out / "run.json") as temporary:
        temporary.write_text(json.dumps(asked, indent=1, ensure_ascii=False) + "\n", encoding="utf8")


def keep_good(model, out, worth, save=save_model):
    """After a run that diverged: its last good model as the folder `last-good` in `out`, and the folder's path.

    worth: whether that model knows anything. If not, None: what the run wrote goes away, and `out` is free for another try.
    save: function of (model, folder) that writes it.
    """
    if worth:
        with runtime.writing_folder(out / GOOD) as folder:
            save(model, folder)
        return out / GOOD
    for name in ("run.json", "history.csv"):
        (out / name).unlink(missing_ok=True)
    if not any(out.iterdir()):
        out.rmdir()
    return None


def read_history(path):
    """The rows of an unfinished run, none where there is no file."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf8") as file:
        rows = list(csv.DictReader(file))
    if not all((row.get("step") or "").isdigit() for row in rows):
        raise ModelError(f"'{path}' is damaged; remove the folder to start again")
    return rows


def write_history(path, rows):
    """Rows (dicts) as CSV, whole or not at all; the columns are all keys, in order of appearance."""
    with runtime.writing(path) as temporary, open(temporary, "w", newline="", encoding="utf8") as file:
        table = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)), restval="")
        table.writeheader()
        table.writerows(rows)
