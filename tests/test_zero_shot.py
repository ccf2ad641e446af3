"""Zero-shot classification against open_clip's own builder, scikit-learn and calculations by hand; and what cannot work is told."""

import json
import warnings

import numpy as np
import pytest
import torch
from conftest import picture
from PIL import Image
from standin import openai_layout, save_hub_clip

from miniclip_helpers import cli, embedding, pretrained, zero_shot
from miniclip_helpers.datasets import ImageTextDataset, load_dataset
from miniclip_helpers.encoders import Tower, load_encoder
from miniclip_helpers.errors import DataError, UsageError
from miniclip_helpers.model import TwoTowers
from miniclip_helpers.model.lengths import LongTextWarning

COLOURS = {"red": (250, 10, 10), "green": (10, 250, 10), "blue": (10, 10, 250)}


class MeanColour(Tower):
    """A picture as its mean colour, centred."""

    name, width = "mean-colour", 3

    def prepare(self, images):
        return torch.tensor(np.stack([np.asarray(image, dtype=np.float32).mean((0, 1)) - 90 for image in images]))

    def forward(self, batch):
        return batch


class ColourWords(MeanColour):
    """A text as the mean of the colours that it names; the rest of its letters move it a little, so that no two texts are the same."""

    name = "colour-words"

    def prepare(self, texts):
        found = [np.sum([np.array(COLOURS[word]) - 90 for word in text.replace(".", "").split() if word in COLOURS] or [[0, 0, 0]], 0) for text in texts]
        shift = [[hash_of(text), hash_of(text + "!"), hash_of(text + "?")] for text in texts]
        return torch.tensor(np.array(found) + np.array(shift), dtype=torch.float32)


def hash_of(text):
    return sum((place + 1) * ord(letter) for place, letter in enumerate(text)) % 17 + 1


@pytest.fixture
def model(private_cache):
    return TwoTowers(MeanColour(), ColourWords(), logit_scale=5).eval()


def colours_dataset(columns=None):
    pictures = [Image.new("RGB", (8, 8), colour) for colour in (*COLOURS.values(), (200, 60, 40))]
    return ImageTextDataset("colours", [f"{i}.png" for i in range(4)], [["A red."], ["the green"], ["Blue"], ["Red"]], [png(p) for p in pictures], columns)


def png(image):
    import io

    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


# class vectors


@pytest.fixture(scope="module")
def small_open_clip():
    """A small random open_clip network with its real tokenizer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import open_clip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return open_clip.model.CLIP(32, SMALL["vision_cfg"], SMALL["text_cfg"]).eval(), open_clip.get_tokenizer("ViT-B-32")


SMALL = {"embed_dim": 32, "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}, "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}}


def test_class_embeddings_equal_open_clips_own_builder(small_open_clip, private_cache):
    """80 templates by open_clip's functions and builder, and by ours."""
    import open_clip

    net, tokenizer = small_open_clip
    labels = ["cat", "sea lion", "tub of ice cream"]
    theirs = open_clip.build_zero_shot_classifier(net, tokenizer, labels, open_clip.OPENAI_IMAGENET_TEMPLATES, num_classes_per_batch=None)  # (D, C)
    ours = pretrained.open_clip_towers("small", net, open_clip.image_transform(32, is_train=False), tokenizer)
    torch.testing.assert_close(zero_shot.class_embeddings(ours, labels, zero_shot.imagenet_templates()), theirs.T, atol=1e-5, rtol=0)


def test_the_eighty_templates_are_open_clips():
    import open_clip

    ours = zero_shot.imagenet_templates()
    assert len(ours) == 80 == len(set(ours))
    assert [template.replace("{}", "x y") for template in ours] == [template("x y") for template in open_clip.OPENAI_IMAGENET_TEMPLATES]


def test_blocks_change_nothing(model, monkeypatch):
    labels = [f"thing {number} red" for number in range(23)]
    whole = zero_shot.class_embeddings(model, labels, zero_shot.TEMPLATES)
    monkeypatch.setattr(zero_shot.prompts, "BLOCK", 20)  # two labels at a time
    assert torch.equal(zero_shot.class_embeddings(model, labels, zero_shot.TEMPLATES), whole)


