"""No pickle of a user's file is ever loaded and no code of a model's folder run, whatever door they come to; weights are tensors that fit, or refused."""

import ast
import json
import pickle
import sqlite3

import numpy as np
import pytest
import torch
from conftest import ROOT, picture
from hostile import Payload, data_files, hub_folders, memory_below, torch_files
from standin import save_hub_clip

from miniclip_helpers import cli, datasets, embedding, images, index, pretrained, runtime
from miniclip_helpers.encoders import read_tensors
from miniclip_helpers.errors import DataError, MiniclipError, ModelError
from miniclip_helpers.index import saving

pytestmark = pytest.mark.usefixtures("never_hang")  # serve and app would go on for ever


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return save_hub_clip(tmp_path_factory.mktemp("good") / "clip", width=32, image_size=32)


@pytest.fixture
def mark(tmp_path):
    """A place where nothing may appear."""
    yield tmp_path / "mark"
    assert not (tmp_path / "mark").exists(), "what a file brought was run"


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    file = tmp_path_factory.mktemp("photo") / "a.png"
    picture(1).save(file)
    return file.read_bytes()


def test_the_payload_works(tmp_path):
    """Else the rest would prove nothing."""
    pickle.loads(pickle.dumps(Payload(tmp_path / "mark")))  # noqa: S301  the one that is meant to run
    assert (tmp_path / "mark").is_dir()


def test_no_file_of_weights_is_run(tmp_path, mark):
    (tmp_path / "w").mkdir()
    files = torch_files(tmp_path / "w", mark)
    assert len(files) > 18
    for file in files:
        for name in (f"clip:{file}", f"open_clip:ViT-B-32/{file}", str(file)):
            with pytest.raises(MiniclipError):
                pretrained.load_model(name)
        with pytest.raises(ModelError):
            read_tensors(file)


def test_no_code_of_a_models_folder_is_run(tmp_path, mark, good, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *words: pytest.fail("a question was asked whether to run the code"))
    (tmp_path / "hub").mkdir()
    for name, folder in hub_folders(good, tmp_path / "hub", mark).items():
        try:
            pretrained.load_model(folder)
        except ModelError:
            continue
        assert name == "architecture", f"{name} was loaded"  # a CLIP by its type: transformers' own class is taken, and the code beside it is not


