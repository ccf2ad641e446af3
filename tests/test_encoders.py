"""Every tower against the library it comes from, a loop written out, or a limit; pooling; padding; runs that come back."""

import math

import pytest
import torch
from conftest import picture

from miniclip_helpers.encoders import IMAGE_ENCODERS, POOLINGS, TEXT_ENCODERS, load_encoder, pool
from miniclip_helpers.encoders.sequence import sinusoids
from miniclip_helpers.errors import UsageError
from miniclip_helpers.model import HEADS, LinearHead, TwoTowers, build_head, load_saved, save_model

WORDS = ["a", "red", "ball", "dog", "bites", "man", "on", "the", "beach"]
TEXTS = ["a dog", "the man bites a dog on the beach", "a red ball on the beach"]
SMALL = {"resnet18": {"size": 32}, "resnet50": {"size": 32}, "mobilenetv2": {"size": 32}, "efficientnet-lite0": {"size": 64}, "efficientnet-lite-trio": {"size": 56}, "vit": {"size": 32, "hidden": 32, "layers": 2},
         "small-cnn": {"channels": 4}, "bilstm": {"hidden": 12, "word_width": 8}, "transformer": {"hidden": 16}, "bert": {"hidden": 16}, "gpt2": {"hidden": 16},
         "minilm": {}, "bag-of-words": {"width": 16}}
WIDTHS = {"resnet18": 512, "resnet50": 2048, "mobilenetv2": 1280, "efficientnet-lite0": 2904, "efficientnet-lite-trio": 8768, "vit": 32, "small-cnn": 256, "bilstm": 24, "transformer": 16, "bert": 16,
          "gpt2": 16, "minilm": 384, "bag-of-words": 16}


def from_zero(name, seed=0, **options):
    """The tower, small, its random weights drawn from this seed."""
    options = SMALL[name] | options
    if name in ("bilstm", "transformer", "gpt2", "bag-of-words"):
        options = {"vocabulary": WORDS} | options
    if name in ("resnet18", "resnet50", "mobilenetv2", "efficientnet-lite0", "efficientnet-lite-trio", "vit", "bert", "gpt2", "minilm"):
        options = {"pretrained": False} | options
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return load_encoder(name, **options).eval()


def warm(tower):
    """Batch statistics as after some training: at the start, signals die out on their way through a deep network."""
    for part in tower.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 1.0
    with torch.no_grad():
        for _ in range(2):
            tower.train()(tower.prepare([picture(seed) for seed in range(8)]))
    return tower.eval()


def inputs_of(name):
    return [picture(1), picture(2, (30, 60)), picture(3)] if name in IMAGE_ENCODERS else TEXTS


@pytest.mark.parametrize("name", [*IMAGE_ENCODERS, *TEXT_ENCODERS])
def test_shapes_gradients_and_a_run_that_comes_back(name, tmp_path):
    tower, inputs = from_zero(name), inputs_of(name)
    found = tower.encode(inputs)
    assert found.shape == (3, tower.width) == (3, WIDTHS[name]) and found.isfinite().all() and not tower.pretrained and not tower.locked
    assert not torch.allclose(*torch.nn.functional.normalize(found[:2]), atol=1e-4)
    weight = torch.randn(3, tower.width, generator=torch.Generator().manual_seed(0))
    (tower.train()(tower.prepare(inputs)) * weight).sum().backward()
    grads = {key: p.grad for key, p in tower.named_parameters()}
    assert not [key for key, grad in grads.items() if grad is None or not grad.isfinite().all()]
    assert sum(bool(grad.abs().sum() > 0) for grad in grads.values()) > 0.9 * len(grads)  # the rest: attention's key biases cancel
    assert tower.name in tower.describe() and "locked" not in tower.describe()
    image, text = (tower, from_zero("bag-of-words")) if name in IMAGE_ENCODERS else (from_zero("small-cnn"), tower)
    model = TwoTowers(image, text, LinearHead(image.width, 4), LinearHead(text.width, 4))
    save_model(model, tmp_path)
    again = load_saved(tmp_path)
    side = again.image_tower if name in IMAGE_ENCODERS else again.text_tower
    torch.testing.assert_close(side.encode(inputs), tower.encode(inputs))
    assert side.fingerprint == tower.fingerprint != from_zero(name, seed=1).fingerprint