def test_ten_thousand_labels_in_eighty_templates_are_never_in_memory_together(model, monkeypatch):
    sizes = []

    def features(tower, texts, tell=True):
        sizes.append(len(texts))
        return torch.full((len(texts), 3), float(len(sizes)))

    monkeypatch.setattr(embedding, "text_features", features)
    labels = [f"label {number}" for number in range(10_000)]
    rows = zero_shot.class_embeddings(model, labels, zero_shot.imagenet_templates())
    assert rows.shape == (10_000, 3) and sum(sizes) == 800_000 and max(sizes) <= 4096
    torch.testing.assert_close(rows, torch.full((10_000, 3), 3**-0.5))


def test_ten_thousand_labels_classify(model):
    labels = [*COLOURS, *(f"thing {number}" for number in range(9_997))]
    probabilities = zero_shot.classify(model, [Image.new("RGB", (8, 8), "blue")], labels, ("a {}",))
    assert probabilities.shape == (1, 10_000) and zero_shot.top_labels(probabilities, labels, 1)[0][0][0] == "blue"
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-4)


# what cannot work


@pytest.mark.parametrize("labels, templates, words", [
    (["cat", "dog", "Cat "], ("{}",), "stand twice.*Cat, cat"), (["a  b", "a b"], ("{}",), "stand twice"), ("cat,dog", ("{}",), "list of labels.*one string"),
    (["cat", "dog"], ("a photo",), "one {}.*a photo"), (["cat", "dog"], ("{} and {}",), "one {}"), (["cat", ""], ("{}",), "no empty")])
def test_labels_and_templates_that_cannot_work(model, labels, templates, words):
    with pytest.raises(UsageError, match=words):
        zero_shot.classify(model, [picture()], labels, templates)


def test_ten_thousand_labels_with_many_twice_are_told_shortly():
    with pytest.raises(UsageError) as caught:
        zero_shot.class_texts([f"label {number % 5000}" for number in range(10_000)])
    assert "and 4995 more" in str(caught.value) and len(str(caught.value)) < 300


def test_one_label_is_no_question(model):
    vectors = zero_shot.class_embeddings(model, ["red"])
    for ask in (lambda: zero_shot.classify(model, [picture()], ["red"]), lambda: zero_shot.class_probabilities(torch.ones(2, 3), vectors, 1.0),
                lambda: zero_shot.evaluate_labels(model, colours_dataset(), ["red"], [0, 0, 0, 0])):
        with pytest.raises(UsageError, match=r"always gets 100 %.*zero_shot\.binary.*--yes-no"):
            ask()


@pytest.mark.parametrize("temperature", [0, -1, float("inf"), float("nan")])
def test_a_temperature_that_is_none(model, temperature):
    with pytest.raises(UsageError, match="temperature above 0"):
        zero_shot.classify(model, [picture()], ["red", "blue"], temperature=temperature)


# texts longer than the context: every kind of model cuts them, and says so


