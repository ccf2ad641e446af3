"""The commands as a newcomer types them: help, answers, JSON, exit codes, and one clear message for each kind of bad input."""

import errno
import json
import os
import pathlib
import re
import subprocess
import sys
import types

import numpy as np
import pytest
from conftest import picture, shared
from PIL import Image
from test_images import bomb

from miniclip_helpers import cli
from miniclip_helpers.cli.common import words, write_json
from miniclip_helpers.datasets import load_dataset

COMMANDS = ["run", "figures", "train", "train-mini", "fine-tune", "export", "evaluate", "zero-shot", "index", "search", "doctor", "badges"]


def call(*argv):
    """The exit code of one command, run in this process."""
    try:
        return cli.main([str(word) for word in argv])
    except SystemExit as end:
        return end.code


@pytest.fixture(scope="module")
def stamps_folder(tmp_path_factory):
    """Twenty stamps as a folder of photos with captions.json."""
    folder, dataset = tmp_path_factory.mktemp("stamps"), load_dataset("stamps")
    rows = np.linspace(0, 949, 20).astype(int)
    for row in rows:
        dataset.image(row).save(folder / f"{row}.jpg")
    (folder / "captions.json").write_text(json.dumps([{"file_name": f"{row}.jpg", "caption": dataset.captions[row][0]} for row in rows]))
    return folder


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(name, capsys):
    assert call(name, "--help") == 0
    text = capsys.readouterr().out
    assert "examples:" in text and f"miniclip {name}" in text


def test_help_and_version_import_nothing_heavy():
    code = "import sys; from miniclip_helpers import cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\nprint([m for m in ('torch', 'numpy', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().endswith("[]")


def test_module_and_command_exit_with_the_code():
    done = subprocess.run([sys.executable, "-m", "miniclip_helpers.cli", "run", "77"], capture_output=True, text=True)
    assert done.returncode == 2 and "unknown notebook '77'" in done.stderr and "Traceback" not in done.stderr


def test_evaluate_counts_labels_where_pictures_share_them(tmp_path, capsys):
    """Flat colours under two labels: every red picture is as right for "red" as the others, so R@1 cannot say how good the model is."""
    lines = ["image,caption,label"]
    for row in range(10):
        colour = ("red", "blue")[row % 2]
        Image.new("RGB", (64, 64), (200 + row, 0, 0) if colour == "red" else (0, 0, 200 + row)).save(tmp_path / f"{row}.png")
        lines.append(f"{row}.png,a {colour} picture,{colour}")
    (tmp_path / "captions.csv").write_text("\n".join(lines) + "\n")
    assert call("evaluate", "--data", tmp_path, "--json", tmp_path / "scores.json") == 0
    found = json.loads((tmp_path / "scores.json").read_text())["zero_shot"]
    assert found["n"] == 10 and found["n_labels"] == 2 and found["chance"]["top-1"] == 0.5 and 0 <= found["top-1"] <= 1
    assert "pictures share 2 labels: top-1" in capsys.readouterr().out
    for label in ("red", ""):  # one label for all, or none for some: there is nothing to choose from, and retrieval is reported all the same
        (tmp_path / "captions.csv").write_text("\n".join([lines[0], lines[1].replace(",red", f",{label}"), *(line.replace(",blue", ",red") for line in lines[2:])]) + "\n")
        assert call("evaluate", "--data", tmp_path, "--json", tmp_path / "scores.json") == 0
        assert "zero_shot" not in json.loads((tmp_path / "scores.json").read_text())


def test_zero_shot(stamps_folder, tmp_path, capsys):
    photos = load_dataset("photos8")
    assert call("zero-shot", "--labels", "cat,motorcycle,cup of coffee", photos.path(2), photos.path(5), "--json", tmp_path / "z.json") == 0
    found = json.loads((tmp_path / "z.json").read_text())
    best = [max(row, key=row.get) for row in found.values()]
    assert best == ["cat", "motorcycle"] and sum(found[str(photos.path(2))].values()) == pytest.approx(1, abs=1e-5)


