"""Files that run a program when they are loaded as what they claim to be. The program leaves a mark; no door of the package may let it in."""

import contextlib
import importlib
import io
import json
import os
import pathlib
import pickle
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from fuzzing import forget_memory, memory_mb

# What the doors import at their first use, hundreds of megabytes that no file asked for.
IMPORTED = ("open_clip", "transformers.models.auto.modeling_auto", "transformers.models.clip.modeling_clip", "safetensors.torch", "pandas", "pyarrow.parquet", "webdataset", "faiss")


@contextlib.contextmanager
def memory_below(megabytes):
    """Fails where this process comes to hold so many more megabytes within the block, however much it has held before. Where the system does not count that, the test is skipped after it."""
    for name in IMPORTED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    before = forget_memory()
    yield
    if not before:
        pytest.skip("refused; how much memory it took is counted by Linux's /proc alone")
    grown = memory_mb() - before
    assert grown < megabytes, f"{grown:.0f} MB more, expected less than {megabytes}"


class Payload:
    """Unpickled, it makes the file `mark`."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


class Scripted(torch.nn.Module):
    def forward(self, x):
        return x


def torch_files(folder, mark):
    """Weights of every kind that has ever run code."""
    evil, folder = Payload(mark), pathlib.Path(folder)
    torch.save({"weight": evil}, folder / "new.pt")
    torch.save({"weight": evil}, folder / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": {"weight": torch.ones(2)}, "epoch": evil}, folder / "beside.pth")
    (folder / "bare.bin").write_bytes(pickle.dumps({"weight": evil}))
    for protocol in range(6):
        (folder / f"protocol{protocol}.pt").write_bytes(pickle.dumps(evil, protocol))
    with tarfile.open(folder / "legacy.pt", "w") as tar:
        for name in ("sys_info", "storages", "tensors", "pickle"):
            data = pickle.dumps(evil)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    torch.jit.save(torch.jit.script(Scripted()), str(folder / "script.pt"))
    np.save(folder / "array.npy", np.array([evil], dtype=object), allow_pickle=True)
    np.savez(folder / "arrays.npz", weight=np.array([evil], dtype=object))
    for name in ("array.npy", "arrays.npz"):
        shutil.copy(folder / name, folder / f"{name}.pt")
    with zipfile.ZipFile(folder / "zip.safetensors", "w") as packed:
        packed.writestr("data.pkl", pickle.dumps(evil))
    (folder / "pickle.safetensors").write_bytes(pickle.dumps(evil))
    (folder / "keras.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + pickle.dumps(evil))
    (folder / "frame.pkl").write_bytes(pickle.dumps(evil))
    (folder / "model.joblib").write_bytes(pickle.dumps(evil))
    (folder / "list.yaml").write_text(f"!!python/object/apply:os.mkdir ['{mark}']")
    return sorted(file for file in folder.iterdir() if file.is_file())


def hub_folders(good, folder, mark):
    """Folders in the hub's format with code, or a pickle, where transformers would look for it: {name: folder}."""
    def copy(name):
        shutil.copytree(good, folder / name)
        (folder / name / "evil.py").write_text(f"import os\nos.mkdir({str(mark)!r})\nclass Evil: pass\n")
        return folder / name

    def changed(name, file, **more):
        place = copy(name) / file
        place.write_text(json.dumps(json.loads(place.read_text()) | more))

    (copy("bin") / "model.safetensors").unlink()
    torch.save({"weight": Payload(mark)}, folder / "bin" / "pytorch_model.bin")
    code = {"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil", "AutoTokenizer": ["evil.Evil", None], "AutoImageProcessor": "evil.Evil", "AutoProcessor": "evil.Evil"}
    changed("model", "config.json", auto_map=code, model_type="evil")
    changed("architecture", "config.json", auto_map=code, architectures=["Evil"])
    changed("tokenizer", "tokenizer_config.json", auto_map=code, tokenizer_class="Evil")
    changed("processor", "preprocessor_config.json", auto_map=code, image_processor_type="Evil", processor_class="Evil")
    changed("trusting", "config.json", auto_map=code, model_type="evil", trust_remote_code=True)
    return {place.name: place for place in sorted(folder.iterdir()) if place.is_dir()}


def data_files(folder, mark, photo):
    """Data of every kind that could hold a pickle."""
    import pyarrow
    import pyarrow.parquet

    evil = pickle.dumps(Payload(mark))
    field = pyarrow.field("more", pyarrow.binary(), metadata={b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": evil})
    schema = pyarrow.schema([pyarrow.field("image", pyarrow.binary()), pyarrow.field("captions", pyarrow.string()), field], metadata={b"pandas": evil, b"miniclip": evil})
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays([pyarrow.array([photo]), pyarrow.array(["a"]), pyarrow.array([evil])], schema=schema), folder / "table.parquet")
    with tarfile.open(folder / "shard.tar", "w") as tar:
        for name, data in {"a.png": photo, "a.txt": b"a caption", **{f"a.{kind}": evil for kind in ("pyd", "pickle", "pkl", "pth", "pt", "npy", "npz", "mp", "cbor", "ten", "jpg.pyd")}}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    for name in ("pickle.json", "pickle.csv", "pickle.tsv", "pickle.txt", "pickle.jsonl", "pickle.parquet", "pickle.tar", "pickle.png", "pickle.jpg"):
        (folder / name).write_bytes(evil)
    cifar = folder / "cifar-100-python"
    cifar.mkdir()
    (cifar / "meta").write_bytes(pickle.dumps({"fine_label_names": ["a"], "coarse_label_names": ["b"]}))
    (cifar / "test").write_bytes(pickle.dumps({"data": Payload(mark), "fine_labels": [0], "coarse_labels": [0]}))
    return [*sorted(file for file in folder.iterdir() if file.is_file()), cifar]
