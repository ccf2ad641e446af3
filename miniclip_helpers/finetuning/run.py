"""What `miniclip fine-tune` does: a model and a dataset to a model folder, whole or not at all, and resumable."""

import dataclasses
import pathlib

import torch

from .. import datasets, retrieval, runtime
from ..errors import UsageError
from ..losses import get_loss
from ..pretrained import load_model
from ..training.folder import begin, check_resumed, finished, keep_good, read_history, write_history
from ..training.locked import measure
from ..training.run import check_parts, chosen_parts
from .beside import add_closed_form, fits
from .hub import check_name, how_made, opened, save
from .methods import DEFAULTS, RANK, SIDES, check_method, check_sides, default_config
from .tuning import Diverged, Tuning
from .wise import check_alpha, interpolate


def fine_tune_run(model_name, data, out, method="heads", sides="both", loss=None, epochs=None, learning_rate=None, batch_size=None, patience=None,
                  rank=RANK, targets=None, margin=None, seed=0, val_size=None, split=None, wise_ft=None, resume=False):
    """Fine-tune a model on a dataset and write it to the folder `out`: model.safetensors, config.json, split.json, history.csv; a hub model in the hub's
    format, with its tokenizer and preprocessing. `load_model(out)` reads it.

    model_name: as `load_model` takes it. data: a dataset, its name or its path. What is None is the method's own (`DEFAULTS`). val_size: share of the images
    kept for validation (0.1), 0 for none. split: a JSON file; then `train` is trained on, `val` chosen on, `test` never opened. wise_ft: write the model at
    this alpha between before (0) and after (1). resume: go on from what `out` holds. Returns the path.

    Where both towers are locked ones of this package, as `mini`'s are, the method "heads" with its usual loss puts heads in closed form beside the tuned
    ones (`beside`).

    Raises `UsageError` for what cannot work, `DataError` for data that cannot be learned from, and `Diverged` at a loss that is not a number: then
    `out` holds the last good model as the folder last-good, if it had learned anything.
    """
    out, model_name = pathlib.Path(out), str(model_name)
    check_name(model_name)
    check_method(method)
    _check_arguments(loss, seed, val_size, split, wise_ft)
    given = {"epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size, "patience": patience, "loss": loss, "margin": margin}
    given = {name: value for name, value in given.items() if value is not None}
    dataclasses.replace(DEFAULTS[method], **given)  # wrong numbers are told before anything is read
    if finished(out, resume):
        return out
    dataset = datasets.load_dataset(data)
    parts, names = chosen_parts(dataset, val_size, split, seed)
    asked = {"model": model_name, "data": dataset.name, "method": method, "sides": list(check_sides(sides)), "rank": rank, "targets": targets,
             "wise_ft": wise_ft, "seed": seed, "split": names} | given
    check_resumed(out, asked)
    before = load_model(model_name)
    beside = method == "heads" and loss is None and tuple(asked["sides"]) == SIDES and fits(before)
    config = dataclasses.replace(default_config(method, opened(before)), seed=seed, **given)
    tuning = Tuning(before, parts["train"], parts["val"], method, config, sides=sides, rank=rank, targets=targets,
                    checkpoint=out / "checkpoint.pt")
    failed = _take_steps(tuning, out, asked)
    tuned = tuning.result()
    if failed:
        raise _stopped(failed, tuned, out)
    tuned = add_closed_form(tuned, parts["train"], parts["val"]) if beside else tuned
    model = tuned.model if wise_ft is None else interpolate(before, tuned.model, wise_ft)
    after = tuned.after if wise_ft is None or not tuned.after else _measured(model, parts["val"])
    about = {key: value for key, value in asked.items() if key != "split"} | dataclasses.asdict(config) | {part: len(found) for part, found in parts.items()}
    extra = {"fine_tuning": about | {"kept": tuned.kept, "before": tuned.before, "after": after}}
    with runtime.writing_folder(out) as folder:
        save(model, folder, extra)
        datasets.write_split(folder / "split.json", names)
        write_history(folder / "history.csv", tuned.rows)
    return out


def _measured(model, val):
    """The validation figures of a model that no step was taken on."""
    return measure(torch.from_numpy(retrieval.similarity(model, val)), torch.from_numpy(val.owner))


def about_run(out):
    """What a fine-tuned folder says of how it was made: the settings, the numbers of images, "kept", "before", "after"."""
    return how_made(out).get("fine_tuning", {})


def _stopped(failed, tuned, out):
    """The error for a run that diverged. What it had learned is kept as the folder `last-good`; where that is nothing, `out` is free again."""
    if tuned.kept == "start":
        (out / "checkpoint.pt").unlink(missing_ok=True)
        keep_good(tuned.model, out, False)
        return Diverged(f"{failed}. No epoch was better than the model as it came, so nothing is kept, and '{out}' is free again", tuned)
    return Diverged(f"{failed}. That model is '{keep_good(tuned.model, out, True, save)}'; fine-tune anew in another folder", tuned)


def _check_arguments(loss, seed, val_size, split, wise_ft):
    """All that can be said about the arguments before anything is read."""
    if loss is not None:
        get_loss(loss)
    if not 0 <= seed < 2**63:
        raise UsageError(f"expected a seed of at least 0 and below 2**63, found {seed}")
    check_parts(val_size, split)
    if wise_ft is not None:
        check_alpha(wise_ft)


def _take_steps(tuning, out, asked):
    """All steps of a run; meanwhile `out` holds what a resumed run needs. Returns the error that stopped it, or None."""
    begin(out, asked)
    earlier, epoch = [row for row in read_history(out / "history.csv") if row["stage"] == tuning.method], None
    failed = None
    try:
        for record in runtime.progress(tuning.steps(), f"fine-tuning ({tuning.method})"):
            if record.validation is not None or record.epoch != epoch:
                epoch = record.epoch
                write_history(out / "history.csv", whole_history(earlier, tuning))
    except Diverged as error:
        failed = error
    tuning.rows = whole_history(earlier, tuning)
    return failed


def whole_history(earlier, tuning):
    """The rows of an interrupted run up to where this one went on, then this one's; the heads' stage of lp-ft is taken anew each time."""
    fresh = [row for row in tuning.rows if row["stage"] == tuning.method]
    before = [row for row in tuning.rows if row["stage"] != tuning.method]
    return before + [row for row in earlier if not fresh or int(row["step"]) < fresh[0]["step"]] + fresh
