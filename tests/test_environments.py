"""Other machines than this one: a card that is not here, no fonts, no home, no rights, odd paths and locales, Colab, other Pythons and libraries."""

import ast
import inspect
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, picture
from environments import COLAB, Elsewhere, MixedDevices, bare, miniclip, powerless, setup_command, unwritable
from PIL import Image

from miniclip_helpers import images, losses, runtime
from miniclip_helpers.encoders import IMAGE_ENCODERS, load_encoder
from miniclip_helpers.encoders.base import to_device
from miniclip_helpers.errors import MiniclipError, UsageError
from miniclip_helpers.model import TwoTowers
from miniclip_helpers.model.heads import HEADS, build_head
from miniclip_helpers.training import Machine, PairBatches, TrainConfig, build_optimizer, train_step
from miniclip_helpers.training.gradient_cache import _Dice

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))
WORDS = ["a", "red", "ball", "dogs"]
HEAD_OPTIONS = {
    "identity": {}, "linear": {"width": 8, "dim": 8}, "mlp": {"width": 8, "dim": 8}, "blocks": {"widths": [4, 4], "dim": 8}, "conse": {"classes": 8, "dim": 8},
    "concat": {"parts": [{"kind": "linear", "options": {"width": 5, "dim": 4}, "columns": [3, 8], "share": 1.0}]},
    "hubs": {"head": {"kind": "linear", "options": {"width": 8, "dim": 8}}, "dim": 8, "side": "image", "rows": 6},
}


# a card


