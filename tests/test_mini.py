"""The embedded model: towers on known pictures, heads by hand, concepts it never saw, and the shipped file against a fresh fit."""

import json
import re

import numpy as np
import pytest
import torch

from miniclip_helpers import embedding, pretrained, runtime, zero_shot
from miniclip_helpers.datasets import load_dataset
from miniclip_helpers.encoders import efficientnet, load_encoder
from miniclip_helpers.encoders.efficientnet import BLOCKS, EfficientNetLite0, EfficientNetLiteTrio, block_slices, imagenet_names, wheel_file
from miniclip_helpers.encoders.minilm import MiniLM
from miniclip_helpers.errors import ChecksumError
from miniclip_helpers.model import BlockHead, ConcatHead, ConseHead
from miniclip_helpers.training import mini, mini_data

NOUNS = mini_data.held_out()["nouns"]
LABELS = ["cat", "cup of coffee", "rocket", "motorcycle", "horse", "piano", "tree", "bicycle", "apple", "boat"]


def holds(text, noun):
    """Whether a text says a noun, in the singular or a plural: another way than the package's."""
    plural = re.escape(noun[:-1]) + "ies" if noun.endswith("y") else re.escape(noun) + "s"
    return re.search(rf"(?<![a-z])({re.escape(noun)}|{plural})(?![a-z])", text.lower()) is not None


@pytest.fixture(scope="module")
def model():
    return pretrained.load_model("mini")


@pytest.fixture(scope="module")
def unseen(model):
    dataset, labels = mini_data.unseen_stamps(NOUNS)
    return mini.scores(model, dataset, NOUNS), torch.tensor(labels)


# the towers and the shipped file


@pytest.mark.parametrize("photo, classes", [
    ("chelsea", {"tabby", "tiger cat", "Egyptian cat"}), ("coffee", {"espresso", "cup", "coffee mug"}),
    ("rocket", {"missile", "projectile", "space shuttle"}), ("motorcycle_left", {"moped", "motor scooter", "disk brake"}),
])
def test_the_image_tower_knows_what_it_sees(photo, classes):
    photos = load_dataset("photos8")
    row = next(i for i, name in enumerate(photos.names) if name.startswith(photo))
    logits = load_encoder("efficientnet-lite0").encode([photos.image(row)])[0, block_slices()["logits"]]
    assert {imagenet_names()[i][0] for i in logits.topk(5).indices} & classes


def test_the_text_tower_knows_what_is_alike():
    rows = torch.nn.functional.normalize(load_encoder("minilm").encode(["a kitten sleeps", "a young cat is asleep", "the stock market fell"]), dim=-1)
    assert rows[0] @ rows[1] > 0.6 > 0.2 > rows[0] @ rows[2]


@pytest.mark.parametrize("tower", [EfficientNetLite0, EfficientNetLiteTrio, MiniLM])
def test_other_weights_are_refused_before_they_are_loaded(tower, monkeypatch):
    monkeypatch.setattr(MiniLM, "sha256", "0" * 64)
    monkeypatch.setattr(efficientnet, "wheel_file", lambda package, file, sha256: wheel_file(package, file, "0" * len(sha256)))
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("loaded before it was verified"))
    with pytest.raises(ChecksumError, match="expected 0000"):
        tower().build()


def test_the_heads_are_small_and_plain():
    folder = runtime.data_dir() / "mini"
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert sum(file.stat().st_size for file in folder.iterdir()) < 4e6
    assert json.loads((folder / "config.json").read_text())["training"]["never_trained_on"] == NOUNS


def test_mini_gives_unit_rows_and_names_photos(model):
    photos = load_dataset("photos8")
    images, texts = model.encode_image([photos.image(i) for i in range(len(photos))]), model.encode_text(LABELS)
    assert images.shape == (8, 512) and texts.shape == (10, 512)
    for rows in (images, texts):
        torch.testing.assert_close(rows.norm(dim=-1), torch.ones(len(rows)))
    best = [LABELS[i] for i in (images @ texts.T).argmax(1)]
    named = {name.split(".")[0]: label for name, label in zip(photos.names, best, strict=True)}
    expected = {"chelsea": "cat", "coffee": "cup of coffee", "rocket": "rocket", "motorcycle_left": "motorcycle", "horse": "horse"}
    assert {name: named[name] for name in expected} == expected


# the heads, by hand


