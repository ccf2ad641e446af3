"""What `miniclip train` does: a dataset to a model folder, whole or not at all, and resumable while gradients are at work."""

import copy
import dataclasses
import pathlib

import torch

from .. import datasets, runtime
from ..errors import DataError, MiniclipError, UsageError
from ..model import save_model
from .folder import begin, check_resumed, finished, keep_good, read_history, write_history
from .locked import best_correction, features_of, fit_closed_form
from .loop import Diverged, fit
from .machine import Machine
from .plan import VAL_SIZE, Plan
from .sides import encode_share, on_features, pair_batches, validation
from .towers import build_model, image_tower, text_tower


def train_run(data, out, image_encoder=None, text_encoder=None, loss=None, epochs=None, seed=0, val_size=None, split=None, resume=False,
              preset=None, unlock=None, machine=None, **settings):
    """Train a model on a dataset and write it to the folder `out`: model.safetensors, config.json, split.json, history.csv.

    data: a dataset, its name or its path. Without encoders the towers are those of `locked.locked_towers`. Published weights stay locked, their features are
    computed once and the heads come in closed form; `loss`, `epochs`, `batch_size`, `learning_rate` or `patience` add gradient steps. Heads in closed
    form that `val` has chosen are fitted again on both parts together, unless refit is False; with gradient steps they never are. With
    unlock=True published weights learn too, from augmented pixels. What has no weights on this machine starts from zero and always learns.
    preset: "000", "001" or "004", see `presets`; anything else that is given comes before it. val_size: share of the images kept for
    validation, 0 for none. split: a JSON file; then `train` is trained on, `val` chosen on, `test` never opened. resume: go on from what
    `out` holds. seed: draws the validation images, the weights of what starts from zero and the batches; the closed form itself holds no
    chance. machine: a `Machine`, where gradient steps are computed, by default on a card where there is one; under `torchrun` or
    `accelerate launch` all processes together do what one would do, and process 0 writes. settings: pretrained, size, dim, batch_size,
    learning_rate, patience, captions ("all" or "first"), refit, see `Plan`.

    Returns the path. Raises `UsageError` for what cannot work, `DataError` for data that cannot be trained on, `MiniclipError` when the
    loss or a gradient is not a number any more: then `out` holds the last good model as the folder last-good, if any epoch was finished.
    """
    out = pathlib.Path(out)
    given = {"image_encoder": image_encoder, "text_encoder": text_encoder, "loss": loss, "epochs": epochs, "seed": seed, "preset": preset, "unlock": unlock}
    machine = machine or Machine()
    with machine.told(), machine:
        plan = machine.together(lambda: _plan(given, settings, val_size, split))
        return out if machine.shared(lambda: finished(out, resume)) else _run(data, out, plan, val_size, split, machine)


def _plan(given, settings, val_size, split):
    """What was asked for, checked before anything is read."""
    unknown = set(settings) - {field.name for field in dataclasses.fields(Plan)}
    if unknown:
        raise UsageError(f"train_run takes no {', '.join(sorted(unknown))}; it takes {', '.join(field.name for field in dataclasses.fields(Plan))}")
    plan = Plan(**given, **settings)
    check_parts(val_size, split)
    if plan.patience and val_size == 0:
        raise UsageError(f"patience {plan.patience} needs validation images, and val_size is 0; leave one of them out")
    return plan


def _run(data, out, plan, val_size, split, machine):
    """All of a run, once it is known that `out` may be written."""
    dataset, parts, names = machine.together(lambda: _read(data, plan, val_size, split))
    asked = {"data": dataset.name} | plan.asked() | {"split": names}
    machine.shared(lambda: check_resumed(out, asked))
    with torch.random.fork_rng():  # modules draw their first weights from the global state
        torch.manual_seed(plan.seed)
        model, rows = _train(parts, plan, out, asked, machine)
    machine.shared(lambda: _save(model, rows, out, asked, parts, names, machine))
    return out


def _read(data, plan, val_size, split):
    """The dataset, its parts and their names. data: as for `train_run`, or a function that reads it."""
    dataset = data() if callable(data) else datasets.load_dataset(data)
    chosen = dataset.first_captions() if plan.first_captions else dataset
    return dataset, *chosen_parts(chosen, val_size, split, plan.seed, plan.recipe and plan.recipe.split)


def _save(model, rows, out, asked, parts, names, machine):
    """The folder of a finished run, whole or not at all."""
    told = {key: value for key, value in asked.items() if key != "split"}
    told |= {"machine": machine.describe(), "towers": {"image": model.image_tower.describe(), "text": model.text_tower.describe()}}
    told["fitted_on"] = ["train", "val"] if any(row.get("refit") for row in rows) else ["train"]
    with runtime.writing_folder(out) as folder:
        save_model(model, folder, extra={"training": told | {part: len(found) for part, found in parts.items()}})
        datasets.write_split(folder / "split.json", names)
        write_history(folder / "history.csv", rows)


def check_parts(val_size, split):
    """What can be said about the parts before anything is read."""
    if val_size is not None and split is not None:
        raise UsageError("val_size and split exclude each other: the split names the validation images")
    if val_size is not None and not 0 <= val_size < 1:
        raise UsageError(f"expected val_size of at least 0 and below 1, found {val_size}")


