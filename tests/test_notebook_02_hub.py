"""Notebook 02 with another model and other data: a CLIP folder in the hub's format, and pictures in CIFAR-100's own format. Every cell runs."""

import pickle

import numpy as np
from executing import execute
from standin import save_hub_clip

from miniclip_helpers import datasets

ANIMALS = ("tiger", "lion", "rabbit", "dolphin", "kangaroo", "otter", "bee", "bus", "pear", "tractor", "lemon", "snail")


def save_cifar_folder(folder, pictures):
    """Write emoji into `folder` as cifar-100-python/{train,test,meta}: pictures of 32 x 32, two for each of the 100 labels in both parts."""
    emoji = datasets.load_dataset("emoji")
    by_label = {}
    for row, captions in enumerate(emoji.captions):
        by_label.setdefault(captions[0].replace(" ", "_"), []).append(row)
    known = [name for name in ANIMALS if len(by_label.get(name, ())) == 3]
    names = sorted(known + [name for name, rows in by_label.items() if len(rows) == 3 and name not in known][: 100 - len(known)])
    (folder / "cifar-100-python").mkdir(parents=True)
    meta = {"fine_label_names": names, "coarse_label_names": [f"group_{number}" for number in range(20)]}
    (folder / "cifar-100-python" / "meta").write_bytes(pickle.dumps(meta))
    for part in ("train", "test"):
        labels = [number for number in range(100) for _ in range(pictures)]
        rows = [by_label[names[number]][nth % 3] for number in range(100) for nth in range(pictures)]
        data = np.stack([np.asarray(emoji.image(row).resize((32, 32))).transpose(2, 0, 1).ravel() for row in rows])
        batch = {"data": data, "fine_labels": labels, "coarse_labels": [label % 20 for label in labels], "filenames": [f"{i}.png" for i in range(len(rows))]}
        (folder / "cifar-100-python" / part).write_bytes(pickle.dumps(batch))
    return folder, names


def test_every_cell_runs_with_a_hub_clip_and_cifar(tmp_path, monkeypatch):
    """Random weights: no number is judged, but each cell must run, and each figure be drawn, with other labels, sizes and columns."""
    cifar, names = save_cifar_folder(tmp_path / "data", 2)
    assert len(set(names)) == 100 and len(set(names) & set(ANIMALS)) >= 5
    model = save_hub_clip(tmp_path / "clip", width=64)
    changes = {"MODEL": str(model), "DATA": str(cifar), "PROMPTS": 2, "SHOTS": [1], "SEEDS": 1, "POOL": 2}
    results, figures = execute("02_zero_shot_classification", changes, tmp_path, monkeypatch)
    assert figures == {"02_top5", "02_accuracy", "02_surest_mistakes", "02_prompt_gain", "02_calibration", "02_few_shots", "02_confusion", "02_domains", "02_dog_scenes"}
    assert results["zero_shot_n"] == len(datasets.load_dataset(cifar)) == 200