def test_train_and_evaluate(stamps_folder, tmp_path, capsys):
    run, names = tmp_path / "run", [f"{row}.jpg" for row in np.linspace(0, 949, 20).astype(int)]
    assert call("train", "--data", stamps_folder, "--out", run, "--val-size", 0.2, "--seed", 1) == 0
    assert {"model.safetensors", "config.json", "split.json", "history.csv"} <= {file.name for file in run.iterdir()}
    assert [file.name for file in run.glob("*.safetensors")] == ["model.safetensors"]
    split = json.loads((run / "split.json").read_text())
    assert sorted(split["train"] + split["val"]) == sorted(names) and len(split["val"]) == 4
    assert call("evaluate", "--model", run, "--data", stamps_folder, "--json", tmp_path / "e.json") == 0
    report = json.loads((tmp_path / "e.json").read_text())
    assert report["n_images"] == 20 and report["text_to_image"]["R@1"] > 0.3 > report["chance"]["text_to_image"]["R@1"]
    (tmp_path / "names.txt").write_text("\n".join(names[:5]) + "\n")
    assert call("evaluate", "--data", stamps_folder, "--images-from", tmp_path / "names.txt") == 0
    assert "5 images, 5 captions" in capsys.readouterr().out
    assert call("evaluate", "--model", run, "--data", stamps_folder, "--split", run / "split.json", "--part", "val") == 0
    assert call("train", "--data", stamps_folder, "--out", run, "--resume") == 0


def test_the_split_of_a_file_is_kept_and_test_never_looked_at(stamps_folder, tmp_path, monkeypatch):
    names = sorted(path.name for path in stamps_folder.glob("*.jpg"))
    (tmp_path / "split.json").write_text(json.dumps({"train": names[:12], "val": names[12:16], "test": names[16:]}))
    from miniclip_helpers.datasets import ImageTextDataset

    opened, original = set(), ImageTextDataset.image
    monkeypatch.setattr(ImageTextDataset, "image", lambda self, i: opened.add(self.names[i]) or original(self, i))
    monkeypatch.setenv("MINICLIP_CACHE", str(tmp_path / "cache"))
    assert call("train", "--data", stamps_folder, "--out", tmp_path / "run", "--split", tmp_path / "split.json") == 0
    assert opened == set(names[:16])
    assert json.loads((tmp_path / "run" / "split.json").read_text())["test"] == names[16:]


def spoil(folder, what):
    """Copyable folders of two pictures with one fault each; returns the argument of --data."""
    for seed, name in enumerate(("a.png", "b.png")):
        picture(seed).save(folder / name)
    captions = [{"file_name": "a.png", "caption": "one"}, {"file_name": "b.png", "caption": "two"}]
    if what == "missing folder":
        return folder / "nowhere"
    if what == "broken jpeg":
        picture(5, (200, 200)).save(folder / "b.png", "JPEG")
        (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:2000])
    if what == "empty file":
        (folder / "b.png").write_bytes(b"")
    if what == "bomb":
        (folder / "b.png").write_bytes(bomb(20_000, 20_000))
    if what == "path out":
        captions[1]["file_name"] = "../../x.jpg"
    if what == "ghost":
        captions.append({"file_name": "c.png", "caption": "three"})
    if what == "lonely":
        captions.pop()
    text = json.dumps(captions, indent=1)
    (folder / "captions.json").write_text(text[:-9] if what == "bad json" else text)
    return folder


BAD_DATA = {"missing folder": "does not exist", "broken jpeg": "b.png", "empty file": "empty", "bomb": "pixels", "path out": "leads out", "ghost": "c.png",
            "lonely": "without a caption", "bad json": "line"}