def test_no_code_of_an_open_clip_folder_is_run(tmp_path, mark, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *words: pytest.fail("a question was asked whether to run the code"))
    config = {"model_cfg": {"embed_dim": 8, "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
                            "text_cfg": {"context_length": 7, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1, "hf_tokenizer_name": "here", "tokenizer_kwargs": {"trust_remote_code": True}}},
              "preprocess_cfg": {}}
    (tmp_path / "evil.py").write_text(f"import os\nos.mkdir({str(mark)!r})\nclass Evil: pass\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}))
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    import open_clip

    net = open_clip.CLIP(**open_clip.factory.get_model_config("ViT-B-32") | config["model_cfg"] | {"text_cfg": {k: v for k, v in config["model_cfg"]["text_cfg"].items() if "tokenizer" not in k}})
    torch.save(net.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    with pytest.raises(ModelError, match="asks for code"):
        pretrained.load_model(f"open_clip:{tmp_path}")
    del config["model_cfg"]["text_cfg"]["tokenizer_kwargs"]  # and where it does not ask for it: transformers alone would ask whoever sits there
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError):
        pretrained.load_model(f"open_clip:{tmp_path}")
    torch.save({"a": Payload(mark)}, tmp_path / "open_clip_pytorch_model.bin")
    with pytest.raises(ModelError, match="no plain file of tensors"):
        pretrained.load_model(f"open_clip:{tmp_path}")


def test_no_data_are_run(tmp_path, mark, photo):
    (tmp_path / "d").mkdir()
    for place in data_files(tmp_path / "d", mark, photo):
        for way in (datasets.load_dataset, lambda path: datasets.load_dataset(path, skip_problems=True), images.open_image, embedding.shards.read_about, datasets.read_names,
                    datasets.read_split, datasets.read_captions, index.load_index):
            try:
                way(place)
            except MiniclipError:
                pass
    names = datasets.load_dataset(tmp_path / "d" / "shard.tar").names + datasets.load_dataset(tmp_path / "d" / "table.parquet").names
    assert names == ["a", "000000"]  # what is beside the pickles is read


COMMANDS = ["evaluate --data FILE", "evaluate --model FILE --data photos8", "index FILE --out O", "search FILE words", "search {index} --image FILE", "search {index} --queries FILE",
            "serve FILE", "app FILE --no-browser", "encode --data FILE --out O", "export FILE --to O", "zero-shot --labels-from FILE {photo}", "zero-shot --labels a,b FILE",
            "train --data FILE --out O", "train --data {data} --split FILE --out O", "fine-tune --model FILE --data {data} --method heads --out O", "coursework grade FILE --out O"]


def test_no_command_runs_a_file(tmp_path, mark, photo, capsys, monkeypatch):
    """Each command, a pickle at each place where it takes a path: an error of ours, no traceback, nothing run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_bytes(photo)
    index.build_index(np.eye(3, dtype=np.float32), ["a", "b", "c"], "flat", {"model": "mini"}).save(tmp_path / "i")
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"a": Payload(mark)}))
    (tmp_path / "evil.parquet").write_bytes(pickle.dumps({"a": Payload(mark)}))
    for command in COMMANDS:
        for file in ("evil.pt", "evil.parquet"):
            words = command.format(index=tmp_path / "i", photo=tmp_path / "data" / "a.png", data=tmp_path / "data").replace("FILE", str(tmp_path / file)).split()
            assert cli.main(words) in (1, 2), words
            assert capsys.readouterr().err.startswith("miniclip: "), words
            assert not (tmp_path / "O").exists()


def test_a_checkpoint_that_is_a_pickle_is_not_gone_on_with(tmp_path, mark):
    from miniclip_helpers.training import TrainConfig
    from miniclip_helpers.training.loop import load_checkpoint

    for write in (lambda file: torch.save({"config": Payload(mark)}, file), lambda file: file.write_bytes(pickle.dumps(Payload(mark)))):
        write(tmp_path / "checkpoint.pt")
        with pytest.raises(ModelError, match="cannot be read"):
            load_checkpoint(tmp_path / "checkpoint.pt", TrainConfig())


def test_cached_features_that_are_pickles_are_numbers_or_nothing(tmp_path, mark):
    from miniclip_helpers.embedding.cache import FeatureCache

    cache = FeatureCache("tower", 16, tmp_path)
    evil = pickle.dumps(Payload(mark)).ljust(64, b".")
    with sqlite3.connect(cache.path) as base:
        base.execute("INSERT INTO features VALUES ('a', ?), ('b', ?)", (evil[:64], pickle.dumps(Payload(mark))))
    found = cache.get(["a", "b"])
    assert all(value.shape == (16,) and value.dtype == np.float32 for value in found.values()) and "b" not in found
    cache.close()


def test_cifar_is_read_as_texts_and_bytes_alone(tmp_path, mark):
    """NumPy's own way to restore an array trusts the description in the pickle; here one that says objects, and hands over an address, gets nowhere."""
    class Kind:
        def __reduce__(self):
            return np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0)

    class Pixels:
        def __reduce__(self):
            return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), (1, (1, 3072), Kind(), False, b"A" * 8 * 3072)

    (tmp_path / "meta").write_bytes(pickle.dumps({"fine_label_names": ["a"], "coarse_label_names": ["b"]}))
    hostile = {"objects": pickle.dumps({"data": Pixels(), "fine_labels": [0], "coarse_labels": [0]}, protocol=2), "memo": b"\x80\x02}r\xff\xff\xff\x7f.", "long": b"\x80\x04\x8e" + (1 << 46).to_bytes(8, "little") + b".",
               "frame": b"\x80\x04\x95" + (1 << 46).to_bytes(8, "little") + b".", "build": b"\x80\x02c_codecs\nencode\n}U\x01aK\x01sb.", "copyreg": b"\x80\x02\x82\x01.",
               "getattr": b"cbuiltins\ngetattr\n(c_codecs\nencode\nU\x08__self__tR."}
    with memory_below(200):
        for name, data in hostile.items():
            (tmp_path / "test").write_bytes(data)
            with pytest.raises(DataError):  # noqa: PT012
                datasets.load_dataset(tmp_path)
                pytest.fail(name)


