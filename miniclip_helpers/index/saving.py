"""An index as a folder: index.faiss, what FAISS wrote, and index.json, the names and what made it."""

import json
import pathlib

from .. import runtime
from ..errors import ModelError
from .searchers import misfit

FORMAT = "miniclip-index-1"
FILES = ("index.faiss", "index.json")


def check_target(folder):
    """Raise a `UsageError` unless an index may be written to `folder`: it is absent, empty, or an index."""
    runtime.check_replaceable(folder, FILES)


def _seal(about):
    """A name for what index.json says, itself apart."""
    return runtime.digest(json.dumps({key: about[key] for key in ("kind", "names", "about", "sha256")}, sort_keys=True))


def save(index, rows, folder):
    """Write an `Index` whose searcher has these rows (names, None for a removed one)."""
    import faiss

    check_target(folder)
    with runtime.writing_folder(folder) as fresh:
        with open(fresh / FILES[0], "wb") as file:  # through Python: FAISS itself takes no notice of a disk that is full when it closes the file
            faiss.write_index(index.searcher, faiss.PyCallbackIOWriter(file.write))
        about = {"format": FORMAT, "kind": index.kind, "names": rows, "about": index.about, "sha256": runtime.sha256(fresh / FILES[0])}
        about["seal"] = _seal(about)
        (fresh / FILES[1]).write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf8")


def read(folder):
    """The searcher and what index.json says of it. A `ModelError` tells which of the two files is missing, truncated or another."""
    import faiss

    about, file = read_about(folder), pathlib.Path(folder) / FILES[0]
    if not file.is_file():
        raise ModelError(f"'{file}' is missing beside {FILES[1]}; build the index again")
    if runtime.sha256(file) != about["sha256"]:
        raise ModelError(f"'{file}' is not the file that was saved with {FILES[1]} (its sha256 differs): truncated, altered, or of another index; build the index again")
    try:
        searcher = faiss.read_index(str(file))
    except Exception as error:  # FAISS, and its wrapping, raise several kinds on what is damaged on purpose
        raise ModelError(f"'{file}' cannot be read by this version of FAISS; build the index again") from error
    if fault := misfit(searcher, about["kind"], about["names"]):
        raise ModelError(f"'{file}' does not hold what {FILES[1]} says: {fault}; build the index again")
    return searcher, about


def read_about(folder):
    """What index.json says, whole and unaltered, or a `ModelError`; the vectors are not looked at."""
    folder = pathlib.Path(folder)
    runtime.check_ends(folder / FILES[1], ModelError, "build the index again")
    try:
        about = runtime.parse_json((folder / FILES[1]).read_text(encoding="utf8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(f"'{folder}' holds no index; make one with: miniclip index PHOTOS --out {folder}") from None
    except ValueError as error:
        raise ModelError(f"'{folder}/{FILES[1]}' is damaged: {error}; build the index again") from error
    kinds = {"names": list, "about": dict, "sha256": str, "kind": str, "seal": str}
    if not isinstance(about, dict) or about.get("format") != FORMAT or not all(isinstance(about.get(key), kind) for key, kind in kinds.items()):
        raise ModelError(f"'{folder}' is not an index of the format {FORMAT}; build it again")
    if about["seal"] != _seal(about):
        raise ModelError(f"'{folder}/{FILES[1]}' was altered since it was saved; build the index again")
    return about