@pytest.fixture(scope="module")
def models(tmp_path_factory, small_open_clip):
    """{kind: (model, tokens that it reads)}, each through `load_model`."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("kinds")
    hub = save_hub_clip(folder / "hub")
    save_file(openai_layout(load_file(hub / "model.safetensors")), folder / "clip.safetensors")
    (folder / "open").mkdir()
    (folder / "open" / "open_clip_config.json").write_text(json.dumps({"model_cfg": SMALL, "preprocess_cfg": {}}))
    save_file({key: value.contiguous() for key, value in small_open_clip[0].state_dict().items()}, folder / "open" / "open_clip_model.safetensors")
    names = {"mini": "mini", "transformers": hub, "clip": f"clip:{folder / 'clip.safetensors'}", "open_clip": f"open_clip:{folder / 'open'}"}
    return {kind: (pretrained.load_model(name), 128 if kind == "mini" else 77) for kind, name in names.items()}


KINDS = ("mini", "transformers", "clip", "open_clip")


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_that_just_fits_is_read_whole_and_without_a_word(models, kind, private_cache):
    """"dog" is one token everywhere; with start and end, context - 2 of them fit."""
    model, context = models[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fits = model.encode_text(["dog " * (context - 2), "dog " * (context - 3) + "cat", "dog"])
        embedding.text_embeddings(model, ["dog " * (context - 2)])
    assert (fits[0] - fits[1]).norm() > 1e-4  # the last word counts


@pytest.mark.parametrize("kind", KINDS)
def test_a_longer_text_is_cut_and_told(models, kind, private_cache):
    model, context = models[kind]
    longer, other = "dog " * (context - 2) + "cat", "dog " * (context - 2) + "sun and moon"
    for encode in (model.encode_text, lambda texts: embedding.text_embeddings(model, texts)):
        with pytest.warns(LongTextWarning, match=f"2 texts are longer than the {context} tokens.*longest has {context + 3}.*'dog dog.*no effect") as told:
            rows = encode([longer, "dog", other])
        assert len(told) == 1
        torch.testing.assert_close(rows[0], rows[2], atol=1e-5, rtol=0)  # what stands beyond has no effect
    with pytest.warns(LongTextWarning):  # from the cache as well
        embedding.text_embeddings(model, [longer])


@pytest.mark.parametrize("kind", KINDS)
def test_long_labels_are_told_once_and_refused_when_they_become_the_same(models, kind, private_cache):
    model, context = models[kind]
    with pytest.warns(LongTextWarning, match="2 texts are longer") as told:
        rows = zero_shot.class_embeddings(model, ["cat", "dog " * context], ("a photo of a {}.", "{}"))
    assert len(told) == 1 and rows.shape[0] == 2
    with pytest.warns(LongTextWarning), pytest.raises(UsageError, match=f"labels 1 and 3 are the same to .* after its {context} tokens: 'dog dog"):
        zero_shot.class_embeddings(model, ["dog " * context + "brown", "cat", "dog " * context + "black"])


def test_tokens_are_counted_as_transformers_counts_them(models):
    """The words of other alphabets and signs, by the tokenizer that transformers builds from CLIP's files, and MiniLM's by BERT's rules."""
    from transformers import AutoTokenizer

    texts = ["naïve café — 100% & more!", "犬 и собака 🐶" * 9, "dog's " * 50, ""]
    theirs = AutoTokenizer.from_pretrained(models["transformers"][0].name)
    for kind in ("transformers", "clip", "open_clip"):
        assert models[kind][0].text_tower.token_counts(texts) == [len(theirs(text)["input_ids"]) for text in texts]
    assert models["mini"][0].text_tower.token_counts(["a dog runs", "dog's"]) == [5, 5]  # start and end are two; the apostrophe is one


@pytest.mark.parametrize("name, vocabulary, marks", [
    ("bag-of-words", ["dog", "cat"], 0), ("bilstm", ["dog", "cat"], 0), ("transformer", ["dog", "cat"], 0), ("bilstm", None, 2), ("bert", None, 2),
    ("bert", ["dog", "cat"], 1), ("gpt2", None, 2)])
def test_towers_that_are_trained_here_tell_it_too(name, vocabulary, marks, private_cache):
    """Their texts have 9 ids at most, start and end (`marks`) among them: what they count agrees with what they make of it."""
    options = {} if name in ("bag-of-words", "bilstm", "transformer") else {"pretrained": False}
    tower = load_encoder(name, vocabulary=vocabulary, length=9, **options)
    fits, longer = "dog " * (9 - marks), "dog " * (9 - marks) + "cat"
    ids = [tower.prepare([text]) for text in (fits, longer, longer + " cat", "dog cat")]
    assert tower.context == 9 and tower.token_counts([fits, longer, "dog cat"]) == [9, 10, 2 + marks]
    assert ids[0].shape[1] == 9 and torch.equal(ids[1], ids[2]) and int((ids[3] != 0).sum()) == 2 + marks
    with pytest.warns(LongTextWarning, match="1 text is longer than the 9 tokens"):
        embedding.text_features(tower, [fits, longer])


# temperature, yes or no


def test_temperature_flattens_and_never_reorders(model):
    pictures, labels = [picture(1), Image.new("RGB", (8, 8), "red")], list(COLOURS)
    cosines = zero_shot.cosines(model, pictures, labels)
    for temperature in (0.01, 0.2, 1.0):
        by_hand = np.exp(cosines.double().numpy() / temperature)
        found = zero_shot.classify(model, pictures, labels, temperature=temperature)
        np.testing.assert_allclose(found.numpy(), by_hand / by_hand.sum(1, keepdims=True), atol=1e-5)
        assert (found.argsort(1) == cosines.argsort(1)).all()
    torch.testing.assert_close(zero_shot.classify(model, pictures, labels), zero_shot.classify(model, pictures, labels, temperature=1 / 5))