def test_memory_is_seen_whatever_was_held_before():
    """What the limits below rest on: a high-water mark of long ago would hide each of them."""
    held = np.ones(60_000_000)
    del held
    with memory_below(100):
        np.ones(1_000_000)
    with pytest.raises(AssertionError, match="MB more"), memory_below(100):
        np.ones(40_000_000)


# --- weights -----------------------------------------------------------------------------------------------------------------------


def safetensors(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
BAD_HEADERS = {
    "empty": b"", "seven bytes": b"\0" * 7, "a header of 100 GB": safetensors({}, length=10**11), "a header of 2^63": safetensors({}, length=2**63), "no json": safetensors(b"{" * 50),
    "nested": safetensors(b"[" * 10**6), "beyond the end": safetensors({"a": ONE}), "negative": safetensors({"a": ONE | {"data_offsets": [-8, 0]}}, b"\0" * 8),
    "backwards": safetensors({"a": ONE | {"data_offsets": [8, 0]}}, b"\0" * 8), "overlapping": safetensors({"a": ONE, "b": ONE | {"data_offsets": [4, 12]}}, b"\0" * 12),
    "a hole": safetensors({"a": ONE | {"data_offsets": [8, 16]}}, b"\0" * 16), "more data": safetensors({"a": ONE}, b"\0" * 9), "another type": safetensors({"a": ONE | {"dtype": "F64"}}, b"\0" * 8),
    "an unknown type": safetensors({"a": ONE | {"dtype": "OBJ"}}, b"\0" * 8), "another shape": safetensors({"a": ONE | {"shape": [3]}}, b"\0" * 8),
    "a terabyte": safetensors({"a": ONE | {"shape": [2**38]}}, b"\0" * 8), "overflowing": safetensors({"a": ONE | {"shape": [2**62, 2**62]}}, b"\0" * 8),
    "twice": safetensors(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', b"\0" * 8),
    "metadata of numbers": safetensors({"__metadata__": {"a": 1}, "a": ONE}, b"\0" * 8), "metadata a list": safetensors({"__metadata__": [1], "a": ONE}, b"\0" * 8),
    "NaN": safetensors({"a": ONE}, np.array([1, np.nan], "<f4").tobytes()), "infinity": safetensors({"a": ONE}, np.array([1, np.inf], "<f4").tobytes()), "no tensors": safetensors({}),
}


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_a_header_that_lies_is_told_and_takes_no_memory(name, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(BAD_HEADERS[name])
    with memory_below(100):
        for way in (read_tensors, lambda file: pretrained.load_model(f"clip:{file}")):
            with pytest.raises(ModelError):
                way(tmp_path / "w.safetensors")


def test_a_good_header_is_read(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(safetensors({"__metadata__": {"format": "pt"}, "a": ONE}, np.array([1, 2], "<f4").tobytes()))
    assert read_tensors(tmp_path / "w.safetensors")["a"].tolist() == [1, 2]


def test_a_tensor_that_claims_more_than_it_holds(tmp_path):
    import zipfile

    torch.save({"a": torch.zeros(1).expand(10**12)}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="a number for each place"):
        read_tensors(tmp_path / "w.pt")
    torch.save({"a": torch.zeros(10**6)}, tmp_path / "whole.pt")
    with zipfile.ZipFile(tmp_path / "whole.pt") as whole, zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for part in whole.infolist():
            packed.writestr(part.filename, whole.read(part))
    with pytest.raises(ModelError, match="packed"):
        read_tensors(tmp_path / "packed.pt")


def change(good, folder, edit):
    """A copy of a good folder whose tensors went through `edit`."""
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(good, folder)
    save_file(edit(load_file(folder / "model.safetensors")), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


KEY = "text_model.encoder.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize("name, edit", [("missing", lambda state: {key: value for key, value in state.items() if key != KEY}), ("more", lambda state: state | {"more": torch.ones(1)}),
                                        ("NaN", lambda state: state | {KEY: state[KEY] * torch.nan}), ("shape", lambda state: state | {KEY: torch.ones(3, 3)})])
def test_tensors_that_do_not_fit_their_config_are_refused(good, tmp_path, name, edit):
    """transformers draws what is missing at random, and says so in a table that nobody reads."""
    with pytest.raises(ModelError):
        pretrained.load_model(change(good, tmp_path / "m", edit))


@pytest.mark.parametrize("file, edit", [
    ("config.json", lambda text: "[" * 10**6), ("config.json", lambda text: text[:-2] + ', "deep": ' + "[" * 10**5), ("tokenizer_config.json", lambda text: "[" * 10**6), ("preprocessor_config.json", lambda text: "[" * 10**6),
    ("config.json", lambda text: text.replace('"hidden_size": 32', '"hidden_size": 400000')), ("config.json", lambda text: json.dumps(json.loads(text) | {"text_config": "x"})),
    ("preprocessor_config.json", lambda text: json.dumps(json.loads(text) | {"size": {"shortest_edge": 10**6}})),
    ("preprocessor_config.json", lambda text: json.dumps(json.loads(text) | {"crop_size": {"height": 10**6, "width": 10**6}})),
    ("model.safetensors.index.json", lambda text: json.dumps({"weight_map": {KEY: "../other/model.safetensors"}}))])
def test_a_config_that_asks_for_the_impossible_is_refused(good, tmp_path, file, edit):
    import shutil

    shutil.copytree(good, tmp_path / "m")
    place = tmp_path / "m" / file
    place.write_text(edit(place.read_text() if place.exists() else ""))
    with memory_below(400), pytest.raises(ModelError):
        pretrained.load_model(tmp_path / "m")


@pytest.mark.parametrize("edit, words", [
    (lambda config: config["image_head"]["options"].update(dim=10**7), "asks for"), (lambda config: config["text_tower"]["options"].update(dim=10**6), "its options are|asks for"),
    (lambda config: config["image_tower"]["options"].update(size=10**6), "pixels a side|its options are"), (lambda config: config["image_head"].update(kind="evil"), "unknown head"),
    (lambda config: config["image_tower"].update(name="os.system"), "unknown encoder"), (lambda config: config.update(image_head=None), "does not fit")])
def test_a_run_whose_config_asks_for_other_sizes_takes_no_memory(tmp_path, edit, words):
    from miniclip_helpers.encoders import load_encoder
    from miniclip_helpers.model import TwoTowers, save_model
    from miniclip_helpers.model.heads import LinearHead

    towers = load_encoder("small-cnn", size=32), load_encoder("bag-of-words", vocabulary=["a", "b"])
    save_model(TwoTowers(*towers, LinearHead(towers[0].width, 8), LinearHead(towers[1].width, 8)), tmp_path)
    pretrained.load_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    edit(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with memory_below(100), pytest.raises(ModelError, match=words):
        pretrained.load_model(tmp_path)


# --- indexes -----------------------------------------------------------------------------------------------------------------------


def sealed(folder, **changes):
    """Seal an index's folder again after a change, as whoever forged it would."""
    about = json.loads((folder / "index.json").read_text()) | changes
    about["sha256"] = runtime.sha256(folder / "index.faiss")
    (folder / "index.json").write_text(json.dumps(about | {"seal": saving._seal(about)}))
    return folder


VECTORS = np.random.default_rng(0).normal(size=(300, 16)).astype("f4")
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)


@pytest.fixture(params=["flat", "hnsw", "ivfpq"])
def an_index(request, tmp_path):
    index.build_index(VECTORS, [f"{row}.png" for row in range(300)], request.param, {"model": "mini"}).save(tmp_path / "i")
    return tmp_path / "i"


def test_an_index_forged_whole_is_still_looked_at(an_index):
    """The seal keeps accidents out; whoever forges an index seals it, too."""
    import faiss

    assert len(index.load_index(sealed(an_index))) == 300
    kind = json.loads((an_index / "index.json").read_text())["kind"]
    for change in ({"names": ["a"]}, {"names": ["a"] * 300}, {"names": list(range(300))}, {"names": [f"{row}" for row in range(301)]}, {"kind": "evil"}, {"kind": "flat" if kind != "flat" else "hnsw"}):
        with pytest.raises(ModelError):
            index.load_index(sealed(an_index, **change))
        index.build_index(VECTORS, [f"{row}.png" for row in range(300)], kind, {"model": "mini"}).save(an_index)
    for other in (faiss.IndexFlatL2(16), faiss.IndexLSH(16, 64), faiss.IndexIDMap(faiss.IndexFlatIP(16))):
        other.add(VECTORS) if not isinstance(other, faiss.IndexIDMap) else other.add_with_ids(VECTORS, np.arange(300))
        faiss.write_index(other, str(an_index / "index.faiss"))
        with pytest.raises(ModelError, match="expected"):
            index.load_index(sealed(an_index))
    if kind == "flat":
        broken = faiss.IndexFlatIP(16)
        broken.add(np.where(np.arange(16) == 3, np.nan, VECTORS).astype("f4"))
        faiss.write_index(broken, str(an_index / "index.faiss"))
        with pytest.raises(ModelError, match="NaN"):
            index.load_index(sealed(an_index))
    (an_index / "index.faiss").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ModelError):
        index.load_index(sealed(an_index))


def test_links_of_a_graph_that_lead_astray(tmp_path):
    import faiss

    made = index.build_index(VECTORS, [f"{row}.png" for row in range(300)], "hnsw", {"model": "mini"})
    links = faiss.vector_to_array(made.searcher.hnsw.neighbors)
    links[5] = 10**6
    faiss.copy_array_to_vector(links, made.searcher.hnsw.neighbors)
    assert "lead to no vector" in index.searchers.misfit(made.searcher, "hnsw", made._rows)


# --- the code itself ----------------------------------------------------------------------------------------------------------------

BANNED = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "jsonpickle", "xmlrpc", "telnetlib", "ftplib"}
ALLOWED = {("datasets/cifar.py", "import pickle"): "a reader of its own that builds texts, lists and bytes", ("encoders/tensors.py", "import pickle"): "the name of an error that torch raises"}


def dangerous(tree):
    """(line, what) of each call or import that could run what a file holds."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from ((node.lineno, f"import {name}") for name in names if name.partition(".")[0] in BANNED)
        if not isinstance(node, ast.Call):
            continue
        called, options = ast.unparse(node.func), {option.arg: ast.unparse(option.value) for option in node.keywords}
        last = called.rpartition(".")[2]
        wrong = (called in ("eval", "exec", "compile") or called in ("os.system", "os.popen", "tempfile.mktemp") or last in ("extractall", "unpack_archive", "read_pickle", "unsafe_load", "full_load")
                 or called == "torch.load" and options.get("weights_only") != "True" or called == "np.load" and options.get("allow_pickle", "False") != "False"
                 or called == "yaml.load" or options.get("shell") == "True" or options.get("trust_remote_code", "False") != "False"
                 or called == "torch.jit.load" or last == "load_state_dict_from_url" and options.get("weights_only") != "True" or options.get("verify") == "False")
        if wrong:
            yield node.lineno, called


def test_nothing_in_the_package_can_run_what_a_file_holds():
    found = {(str(file.relative_to(ROOT / "miniclip_helpers")), what): line
             for file in sorted((ROOT / "miniclip_helpers").rglob("*.py")) for line, what in dangerous(ast.parse(file.read_text(encoding="utf8")))}
    assert set(found) - set(ALLOWED) == set(), {f"{place}:{line}": what for (place, what), line in found.items() if (place, what) not in ALLOWED}


@pytest.mark.parametrize("code", ["import pickle", "from marshal import loads", "torch.load(f)", "torch.load(f, weights_only=False)", "np.load(f, allow_pickle=True)", "yaml.load(f)", "eval(x)",
                                  "subprocess.run(x, shell=True)", "tar.extractall(x)", "AutoModel.from_pretrained(x, trust_remote_code=yes)", "pandas.read_pickle(f)", "torch.jit.load(f)"])
def test_the_search_for_dangerous_code_finds_it(code):
    assert list(dangerous(ast.parse(code)))