@pytest.mark.parametrize("name", ["bilstm", "transformer", "gpt2"])
def test_without_a_vocabulary_the_pieces_are_those_of_clip(name):
    options = {key: value for key, value in SMALL[name].items()}
    tower = load_encoder(name, length=8, **options)
    ids = tower.prepare(["a dog", "!{", ""])
    assert ids[0].tolist() == [49407, 321, 1930, 49408]  # CLIP's 49406, 320, 1929, 49407, each one higher
    assert ids[1].tolist() == [49407, 1, 347, 49408] and ids[2].tolist() == [49407, 49408, 0, 0]  # CLIP's piece 0 is "!": no padding
    assert tower.prepare(["a " * 50]).shape == (1, 8) and tower.encode(["a dog", "\udc80"]).isfinite().all()


def test_merges_learned_from_captions_are_a_vocabulary_too(tmp_path):
    from miniclip_helpers.tokenizers import BytePairTokenizer

    merges = [list(pair) for pair in BytePairTokenizer.train(TEXTS * 3, merges=20).merges]
    tower = from_zero("gpt2", vocabulary=merges)
    assert tower.ids.size == 512 + 2 + len(merges) + 1 and len(tower.prepare(["the beach"])[0]) < len("the beach")
    again = load_encoder("gpt2", **tower.options)
    assert torch.equal(again.prepare(TEXTS), tower.prepare(TEXTS))


def test_berts_pieces_are_its_own():
    assert from_zero("bert").prepare(["Hello world"])[0].tolist() == [101, 7592, 2088, 102]  # as published with bert-base-uncased
    words = from_zero("bert", vocabulary=WORDS).prepare(["a zebra", "dog"])
    assert words.tolist() == [[11, 2, 1], [11, 5, 0]]  # 9 words from 2 on, then [CLS]


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenetv2"])
def test_torchvision_towers_equal_torchvisions_own(name):
    import torchvision

    tower = warm(from_zero(name))
    whole = getattr(torchvision.models, {"mobilenetv2": "mobilenet_v2"}.get(name, name))().eval()
    whole.load_state_dict(tower.net.state_dict(), strict=False)
    seen = []
    last = whole.classifier if name == "mobilenetv2" else whole.fc
    last.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    batch = tower.prepare(inputs_of(name))
    with torch.no_grad():
        whole(batch)
        assert tower(batch).std() > 0.01
        torch.testing.assert_close(tower(batch), seen[0], rtol=1e-4, atol=1e-5)


def test_efficientnet_from_zero_equals_timms_own():
    import timm

    tower = warm(from_zero("efficientnet-lite0"))
    whole = timm.create_model("tf_efficientnet_lite0").eval()
    whole.load_state_dict(tower.net.state_dict())
    batch = tower.prepare(inputs_of("efficientnet-lite0"))
    with torch.no_grad():
        torch.testing.assert_close(tower(batch)[:, -1000:], whole(batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_vit_equals_transformers_own(pooling):
    from transformers import ViTConfig, ViTModel

    tower = from_zero("vit", pooling=pooling, heads=2)
    theirs = ViTModel(ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128, image_size=32, patch_size=8), add_pooling_layer=False).eval()
    theirs.load_state_dict(tower.net.state_dict())
    batch = tower.prepare(inputs_of("vit"))
    with torch.no_grad():
        states = theirs(batch).last_hidden_state
    assert states.shape == (3, 17, 32)
    torch.testing.assert_close(tower.encode(inputs_of("vit")), states[:, 0] if pooling == "cls" else states[:, 1:].mean(1))


def test_pixels_are_as_the_preset_or_the_weights_want_them():
    for pixels, white in (("half", [1.0] * 3), ("imagenet", [(1 - m) / s for m, s in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])):
        tower = from_zero("resnet18", pixels=pixels)
        batch = tower.prepare([picture(0).point(lambda value: 255)])
        torch.testing.assert_close(batch[0, :, 5, 5], torch.tensor(white))


# text: pooling

@pytest.mark.parametrize("how", POOLINGS)
def test_pooling_equals_a_loop(how):
    states = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    length = [5, 1, 3, 2]
    mask = torch.tensor([[place < n for place in range(5)] for n in length])
    for row, n in enumerate(length):
        real = states[row, :n]
        expected = {"first": real[0], "cls": real[0], "last-position": states[row, 4], "last-token": real[-1], "mean": sum(real) / n}[how]
        torch.testing.assert_close(pool(states, mask, how)[row], expected)


def test_pooling_faults_are_told():
    for states, mask, how in ((torch.zeros(2, 3, 4), torch.ones(2, 3, dtype=torch.bool), "frist"), (torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool), "mean"),
                              (torch.zeros(2, 3, 4), torch.ones(2, 4, dtype=torch.bool), "mean")):
        with pytest.raises(UsageError):
            pool(states, mask, how)
    with pytest.raises(UsageError, match="pooling of gpt2 'cls'"):
        load_encoder("gpt2", pooling="cls", pretrained=False)


