"""What `miniclip train` does: a dataset to a model folder, whole or not at all, and resumable while gradients are at work."""

import copy
import csv
import dataclasses
import json
import pathlib

import torch

from .. import datasets, runtime
from ..encoders import IMAGE_ENCODERS, TEXT_ENCODERS, load_encoder
from ..errors import DataError, ModelError, UsageError, unknown
from ..losses import get_loss
from ..model import LinearHead, TwoTowers, save_model
from ..tokenizers import WordTokenizer
from .config import TrainConfig
from .locked import features_of, fit_closed_form, locked_towers
from .loop import fit
from .sides import on_features, pair_batches, validation

FINISHED, PARTIAL = {"model.safetensors", "config.json", "split.json", "history.csv"}, {"run.json", "checkpoint.pt", "history.csv"}
EPOCHS, RATE = 30, 1e-3
POLISH_EPOCHS, POLISH_RATE = 10, 1e-4  # from the closed form on: small steps
DIM, VAL_SIZE = 128, 0.1


def train_run(data, out, image_encoder=None, text_encoder=None, loss=None, epochs=None, seed=0, val_size=None, split=None, resume=False):
    """Train a model on a dataset and write it to the folder `out`: model.safetensors, config.json, split.json, history.csv.

    data: a dataset, its name or its path. Without encoders the towers of `mini` stay locked and the heads come in closed form; `loss`
    or `epochs` add that many epochs of gradient steps. Small towers are trained from zero. val_size: share of the images kept for
    validation, 0 for none. split: a JSON file; then `train` is trained on, `val` chosen on, `test` never opened. resume: go on from
    what `out` holds. seed: draws the validation images, the weights of what starts from zero and the batches; the closed form itself
    holds no chance. Returns the path. Raises `UsageError` for what cannot work and `DataError` for data that cannot be trained on.
    """
    out = pathlib.Path(out)
    _check_names(image_encoder, text_encoder, loss, epochs, seed, val_size, split)
    if _finished(out, resume):
        return out
    dataset = datasets.load_dataset(data)
    parts, names = _parts(dataset, val_size, split, seed)
    asked = {"data": dataset.name, "image_encoder": image_encoder, "text_encoder": text_encoder, "loss": loss, "epochs": epochs, "seed": seed, "split": names}
    _check_resumed(out, asked)
    with torch.random.fork_rng():  # modules draw their first weights from the global state
        torch.manual_seed(seed)
        model, rows = _train(parts, image_encoder, text_encoder, loss, epochs, seed, out, asked)
    asked.pop("split")
    with runtime.writing_folder(out) as folder:
        save_model(model, folder, extra={"training": asked | {part: len(found) for part, found in parts.items()}})
        datasets.write_split(folder / "split.json", names)
        write_history(folder / "history.csv", rows)
    return out


def _check_names(image_encoder, text_encoder, loss, epochs, seed, val_size, split):
    """All that can be said about the arguments before anything is read."""
    for kind, name, known in (("image encoder", image_encoder, IMAGE_ENCODERS), ("text encoder", text_encoder, TEXT_ENCODERS)):
        if name is not None and name not in known:
            raise unknown(kind, name, known)
    if loss is not None:
        get_loss(loss)
    if epochs is not None and epochs < 1:
        raise UsageError(f"expected at least one epoch, found {epochs}")
    if not 0 <= seed < 2**63:
        raise UsageError(f"expected a seed of at least 0 and below 2**63, found {seed}")
    if val_size is not None and split is not None:
        raise UsageError("val_size and split exclude each other: the split names the validation images")
    if val_size is not None and not 0 <= val_size < 1:
        raise UsageError(f"expected val_size of at least 0 and below 1, found {val_size}")


def _finished(out, resume):
    """Whether `out` holds a finished run; a `UsageError` where it holds anything that this run may not touch."""
    if not out.exists() or not out.is_dir():
        runtime.check_replaceable(out, ())
    held = {file.name for file in out.iterdir()} if out.exists() else set()
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


