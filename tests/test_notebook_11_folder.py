"""Notebook 11 on folders that are not its example: all of its cells, with captions, without, and on real photos. No result is judged where chance has a say."""

import math

import pytest
from conftest import shared
from executing import execute

from miniclip_helpers import datasets

NAME = "11_your_own_photos"
FIGURES = {"11_contact_sheet", "11_map", "11_duplicates", "11_two_opinions"}


def listing(folder):
    """Every file below a folder with its bytes: to see that nothing was written into it."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture
def made_folder(tmp_path):
    """28 photos in two folders, two of them copies, one broken, one no picture."""
    stamps = datasets.load_dataset("stamps")
    rows = [row for row, style in enumerate(stamps.columns["style"]) if style == "photo"][::15]
    folder, captions = tmp_path / "my photos", {}
    for number, row in enumerate(rows):
        name = f"{2024 + number % 2}/IMG_{number:04d}.jpg"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        stamps.image(row).save(folder / name)
        captions[name] = [stamps.captions[row][0], f"photo number {number}"]
    for kind in ("smaller", "mirrored"):
        datasets.copies(stamps.image(rows[0]))[kind].save(folder / f"2025/{kind}.jpg")
    (folder / "2025/broken.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("x")
    return folder, captions


@pytest.mark.parametrize("captioned", [True, False])
def test_every_cell_runs_on_a_small_folder(captioned, made_folder, tmp_path, monkeypatch):
    folder, captions = made_folder
    if captioned:
        datasets.write_captions(folder / "captions.json", captions)
    before = listing(folder)
    results, figures = execute(NAME, {"PHOTOS": str(folder), "LEAST": 10, "OTHERS": 20}, tmp_path, monkeypatch)
    assert figures == FIGURES and listing(folder) == before, "the reader's folder is only read"
    assert ("there_scores_higher" in results) == captioned and "copies_recall" not in results
    assert all(math.isfinite(value) for value in results.values()) and 0 <= results["share_chosen"] <= 1
    if not captioned:  # then the training is the example's, and works
        assert results["own_after"] > results["own_before"] + 0.2


def test_every_cell_runs_on_everyday_photos(tmp_path, monkeypatch):
    results, figures = execute(NAME, {"PHOTOS": str(shared("everyday_photos"))}, tmp_path, monkeypatch)
    assert figures == FIGURES and all(math.isfinite(value) for value in results.values())
    assert results["own_after"] > results["own_before"], "photos with whole sentences gain"