@pytest.mark.parametrize("name, pooling", [("bert", "cls"), ("bert", "mean"), ("bert", "last-token"), ("gpt2", "last-token"), ("gpt2", "mean"), ("gpt2", "first")])
def test_bert_and_gpt2_equal_transformers_own_text_by_text(name, pooling):
    from transformers import BertModel, GPT2Model

    tower = from_zero(name, pooling=pooling)
    theirs = BertModel(tower.net.config, add_pooling_layer=False) if name == "bert" else GPT2Model(tower.net.config)
    theirs.load_state_dict(tower.net.state_dict())
    found = tower.encode(TEXTS)
    for row, text in enumerate(TEXTS):
        with torch.no_grad():
            states = theirs.eval()(input_ids=tower.prepare([text])).last_hidden_state[0]  # alone: nothing is padded
        expected = {"cls": states[0], "first": states[0], "mean": states.mean(0), "last-token": states[-1]}[pooling]
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-5)


def test_the_first_position_of_gpt2_cannot_see_the_rest_and_that_of_bert_can():
    """The collapse of project 004: with a mark in front every text is one and the same point; with words, all that begin alike."""
    blind = from_zero("gpt2", pooling="first")
    alike = blind.encode(["a dog", "a red ball on the beach", "a man"])
    torch.testing.assert_close(alike, alike[:1].expand(3, -1))
    assert not torch.allclose(alike[0], blind.encode(["the dog"])[0], atol=1e-3)
    pieces = from_zero("gpt2", pooling="first", vocabulary=None).encode(["a dog", "two men", "the beach"])
    torch.testing.assert_close(pieces, pieces[:1].expand(3, -1))
    for name, pooling in (("gpt2", "last-token"), ("gpt2", "mean"), ("bert", "first"), ("transformer", "first")):
        found = from_zero(name, pooling=pooling).encode(["a dog", "a red ball on the beach", "a man"])
        assert found.std(0).mean() > 100 * alike.std(0).mean() and found.std(0).mean() > 1e-3, (name, pooling)


def test_what_the_last_token_of_gpt2_learns_from():
    """Gradients: the first state depends on the first word alone, the last one on all of them."""
    for pooling, reached in (("first", [True, False, False]), ("last-token", [True, True, True])):
        tower = from_zero("gpt2", pooling=pooling)
        tower(tower.prepare(["red ball dog"]))[0, 0].backward()
        grad = tower.net.wte.weight.grad.abs().sum(1)
        assert [bool(grad[2 + WORDS.index(word)] > 0) for word in ("red", "ball", "dog")] == reached


@pytest.mark.parametrize("name", ["bilstm", "transformer", "bert", "gpt2", "minilm", "bag-of-words"])
def test_padding_changes_nothing(name):
    tower = from_zero(name)
    together = tower.encode(TEXTS)
    for row, text in enumerate(TEXTS):
        torch.testing.assert_close(tower.encode([text])[0], together[row], rtol=1e-4, atol=1e-5)
    ids = tower.prepare(TEXTS)
    if torch.is_tensor(ids):  # as a training run holds them: padded to the longest caption of all
        with torch.no_grad():
            torch.testing.assert_close(tower(torch.nn.functional.pad(ids, (0, 4))), together, rtol=1e-4, atol=1e-5)


def test_the_last_position_is_a_trap_that_depends_on_the_neighbours():
    tower = from_zero("gpt2", pooling="last-position")
    alone, beside = tower.encode(["a dog"])[0], tower.encode(["a dog", TEXTS[1]])[0]
    assert not torch.allclose(alone, beside, atol=1e-3)
    torch.testing.assert_close(alone, from_zero("gpt2", pooling="last-token").encode(["a dog"])[0])


