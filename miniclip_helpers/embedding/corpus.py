"""A corpus of any size to parquet shards of vectors, in one process or several; what was stopped goes on when it is called again."""

import contextlib
import pathlib

import numpy as np
import torch

from .. import runtime
from ..encoders import weights_fingerprint
from ..errors import DataError, MiniclipError, UsageError
from ..pretrained import load_model
from . import parts as cutting
from . import shards, workers
from .features import run_texts
from .running import run_batches

KINDS = ("pictures", "captions")
BLOCK = 256  # features that are projected together


def about_model(model, name):
    """What a model is known by, as plain JSON: its name, and the fingerprints of its parts."""
    return {"model": name, "image_tower": model.image_tower.fingerprint, "text_tower": model.text_tower.fingerprint, "heads": heads_fingerprint(model)}


def heads_fingerprint(model):
    """A name for what stands behind the towers: two models with one fingerprint give one embedding."""
    return weights_fingerprint(model.image_head) + weights_fingerprint(model.text_head)


def model_and_name(model):
    """A model and the name to load it by again, of a model or of its name."""
    if not isinstance(model, (str, pathlib.Path)):
        return model, getattr(model, "name", str(model))
    name = str(pathlib.Path(model).resolve()) if pathlib.Path(model).is_dir() else str(model)
    return load_model(model), name


def encode_corpus(data, out, model="mini", processes=1, rows=1000, of="pictures", skip_problems=False, compile=None, device=None):
    """Encode pictures, or captions, into out/00000.parquet, ...: columns "name" and "embedding" (D float32, unit rows), and in the metadata what made them.

    data: what `load_dataset` takes, of any size: of tar shards and parquet tables only the part in work is held. rows: pictures per shard; a tar shard
    becomes one. processes: fresh Pythons that share the parts, for a model given by name. Under torchrun or `accelerate launch` (RANK, WORLD_SIZE) each
    process takes its share. A shard is written whole or not at all; finished ones whose files have not changed are kept, after a look at every number.

    Returns {"rows", "shards", "kept", "left_out"}. Unreadable pictures are all listed in one `DataError`, and everything else is encoded first; with
    skip_problems they are left out and listed. A worker that dies is a `MiniclipError` with its last words.
    """
    if of not in KINDS or any(isinstance(number, bool) or not isinstance(number, int) or number < 1 for number in (processes, rows)):
        raise UsageError(f"expected of as one of {', '.join(KINDS)}, and processes and rows from 1, found {of!r}, {processes!r} and {rows!r}")
    if processes > 1 and not isinstance(model, (str, pathlib.Path)):
        raise UsageError("several processes load the model by themselves: give its name or its folder, or take processes=1")
    out, (rank, ranks) = pathlib.Path(out), runtime.launched()
    title, root, parts, left_out = cutting.plan(data, rows, skip_problems)
    if processes > 1 and any(part.get("data") is data and not isinstance(data, (str, pathlib.Path)) for part in parts):
        raise UsageError("several processes open the pictures by themselves: give the name or the path of the data, or take processes=1")
    model, name = model_and_name(model)
    model.eval()
    about = about_model(model, name) | {"holds": of, "dataset": title, "root": str(pathlib.Path(root).resolve()) if root else None}
    done = _finished(out, parts, about, remove=rank == 0, alone=ranks == 1)
    job = {"model": name, "about": about | {"version": _version(), "shards": len(parts)}, "out": str(out.resolve()), "of": of, "skip_problems": skip_problems,
           "compile": compile, "device": device}
    todo = [part | {"shard": number} for number, part in enumerate(parts) if number not in done and number % ranks == rank]
    out.mkdir(parents=True, exist_ok=True)
    found, problems = [done[number] for number in sorted(done) if number % ranks == rank], []
    share = workers.share if min(processes, len(todo)) > 1 else _alone
    with contextlib.closing(share(job, todo, min(processes, len(todo)), model)) as results:
        for result in runtime.progress(results, f"encoding {of}", total=len(todo)):
            problems += result.get("problems", [])
            found.append(result)
    if problems:
        raise DataError(f"{len(problems)} {of} cannot be read, and their shards are not written; all others are. Mend or remove them and run this again, "
                        "or pass skip_problems (--skip-problems)", problems)
    left_out += [line for result in found for line in result["left_out"]]
    return {"rows": sum(result["rows"] for result in found), "shards": len(found), "kept": len(found) - len(todo), "left_out": left_out}


def _version():
    from .. import __version__

    return __version__


