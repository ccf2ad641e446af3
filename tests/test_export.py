"""Exported folders, loaded by transformers alone, give the vectors of the model that they were made from; what cannot be exported is told."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import types

import pytest
import torch
from conftest import ROOT, picture
from standin import save_hub_clip
from test_cli import call
from test_finetuning import bars, small_model

from miniclip_helpers import finetuning, runtime
from miniclip_helpers.datasets import load_dataset
from miniclip_helpers.encoders import load_encoder
from miniclip_helpers.errors import ModelError, UsageError
from miniclip_helpers.finetuning import export
from miniclip_helpers.finetuning.hub import opened
from miniclip_helpers.index import build_index
from miniclip_helpers.model import TwoTowers, build_head, save_model
from miniclip_helpers.pretrained import load_model
from miniclip_helpers.training import locked

pytestmark = pytest.mark.filterwarnings("ignore:1 text is longer")  # one of WORDS is, on purpose
PICTURES = [picture(1, (300, 200)), load_dataset("photos8").image(0)]
WORDS = ["a dog", "two red cups on a table, seen from above", "a dog.", "a very long caption of a red dog " * 40]
# a stranger's program: it knows transformers, and the package is nowhere in it
STRANGER = """
import glob, sys, torch
from PIL import Image
from transformers import AutoModel, AutoProcessor
out, folders, words = sys.argv[1], sys.argv[2].split(","), sys.argv[3:]
pictures = [Image.open(file).convert("RGB") for file in sorted(glob.glob(out + "/*.png"))]
for folder in folders:
    how = {"trust_remote_code": True} if glob.glob(folder + "/*.py") else {}
    model = AutoModel.from_pretrained(folder, **how).eval()
    processor = AutoProcessor.from_pretrained(folder, **(how or {"backend": "pil"}))
    batch = processor(images=pictures, text=words, padding="max_length" if "siglip" in folder else True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        found = model(**batch)
    torch.save({"images": found.image_embeds, "texts": found.text_embeds, "logits": found.logits_per_image}, folder + "/../found.pt")
assert not any(name.startswith("miniclip_helpers") for name in sys.modules)
"""


def save_siglip(folder):
    """A small random SigLIP in the hub's format; its words are numbered, as SigLIP's own tokenizer needs a file that no package ships."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipImageProcessor, SiglipModel

    folder.mkdir(parents=True)
    words = ["</s>", "<unk>", *sorted({word for text in [*WORDS, "bar and very green blue"] for word in text.split()})]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>", unk_token="<unk>", model_input_names=["input_ids"]).save_pretrained(folder)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = SiglipConfig(text_config=size | ids | {"vocab_size": len(words), "max_position_embeddings": 16, "projection_size": 32},
                          vision_config=size | {"image_size": 64, "patch_size": 16})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        SiglipModel(config).save_pretrained(folder)
    SiglipImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def trained_like(mode, tower):
    """A model with the parts of `miniclip train`, untrained: several views, blocks, hubs, and a text tower whose weights no wheel holds."""
    generator = torch.Generator().manual_seed(1)
    image, text = load_encoder(tower, mode=mode), load_encoder("minilm")
    inside = {"kind": "blocks", "options": {"widths": list(image.block_widths), "dim": 32}}
    heads = [build_head("hubs", {"head": inside, "dim": 32, "side": "image", "rows": 5}),
             build_head("hubs", {"head": {"kind": "linear", "options": {"width": 384, "dim": 32}}, "dim": 32, "side": "text", "rows": 3})]
    with torch.no_grad():
        for head in heads:
            for value in (*head.parameters(), *head.buffers()):
                value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
        text.unlock().net.encoder.layer[0].output.dense.bias.add_(0.05)
    return TwoTowers(image, text, *heads, name="like a run").eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """{name: (the model that was exported, the folder, what a stranger's process finds there)}: mini, two runs of several views, a CLIP fine-tuned in three ways, a SigLIP."""
    work = tmp_path_factory.mktemp("exported")
    sources = {"mini": "mini"} | {name: work / name / "run" for name in ("trio", "apart", "clip", "lora", "lp-ft", "siglip")}
    for name, tower, mode in (("trio", "efficientnet-lite-trio", "both"), ("apart", "efficientnet-lite0", "apart")):
        sources[name].mkdir(parents=True)
        save_model(trained_like(mode, tower), sources[name], {"training": {"data": str(work / "mine")}})
    start = save_hub_clip(work / "start")
    for name, begin, method in (("clip", start, "heads"), ("lora", start, "lora"), ("lp-ft", start, "lp-ft"), ("siglip", save_siglip(work / "siglip" / "start"), "full")):
        finetuning.fine_tune_run(begin, bars(), sources[name], method, epochs=2, batch_size=6, val_size=0, learning_rate=1e-3)
    for name, source in sources.items():
        assert call("export", source, "--to", work / name / "hub") == 0
    for number, image in enumerate(PICTURES):
        image.save(work / f"{number}.png")
    folders = ",".join(str(work / name / "hub") for name in sources)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_MODULES_CACHE": str(work / "modules"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", STRANGER, str(work), folders, *WORDS], cwd=work, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return {name: (opened(load_model(source)), work / name / "hub", torch.load(work / name / "found.pt", weights_only=True)) for name, source in sources.items()}