@pytest.mark.parametrize("name", ["bilstm", "transformer", "bert", "gpt2"])
def test_these_towers_read_the_order_and_take_empty_texts(name):
    found = from_zero(name).encode(["man bites dog", "dog bites man", "", "zebra"])
    assert found.isfinite().all() and not torch.allclose(found[0], found[1], atol=1e-4) and not torch.allclose(found[2], found[3], atol=1e-5)


def test_bilstm_equals_the_lstm_run_over_each_caption_alone():
    tower = from_zero("bilstm")
    for text in TEXTS:
        with torch.no_grad():
            states, _ = tower.lstm(tower.words(tower.prepare([text])))  # nothing packed: (1, L, 2 * hidden)
        hidden = tower.options["hidden"]
        torch.testing.assert_close(tower.encode([text])[0], torch.cat([states[0, -1, :hidden], states[0, 0, hidden:]]))
    assert load_encoder("bilstm", vocabulary=WORDS).lstm.num_layers == 2 and load_encoder("bilstm", vocabulary=WORDS).width == 512


def test_the_transformer_written_out():
    """Pre-norm: x + attention(norm(x)), then x + feed-forward(norm(x)), and a norm at the end; the CLS vector stands in front."""
    tower = from_zero("transformer")
    width, heads = 16, 4
    ids = tower.prepare([TEXTS[1]])
    with torch.no_grad():
        x = torch.cat([tower.cls[None], tower.words(ids[0]) * width**0.5]) + sinusoids(ids.shape[1] + 1, width)  # (1 + L, width)
        for block in tower.blocks.layers:
            y = block.norm1(x)
            q, k, v = (y @ block.self_attn.in_proj_weight.T + block.self_attn.in_proj_bias).chunk(3, -1)
            q, k, v = (part.view(len(x), heads, width // heads).transpose(0, 1) for part in (q, k, v))
            mixed = ((q @ k.transpose(1, 2)) / (width // heads) ** 0.5).softmax(-1) @ v  # (heads, 1 + L, width / heads)
            x = x + block.self_attn.out_proj(mixed.transpose(0, 1).reshape(len(x), width))
            x = x + block.linear2(torch.nn.functional.gelu(block.linear1(block.norm2(x))))
        x = tower.blocks.norm(x)
    torch.testing.assert_close(tower.encode([TEXTS[1]])[0], x[0], rtol=1e-4, atol=1e-5)


def test_sinusoids_by_hand():
    found = sinusoids(7, 6)
    for place in range(7):
        for pair in range(3):
            angle = place / 10000 ** (2 * pair / 6)
            assert found[place, 2 * pair].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert found[place, 2 * pair + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_the_mlp_head_written_out():
    head = build_head("mlp", {"width": 6, "dim": 4, "dropout": 0.5}).train()
    assert head.kind in HEADS and head.options["hidden"] == 8
    rows = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    head.layers[3].p = 0.0
    hidden = rows @ head.layers[0].weight.T
    hidden = ((hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()).clamp_min(0)
    torch.testing.assert_close(head(rows), hidden @ head.layers[4].weight.T + head.layers[4].bias, rtol=1e-4, atol=1e-5)
    alone = head.eval()(rows)
    torch.testing.assert_close(head(rows[:1]), alone[:1])  # nothing of the batch in evaluation
    head.layers[3].p, dropped = 0.5, head.train()(rows)
    assert not torch.allclose(dropped, head(rows))


@pytest.mark.parametrize("name, options, words", [
    ("resnet81", {}, "did you mean resnet18"), ("resnet18", {"sise": 3}, "its options are"), ("resnet18", {"size": 5}, "16 to 1024"),
    ("resnet18", {"pixels": "hlaf"}, "did you mean half"), ("vit", {"size": 33, "pretrained": False}, "patches divide"), ("bag-of-words", {}, "vocabulary"),
    ("bilstm", {"vocabulary": []}, "empty"), ("bilstm", {"vocabulary": WORDS, "length": 2}, "at least 3"), ("transformer", {"vocabulary": WORDS, "pooling": "max"}, "pooling"),
    ("bert", {"pretrained": True, "vocabulary": WORDS}, "pretrained bert"), ("gpt2", {"pretrained": "yes"}, "True, False or None")])
def test_options_that_cannot_work_are_told(name, options, words):
    with pytest.raises(UsageError, match=words):
        load_encoder(name, **options)