def _finished(out, parts, about, remove, alone):
    """{number: {"rows", "left_out"}} of the shards that are there, whole, and of these very parts. remove: take away those that are not. alone: nobody else writes here now."""
    if out.exists() and (strange := [file.name for file in out.iterdir() if file.suffix != ".parquet"] if out.is_dir() else [out.name]):
        strange = [name for name in strange if not name.startswith(".")]
        if strange:
            raise UsageError(f"'{out}' holds something else ({', '.join(sorted(strange)[:3])}); it is left as it is: name a new folder")
    done = {}
    for file in sorted(out.glob("*.parquet")) if out.is_dir() else []:
        if runtime.is_aside(file.name):
            runtime.cleared(file)
            continue
        if file.name.startswith("."):  # what an earlier version of this package left when it was killed
            if alone:
                file.unlink(missing_ok=True)
            continue
        said = shards.read_about(file)
        if said is not None and any(said[key] != about[key] for key in (*shards.MODEL, "holds")):
            same = said["holds"] == about["holds"] and said["model"] == about["model"]
            what = "another version of it" if same else f"{about['model']!r}"
            raise UsageError(f"'{out}' holds vectors of {said['holds']} by the model {said['model']!r}, not of {about['holds']} by {what}; name a new folder")
        if said is None and not _is_number(file):
            raise UsageError(f"'{out}' holds something else ({file.name}); it is left as it is: name a new folder")
        number = int(file.stem) if _is_number(file) else -1
        try:
            names, _, said = shards.read_vectors(file)
            whole = number < len(parts) and said["shards"] == len(parts) and said["shard"] == number and said["mark"] == parts[number]["mark"]
        except DataError:
            whole = False
        if whole:
            done[number] = {"rows": len(names), "left_out": said["left_out"]}
        elif remove:
            file.unlink(missing_ok=True)
    return done


def _is_number(file):
    return file.stem.isdecimal() and len(file.stem) == 5


def _alone(job, todo, processes, model):
    """The results of all parts, encoded here."""
    for part in todo:
        yield encode_part(job, part, model)


def encode_part(job, part, model):
    """Encode one part and write its shard. Returns {"rows", "left_out"}, or {"problems"} where pictures cannot be read; then no shard is written."""
    try:
        dataset = cutting.open_part(part, job["skip_problems"])
    except DataError as error:
        return {"problems": error.problems or [str(error)], "rows": 0, "left_out": []}
    names, captions = dataset.names, None
    if job["of"] == "captions":
        names = [f"{name}#{number}" for name, row in zip(dataset.names, dataset.captions) for number in range(len(row))]
        captions = dataset.all_captions
        found, project, width = run_texts(model.text_tower, captions, range(len(captions))), model.project_texts, model.text_tower.width
    else:
        found = run_batches(model.image_tower, range(len(names)), dataset.image, job["compile"], job["device"])
        project, width = model.project_images, model.image_tower.width
    vectors, problems = _collect(found, len(names), project, width)
    said = [line if names[row] in line else f"{names[row]}: {line}" for row, line in problems.items()]
    if said and not job["skip_problems"]:
        return {"problems": said, "rows": 0, "left_out": []}
    kept = [row for row in range(len(names)) if row not in problems]
    left_out = dataset.problems + said if "tar" in part else said
    about = job["about"] | {"shard": part["shard"], "mark": part["mark"], "left_out": left_out}
    shards.write_vectors(pathlib.Path(job["out"]) / f"{part['shard']:05d}.parquet", [names[row] for row in kept], vectors[kept], about,
                         captions and [captions[row] for row in kept])
    return {"rows": len(kept), "left_out": left_out}


@torch.no_grad()
def _collect(found, count, project, width):
    """Embeddings (count, D) out of pairs (row, feature or message), projected in blocks, so that features never pile up; and {row: message}."""
    vectors, waiting, problems = None, {}, {}

    def empty():
        nonlocal vectors
        rows = project(torch.from_numpy(np.stack([*waiting.values()])) if waiting else torch.ones(1, width)).numpy()
        vectors = np.zeros((count, rows.shape[1]), np.float32) if vectors is None else vectors
        if waiting:
            vectors[list(waiting)] = rows
        waiting.clear()

    for row, value in found:
        if isinstance(value, str):
            problems[row] = value
            continue
        waiting[row] = value
        if len(waiting) == BLOCK:
            empty()
    empty()
    return vectors, problems


def serve(job, parts):
    """What a worker does: load the model once, and encode the parts that come. Yields a result each; a `MiniclipError` ends it."""
    try:
        model = load_model(job["model"]).eval()
        for part in parts:
            yield encode_part(job, part, model)
    except MiniclipError as error:
        yield {"error": str(error)}