@pytest.mark.parametrize("name", ["mini", "trio", "apart", "clip", "lora", "lp-ft", "siglip"])
def test_transformers_alone_finds_the_same_vectors(exported, name):
    model, folder, found = exported[name]
    images, texts = model.encode_image(PICTURES), model.encode_text(WORDS)
    bias = model.whole.logit_bias if name == "siglip" else 0
    torch.testing.assert_close(found["images"], images, atol=1e-5, rtol=0)
    torch.testing.assert_close(found["texts"], texts, atol=1e-5, rtol=0)
    torch.testing.assert_close(found["logits"], (model.logit_scale * images @ texts.T + bias).detach(), atol=1e-3, rtol=0)
    assert (images[0] - images[1]).norm() > 0.05 and (texts[0] - texts[1]).norm() > 0.05, "all vectors alike would prove nothing"
    files = {file.name for file in folder.iterdir()}
    assert files <= export.WRITTEN and {"README.md", "config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"} <= files


def test_a_card_says_how_and_from_what(exported):
    cards = {name: (folder / "README.md").read_text(encoding="utf8") for name, (_, folder, _) in exported.items()}
    for name in ("mini", "trio", "apart"):
        assert "Not one of transformers' own models" in cards[name] and "trust_remote_code=True" in cards[name] and "timm" in cards[name]
    assert "trust_remote_code" not in cards["clip"] and 'backend="pil"' in cards["clip"] and "softmax" in cards["clip"] and "padding=True" in cards["clip"]
    assert 'padding="max_length"' in cards["siglip"] and "sigmoid" in cards["siglip"]
    assert all("pipeline_tag: zero-shot-image-classification" in card for card in cards.values())


def test_an_export_tells_no_stranger_where_things_lie(exported):
    config = json.loads((exported["trio"][1] / "config.json").read_text(encoding="utf8"))
    assert config["miniclip"] == {"training": {"data": "mine"}}
    for name, (_, folder, _) in exported.items():
        texts = [(folder / file).read_text(encoding="utf8") for file in ("README.md", "config.json", "tokenizer_config.json", "preprocessor_config.json")]
        assert not any(str(folder.parent.parent) in text for text in texts), name
    assert "began as `start`" in (exported["lora"][1] / "README.md").read_text(encoding="utf8")


@pytest.mark.parametrize("told, kept", [
    ("../bob/clients/run", "run"), ("./x", "x"), ("~/x", "x"), ("/users/bob/x/", "x"), ("C:\\bob\\x", "x"), ("C:/x", "x"), ("clients/bob/x", "x"), ("clients/here", "here"),
    ("..", "a folder"), ("~", "a folder"), ("openai/clip-vit-base-patch32", "openai/clip-vit-base-patch32"), ("clip:ViT-B/32", "clip:ViT-B/32"),
    ("mini", "mini"), ("miniclip train-mini", "miniclip train-mini"), ("", "")])
def test_places_are_told_by_their_last_name_alone(tmp_path, monkeypatch, told, kept):
    (tmp_path / "clients" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert export._without_places({"fine_tuning": {"model": told, "data": [told]}}) == {"fine_tuning": {"model": kept, "data": [kept]}}


def test_a_relative_place_is_in_no_file_of_an_export(tmp_path, monkeypatch):
    config = save_hub_clip(tmp_path / "my_clients" / "run") / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"miniclip": {"fine_tuning": {"model": "../bob/my_clients/first"}}}))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    finetuning.export_model("../my_clients/run", "out")
    assert not [file.name for file in (tmp_path / "here" / "out").iterdir() if b"my_clients" in file.read_bytes()]
    assert "began as `first`" in (tmp_path / "here" / "out" / "README.md").read_text(encoding="utf8")