def test_conse_is_the_mean_of_class_vectors():
    head = ConseHead(3, 2, temperature=2.0)
    head.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    logits = [np.log(6) * 2, np.log(3) * 2, 0.0]  # 6 : 3 : 1 at temperature 2
    torch.testing.assert_close(head(torch.tensor([logits]).float()), torch.tensor([[0.5, 0.3]]))


def test_blocks_are_rooted_and_of_unit_length():
    head = BlockHead([2, 1], 3)
    head.weight.data, head.mean[0] = torch.eye(3), 0.1
    torch.testing.assert_close(head(torch.tensor([[9.0, -16.0, -4.0]])), torch.tensor([[0.5, -0.8, -1.0]]))
    plain = BlockHead([2, 1], 3, rooted=False)
    plain.weight.data = torch.eye(3)
    torch.testing.assert_close(plain(torch.tensor([[3.0, -4.0, -2.0]])), torch.tensor([[0.6, -0.8, -1.0]]))


def test_a_dot_product_of_concatenated_heads_is_the_weighted_sum_of_their_cosines():
    parts = [{"kind": "linear", "options": {"width": 3, "dim": 4}, "columns": [0, 3], "share": 0.7},
             {"kind": "linear", "options": {"width": 2, "dim": 5}, "columns": [3, 5], "share": 0.3}]
    head, rows = ConcatHead(parts), torch.randn(2, 5, generator=runtime.generator(0))
    a, b = head(rows)
    cosine = torch.nn.functional.cosine_similarity
    expected = sum(share * cosine(*part(rows[:, span]), dim=0) for share, part, span in zip((0.7, 0.3), head.heads, (slice(0, 3), slice(3, 5)), strict=True))
    torch.testing.assert_close(a @ b, expected)
    torch.testing.assert_close(a.norm(), torch.tensor(1.0))


def test_the_maps_are_canonical():
    """Against scipy's generalised eigenvalue problem, which knows neither Cholesky factors nor our scaling."""
    from scipy.linalg import eigh

    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    generator = runtime.generator(0)
    images, texts, weights = draw(300, 6), draw(300, 4), torch.rand(300, generator=generator) + 0.5
    texts[:, 0] += images[:, 1]
    mean, image_map, _, text_map = mini.canonical_maps(images, texts, weights, 2)

    w, x, t = (weights / weights.sum()).double().numpy(), images.double().numpy(), texts.double().numpy()
    joint = np.cov(np.hstack([x, t]).T, aweights=w, bias=True)
    xx, tt, xt = joint[:6, :6], joint[6:, 6:], joint[:6, 6:]
    xx, tt = xx + mini.PICTURE_SHRINK * np.trace(xx) / 6 * np.eye(6), tt + mini.TEXT_SHRINK * np.trace(tt) / 4 * np.eye(4)
    correlations = np.sqrt(eigh(xt @ np.linalg.solve(tt, xt.T), xx, eigvals_only=True)[::-1][:2])
    np.testing.assert_allclose(mean, np.average(x, axis=0, weights=w))
    np.testing.assert_allclose(image_map.T.numpy() @ xx @ image_map.numpy(), np.diag(correlations), atol=1e-9)
    np.testing.assert_allclose(image_map.T.numpy() @ xt @ text_map.numpy(), np.diag(correlations**2), atol=1e-9)


def test_the_natural_mean_is_that_of_a_rectified_normal():
    net = load_encoder("efficientnet-lite0").net
    draws = torch.randn(20_000, 1, generator=runtime.generator(0))
    sampled = (net.bn2.bias[:50] + net.bn2.weight[:50].abs() * draws).clamp(0, 6).mean(0)
    torch.testing.assert_close(mini.natural_pooled_mean(net)[:50], sampled, atol=0.02, rtol=0)


# concepts it never saw


def test_the_list_of_unseen_concepts_is_the_seeded_one():
    split = mini_data.held_out()
    assert len(NOUNS) >= 100 and NOUNS == sorted(set(NOUNS)) and split == mini_data.make_split(0)
    assert mini_data.make_split(1)["nouns"] != NOUNS