def test_the_documents_temperature_table_does_not_follow_from_its_cosines():
    """Project 000 prints .92/.03/.04/.01 for these cosines at temperature .04; the softmax says otherwise."""
    cosines = torch.tensor([[0.2770, 0.1383, 0.1668, 0.1211]])
    found = zero_shot.class_probabilities(cosines, torch.eye(4), 1 / 0.04)[0].tolist()
    assert found == pytest.approx([0.897, 0.028, 0.057, 0.018], abs=1e-3)


def test_the_fitted_temperature_is_the_minimum():
    random = np.random.default_rng(0)
    cosines = random.normal(0, 0.1, (400, 12))
    odds = np.exp(23.0 * cosines)
    targets = np.array([random.choice(12, p=row / row.sum()) for row in odds])
    scale = zero_shot.fit_temperature(cosines, targets)
    loss = lambda s: torch.nn.functional.cross_entropy(torch.tensor(s * cosines), torch.tensor(targets)).item()  # noqa: E731
    grid = np.geomspace(10, 40, 700)
    assert scale == pytest.approx(grid[np.argmin([loss(s) for s in grid])], rel=2e-3) and 19 < scale < 27
    assert loss(scale) <= min(loss(scale * 1.01), loss(scale / 1.01))


def test_a_temperature_without_an_optimum_stays_finite():
    assert zero_shot.fit_temperature(np.eye(3), [0, 1, 2]) == zero_shot.predict.SCALES[1]  # always right: the surer the better
    assert zero_shot.fit_temperature(np.eye(3), [1, 2, 0]) == zero_shot.predict.SCALES[0]  # always wrong: the flatter the better
    for cosines, targets in ((np.eye(3), [0, 1]), (np.ones((3, 1)), [0, 0, 0]), (np.full((1, 2), np.nan), [0]), (np.eye(2), [0, 2])):
        with pytest.raises(UsageError, match="expected"):
            zero_shot.fit_temperature(cosines, targets)


def test_binary_by_hand(model):
    red, blue = model.encode_text(["a red thing"])[0], torch.nn.functional.normalize(model.encode_text(["blue", "green"]).mean(0), dim=-1)
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "purple")]
    yes = np.exp(5 * (model.encode_image(pictures) @ red).numpy())
    no = np.exp(5 * (model.encode_image(pictures) @ blue).numpy())
    found = zero_shot.binary(model, pictures, "a red thing", ["blue", "green"])
    assert found.shape == (3,) and found[0] > 0.9 > 0.1 > found[1]
    np.testing.assert_allclose(found.numpy(), yes / (yes + no), atol=1e-5)
    both = zero_shot.yes_no(model, pictures, ["a red thing", ["blue"]], ["blue", "green"])
    torch.testing.assert_close(both[:, 0], found)
    two = zero_shot.classify(model, pictures, ["a red thing", "green"], ("{}",))
    torch.testing.assert_close(zero_shot.binary(model, pictures, "a red thing", "green"), two[:, 0])  # a softmax over two labels


def test_binary_with_its_own_opposite_or_none(model):
    with pytest.raises(UsageError, match="own opposite"):
        zero_shot.binary(model, [picture()], "a dog", "A dog ")
    for statement, opposite in (("", "a"), ("a", []), ("a", ["b", " "])):
        with pytest.raises(UsageError, match="a statement and at least one opposite"):
            zero_shot.binary(model, [picture()], statement, opposite)


def test_mini_says_yes_to_what_is_there_and_no_to_the_rest(private_cache):
    model, photos = pretrained.load_model("mini"), load_dataset("photos8")
    things = {"chelsea.png": "cat", "coffee.png": "cup of coffee", "rocket.jpg": "rocket", "motorcycle_left.png": "motorcycle"}
    dataset = photos.select([name for name in photos.names if name in things])
    shares = zero_shot.yes_no(model, dataset, [f"a photo of a {things[name]}." for name in dataset.names])
    assert (shares.diag() > 0.5).all() and (shares.argmax(0) == torch.arange(4)).all()


# labels


def test_labels_of_captions_lose_article_and_stop():
    labels, targets = zero_shot.labels_of(colours_dataset())
    assert labels == ["Blue", "green", "red"] and targets.tolist() == [2, 1, 0, 2] and targets.dtype == np.int64


