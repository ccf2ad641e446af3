"""Two towers: unit rows, the clamped scale, saving and loading, faults of a folder."""

import json

import pytest
import torch
from conftest import picture

from miniclip_helpers.encoders import BagOfWords, SmallCNN, load_encoder
from miniclip_helpers.errors import ModelError, UsageError
from miniclip_helpers.model import MAX_LOGIT_SCALE, LinearHead, TwoTowers, lengths, load_saved, save_model

TEXTS = ["a red ball", "two dogs"]


def small_model(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        image, text = SmallCNN(channels=4, size=16), BagOfWords(vocabulary=["a", "red", "ball", "dogs"], width=12)
        return TwoTowers(image, text, LinearHead(image.width, 6), LinearHead(text.width, 6), name="small")


def test_encode_returns_unit_rows_and_forward_agrees():
    model = small_model()
    images, texts = model.encode_image([picture(1), picture(2)]), model.encode_text(TEXTS)
    for rows in (images, texts):
        assert rows.shape == (2, 6)
        torch.testing.assert_close(rows.norm(dim=-1), torch.ones(2))
    model.eval()
    ours = model(model.image_tower.prepare([picture(1), picture(2)]), model.text_tower.prepare(TEXTS))
    torch.testing.assert_close(ours[0], images)
    torch.testing.assert_close(ours[1], texts)


def test_a_linear_head_takes_the_mean_off_first():
    head = LinearHead(2, 1)
    head.mean.copy_(torch.tensor([1.0, 2.0]))
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[3.0], [5.0]]))
    assert head(torch.tensor([[4.0, 4.0], [1.0, 2.0]])).flatten().tolist() == [3 * 3 + 2 * 5, 0]


class TwoTokensPerByte:
    """A tower that cuts as finely as `long_texts` allows for: two tokens a byte, a start and an end."""

    name, context = "fine", 10

    def token_counts(self, texts):
        return [2 * len(text.encode()) + 2 for text in texts]


def test_a_long_text_is_found_whatever_the_tokens():
    assert lengths.long_texts(TwoTokensPerByte(), ["abcd", "abcde", "a", "é" * 4]) == [(1, 12), (3, 18)]
    tower = TwoTokensPerByte()
    tower.context = None
    assert lengths.long_texts(tower, ["abcde" * 9]) == []


def test_the_scale_is_exponentiated_once_and_clamped():
    model = small_model()
    assert model.logit_scale.item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        model.log_logit_scale.fill_(9.0)
    assert model.logit_scale.item() == MAX_LOGIT_SCALE


def test_encoding_keeps_the_mode_and_builds_no_graph():
    model = small_model().train()
    assert not model.encode_text(TEXTS).requires_grad and model.training and model.image_tower.training


def test_a_model_comes_back(tmp_path):
    model = small_model()
    save_model(model, tmp_path, extra={"note": 1})
    again = load_saved(tmp_path)
    assert torch.equal(again.encode_image([picture(3)]), model.encode_image([picture(3)]))
    assert torch.equal(again.encode_text(TEXTS), model.encode_text(TEXTS)) and again.image_tower.fingerprint == model.image_tower.fingerprint
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["note"] == 1 and config["name"] == again.name == "small"


def test_locked_towers_are_not_saved_and_stay_locked(tmp_path):
    model = TwoTowers(load_encoder("efficientnet-lite0"), load_encoder("minilm"), LinearHead(2904, 4), LinearHead(384, 4))
    model.encode_text(TEXTS)
    save_model(model, tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < 100_000
    model.train()
    assert not model.text_tower.net.training and not any(p.requires_grad for p in model.text_tower.net.parameters())
    assert torch.equal(load_saved(tmp_path).encode_text(TEXTS), model.encode_text(TEXTS))


@pytest.mark.parametrize("fault, words", [
    (lambda f: (f / "model.safetensors").unlink(), "model.safetensors missing"),
    (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:100]), "damaged"),
    (lambda f: (f / "config.json").write_text("[]"), "not of the format"),
    (lambda f: (f / "config.json").write_text((f / "config.json").read_text().replace('"dim": 6', '"dim": 5')), "does not fit"),
    (lambda f: (f / "config.json").write_text((f / "config.json").read_text().replace('"linear"', '"liner"')), "did you mean linear"),
])
def test_faults_of_a_folder_are_told(tmp_path, fault, words):
    save_model(small_model(), tmp_path)
    fault(tmp_path)
    with pytest.raises((ModelError, UsageError), match=words):
        load_saved(tmp_path)


def test_one_string_is_not_a_list_of_texts():
    with pytest.raises(UsageError, match="list of texts"):
        small_model().encode_text("a red ball")
    with pytest.raises(UsageError, match="found none"):
        small_model().encode_image([])
