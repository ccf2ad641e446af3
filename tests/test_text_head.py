"""The text head against locked image vectors: a known answer, hubs by hand and by `metrics.inverted_softmax`, saving, the real vectors."""

import json

import numpy as np
import pytest
import torch
from conftest import shared
from torch.nn import functional as F

from miniclip_helpers import embedding, metrics
from miniclip_helpers.encoders import BagOfWords, SmallCNN, load_encoder
from miniclip_helpers.errors import UsageError
from miniclip_helpers.model import TwoTowers, load_saved
from miniclip_helpers.model.saving import save_model
from miniclip_helpers.runtime import generator
from miniclip_helpers.training import text_head
from miniclip_helpers.training.text_head import HubHead, cosines, cross_validated, fit_text_head, into_image_space, linear_heads


def world(images=120, width=24, seen=16, noise=0.1, seed=0):
    """Text features (2 N, seen), image vectors (N, width) and owners: both sides see the same 6 hidden numbers through maps of their own."""
    draw = generator(seed)
    hidden = torch.randn(images, 6, generator=draw)
    to_image, to_text = torch.randn(6, width, generator=draw), torch.randn(6, seen, generator=draw)
    owner = torch.arange(images).repeat_interleave(2)
    pictures = hidden @ to_image + noise * torch.randn(images, width, generator=draw) + 3  # a cone, as CLIP's vectors are
    texts = hidden[owner] @ to_text + noise * torch.randn(2 * images, seen, generator=draw)
    return texts, F.normalize(pictures, dim=-1), owner


def parts(texts, images, owner, first):
    """The first images with their texts, and the rest."""
    one = owner < first
    return (texts[one], images[:first], owner[one]), (texts[~one], images[first:], owner[~one] - first)


def recall(heads, texts, images, owner):
    found = metrics.retrieval_metrics(cosines(heads, images, texts), owner.numpy())
    return found["image_to_text"]["R@1"], found["text_to_image"]["R@1"]


@pytest.mark.parametrize("way", ["linear", "as they are", "corrected"])
def test_finds_unseen_pictures_where_both_sides_see_the_same(way):
    seen, asked = parts(*world(), first=80)
    fit = {"linear": linear_heads, "as they are": lambda *rows: into_image_space(*linear_heads(*rows)), "corrected": fit_text_head}[way]
    assert min(recall(fit(*seen), *asked)) > (0.5 if way == "as they are" else 0.85)  # chance: 0.025 to 0.05
    texts, images, owner = seen
    told_wrong = fit(texts, images, owner.roll(40))  # each caption is given another picture: nothing is left to learn
    assert max(recall(told_wrong, *asked)) < 0.25


def test_image_vectors_stay_as_they_are():
    seen, (texts, images, _) = parts(*world(), first=80)
    image_head, head = into_image_space(*linear_heads(*seen))
    assert image_head(images) is images and head(texts).shape == (len(texts), images.shape[1])


def test_score_in_image_space_is_the_dot_product_of_the_linear_heads():
    seen, (texts, images, _) = parts(*world(), first=80)
    image_head, head = linear_heads(*seen)
    _, moved = into_image_space(image_head, head)
    with torch.no_grad():
        expected, found = image_head(images) @ head(texts).T, images @ moved(texts).T
        mean = image_head.mean
        by_hand = expected + (1 - images @ mean / mean.square().sum())[:, None] * (mean @ image_head.weight @ head(texts).T)
    torch.testing.assert_close(found, by_hand, rtol=1e-3, atol=1e-3)


def test_hub_head_by_hand():
    """Two bank rows, one unit vector on the first of them: closeness = log((e^s + 1) / 2) / s."""
    head = HubHead({"kind": "identity", "options": {}}, dim=2, side="image", rows=2, sharpness=4.0)
    head.bank.copy_(torch.eye(2))
    near = np.log((np.exp(4) + 1) / 2) / 4
    np.testing.assert_allclose(head(torch.tensor([[7.0, 0.0]])), [[1, 0, -near, 1, np.sqrt(1 - near**2), 0]], rtol=1e-5)


def test_scores_are_cosine_less_both_closenesses_and_lengths_are_equal():
    seen, (texts, images, _) = parts(*world(), first=80)
    plain, heads = linear_heads(*seen), fit_text_head(*seen)
    with torch.no_grad():
        rows = [head(features) for head, features in zip(heads, (images, texts), strict=True)]
        near = [head.closeness(F.normalize(head.head(features), dim=-1)) for head, features in zip(heads, (images, texts), strict=True)]
    for part in rows:
        torch.testing.assert_close(part.norm(dim=1), torch.full((len(part),), 3**0.5))
    expected = torch.from_numpy(cosines(plain, images, texts)) - near[0][:, None] - near[1][None]
    torch.testing.assert_close(rows[0] @ rows[1].T, expected, atol=1e-5, rtol=1e-5)
    assert min(part.abs().max() for part in near) > 0.01