def test_labels_of_columns():
    dataset = colours_dataset({"label": ["b", "a", "B", "c"], "style": ["photo", "photo", "drawing", "photo"]})
    assert zero_shot.labels_of(dataset)[0] == ["a", "b", "c"] and zero_shot.labels_of(dataset)[1].tolist() == [1, 0, 1, 2]
    assert zero_shot.labels_of(dataset, "style")[1].tolist() == [1, 1, 0, 1]
    assert zero_shot.labels_of(colours_dataset({"concept": list("xyzx")}))[0] == ["x", "y", "z"]
    assert len(zero_shot.labels_of(load_dataset("stamps"), "category")[0]) == 16


def test_labels_that_are_not_there():
    with pytest.raises(UsageError, match=r"unknown column.*labl"):
        zero_shot.labels_of(colours_dataset({"label": list("abcd")}), "labl")
    with pytest.raises(DataError, match=r"1 of 4 pictures.*no label(.|\n)*2\.png"):
        zero_shot.labels_of(colours_dataset({"label": ["a", "b", None, "c"]}))
    with pytest.raises(DataError, match=r"not every picture has one caption(.|\n)*first_captions"):
        zero_shot.labels_of(load_dataset("emoji"))


def test_labels_out_of_files(tmp_path):
    (tmp_path / "a.txt").write_text("\ufeffcat\n\n  sea   lion \r\nдельфин\n", encoding="utf8")
    assert zero_shot.read_labels(tmp_path / "a.txt") == ["cat", "sea lion", "дельфин"]
    (tmp_path / "a.json").write_text('["cat, striped", "dog"]')
    assert zero_shot.read_labels(tmp_path / "a.json") == ["cat, striped", "dog"]


@pytest.mark.parametrize("name, content, words", [
    ("a.txt", b"cat\ndog\n\nCat\n", "line 4: 'Cat', first in line 1"), ("a.txt", b"\n \n", "holds no label"), ("a.txt", b"\xff\xfe\x00", "UTF-8"),
    ("a.json", b"{", "not valid JSON"), ("a.json", b'{"a": 1}', "list of strings"), ("none.txt", None, "does not exist")])
def test_files_of_labels_that_cannot_work(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises((DataError, UsageError), match=words):
        zero_shot.read_labels(tmp_path / name)


# evaluation


def test_a_report_by_hand():
    scores = np.array([[3, 2, 1], [1, 2, 3], [2, 3, 1], [1, 1, 1]])  # right, right, wrong (2nd), all tied: never a hit
    report = zero_shot.score_report(scores, ["a", "b", "c"], [0, 2, 0, 0], ks=(1, 2))
    assert (report["n"], report["n_labels"], report["top-1"], report["top-2"]) == (4, 3, 0.5, 1.0)
    assert report["chance"] == {"top-1": 1 / 3, "top-2": 2 / 3} and report["most_common"] == 0.75
    assert report["per_class"] == {"a": {"n": 3, "top-1": pytest.approx(1 / 3)}, "c": {"n": 1, "top-1": 1.0}}
    low, high = report["interval95"]["top-1"]
    assert (low, high) == pytest.approx((0.15, 0.85), abs=0.005)  # Wilson: 2 of 4
    json.dumps(report)


def test_evaluate_labels(model):
    dataset = colours_dataset()
    labels, targets = zero_shot.labels_of(dataset)
    report = zero_shot.evaluate_labels(model, dataset, [label.lower() for label in labels], targets, ("{}",))
    assert report["top-1"] == 1 and report["n"] == 4 and report["chance"]["top-5"] == 1
    wrong = zero_shot.evaluate_labels(model, dataset, [label.lower() for label in labels], np.roll(targets, 1), ("{}",))
    assert wrong["top-1"] == 0.25  # the last picture is red like the first
    with pytest.raises(UsageError, match="one target per picture"):
        zero_shot.evaluate_labels(model, dataset, labels, targets[:2])


# a few labelled pictures


def blobs(count, classes=4, width=10, noise=0.5, seed=0):
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(classes, width))
    targets = np.arange(count) % classes
    return centres[targets] + noise * random.normal(size=(count, width)) + 5, targets


@pytest.mark.parametrize("width", [10, 90])  # fewer columns than rows, and more
def test_the_probe_equals_scikit_learns_own(width):
    from sklearn.linear_model import LogisticRegression

    train, targets = blobs(60, width=width, noise=2)
    test, _ = blobs(40, width=width, noise=2, seed=1)
    mean = train.mean(0)
    length = np.linalg.norm(train - mean) / 60**0.5
    theirs = LogisticRegression(C=3.0, max_iter=5000, tol=1e-8).fit((train - mean) / length, targets)
    ours = zero_shot.linear_probe(train, targets, test, strengths=(3.0,))
    assert ours.strength == 3.0 and ours.classes.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(ours.probabilities, theirs.predict_proba((test - mean) / length), atol=2e-3)
    assert (ours.predicted == theirs.predict((test - mean) / length)).all()