def test_no_training_picture_or_text_says_an_unseen_noun():
    stamps, emoji = mini_data.training_pictures(NOUNS)
    assert 700 < len(stamps) < 950 and 4000 < len(emoji) < 4858
    for dataset in (stamps, emoji):
        assert [caption for caption in dataset.all_captions for noun in NOUNS if holds(caption, noun)] == []
    assert not set(emoji.columns["hexcode"]) & set(mini_data.held_out()["emoji"])
    for pictures in (mini_data.unseen_stamps(NOUNS)[0], mini_data.unseen_emoji(NOUNS)[0]):
        assert len(pictures) >= 100 and not set(pictures.names) & {*stamps.names, *emoji.names}
    said = mini_data.class_texts(NOUNS)
    own = [" | ".join(row) for row in imagenet_names()]
    leaks = [(text, noun) for place, text in said.all() for noun in NOUNS if holds(text, noun) and not holds(own[place], noun)]
    assert leaks == [] and len(said.scenes) > 900
    everything = [text for _, text in mini_data.class_texts().all()] + load_dataset("stamps").all_captions
    assert all(any(holds(text, noun) for text in everything) for noun in NOUNS)  # the check above can find them


def test_unseen_concepts_are_named_far_above_chance(unseen):
    found = mini.accuracy(*unseen)
    assert found["classes"] == len(NOUNS) and found["top1"] >= 0.38 and found["top5"] >= 0.62
    assert found["top1_interval95"][0] > 20 / len(NOUNS)


def test_also_those_that_no_imagenet_class_names(unseen):
    similarity, labels = unseen
    strange = torch.tensor([NOUNS[label] not in mini_data.held_out()["in_imagenet"] for label in labels])
    found = mini.accuracy(similarity[strange], labels[strange])
    assert found["n"] >= 50 and found["top1_interval95"][0] > 5 / len(NOUNS)


def test_several_prompts_are_not_worse_than_one(model, unseen):
    dataset, labels = mini_data.unseen_stamps(NOUNS)
    one = mini.accuracy(mini.scores(model, dataset, NOUNS, (zero_shot.TEMPLATE,)), labels)
    assert mini.accuracy(*unseen)["top1"] >= one["top1"] - 0.01


def test_shuffled_labels_fall_to_chance(unseen):
    similarity, labels = unseen
    hits = [mini.accuracy(similarity, labels[torch.randperm(len(labels), generator=runtime.generator(seed))])["top5"] for seed in range(20)]
    assert np.mean(hits) == pytest.approx(5 / len(NOUNS), abs=0.02)


def test_the_confidence_is_near_the_accuracy(model, unseen):
    similarity, labels = unseen
    confidence, best = (model.logit_scale.detach() * similarity).softmax(-1).max(1)
    assert confidence.mean().item() == pytest.approx((best == labels).float().mean().item(), abs=0.12)


def test_search_finds_red_fruit(model):
    stamps = load_dataset("stamps")
    best = (embedding.text_embeddings(model, ["a red fruit"]) @ embedding.image_embeddings(model, stamps).T)[0].topk(5).indices
    said = [stamps.captions[row][0].lower() for row in best]
    assert sum(any(fruit in caption for fruit in ("strawberry", "tomato", "apple", "pomegranate", "cherr")) for caption in said) >= 4, said


def test_a_fresh_fit_gives_the_shipped_model(model):
    """Fits the heads again from pictures and texts: a minute and a half where nothing is cached."""
    fresh = mini.fit_heads(NOUNS)
    dataset, _ = mini_data.unseen_stamps(NOUNS)
    torch.testing.assert_close(mini.scores(fresh, dataset, NOUNS), mini.scores(model, dataset, NOUNS), atol=0.004, rtol=0)


def test_the_scale_is_the_likeliest():
    labels = torch.tensor([0, 1, 0, 1])
    cosines = torch.tensor([[0.3, 0.1], [0.1, 0.3], [0.3, 0.1], [0.3, 0.1]])  # right three times of four: logit of 3/4 over a gap of 0.2
    assert mini.best_scale(cosines, labels) == pytest.approx(np.log(3) / 0.2, rel=0.02)


def test_scenes_cover_every_class_and_faults_are_named(tmp_path, monkeypatch):
    assert {place for place, _ in mini_data.read_scenes()} == set(range(BLOCKS["logits"]))
    (tmp_path / "mini_scenes.txt").write_text("# note\n0|a fish\n999-1000|beyond the last class\n")
    monkeypatch.setattr(runtime, "data_dir", lambda: tmp_path)
    with pytest.raises(Exception, match="line 3"):
        mini_data.read_scenes.__wrapped__()
