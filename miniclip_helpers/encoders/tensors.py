"""Files of tensors that may be anybody's: read as tensors or not at all, and looked at before a network takes them."""

import pathlib
import pickle
import warnings
import zipfile

import torch

from .. import runtime
from ..errors import ModelError

MOST_HEADER = 100_000_000  # bytes, as the library has it


def said(error):
    """What an error says, in one line."""
    return " ".join(str(error).split())[:160] or type(error).__name__


def read_tensors(path):
    """The tensors in a file by name: safetensors where the name ends so, else what torch.save wrote of a state_dict(). Nothing in it is ever executed.

    Raises `ModelError` for what is no such file, whose header promises other bytes than it holds, and for tensors that are not finite.
    """
    path = pathlib.Path(path)
    runtime.check_ends(path, ModelError, "give a file of weights")
    try:
        state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    except Exception as error:  # torch's and pickle's readers raise nearly anything on files that are damaged on purpose
        hint = "; OpenAI's own .pt files are programs: call them by name (clip:ViT-B/32), and their checksum is verified" if "TorchScript" in str(error) else ""
        raise ModelError(f"'{path}' is no plain file of tensors ({said(error)}){hint}. Expected safetensors, or what torch.save wrote of a state_dict()") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    if not isinstance(state, dict) or not state or not all(isinstance(name, str) and torch.is_tensor(value) for name, value in state.items()):
        raise ModelError(f"'{path}' holds no state dict: expected names and tensors")
    hollow = next((name for name, value in state.items() if not _is_whole(value)), None)
    if hollow is not None:
        raise ModelError(f"'{path}': the tensor {hollow} is no plain one with a number for each place; expected what torch.save wrote of a state_dict()")
    check_finite(state, path)
    return state


def _is_whole(value):
    """Whether a tensor has memory of its own for each number: one that repeats a single one may claim any size, and takes it when it is first used."""
    plain = value.layout == torch.strided and not value.is_quantized and value.device.type == "cpu"
    return plain and value.untyped_storage().nbytes() >= value.numel() * value.element_size()


def _read_safetensors(path):
    from safetensors.torch import load_file

    check_pairs(path)
    return load_file(path)


def _read_torch(path):
    _check_packed(path)
    with warnings.catch_warnings():  # what torch warns of is said by the callers
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def _check_packed(path):
    """Refuse a .pt file with packed parts: torch.save packs none, and a few kilobytes may unpack to more than any memory."""
    with open(path, "rb") as file:
        zipped = file.read(2) == b"PK"
    if zipped:
        with zipfile.ZipFile(path) as parts:
            if any(part.compress_type != zipfile.ZIP_STORED or part.file_size > part.compress_size for part in parts.infolist() if "/data" in part.filename):
                raise pickle.UnpicklingError("its parts are packed, which torch.save never does")


def check_pairs(path):
    """Raise a `ModelError` where the header of a safetensors file is no JSON, or names a tensor twice: readers differ on which of the two they take.

    That sizes, places and types agree with the bytes, the library checks itself, before it reads any.
    """
    if not path.is_file():
        raise ModelError(f"the file of weights '{path}' does not exist, or is no file")
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(MOST_HEADER, path.stat().st_size - 8):
            raise ModelError(f"its header should have {length:,} bytes; expected at most {MOST_HEADER:,}, and the file has {path.stat().st_size:,}")
        text = file.read(length)

    try:
        runtime.parse_json(text, once=True)
    except ValueError as error:
        raise ModelError(f"its header is no JSON that names each thing once ({said(error)})") from error


def check_finite(state, path):
    """Raise a `ModelError` that names the first tensor of a state with NaN or infinity in it: every embedding would be NaN."""
    for name, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ModelError(f"'{path}': the tensor {name} holds NaN or infinity; the weights are damaged, or come from a run that diverged")
