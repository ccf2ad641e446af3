"""Closed-form heads against a generalised eigenproblem and known correlations; train_run: splits, chance, resuming, refusals."""

import csv
import io
import json

import numpy as np
import pytest
import scipy.linalg
import torch
from conftest import picture, shared

from miniclip_helpers.datasets import ImageTextDataset, load_dataset
from miniclip_helpers.errors import DataError, UsageError
from miniclip_helpers.model import load_saved
from miniclip_helpers.retrieval import evaluate
from miniclip_helpers.runtime import generator
from miniclip_helpers.training import canonical_maps, locked, pair_statistics, run, train_run


def related(images=60, seed=0, width=9, text_width=6, noise=0.3, shared_by=2):
    """Images and two or three texts each that share some hidden directions."""
    random = generator(seed)
    owner = torch.arange(images).repeat(3)[: images * 5 // 2].sort().values
    hidden = torch.randn(images, shared_by, generator=random)
    mix, said = torch.randn(shared_by, width, generator=random), torch.randn(shared_by, text_width, generator=random)
    pictures = hidden @ mix + noise * torch.randn(images, width, generator=random) + 3
    return pictures, hidden[owner] @ said + noise * torch.randn(len(owner), text_width, generator=random) - 1, owner


@pytest.mark.parametrize(("width", "shrink"), [(9, (0.5, 2.0)), (9, (20.0, 3.0)), (90, (1.0, 1.0))])
def test_correlations_equal_those_of_a_generalised_eigenproblem(width, shrink):
    pictures, texts, owner = related(width=width)
    maps = canonical_maps(pair_statistics(pictures, texts, owner), *shrink)
    x, t = pictures[owner].double().numpy(), texts.double().numpy()  # one pair per caption, written out
    covariance = np.cov(np.hstack([x, t]).T, bias=True)
    xx, tt, xt = covariance[:width, :width], covariance[width:, width:], covariance[:width, width:]
    xx = xx + shrink[0] * np.trace(xx) / width * np.eye(width)
    tt = tt + shrink[1] * np.trace(tt) / len(tt) * np.eye(len(tt))
    values = scipy.linalg.eigh(xt @ np.linalg.solve(tt, xt.T), xx, eigvals_only=True)[::-1]
    np.testing.assert_allclose(maps.correlations, np.sqrt(values[: len(maps.correlations)].clip(0)), rtol=1e-5, atol=1e-7)


def test_the_first_direction_is_as_correlated_as_it_says():
    pictures, texts, owner = related()
    maps = canonical_maps(pair_statistics(pictures, texts, owner), 0.0, 0.0)
    a = ((pictures.double() - maps.image_mean) @ maps.image_map)[owner]
    b = (texts.double() - maps.text_mean) @ maps.text_map
    for k in range(3):
        assert np.corrcoef(a[:, k], b[:, k])[0, 1] == pytest.approx(float(maps.correlations[k]), abs=1e-6)
    assert abs(np.corrcoef(a[:, 0], b[:, 1])[0, 1]) < 1e-6
    np.testing.assert_allclose(a.square().mean(0), maps.correlations, rtol=1e-5)  # power 0.5: the variance of direction k is its correlation


def test_dim_and_power():
    statistics = pair_statistics(*related())
    full, cut, flat = canonical_maps(statistics), canonical_maps(statistics, dim=2), canonical_maps(statistics, power=0)
    assert full.image_map.shape == (9, 6) and cut.image_map.shape == (9, 2) and cut.text_map.shape == (6, 2)
    torch.testing.assert_close(cut.image_map, full.image_map[:, :2])
    torch.testing.assert_close(flat.image_map * flat.correlations**0.5, full.image_map)


def test_pairs_of_one_image_are_refused():
    with pytest.raises(UsageError, match="at least two images"):
        pair_statistics(torch.randn(3, 4), torch.randn(2, 4), torch.tensor([1, 1]))




def features(count, seed):
    return locked.Features(*related(count, seed=seed, width=40, text_width=20, noise=0.05, shared_by=12))


def towers():
    made = [torch.nn.Module(), torch.nn.Module()]
    for tower, width in zip(made, (40, 20)):
        tower.name, tower.width, tower.pretrained = "made up", width, True
    return made


def test_heads_find_what_is_shared_and_nothing_in_shuffled_captions():
    whole = features(120, 1)
    half = whole.owner < 80
    train = locked.Features(whole.images[:80], whole.texts[half], whole.owner[half])
    test = locked.Features(whole.images[80:], whole.texts[~half], whole.owner[~half] - 80)
    shuffled = locked.Features(train.images, train.texts, train.owner[torch.randperm(len(train.owner), generator=generator(3))])
    good, _ = locked.fit_closed_form(*towers(), train)
    bad, _ = locked.fit_closed_form(*towers(), shuffled)
    right, wrong = (locked.measure(locked.similarity(m, test), test.owner) for m in (good, bad))
    assert right["val_text_to_image_R@5"] > 0.5 and wrong["val_text_to_image_R@5"] < 0.25  # chance 5 / 40
    assert wrong["val_text_to_image_MRR"] < right["val_text_to_image_MRR"] / 2


def test_the_best_setting_on_validation_is_taken():
    train, val = features(40, 1), features(30, 1)
    model, rows = locked.fit_closed_form(*towers(), train, val, refit=False)
    best = [row for row in rows if row["best"]]
    assert len(rows) == 27 and len(best) == 1 and best[0]["score"] == max(row["score"] for row in rows)
    assert locked.measure(locked.similarity(model, val), val.owner)["score"] == pytest.approx(best[0]["score"])
    assert len(locked.fit_closed_form(*towers(), train)[1]) == 1


def toy(count=24, seed=0):
    """Plain coloured squares with a caption that names the colour and a number."""
    random = np.random.default_rng(seed)
    shots = [picture(int(random.integers(1e6)), (20, 20)) for _ in range(count)]
    folder = []
    for shot in shots:
        stream = io.BytesIO()
        shot.save(stream, "PNG")
        folder.append(stream.getvalue())
    return ImageTextDataset("toy", [f"{n}.png" for n in range(count)], [[f"square number {n}", f"a {n} tile"] for n in range(count)], folder)


SMALL = {"image_encoder": "small-cnn", "text_encoder": "bag-of-words", "epochs": 4}


def state_of(folder):
    return load_saved(folder).state_dict()


def test_a_run_that_was_stopped_and_resumed_equals_one_that_was_not(tmp_path, monkeypatch):
    data = toy()
    train_run(data, tmp_path / "whole", **SMALL, val_size=0.25)
    original, epochs = run.fit, []

    def stopping(*args):
        for record in original(*args):
            epochs.append(record.epoch)
            yield record
            if record.epoch == 1:  # the second epoch has begun: what it did is lost, as at a power cut
                raise KeyboardInterrupt

    monkeypatch.setattr(run, "fit", stopping)
    with pytest.raises(KeyboardInterrupt):
        train_run(data, tmp_path / "cut", **SMALL, val_size=0.25)
    assert {"run.json", "checkpoint.pt"} <= {file.name for file in (tmp_path / "cut").iterdir()} and 1 in epochs
    with pytest.raises(UsageError, match="--resume"):
        train_run(data, tmp_path / "cut", **SMALL, val_size=0.25)
    with pytest.raises(UsageError, match="another seed"):
        train_run(data, tmp_path / "cut", **SMALL, val_size=0.25, seed=9, resume=True)
    monkeypatch.setattr(run, "fit", original)
    train_run(data, tmp_path / "cut", **SMALL, val_size=0.25, resume=True)
    whole, cut = state_of(tmp_path / "whole"), state_of(tmp_path / "cut")
    assert whole.keys() == cut.keys() and all(torch.equal(whole[key], cut[key]) for key in whole)
    rows = [list(csv.DictReader(open(tmp_path / name / "history.csv", newline=""))) for name in ("whole", "cut")]
    keep = [[{key: value for key, value in row.items() if key != "seconds"} for row in part] for part in rows]
    assert keep[0] == keep[1] and len(keep[0]) == 4
    assert sorted(file.name for file in (tmp_path / "cut").iterdir()) == ["config.json", "history.csv", "model.safetensors", "split.json"]


def test_the_seed_decides_what_starts_from_zero(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_run(toy(), tmp_path / name, **SMALL, seed=seed, val_size=0)
    a, b, c = (state_of(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a) and not torch.equal(a["image_head.weight"], c["image_head.weight"])


def test_the_seed_draws_the_first_weights_too(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "fit", lambda *_: iter(()))  # no step is taken: what is saved is the start
    for seed in (1, 2):
        train_run(toy(), tmp_path / str(seed), **SMALL, seed=seed, val_size=0)
    assert not torch.equal(state_of(tmp_path / "1")["image_head.weight"], state_of(tmp_path / "2")["image_head.weight"])


def test_what_train_refuses(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear reader")
    for words, arguments in {
        "holds something else": {"out": tmp_path / "full"}, "did you mean small-cnn": {"image_encoder": "smal-cnn"}, "did you mean siglip": {"loss": "siglop"},
        "val_size": {"val_size": 1.0}, "epoch": {"epochs": 0},
    }.items():
        with pytest.raises(UsageError, match=words):
            train_run(toy(), **({"out": tmp_path / "new"} | arguments))
    lonely = ImageTextDataset("lonely", ["a", "b", "c"], [["one"], [], ["three"]], [b"x", b"y", b"z"])
    with pytest.raises(DataError, match="no caption"):
        train_run(lonely, tmp_path / "new", val_size=0)
    assert [file.name for file in tmp_path.iterdir()] == ["full"] and (tmp_path / "full" / "letter.txt").is_file()


def test_everyday_photos_above_what_the_document_reports(tmp_path):
    folder = shared("everyday_photos")
    out = train_run(folder, tmp_path / "run", split=folder / "split_seed42.json")
    dataset, parts = load_dataset(folder), json.loads((out / "split.json").read_text())
    assert {part: len(names) for part, names in parts.items()} == {"train": 147, "val": 31, "test": 32}
    report = evaluate(load_saved(out), dataset.select(parts["test"]))
    assert report["text_to_image"]["R@1"] >= 0.47, report  # project 001: 39.06 %
    assert train_run(folder, out, split=folder / "split_seed42.json", resume=True) == out