def chosen_parts(dataset, val_size, split, seed, shares=None):
    """({"train": dataset, "val": dataset}, {part: names}); the images of `test` are never opened. shares: {part: share} where nothing else names the parts."""
    if split is not None:
        names = datasets.read_split(split)
        if not names.get("train"):
            raise DataError(f"the split file '{split}' names no images to train on, under \"train\"")
        parts = {part: dataset.select(names.get(part, [])) for part in ("train", "val")}
    else:
        share = VAL_SIZE if val_size is None else val_size
        parts = dataset.split(shares if shares and val_size is None else {"val": share, "train": 1 - share}, seed=seed)
        names = {part: found.names for part, found in parts.items()}
    lonely = [name for part in ("train", "val") for name, said in zip(parts[part].names, parts[part].captions, strict=True) if not said]
    if lonely:
        raise DataError(f"{len(lonely)} of {len(dataset)} images have no caption; training needs one each", lonely)
    if len(parts["train"]) < 2:
        raise DataError(f"training needs at least two images with captions, found {len(parts['train'])}")
    return {part: parts[part] for part in ("train", "val")}, names


def _towers(plan, captions):
    """Both towers, learning where they are asked to."""
    image, text = image_tower(plan), text_tower(plan, captions)
    if plan.unlocked:
        image.unlock(), text.unlock()
    if plan.dim and image.locked and text.locked and not plan.recipe:
        raise UsageError("the heads of locked towers come in closed form, with as many dimensions as the data hold; leave dim out, or unlock, or take a preset")
    return image, text


def _train(parts, plan, out, asked, machine):
    """The trained model and its history: the closed form where both towers are locked, gradient steps where not, or where asked for."""
    image, text = machine.together(lambda: _towers(plan, parts["train"].all_captions))
    closed = image.locked and text.locked and not plan.recipe
    if machine.processes > 1:
        machine.together(lambda: [encode_share(image, text, found, machine.rank, machine.processes) for found in parts.values()])
    if closed and not plan.wants_steps and not machine.first:
        return None, []  # process 0 fits and saves it
    if closed:
        features = {part: features_of(image, text, found) if len(found) else None for part, found in parts.items()}
        if not plan.wants_steps:
            return fit_closed_form(image, text, features["train"], features["val"], refit=plan.refit)
        # steps start from plain heads, and need validation pictures that these have not seen; a bank of vectors that move would be stale
        model, rows = fit_closed_form(image, text, features["train"], features["val"], hubs=(0.0,), refit=False)
    else:
        model, rows = build_model(plan, image, text), []
    fine = any(tower.pretrained and not tower.locked for tower in (image, text))
    rows += _steps(model, parts, plan.config(closed, fine), plan, out, asked, worth=closed, machine=machine)
    return (best_correction(model, features["train"], features["val"]) if closed else model), rows


def _steps(model, parts, config, plan, out, asked, worth, machine):
    """Gradient steps; meanwhile `out` holds what a resumed run needs. Returns one row per step. The start counts as a candidate.

    worth: whether the model at the start is one to keep, should the first epoch diverge.
    """
    batches = machine.together(lambda: pair_batches(model, parts["train"], config))
    validate = _validate(model, parts["val"], plan, machine)
    trained, start = on_features(model), copy.deepcopy(model.state_dict())
    machine.together(lambda: machine.check(trained, batches))
    machine.shared(lambda: begin(out, asked))
    first = machine.shared(validate) if validate else None
    rows, fresh = machine.shared(lambda: read_history(out / "history.csv")), []
    try:
        for record in runtime.progress(fit(trained, batches, config, validate, out / "checkpoint.pt", machine), "training", total=config.epochs * len(batches)):
            if not fresh:
                rows = [row for row in rows if int(row["step"]) < record.step]  # a step past the checkpoint is taken again
            found = record.validation or {}
            fresh.append({"stage": "steps"} | {key: value for key, value in dataclasses.asdict(record).items() if key != "validation"} | found)
            if machine.first and record.step % len(batches) == len(batches) - 1:
                write_history(out / "history.csv", rows + fresh)
    except Diverged as error:
        if worth and first and not machine.shared(validate)["score"] > first["score"]:  # an epoch that ended in numbers need not have ended well
            model.load_state_dict(start)
        said = str(error)
        machine.shared(lambda: _give_up(said, model, out, config, worth or (out / "checkpoint.pt").is_file(), len(rows + fresh)))
    if first and machine.shared(validate)["score"] < first["score"]:
        model.load_state_dict(start)
    return rows + fresh


def _validate(model, dataset, plan, machine):
    """The function that measures on `dataset`, None where it has no images. Process 0 alone holds its pictures, and is asked."""
    made = []
    machine.shared(lambda: made.append(validation(model, dataset, plan.recipe.accuracy if plan.recipe else ())))
    return None if not len(dataset) else made[0] if made else dict


def _give_up(said, model, out, config, worth, steps):
    """Raise the error of a run that diverged: when, what is kept and where, what to try."""
    kept = keep_good(model, out, worth)
    where = f"it is the model '{kept}'; train anew in another folder" if kept else f"no epoch was finished, so there is none, and '{out}' is free again"
    raise MiniclipError(f"{said}. Stopped in step {steps} of the run. The last good state: {where}. Try --learning-rate {config.learning_rate / 10:.3g}")