@pytest.mark.parametrize("what", BAD_DATA)
@pytest.mark.parametrize("command", ["train", "index", "evaluate"])
def test_bad_data_is_one_clear_message_and_leaves_nothing(command, what, tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    data, out = spoil(folder, what), tmp_path / "out"
    argv = {"train": ["train", "--data", data, "--out", out], "index": ["index", data, "--out", out], "evaluate": ["evaluate", "--data", data, "--json", out]}[command]
    assert call(*argv) in (1, 2)
    said = capsys.readouterr().err
    assert said.startswith("miniclip: ") and BAD_DATA[what] in said and "Traceback" not in said
    assert not out.exists() and [file.name for file in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize("argv, words", [
    (["evaluate", "--data", "emojy"], "did you mean emoji"),
    (["evaluate", "--data", "photos8", "--model", "minni"], "did you mean mini"),
    (["evaluate", "--data", "photos8", "--part", "test"], "give --split"),
    (["train", "--data", "photos8", "--out", "OUT", "--loss", "clib"], "did you mean clip"),
    (["train", "--data", "photos8", "--out", "OUT", "--image-encoder", "resnet81"], "unknown"),
    (["train", "--data", "photos8", "--out", "OUT", "--text-encoder", "minilmm"], "did you mean minilm"),
    (["train", "--data", "photos8", "--out", "OUT", "--val-size", "1.5"], "val"),
    (["zero-shot", "--labels", "cat,dog", "no.jpg"], "does not exist"),
    (["zero-shot", "--labels", " , ", "no.jpg"], "at least one label"),
    (["zero-shot", "--labels", "cat,cat", "no.jpg"], "stand twice"),
    (["zero-shot", "--labels", "cat", "--template", "a photo", "no.jpg"], "one {}"),
    (["index", "photos8", "--out", "OUT", "--kind", "hsnw"], "did you mean hnsw"),
    (["search", "nowhere", "a dog"], "holds no index"),
    (["search", "nowhere", " "], "query is empty"),
    (["run", "--profile", "smoke", "--update"], "only the offline profile"),
])
def test_wrong_use_is_one_clear_message(argv, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(*argv) in (1, 2)
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said and list(tmp_path.iterdir()) == []


def test_json_is_printed_where_it_is_asked_for_on_the_standard_output(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in ("-", "/dev/stdout"):
        write_json(pathlib.Path(file), {"a": "\u00e9"})
        assert capsys.readouterr().out == '{\n "a": "\u00e9"\n}\n' and list(tmp_path.iterdir()) == []
    write_json(None, {"a": 1})
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("given, read", [("café", "café"), ("caf\udcc3\udca9", "café"), ("caf\udce9", "caf\ufffd"), ("\ud83d dog", "? dog"), ("", "")])
def test_text_on_the_command_line_is_text(given, read):
    """Half letters stand for bytes: those of UTF-8 where Python takes the locale for ASCII, and any others that a terminal sends."""
    assert words(given) == read


def test_a_photo_whose_name_is_no_utf8_is_told_and_written(tmp_path, capsys):
    photo = tmp_path / os.fsdecode(b"caf\xe9.png")
    try:
        Image.new("RGB", (40, 40), "red").save(photo)
    except (OSError, UnicodeError):
        pytest.skip("this file system holds no such names")
    assert call("zero-shot", "--labels", "red,caf\udce9", photo, "--json", tmp_path / "told.json") == 0
    found = json.loads((tmp_path / "told.json").read_text(encoding="utf8"))
    assert str(photo) in json.dumps(found, ensure_ascii=False) and "caf\ufffd" in json.dumps(found, ensure_ascii=False)


@pytest.mark.parametrize("error, words", [
    (MemoryError(), "not enough memory"), (OSError(errno.ENOMEM, "Cannot allocate memory"), "not enough memory"),
    (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "not enough memory"), (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"), "not enough memory"),
    (OSError(errno.ENOSPC, "No space left on device", "x"), "'x': No space left on device; free some space"), (OSError(errno.EMFILE, "Too many open files"), "Too many open files\n")])
def test_a_machine_at_its_limit_is_told_in_one_line(error, words, capsys, monkeypatch):
    def fail(args):
        raise error

    monkeypatch.setattr(cli, "build_parser", lambda: types.SimpleNamespace(parse_args=lambda argv: types.SimpleNamespace(call=fail)))
    assert cli.main([]) == 1
    said = capsys.readouterr().err
    assert said.startswith("miniclip: ") and words in said and said.count("\n") == 1
    error = RuntimeError("a fault of our own")
    with pytest.raises(RuntimeError, match="our own"):
        cli.main([])


def test_options_that_exclude_each_other(capsys):
    assert call("train", "--data", "x", "--out", "y", "--val-size", "0.1", "--split", "s.json") == 2
    assert call("frobnicate") == 2


@pytest.mark.parametrize("argv", [["train-mini", "--out"], ["index", "photos8", "--out"], ["train", "--data", "photos8", "--out"]])
def test_a_folder_of_something_else_is_left_as_it_is(argv, tmp_path, capsys):
    (tmp_path / "site").mkdir()
    for name in ("index.json", "precious.txt"):
        (tmp_path / "site" / name).write_text("{}")
    (tmp_path / "photo.jpg").write_bytes(b"my photo")
    for target in ("site", "photo.jpg"):
        assert call(*argv, tmp_path / target) in (1, 2)
        assert "Traceback" not in capsys.readouterr().err
    assert (tmp_path / "site" / "precious.txt").read_text() == "{}" and (tmp_path / "photo.jpg").read_bytes() == b"my photo"


@pytest.mark.parametrize("argv", [
    ["evaluate", "--data", "photos8", "--json", "FILE/x.json"], ["evaluate", "--data", "photos8", "--json", "."],
    ["index", "photos8", "--out", "FILE/i"], ["train", "--data", "photos8", "--out", "FILE/r"], ["train-mini", "--out", "FILE/m"]])
def test_a_target_that_cannot_be_written_is_told(argv, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("a file")
    assert call(*argv) == 1
    said = capsys.readouterr().err
    assert "cannot be written" in said and "Traceback" not in said and [file.name for file in tmp_path.iterdir()] == ["FILE"]


def test_a_cache_that_cannot_be_used_is_told(tmp_path, capsys, monkeypatch):
    (tmp_path / "FILE").write_text("a file")
    monkeypatch.setenv("MINICLIP_CACHE", str(tmp_path / "FILE"))
    assert call("evaluate", "--data", "photos8") == 1 and "MINICLIP_CACHE" in capsys.readouterr().err


@pytest.mark.parametrize("captions, words", [
    ([{"file_name": "a.png", "caption": "the same"}, {"file_name": "b.png", "caption": "the same"}], "captions to train on are the same"),
    ([{"file_name": "a\0.png", "caption": "one"}], "no usable file name"),
    ([{"file_name": "\ud800.png", "caption": "one"}], "half a letter"),
    ([{"file_name": "a" * 5000 + ".png", "caption": "one"}], "no usable file name|does not exist"),
])
def test_odd_captions_are_told(captions, words, tmp_path, capsys):
    for seed, name in enumerate(("a.png", "b.png")):
        picture(seed).save(tmp_path / name)
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    assert call("train", "--data", tmp_path / "captions.json", "--out", tmp_path / "r", "--val-size", 0) == 1
    assert re.search(words, capsys.readouterr().err)


def test_names_from_windows_and_seeds_out_of_range(stamps_folder, tmp_path, capsys):
    (tmp_path / "names.txt").write_bytes("\ufeff0.jpg\r\n949.jpg\r\n".encode())
    assert call("evaluate", "--data", stamps_folder, "--images-from", tmp_path / "names.txt") == 0
    for seed in ("-1", str(10**23)):
        assert call("train", "--data", stamps_folder, "--out", tmp_path / "r", "--seed", seed) == 2
    assert "expected a seed" in capsys.readouterr().err


def test_evaluate_on_real_photos(tmp_path):
    """`mini` has never seen these photos: far above chance (1 in 210) in both directions."""
    assert call("evaluate", "--data", shared("everyday_photos"), "--json", tmp_path / "e.json") == 0
    report = json.loads((tmp_path / "e.json").read_text())
    assert report["n_images"] == 210 and report["n_captions"] == 420
    for direction in ("image_to_text", "text_to_image"):
        assert report["interval95"][direction]["R@10"][0] > 3 * report["chance"][direction]["R@10"]
