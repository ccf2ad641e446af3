"""The small towers: shapes, what they can and cannot tell apart, and that they learn at all."""

import pytest
import torch
from conftest import picture
from torch.nn import functional as F

from miniclip_helpers import losses
from miniclip_helpers.encoders import IMAGE_ENCODERS, TEXT_ENCODERS, BagOfWords, SmallCNN, load_encoder
from miniclip_helpers.images import _spread, augment, turn_hue
from miniclip_helpers.model import LinearHead, TwoTowers

WORDS = ["a", "ball", "bites", "dog", "man", "red"]


def tower(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SmallCNN(channels=4, **options).eval()


def bag(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BagOfWords(WORDS, width=16, word_width=8, **options).eval()


def test_both_are_in_the_tables_and_are_rebuilt_from_their_options():
    for made, table in ((tower(size=24, cells=2), IMAGE_ENCODERS), (bag(length=5), TEXT_ENCODERS)):
        assert made.name in table and not made.pretrained
        again = load_encoder(made.name, **made.options)
        again.load_state_dict(made.state_dict())
        assert again.fingerprint == made.fingerprint and again.width == made.width


@pytest.mark.parametrize("size, cells", [(32, 4), (24, 2), (40, 4), (33, 4), (16, 1)])
def test_image_features_have_the_promised_width(size, cells):
    made = tower(size=size, cells=cells)
    batch = made.prepare([picture(0), picture(1, (9, 70))])
    assert batch.shape == (2, 3, size, size) and made(batch).shape == (2, made.width) == (2, 16 * cells**2)


def test_it_has_about_as_many_weights_as_it_says():
    with_head = TwoTowers(SmallCNN(), bag(), LinearHead(SmallCNN().width, 128), LinearHead(16, 128))
    assert 4e5 < sum(p.numel() for p in with_head.parameters()) < 8e5


def test_cells_keep_where_a_thing_is_and_the_mean_forgets_it():
    """A blob moved by half the picture: the mean over space is the same up to the borders, the laid-out map is not."""
    here = torch.zeros(1, 3, 64, 64)
    here[..., 12:20, 12:20] = 1
    there = here.roll((32, 32), (2, 3))
    for cells, alike in ((1, True), (4, False)):
        made = tower(size=64, cells=cells)
        a, b, empty = (made(x)[0] for x in (here, there, torch.zeros_like(here)))
        assert (F.cosine_similarity(a - empty, b - empty, dim=0) > 0.99) == alike


def test_text_features_are_the_mean_of_the_words_by_hand():
    made = bag()
    ids = made.prepare(["red ball", "man bites dog bites"])
    vectors = made.words.weight
    for row, texts in zip(ids, made(ids)):
        mean = torch.stack([vectors[i] for i in row.tolist() if i]).mean(0)
        torch.testing.assert_close(texts, (made.hidden[0].weight @ mean + made.hidden[0].bias).clamp_min(0))


def test_a_bag_forgets_the_order_and_ignores_padding():
    made = bag()
    one, other = made(made.prepare(["dog bites man", "man bites dog"]))
    torch.testing.assert_close(one, other)
    alone, padded = made(made.prepare(["red"]))[0], made(made.prepare(["red", "a red ball"]))[0]
    torch.testing.assert_close(alone, padded)
    assert not torch.allclose(alone, made(made.prepare(["ball"]))[0])


def test_empty_and_unknown_texts_give_finite_features():
    found = bag()(bag().prepare(["", "zebra", "red"]))
    assert found.isfinite().all() and not torch.allclose(found[1], found[2])


def test_two_small_towers_learn_eight_pairs():
    """From at least log 8 (2.08) to almost nothing in 40 steps; with the captions of other pictures it must not come out the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TwoTowers(SmallCNN(channels=8, size=16, cells=2), BagOfWords(list("abcdefgh"), width=16), LinearHead(128, 8), LinearHead(16, 8))
    images = model.image_tower.prepare([picture(seed, (16, 16)) for seed in range(8)])
    texts = model.text_tower.prepare(list("abcdefgh"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    history = []
    for _ in range(40):
        loss = losses.clip_loss(*model(images, texts))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[0] > 2 and history[-1] < 0.1
    assert losses.clip_loss(*model(images, texts.roll(1, 0))) > 2


def test_the_hue_turns_around_grey():
    red, grey = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1), torch.full((1, 3, 1, 1), 0.4)
    third = torch.tensor([2 * torch.pi / 3])
    torch.testing.assert_close(turn_hue(red, third).flatten(), torch.tensor([0.0, 1, 0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(turn_hue(grey, torch.tensor([1.0])), grey)
    torch.testing.assert_close(turn_hue(red, torch.tensor([0.7])).sum(), torch.tensor(1.0))  # brightness stays


def test_the_wobble_moves_the_inside_and_is_seeded():
    pixels = torch.zeros(2, 3, 32, 32, dtype=torch.uint8) + 255
    pixels[..., 12:20, 12:20] = 0
    still = dict(rotation=0, scale=0, shift=0, colour=0, flip=0)
    pulled, again = (augment(pixels, torch.Generator().manual_seed(0), wobble=0.2, **still) for _ in range(2))
    torch.testing.assert_close(pulled, again)
    assert not torch.allclose(pulled, augment(pixels, torch.Generator().manual_seed(0), **still), atol=0.05)
    torch.testing.assert_close(pulled[:, :, 0, 0], torch.ones(2, 3))  # outside stays white
    assert not torch.allclose(pulled[0], pulled[1], atol=0.05)  # each picture its own


def test_the_pull_of_the_wobble_is_a_bicubic_resize():
    pulls = torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    down, across = _spread(4, 24), _spread(4, 32)
    torch.testing.assert_close(down @ pulls @ across.T, F.interpolate(pulls, size=(24, 32), mode="bicubic", align_corners=True))


@pytest.mark.parametrize("size, cells", [(32, 4), (33, 4), (24, 3), (32, 2)])
def test_the_last_map_is_pooled_only_where_that_changes_it(size, cells):
    made, batch = tower(size=size, cells=cells), torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(made(batch), F.adaptive_avg_pool2d(made.layers[:-2](batch), cells).flatten(1))
    assert isinstance(made.layers[-2], torch.nn.Identity) == (made.layers[:-2](batch).shape[-1] == cells)
