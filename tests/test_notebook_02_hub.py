"""Notebook 02 with another model and other data: a CLIP folder in the hub's format, and pictures in CIFAR-100's own format. Every cell runs."""

import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from standin import save_hub_clip

from miniclip_helpers import datasets

NOTEBOOK = ROOT / "notebooks" / "02_zero_shot_classification.ipynb"
ANIMALS = ("tiger", "lion", "rabbit", "dolphin", "kangaroo", "otter", "bee", "bus", "pear", "tractor", "lemon", "snail")
RUNNER = """
import ast, json, sys
book, changes = json.load(open(sys.argv[1], encoding="utf8")), json.loads(sys.argv[2])
space, ran = {"__name__": "__main__", "get_ipython": None}, 0
for cell in book["cells"]:
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), cell["id"], "exec"), space)
        ran += 1
        if "parameters" in cell["metadata"].get("tags", []):
            assert set(changes) <= set(space), "unknown parameters"
            space |= changes  # where papermill puts them: behind the cell
print(json.dumps({"ran": ran, "figures": sorted(p.name for p in __import__("pathlib").Path(sys.argv[3]).glob("*.png"))}))
"""


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


@pytest.mark.parametrize("pictures", [2])
def test_every_cell_runs_with_a_hub_clip_and_cifar(tmp_path, pictures):
    """Random weights: no number is looked at, but each cell must run, and each figure be drawn, with other labels, sizes and columns."""
    cifar, names = save_cifar_folder(tmp_path / "data", pictures)
    assert len(set(names)) == 100 and len(set(names) & set(ANIMALS)) >= 5
    model = save_hub_clip(tmp_path / "clip", width=64)
    changes = {"MODEL": str(model), "DATA": str(cifar), "PROMPTS": 2, "SHOTS": [1], "SEEDS": 1, "POOL": 2}
    assert len(datasets.load_dataset(cifar)) == 100 * pictures
    (tmp_path / "runner.py").write_text(RUNNER)
    environment = os.environ | {
        "MINICLIP_FIGURES": str(tmp_path / "figures"), "MINICLIP_CACHE": str(tmp_path / "cache"), "MINICLIP_OFFLINE": "1", "HF_HUB_OFFLINE": "1",
        "MINICLIP_PROGRESS": "0", "MINICLIP_NOTEBOOK": NOTEBOOK.stem, "MINICLIP_PROFILE": "online"}
    command = [sys.executable, str(tmp_path / "runner.py"), str(NOTEBOOK), json.dumps(changes), str(tmp_path / "figures")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    book = json.loads(NOTEBOOK.read_text(encoding="utf8"))
    assert report["ran"] == sum(cell["cell_type"] == "code" for cell in book["cells"])
    wanted = {"02_top5", "02_accuracy", "02_surest_mistakes", "02_prompt_gain", "02_calibration", "02_few_shots", "02_confusion", "02_domains", "02_dog_scenes"}
    assert {name.removesuffix(".png") for name in report["figures"]} == wanted
    assert "zero_shot_n = 200" in done.stdout