def test_a_card_names_the_owner_of_a_model_of_the_hub(tmp_path, monkeypatch):
    """It is whose licence holds."""
    model = opened(load_model(save_hub_clip(tmp_path / "clip")))
    monkeypatch.setattr(export, "load_model", lambda source: model)
    finetuning.export_model("openai/clip-vit-base-patch32", tmp_path / "hub")
    assert "began as `openai/clip-vit-base-patch32`" in (tmp_path / "hub" / "README.md").read_text(encoding="utf8")


def test_each_export_brings_its_licences(exported):
    """mini's heads were fitted on pictures under the GPL, among others; towers out of wheels are under Apache-2.0."""
    found = {name: {file.name for file in folder.glob("LICENSE*")} for name, (_, folder, _) in exported.items()}
    apache, gpl = "LICENSE-Apache-2.0.txt", "LICENSE-GPL-2.0-or-later.txt"
    assert found == {"mini": {apache, gpl}, "trio": {apache}, "apart": {apache}, "clip": set(), "lora": set(), "lp-ft": set(), "siglip": set()}
    card = (exported["mini"][1] / "README.md").read_text(encoding="utf8")
    other = (exported["trio"][1] / "README.md").read_text(encoding="utf8")
    assert "license_name: gpl-2.0-or-later" in card and "GPL" not in other
    assert "the data and the command `miniclip train-mini`, is in the package miniclip-helpers" in card and "train-mini" not in other
    assert all("SPDX-License-Identifier: MIT" in (exported["trio"][1] / file).read_text() for file in (*export.CODE, "parts_miniclip.py"))
    for file in ("README.md", "MODEL_CARD.md"):
        lines = (ROOT / "data" / file).read_text(encoding="utf8").splitlines()
        assert any("`mini/`" in line and "GPL-2.0-or-later" in line for line in lines), file


def test_heads_of_mini_are_known_beside_others():
    """What train and fine-tune write holds them inside other heads."""
    mini, own = load_model("mini"), build_head("linear", {"width": 8, "dim": 4})
    mixed = locked.beside(mini.image_head, own, [(0, mini.image_tower.width), (0, 8)], 0.5)
    assert export.holds_mini(types.SimpleNamespace(image_head=mixed)) and not export.holds_mini(types.SimpleNamespace(image_head=own))


def test_a_fine_tuned_clip_needs_no_code_and_comes_back(exported):
    model, folder, _ = exported["clip"]
    assert not list(folder.glob("*.py")) and finetuning.about_run(folder)["method"] == "heads"
    torch.testing.assert_close(load_model(folder).encode_text(WORDS), model.encode_text(WORDS))


def test_code_out_of_a_folder_is_never_run_here(exported):
    """`load_model` reads an export of mini no further than its code, and says what to do."""
    with pytest.raises(ModelError, match="miniclip export"):
        load_model(exported["mini"][1])


def test_what_has_no_form_on_the_hub_is_told_and_leaves_nothing(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    save_model(small_model(), tmp_path / "run")
    assert call("export", tmp_path / "run", "--to", tmp_path / "hub") == 2
    said = capsys.readouterr().err
    assert "image tower is small-cnn" in said and "minilm" in said and "Traceback" not in said and not (tmp_path / "hub").exists()
    for name, words in (("clip:ViT-B/32", "openai/clip-vit-base-patch32"), ("open_clip:RN50/yfcc15m", "not exported")):
        with pytest.raises(UsageError, match=words):
            finetuning.export_model(name, tmp_path / "hub")
    with pytest.raises(ModelError, match=r"no config\.json|does not exist"):
        finetuning.export_model(tmp_path / "nothing", tmp_path / "hub")
    (tmp_path / "started").mkdir()
    (tmp_path / "started" / "checkpoint.pt").write_bytes(b"half a run")
    with pytest.raises(ModelError, match=r"config\.json"):
        finetuning.export_model(tmp_path / "started", tmp_path / "hub")
    build_index(torch.eye(4), list("abcd"), about={"model": "small"}).save(tmp_path / "index")
    with pytest.raises(ModelError, match=r"config\.json"):
        finetuning.export_model(tmp_path / "index", tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


def test_other_folders_are_left_as_they_are(tmp_path):
    save_hub_clip(tmp_path / "clip")
    before = {file.name: file.read_bytes() for file in (tmp_path / "clip").iterdir()}
    with pytest.raises(UsageError, match="the model itself"):
        finetuning.export_model(tmp_path / "clip", tmp_path / "clip")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match=r"thesis\.txt"):
        finetuning.export_model(tmp_path / "clip", tmp_path / "other")
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "clip").iterdir()} and (tmp_path / "other" / "thesis.txt").read_text() == "years of work"