def test_the_strength_is_chosen_on_training_pictures_alone():
    train, targets = blobs(80, noise=1.5)
    test, right = blobs(400, noise=1.5, seed=1)
    probe = zero_shot.linear_probe(train, targets, test)
    assert probe.strength == max(probe.tried, key=probe.tried.get) and len(probe.tried) == 5
    assert zero_shot.linear_probe(train, targets, test[:3]).strength == probe.strength  # whatever the test pictures are
    assert max(probe.tried.values()) < 1  # the pictures that it is chosen on are not those that it was fitted on
    assert (probe.predicted == right).mean() > 0.6
    shuffled = zero_shot.linear_probe(train, np.random.default_rng(0).permutation(targets), test)
    assert (shuffled.predicted == right).mean() < 0.45  # nothing to learn: chance is 0.25


def test_one_example_per_class_leaves_nothing_to_choose_on():
    probe = zero_shot.linear_probe(*blobs(4), blobs(8)[0])
    assert probe.tried == {} and probe.strength == 10 and probe.predicted.tolist() == [0, 1, 2, 3] * 2


@pytest.mark.parametrize("change, words", [
    (lambda x, y, t: (x, y[:-1], t), "targets"), (lambda x, y, t: (x, y, t[:, :3]), "test features"), (lambda x, y, t: (x, y * 0, t), "two or more classes"),
    (lambda x, y, t: (x * np.nan, y, t), "NaN"), (lambda x, y, t: (x, y / 2, t), "integer targets")])
def test_features_that_cannot_work(change, words):
    with pytest.raises(UsageError, match=words):
        zero_shot.linear_probe(*change(*blobs(8), blobs(4)[0]))


def test_few_shots_by_count():
    features, targets = blobs(43, classes=3, noise=1.0)  # 15, 14, 14 of each
    scores = np.eye(3)[targets] * (np.arange(43) < 20)[:, None]  # right on the first 20, tied on the rest
    table = zero_shot.few_shot(features, targets, shots=(4, 1, 99), seeds=(0, 5), scores=scores)
    assert list(table.columns) == ["shots", "seed", "n_train", "n_test", "top-1"] and table["shots"].tolist() == [0, 0, 1, 1, 4, 4, 99, 99]
    assert set(table["n_test"]) == {8 + 7 + 7} and table["n_train"].tolist() == [0, 0, 3, 3, 12, 12, 21, 21]  # 99 shots: all there are
    assert table["top-1"].between(0, 1).all() and table.query("shots == 99")["top-1"].mean() > table.query("shots == 1")["top-1"].mean()
    again = zero_shot.few_shot(features, targets, shots=(1,), seeds=(0,))
    assert again["top-1"][0] == table.query("shots == 1 and seed == 0")["top-1"].iloc[0]  # the same draw for the same seed
    zero = table.query("shots == 0")["top-1"]
    assert (zero < 1).all() and (zero > 0.2).all()


def test_test_pictures_are_never_learnt_from(monkeypatch):
    """Each row is its own number, so that the probe's arguments tell which pictures it saw."""
    seen = []

    def probe(train, targets, test, *rest, **options):
        seen.append((set(train[:, 0]), set(test[:, 0])))
        return zero_shot.Probe(np.zeros(len(test)), None, None, 1.0, {})

    monkeypatch.setattr(zero_shot.probes, "linear_probe", probe)
    features = np.arange(40.0)[:, None] * np.ones(2)
    zero_shot.few_shot(features, np.arange(40) % 4, shots=(1, 3), seeds=(0, 1))
    assert len(seen) == 4 and not any(train & test for train, test in seen)
    assert seen[0][0] < seen[1][0] and seen[0][1] == seen[1][1] != seen[2][1]  # draws are nested, and the test is the same for a seed


def test_few_shots_need_two_pictures_of_each():
    with pytest.raises(UsageError, match="1 classes have one, like class 3"):
        zero_shot.few_shot(np.eye(7), np.array([0, 0, 1, 1, 2, 2, 3]))
    with pytest.raises(UsageError, match="shots of 1 or more"):
        zero_shot.few_shot(*blobs(12), shots=(0, 1))