@pytest.mark.parametrize("side", ["image", "text"])
def test_one_side_corrected_is_the_inverted_softmax_over_the_training_bank(side):
    (known, pictures, owner), (texts, images, asked) = parts(*world(noise=0.6), first=80)
    plain, heads = linear_heads(known, pictures, owner), fit_text_head(known, pictures, owner, correct=(side,))
    similarity, found = cosines(plain, images, texts), cosines(heads, images, texts)
    if side == "text":  # its candidates are captions: the bank asks with training pictures
        expected = metrics.inverted_softmax(similarity, cosines(plain, pictures, texts), text_head.SHARPNESS)
    else:
        expected = metrics.inverted_softmax(similarity.T, cosines(plain, images, known).T, text_head.SHARPNESS).T
    gap = 3 * text_head.SHARPNESS * found - expected
    np.testing.assert_allclose(gap, np.full_like(gap, gap[0, 0]), atol=2e-3)
    way = {"image": "text_to_image", "text": "image_to_text"}[side]
    assert (metrics.ranks(found, asked)[way] == metrics.ranks(expected, asked)[way]).mean() > 0.99
    assert (metrics.ranks(found, asked)[way] != metrics.ranks(similarity, asked)[way]).any()


def test_each_row_is_projected_alone():
    """Nothing is learned from the others that are asked: a caption's vector is the same whatever stands beside it."""
    seen, (texts, _, _) = parts(*world(), first=80)
    head = fit_text_head(*seen)[1]
    with torch.no_grad():
        torch.testing.assert_close(head(texts)[3:4], head(texts[3:4]))


def test_saved_and_read_again(tmp_path):
    image_tower, text_tower = SmallCNN(channels=4, size=16), BagOfWords(vocabulary=["a", "dog", "runs"], width=16, word_width=8)
    texts, images, owner = world(width=image_tower.width)
    model = TwoTowers(image_tower, text_tower, *fit_text_head(texts, images, owner)).eval()
    save_model(model, tmp_path)
    again = load_saved(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(again.project_texts(texts), model.project_texts(texts), rtol=0, atol=0)
        torch.testing.assert_close(again.project_images(images), model.project_images(images), rtol=0, atol=0)
    assert again.encode_text(["a dog"]).norm().item() == pytest.approx(1, abs=1e-5)
    assert json.loads((tmp_path / "config.json").read_text())["text_head"]["kind"] == "hubs"


def test_cross_validation_deals_whole_images_and_asks_each_once():
    texts, images, owner = world(images=23)
    given = []

    def fit(*rows):
        given.append(rows)
        return linear_heads(*rows)

    report = cross_validated(fit, texts, images, owner, folds=4, seed=1)
    assert len(given) == 4 and sorted(len(rows[1]) for rows in given) == [17, 17, 17, 18]
    missing = []
    for said, pictures, who in given:
        torch.testing.assert_close(torch.bincount(who), torch.full((len(pictures),), 2))
        place = [(images == row).all(1).nonzero().item() for row in pictures]
        torch.testing.assert_close(said, texts[[2 * p + k for p in place for k in (0, 1)]])
        missing += [p for p in range(23) if p not in place]
    assert sorted(missing) == list(range(23))
    by_hand = [recall(linear_heads(*rows), *_rest(rows[1], texts, images, owner)) for rows in given]
    assert report["image_to_text"]["R@1"] == pytest.approx(np.mean([pair[0] for pair in by_hand]))
    assert report["text_to_image"]["R@1"] == pytest.approx(np.mean([pair[1] for pair in by_hand]))


def _rest(pictures, texts, images, owner):
    out = [place for place in range(len(images)) if not (pictures == images[place]).all(1).any()]
    chosen = [m for m, image in enumerate(owner.tolist()) if image in out]
    return texts[chosen], images[out], torch.tensor([out.index(owner[m].item()) for m in chosen])


@pytest.mark.parametrize("change, words", [
    (lambda t, i, o: (t, i, o[:-1]), "one owner per text"),
    (lambda t, i, o: (t, i, o + 1), "owners from 0 to"),
    (lambda t, i, o: (t, i * float("nan"), o), "NaN"),
])
def test_wrong_input_is_told(change, words):
    with pytest.raises(UsageError, match=words):
        fit_text_head(*change(*world(images=10)))


def test_wrong_options_are_told():
    rows = world(images=10)
    for options, words in (({"correct": ("picture",)}, "picture"), ({"sharpness": 0}, "sharpness")):
        with pytest.raises(UsageError, match=words):
            fit_text_head(*rows, **options)
    with pytest.raises(UsageError, match="folds"):
        cross_validated(linear_heads, *rows, folds=6)


def test_the_real_vectors_of_clip():
    """100 of the validation pictures, two thirds to learn from: the test pictures are left to the benchmark."""
    folder = shared("flickr8k_clip_b32")
    kept = np.load(folder / "val_image_embeddings.npz")
    images, names = torch.from_numpy(kept["embedding"][:100]), [str(name) for name in kept["image_id"][:100]]
    rows = [json.loads(row) for row in (folder / "val_captions.jsonl").read_text(encoding="utf8").splitlines()]
    rows = [row for row in rows if row["image_id"] in set(names)]
    owner = torch.tensor([names.index(row["image_id"]) for row in rows])
    texts = embedding.text_features(load_encoder("minilm"), [row["caption"] for row in rows])
    report = cross_validated(fit_text_head, texts, images, owner, folds=3)
    assert min(report[way]["R@1"] for way in metrics.DIRECTIONS) > 0.3  # chance: 3 %