def test_the_stand_in_for_a_card_refuses_what_a_card_refuses():
    there, here = torch.randn(4, 3, device="meta", requires_grad=True), torch.randn(4, 3)
    with Elsewhere():
        for mixed in (lambda: there + here, lambda: torch.cat([there, here]), lambda: torch.nn.functional.cross_entropy(there, torch.zeros(4, dtype=torch.long)),
                      lambda: there[torch.tensor([0, 1])], lambda: torch.where(torch.ones(4, 3, dtype=torch.bool), there, 0.0)):
            with pytest.raises(MixedDevices):
                mixed()
        (there * torch.tensor(2.0) + here.to("meta")).sum().backward()
    assert there.grad.device.type == "meta"


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_a_loss_stays_where_its_embeddings_are(name):
    loss, given = losses.LOSSES[name], {"logit_scale": torch.tensor(9.0, device="meta", requires_grad=True), "groups": np.arange(6) // 2, "logit_bias": -10.0, "chunk_size": 4}
    options = {key: value for key, value in given.items() if key in inspect.signature(loss).parameters}
    rows = [torch.randn(6, 8, device="meta", requires_grad=True) for _ in range(2)]
    with Elsewhere():
        found = loss(*rows, **options)
        found.backward()
    assert found.device.type == "meta" and all(row.grad.device.type == "meta" for row in rows)


@pytest.mark.parametrize("kind", sorted(HEADS))
def test_a_head_stays_where_its_features_are(kind):
    head = build_head(kind, HEAD_OPTIONS[kind]).to("meta")
    features = torch.randn(5, 8, device="meta", requires_grad=True)
    with Elsewhere():
        head(features).sum().backward()
    assert features.grad is not None


TOWERS = [("small-cnn", {"size": 16}), ("resnet18", {"pretrained": False}), ("vit", {"pretrained": False}), ("transformer", {"vocabulary": WORDS}),
          ("transformer", {"vocabulary": WORDS, "pooling": "mean"}), ("gpt2", {"pretrained": False, "vocabulary": WORDS, "pooling": "last-token"}), ("bag-of-words", {"vocabulary": WORDS}), ("minilm", {})]


@pytest.mark.parametrize("name,options", TOWERS, ids=[f"{name}-{options.get('pooling', '')}".rstrip("-") for name, options in TOWERS])
def test_a_tower_runs_where_its_weights_are(name, options):
    """Prepared on the CPU, as always, and moved by `run`; what forward makes by itself must follow. (An LSTM needs the lengths themselves, which meta has not.)"""
    tower = load_encoder(name, **options)
    batch = tower.prepare([picture(1), picture(2)] if name in IMAGE_ENCODERS else ["a red ball", "dogs"])
    getattr(tower, "net", None)  # one that reads its weights when first used reads them now
    tower.to("meta")
    with Elsewhere():
        assert tower.eval()(to_device(batch, "meta")).device.type == "meta"


def small_batch(device):
    things = torch.randn(6, 3, 16, 16, device=device), torch.randint(1, 5, (6, 3), device=device)
    return *things, torch.arange(6, device=device)


def small_model():
    image, text = load_encoder("small-cnn", channels=4, size=16), load_encoder("bag-of-words", vocabulary=WORDS, width=12)
    return TwoTowers(image, text, build_head("linear", {"width": image.width, "dim": 6}), build_head("linear", {"width": 12, "dim": 6})).to("meta")


@pytest.mark.parametrize("chunk", [0, 4])
@pytest.mark.parametrize("loss", ["clip", "chunked-clip", "siglip", "multi-positive"])
def test_a_step_stays_where_the_model_is(loss, chunk):
    """Forward, the gradient cache, backward, clipping, AdamW and the clamp of the temperature."""
    if chunk and loss != "clip":
        loss = "chunked-clip" if loss == "chunked-clip" else "clip"
    model, machine = small_model(), Machine("cpu", chunk=chunk)
    for part in model.modules():
        part.training = not isinstance(part, torch.nn.modules.batchnorm._BatchNorm) or not chunk
    with Elsewhere():
        config = TrainConfig(batch_size=6, loss=loss)
        train_step(model, small_batch("meta"), build_optimizer(model, config), config, machine)
    assert {weight.device.type for weight in model.parameters()} == {"meta"} and all(weight.grad is not None for name, weight in model.named_parameters() if "scale" not in name)


def test_pictures_are_changed_where_they_are():
    with Elsewhere():
        out = images.augment(torch.zeros(3, 3, 16, 16, dtype=torch.uint8, device="meta"), runtime.generator(0), hue=0.1, wobble=0.1)
    assert out.device.type == "meta"


@pytest.mark.parametrize("cuda,mps,expected", [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_the_device_is_the_best_there_is(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert runtime.device().type == expected and runtime.device("cpu").type == "cpu"
    assert Machine().type == ("cuda" if cuda else "cpu") and Machine("cpu").type == "cpu"
    if cuda:
        assert Machine("cuda").type == "cuda" and not Machine("cuda").plain
    else:
        with pytest.raises(UsageError, match="no CUDA card"):
            Machine("cuda")


def test_batches_go_to_a_card_pinned_and_one_ahead(monkeypatch):
    """The boundary mocked: a CPU-only torch can pin nothing."""
    pinned = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tuple(tensor.shape)) or tensor)
    machine = Machine("cuda")
    machine.accelerator = type("Accelerator", (), {"device": torch.device("meta")})()
    batches = PairBatches(torch.zeros(6, 3, 4, 4), torch.ones(6, 5, dtype=torch.long), range(6), 3)
    made = list(machine.epoch(batches, runtime.generator(0)))
    assert len(made) == 2 and {side.device.type for images_, texts, groups in made for side in (images_, texts, groups)} == {"meta"}
    assert pinned.count((3, 3, 4, 4)) == 2 and pinned.count((3, 5)) == 2


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_a_cards_dice_are_thrown_again(monkeypatch, device):
    """Dropout draws on the card: the gradient cache must put back the card's state and not only the CPU's."""
    device, asked = torch.device(device), []
    module = torch.get_device_module(device)
    monkeypatch.setattr(module, "get_rng_state", lambda *which: asked.append(("get", *which)) or "a state")
    monkeypatch.setattr(module, "set_rng_state", lambda state, *which: asked.append(("set", state, *which)))
    dice = _Dice(device)
    before = torch.rand(3)
    dice.restore()
    which = () if device.type == "mps" else (device,)
    assert asked == [("get", *which), ("set", "a state", *which)] and torch.equal(before, torch.rand(3))


CARDS = {"runtime", "training/machine.py", "training/gradient_cache.py"}  # where a kind of device may be named


def test_no_code_sends_anything_to_a_named_card():
    """`.cuda()`, `.mps()`, `.to("cuda")`, `device="cuda"`: what runs must ask `runtime.device` or follow its input."""
    found = []
    for file in sorted((ROOT / "miniclip_helpers").rglob("*.py")):
        place = file.relative_to(ROOT / "miniclip_helpers").as_posix()
        if place in CARDS or place.split("/")[0] in CARDS or place.split(".")[0] in CARDS:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf8"))):
            call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            values = [*node.args, *(word.value for word in node.keywords)] if call else []
            named = any(isinstance(value, ast.Constant) and str(value.value).split(":")[0] in ("cuda", "mps") for value in values)
            if call and (node.func.attr in ("cuda", "mps", "xpu") or named and node.func.attr in ("to", "device", "empty", "zeros", "ones", "tensor", "arange", "full", "eye")):
                found.append(f"{place}:{node.lineno}")
    assert not found


# no fonts, no home, no rights, odd names


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A folder whose name holds a space, accents and other letters, and is long."""
    folder = tmp_path_factory.mktemp("Mes élèves 日本") / ("deep" * 15) / ("deeper" * 10) / "n°7 'quoted' $HOME"
    folder.mkdir(parents=True)
    assert len(str(folder)) > 130
    return folder


def answers(done, code=0):
    """What a command printed; nothing ugly, and the exit code as expected."""
    said, told = done.stdout.decode("utf8"), done.stderr.decode("utf8", "replace")
    assert done.returncode == code, told[-2000:]
    assert "Traceback" not in told + said and "Exception ignored" not in told, told[-2000:]
    return said, told


def test_everything_at_once(odd):
    """Read-only home, no fonts, the locale C, 20 columns, an odd zone, a closed umask, standard input closed, a long odd path: photos are indexed, searched and drawn."""
    photos = odd / "photos"
    photos.mkdir()
    names = ("été.png", "日本 1.png", "plain.png", "Screenshot 2026-01-01 at 9.41.00\u202fAM.png", "\U0001f468\u200d\U0001f469.png", "full\u3000width.png")
    for seed, name in enumerate(names):
        picture(seed).save(photos / name)
    with unwritable(odd / "home") as home:
        harm = {"HOME": home, "LC_ALL": "C", "COLUMNS": 20, "TZ": "Pacific/Chatham", "FONTCONFIG_PATH": "/nonexistent", "FONTCONFIG_FILE": "/nonexistent/fonts.conf"}
        before = [*powerless(), "sh", "-c", 'umask 077; exec "$@" <&-', "sh"]
        _, told = answers(miniclip("index", photos, "--out", odd / "my photos.index", before=before, cwd=odd, **harm))
        assert "MINICLIP_CACHE" in told  # and goes on without
        said, told = answers(miniclip("search", "my photos.index", "café 日本", "-k", 6, "--figure", odd / "the answer.png", before=before, cwd=odd, **harm))
        assert not list(home.iterdir())
        told = b"" if os.name == "nt" else miniclip("search", "my photos.index", "red", cwd=odd, before=powerless(), HOME=home, MINICLIP_CACHE=home / "named").stderr
        assert b"MINICLIP_CACHE" in told and b"Traceback" not in told
    assert all(name in said for name in names), said
    with Image.open(odd / "the answer.png") as drawn:
        assert drawn.size[0] > 400 and len(set(drawn.convert("L").resize((40, 40)).tobytes())) > 5


def test_names_that_an_ascii_python_cannot_read_are_told(tmp_path):
    """Only where the way out of Python's own is closed, too: PYTHONUTF8=0 in the locale C."""
    picture(1).save(tmp_path / "été.png")
    harm = {"LC_ALL": "C", "PYTHONUTF8": 0, "PYTHONCOERCECLOCALE": 0, "HOME": tmp_path}
    _, told = answers(miniclip("index", tmp_path, "--out", tmp_path.parent / "never.index", **harm), 1)
    assert "PYTHONUTF8=1" in told and not (tmp_path.parent / "never.index").exists()


def test_a_home_that_cannot_be_written_is_said_with_what_to_try(tmp_path):
    """Words and no traceback; what can be done without the cache is done."""
    with unwritable(tmp_path / "home") as home:
        code = ("from miniclip_helpers import runtime; from miniclip_helpers.series import doctor; import json;"
                "print(json.dumps([doctor._cache(), doctor._disk(), doctor._data()]))")
        done = subprocess.run([*powerless(), sys.executable, "-c", code], env=bare(HOME=home, PYTHONPATH=ROOT), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    cache, disk, data = __import__("json").loads(done.stdout)
    assert not cache["ok"] and "MINICLIP_CACHE" in cache["try"] and "cannot be written" in cache["found"]
    assert disk["ok"] and data["ok"]


def test_no_home_at_all(monkeypatch):
    """A user whom no list knows, as in a container that is started with a number: Python finds no home."""
    for name in ("HOME", "USERPROFILE", "XDG_CACHE_HOME", "MINICLIP_CACHE", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)

    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(pathlib.Path, "home", nowhere)
    with pytest.raises(MiniclipError, match="MINICLIP_CACHE"):
        runtime.cache_dir()


@pytest.mark.skipif(os.name == "nt", reason="closes descriptors as a POSIX shell does")
def test_ends_of_pipes():
    """Standard output that is closed, or a pipe that nobody reads any more; standard error closed; no input; a terminal of 20 columns."""
    run = f'"{sys.executable}" -m miniclip_helpers.cli'
    lines = [f"{run} --help | head -1", f"{run} --version >&-", f"{run} --help >&-", f"{run} --help 2>&- <&-", f"COLUMNS=20 {run} train --help | head -c 1", f"{run} search nothing.index x >&-",
             f"{run} search --help | true"]
    for line in lines:
        done = subprocess.run(["sh", "-c", line], env=bare(PYTHONPATH=ROOT, LC_ALL="C"), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
        assert "Traceback" not in done.stderr and "Exception" not in done.stderr and "Error" not in done.stderr, (line, done.stderr)
        assert done.returncode == (1 if "nothing.index" in line else 0), (line, done.stderr)
        if "nothing.index" in line:
            assert "nothing.index" in done.stderr


@pytest.mark.skipif(not shutil.which("make"), reason="make is not on this machine")
def test_make_in_an_odd_folder_with_uv_in_another(odd):
    """What make would do, and what it does: a uv of ours that writes down how it was called."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, odd / name)
    for name in ("data", "docs", "miniclip_helpers", "tests"):
        (odd / name).mkdir()
    tools = odd / "my tools"
    tools.mkdir()
    log = odd / "log.txt"
    (tools / "uv").write_text('#!/bin/sh\nprintf "%s|" "$UV_PROJECT_ENVIRONMENT" "$@" >> "$LOG"; echo >> "$LOG"\n[ "$1" = venv ] && mkdir -p .venv-oldest; [ "$1" = sync ] && mkdir -p .venv; true\n')
    (tools / "uv").chmod(0o755)
    environment = bare(PATH=f"{tools}{os.pathsep}{os.environ['PATH']}", LOG=log, LC_ALL="C", PYTHON="3.13", ARGS="-k 'two words'")
    for target in ("run", "test", "lab", "figures", "site", "bench", "test-oldest", "test-python", "clean"):
        done = subprocess.run(["make", target], cwd=odd, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, (target, done.stderr)
    said = log.read_text(encoding="utf8")
    assert "|sync|--quiet|\n" in said and ".venv-oldest|run|--quiet|--no-sync|pytest|tests|" in said and ".venv-python|sync|--quiet|--python|3.13|" in said
    assert "|-k|two words|" in said and "|--resolution|lowest-direct|" in said and "|venv|--quiet|--clear|.venv-oldest|" in said
    assert (odd / ".venv" / ".ready").exists() and (odd / ".venv-oldest" / ".ready").exists()


def test_without_a_browser_its_tests_are_skipped_and_say_why(monkeypatch, tmp_path):
    from browser import driving

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("MINICLIP_BROWSER", raising=False)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    path, missing = driving.executable()
    assert path is None and "MINICLIP_BROWSER" in missing


# Colab


def test_the_setup_cell_keeps_what_is_there(tmp_path):
    """The cell's own command, where pip is one of ours: what it holds on to, and what it asks for."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "listed").write_text("numpy-financial==1.0\n" + COLAB + "torchaudio==2.9.0+cu126\ntorchsummary==1.5.1\n")
    (tools / "pip").write_text(f'#!/bin/sh\nif [ "$1" = list ]; then cat "{tools}/listed"; else printf "%s\\n" "$@" > "{tools}/asked"; fi\n')
    (tools / "pip").chmod(0o755)
    subprocess.run(["sh", "-c", setup_command()], cwd=tmp_path, env=bare(PATH=f"{tools}{os.pathsep}{os.environ['PATH']}"), check=True, timeout=60)
    assert (tmp_path / "keep.txt").read_text().splitlines() == ["torch==2.9.0", "torchvision==0.24.0", "numpy==2.0.2"]
    repository = PROJECT["project"]["urls"]["Repository"]
    assert (tools / "asked").read_text().splitlines() == ["install", "-q", "-c", "keep.txt", f"git+{repository}"]


# other Pythons, other libraries


def test_the_pythons_that_are_promised_are_tested():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf8"))["jobs"]
    first, after = (int(minor) for minor in re.match(r">=3\.(\d+),<3\.(\d+)$", PROJECT["project"]["requires-python"]).groups())
    assert workflow["test"]["strategy"]["matrix"]["python"] == [f"3.{minor}" for minor in range(first, after)]
    assert [step["run"] for step in workflow["oldest"]["steps"] if "run" in step] == ["make test-oldest"] and workflow["oldest"]["env"]["UV_PYTHON"] == f"3.{first}"
    assert all(job["timeout-minutes"] <= 60 for job in workflow.values())


def test_every_dependency_has_an_oldest_version():
    """Else `make test-oldest` would try the first that was ever published."""
    for text in PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"]:
        assert re.search(r"[>=]=\d", text.split(";")[0]), text


def test_no_code_uses_what_a_later_python_drops_or_a_earlier_one_lacks():
    """Compiled for the oldest grammar, and without the calls that 3.12 and 3.13 warn of."""
    later = re.compile(r"\.utcnow\(|\.utcfromtimestamp\(|\bimport (?:imp|cgi|pipes|telnetlib|distutils|asyncore)\b|find_module\(|\.getchildren\(|ast\.(?:Str|Num|NameConstant)\b|itertools\.batched|"
                       r"pathlib\.UnsupportedOperation|copy\.replace\(")
    files = [*(ROOT / "miniclip_helpers").rglob("*.py"), *(ROOT / "docs").rglob("*.py")]
    assert len(files) > 150
    for file in files:
        text = file.read_text(encoding="utf8")
        ast.parse(text, filename=str(file), feature_version=(3, 11))
        assert not later.search(text), (file, later.search(text)[0])