# the command line


def call(*words):
    return cli.main([str(word) for word in words])


@pytest.fixture
def photos(tmp_path):
    for name, colour in COLOURS.items():
        Image.new("RGB", (30, 30), colour).save(tmp_path / f"{name}.png")
    return tmp_path


@pytest.fixture
def colour_model(monkeypatch, model):
    monkeypatch.setattr(pretrained, "load_model", lambda name: model)
    return model


def test_the_same_photo_twice_is_answered_twice(photos, colour_model, capsys):
    assert call("zero-shot", "--labels", "red,green,blue", photos / "red.png", photos / "blue.png", photos / "red.png", "--json", photos / "z.json") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.endswith(".png")] == [str(photos / f"{name}.png") for name in ("red", "blue", "red")]
    assert lines[1].endswith("  red") and lines[5].endswith("  blue")  # best first
    assert {name: max(row, key=row.get) for name, row in json.loads((photos / "z.json").read_text()).items()} == {
        str(photos / "red.png"): "red", str(photos / "blue.png"): "blue"}


def test_labels_from_a_file_templates_and_temperature(photos, colour_model):
    (photos / "labels.txt").write_text("green\nred\n")
    common = ("zero-shot", "--labels-from", photos / "labels.txt", photos / "red.png", "--json", photos / "z.json")
    found = {}
    for options in ((), ("--templates", "seven"), ("--templates", "imagenet"), ("--temperature", 2), ("--template", "{}", "--template", "a {}"), ("--top", 1)):
        assert call(*common, *options) == 0
        found[options[-1:]] = json.loads((photos / "z.json").read_text())[str(photos / "red.png")]
    assert all(next(iter(row)) == "red" for row in found.values()) and found[(2,)]["red"] < found[()]["red"] and list(found[(1,)]) == ["red"]
    assert len({row["red"] for row in found.values()}) == 5  # each template set and temperature its own; --top only hides
    by_hand = zero_shot.classify(colour_model, [Image.open(photos / "red.png")], ["green", "red"], zero_shot.imagenet_templates())
    assert found[("imagenet",)]["red"] == pytest.approx(by_hand[0, 1].item(), abs=1e-6)


def test_yes_or_no(photos, colour_model):
    assert call("zero-shot", "--yes-no", "--labels", "red", "--opposite", "a green", "--template", "a {}", photos / "red.png", "--json", photos / "z.json") == 0
    (share,) = json.loads((photos / "z.json").read_text())[str(photos / "red.png")].values()
    assert share == pytest.approx(zero_shot.binary(colour_model, [Image.open(photos / "red.png")], "a red", "a green").item(), abs=1e-6) and share > 0.9
    assert call("zero-shot", "--yes-no", "--labels", "red,blue", photos / "red.png") == 0


@pytest.mark.parametrize("options, words", [
    (("--labels", "cat"), "100 %"), (("--labels", "cat,dog,Cat"), "stand twice"), (("--labels", "a,b", "--template", "photo"), "one {}"), (("--labels", ","), "at least one label"),
    (("--labels", "a,b", "--opposite", "c"), "--yes-no"), (("--labels", "a,b", "--temperature", "0"), "above 0"), (("--labels", "a,b", "--top", "0"), "--top")])
def test_wrong_use_is_told_before_anything_is_loaded(options, words, capsys, monkeypatch):
    monkeypatch.setattr(pretrained, "load_model", lambda name: pytest.fail("a model was loaded"))
    assert call("zero-shot", *options, "no-such-photo.png") == 2
    assert words in capsys.readouterr().err


def test_a_long_label_is_told_in_one_line(photos, capsys, private_cache):
    (photos / "labels.txt").write_text("red\n" + "dog " * 200 + "\n")
    assert call("zero-shot", "--labels-from", photos / "labels.txt", photos / "red.png") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("miniclip: 1 text is longer than the 128 tokens") and ".py" not in line


def test_an_unknown_clip_name_is_told_without_a_warning():
    """In a fresh process, since clip speaks of pkg_resources only on its first import."""
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-m", "miniclip_helpers.cli", "zero-shot", "--model", "clip:ViT-B/99", "--labels", "a,b", str(load_dataset("photos8").path(2))],
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stderr.startswith("miniclip: unknown clip model")