def _check_resumed(out, asked):
    """An unfinished run goes on with the settings that it began with."""
    if not (out / "run.json").is_file():
        return
    try:
        begun = json.loads((out / "run.json").read_text(encoding="utf8"))
    except ValueError as error:
        raise ModelError(f"'{out / 'run.json'}' is damaged ({error}); remove the folder to start again") from error
    if not isinstance(begun, dict):
        raise ModelError(f"'{out / 'run.json'}' is damaged; remove the folder to start again")
    other = [key for key, value in asked.items() if begun.get(key) != value]
    if other:
        raise UsageError(f"'{out}' was begun with another {', '.join(other)}; use the same settings, or another folder")


def _parts(dataset, val_size, split, seed):
    """({"train": dataset, "val": dataset}, {part: names}); the images of `test` are never opened."""
    if split is not None:
        names = datasets.read_split(split)
        if not names.get("train"):
            raise DataError(f"the split file '{split}' names no images to train on, under \"train\"")
        parts = {part: dataset.select(names.get(part, [])) for part in ("train", "val")}
    else:
        share = VAL_SIZE if val_size is None else val_size
        parts = dataset.split({"val": share, "train": 1 - share}, seed=seed)
        names = {part: parts[part].names for part in ("train", "val")}
    lonely = [name for part in ("train", "val") for name, said in zip(parts[part].names, parts[part].captions, strict=True) if not said]
    if lonely:
        raise DataError(f"{len(lonely)} of {len(dataset)} images have no caption; training needs one each", lonely)
    if len(parts["train"]) < 2:
        raise DataError(f"training needs at least two images with captions, found {len(parts['train'])}")
    return {part: parts[part] for part in ("train", "val")}, names


def _train(parts, image_encoder, text_encoder, loss, epochs, seed, out, asked):
    """The trained model and its history: the closed form where both towers are locked, gradient steps where not, or where asked for."""
    image_tower, text_tower = locked_towers()
    if image_encoder not in (None, image_tower.name):
        image_tower = load_encoder(image_encoder)
    if text_encoder == "bag-of-words":
        text_tower = load_encoder(text_encoder, vocabulary=WordTokenizer.fit(parts["train"].all_captions).vocabulary)
    locked = image_tower.pretrained and text_tower.pretrained
    if locked:
        features = {part: features_of(image_tower, text_tower, found) if len(found) else None for part, found in parts.items()}
        model, rows = fit_closed_form(image_tower, text_tower, features["train"], features["val"])
        if loss is None and epochs is None:
            return model, rows
    else:
        model, rows = TwoTowers(image_tower, text_tower, LinearHead(image_tower.width, DIM), LinearHead(text_tower.width, DIM)), []
    config = TrainConfig(epochs=epochs or (POLISH_EPOCHS if locked else EPOCHS), loss=loss or "clip", seed=seed,
                         learning_rate=POLISH_RATE if locked else RATE)
    batches, validate = pair_batches(model, parts["train"], config), validation(model, parts["val"])
    return model, rows + _steps(model, batches, validate, config, out, asked)


def _steps(model, batches, validate, config, out, asked):
    """Gradient steps; meanwhile `out` holds what a resumed run needs. Returns one row per step. The start counts as a candidate."""
    out.mkdir(parents=True, exist_ok=True)
    with runtime.writing(out / "run.json") as temporary:
        temporary.write_text(json.dumps(asked, indent=1, ensure_ascii=False) + "\n", encoding="utf8")
    trained, start = on_features(model), copy.deepcopy(model.state_dict())
    first = validate() if validate else None
    rows, fresh = _read_history(out / "history.csv"), []
    for record in runtime.progress(fit(trained, batches, config, validate, out / "checkpoint.pt"), "training", total=config.epochs * len(batches)):
        if not fresh:
            rows = [row for row in rows if int(row["step"]) < record.step]  # a step past the checkpoint is taken again
        found = record.validation or {}
        fresh.append({"stage": "steps"} | {key: value for key, value in dataclasses.asdict(record).items() if key != "validation"} | found)
        if record.step % len(batches) == len(batches) - 1:
            write_history(out / "history.csv", rows + fresh)
    if first and validate()["score"] < first["score"]:
        model.load_state_dict(start)
    return rows + fresh


def _read_history(path):
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