def test_a_model_that_export_did_not_write_is_left_as_it_is(tmp_path, capsys):
    """Others' models have files of the same names, and a card of their own."""
    clip, mine = save_hub_clip(tmp_path / "clip"), save_hub_clip(tmp_path / "mine", seed=1)
    shutil.copytree(ROOT / "data" / "mini", tmp_path / "mini")
    for folder in (tmp_path / "mini", mine):
        for card in (None, "# Mine\nTo be given to miniclip export."):
            if card:
                (folder / "README.md").write_text(card)
            before = {file.name: file.read_bytes() for file in folder.iterdir()}
            assert call("export", clip, "--to", folder) == 2
            assert "miniclip export did not write; it is left as it is: name a new folder" in capsys.readouterr().err
            assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    (tmp_path / "empty").mkdir()
    assert call("export", clip, "--to", tmp_path / "empty") == 0


def test_a_full_disk_is_told_and_leaves_what_was_there(tmp_path, monkeypatch, capsys):
    save_hub_clip(tmp_path / "clip")
    finetuning.export_model(tmp_path / "clip", tmp_path / "hub")
    before = {file.name: file.read_bytes() for file in (tmp_path / "hub").iterdir()}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "card", full)
    for folder in ("hub", "new"):
        assert call("export", tmp_path / "clip", "--to", tmp_path / folder) == 1
        assert "No space left" in (said := capsys.readouterr().err) and "Traceback" not in said
    assert {file.name: file.read_bytes() for file in (tmp_path / "hub").iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip", "hub"], "nothing half written stays"


def test_what_cannot_be_written_and_what_cannot_be_read_are_told_apart(tmp_path, monkeypatch, capsys):
    from transformers import AutoTokenizer, CLIPModel

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    clip = save_hub_clip(tmp_path / "clip")
    model = opened(load_model(clip))
    for kind, library, name, words, others in ((runtime.Unwritten, CLIPModel, "save_pretrained", r"hub' cannot be written .No space left on device.; free some space", "taken along"),
                                               (ModelError, AutoTokenizer, "from_pretrained", "tokenizer and the preprocessing", "free some space")):
        with monkeypatch.context() as broken:
            broken.setattr(export, "load_model", lambda source: model)  # noqa: B023
            broken.setattr(library, name, full)
            with pytest.raises(kind, match=words) as told:
                finetuning.export_model(clip, tmp_path / "hub")
        assert others not in str(told.value)
    shutil.copytree(ROOT / "data" / "hub", tmp_path / "data" / "hub")
    mini = load_model("mini")
    monkeypatch.setattr(export, "load_model", lambda source: mini)
    monkeypatch.setattr(runtime, "data_dir", lambda: tmp_path / "data")
    assert call("export", "mini", "--to", tmp_path / "hub") == 1
    said = capsys.readouterr().err
    assert "LICENSES" in said and "install miniclip-helpers again" in said and "free some space" not in said and not (tmp_path / "hub").exists()


def test_an_export_over_an_earlier_one_is_whole(tmp_path):
    for seed in (0, 1):
        shutil.rmtree(tmp_path / "clip", ignore_errors=True)
        save_hub_clip(tmp_path / "clip", seed=seed)
        finetuning.export_model(tmp_path / "clip", tmp_path / "hub")
    torch.testing.assert_close(load_model(tmp_path / "hub").encode_text(WORDS[:3]), load_model(tmp_path / "clip").encode_text(WORDS[:3]))


def test_the_code_that_goes_along_is_that_of_the_package(tmp_path):
    """The parts stand by themselves, and are the heads and the preprocessing of this package, not copies that fell behind."""
    (tmp_path / "parts_miniclip.py").write_text(export.parts_source())
    assert "miniclip_helpers" not in export.parts_source() and "from ." not in export.parts_source()
    spec = importlib.util.spec_from_file_location("parts_miniclip", tmp_path / "parts_miniclip.py")
    parts = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(parts)
    from miniclip_helpers import images, model

    assert parts.HEADS.keys() == model.HEADS.keys()
    frame = {"size": 32, "mode": "crop", "crop": 1.0}
    assert torch.equal(parts.Preprocess(**frame).batch([picture(3)]), images.Preprocess(**frame).batch([picture(3)]))
    with pytest.raises(ValueError, match="unknown head"):
        parts.build_head("hat", {})
