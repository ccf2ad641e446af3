"""Folders of models that may be anybody's: looked at before a library reads them, so that nothing in them is run and nothing is taken from elsewhere."""

import pathlib

from .. import runtime
from ..errors import ModelError
from .tensors import check_pairs, read_tensors, said

WEIGHTS = (".safetensors", ".pt", ".pth", ".bin")  # how a file of weights may end
MOST_PIXELS = 4096  # of a side of the pictures that a model asks for: the largest published ones see a quarter of it


def read_json(file):
    """What a JSON file says. `FileNotFoundError`, also for what is no file; `ValueError` for what is no JSON."""
    if not file.is_file():
        raise FileNotFoundError(file)
    return runtime.parse_json(file.read_text(encoding="utf8"))


def check_hub_folder(folder):
    """Raise a `ModelError` for a folder in the hub's format whose weights lie elsewhere, or are described in two ways."""
    try:
        index = folder / "model.safetensors.index.json"
        named = set(read_json(index)["weight_map"].values() if index.is_file() else ())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"'{index}' is no index of weights ({said(error)})") from error
    outside = next((name for name in named if not isinstance(name, str) or name != pathlib.PurePath(name).name), None)
    if outside is not None:
        raise ModelError(f"'{index}' names weights in another folder ({str(outside)[:60]!r}); expected files beside it")
    beside = {file.name for file in folder.glob("*.safetensors") if not file.name.startswith(".")}  # a Mac lays ._NAME beside each file on foreign disks
    for file in sorted(folder / name for name in named | beside):
        try:
            check_pairs(file)
        except ModelError as error:
            raise ModelError(f"'{file}' is no file of weights: {error}") from error


def check_whole(name, told, processor):
    """Raise a `ModelError` unless every tensor of the network came out of the file, and no other was in it: transformers draws missing ones at random.

    told: what `from_pretrained` says of the loading. Nor may the preprocessing scale pictures until no memory holds them."""
    missing = sorted(told["missing_keys"])
    unexpected = sorted(key for key in told["unexpected_keys"] if not key.endswith("position_ids"))  # which old files hold, and nobody needs
    if missing or unexpected:
        raise ModelError(f"'{name}' does not fit its own config.json (missing {missing[:3]}, unexpected {unexpected[:3]})")
    sides = [side for asked in (processor.size, getattr(processor, "crop_size", None)) for side in dict(asked or {}).values() if isinstance(side, (int, float))]
    if any(side > MOST_PIXELS for side in sides):
        raise ModelError(f"the preprocessing of '{name}' asks for pictures of {max(sides):,} pixels a side; expected at most {MOST_PIXELS:,}")


def check_open_clip_folder(folder):
    """Raise a `ModelError` for a folder of open_clip that wants its own code run, or weights that are no tensors."""
    try:
        text = read_json(folder / "open_clip_config.json")["model_cfg"].get("text_cfg", {})
        asked = set(text.get("tokenizer_kwargs") or {}) & {"trust_remote_code", "code_revision"}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"'{folder}/open_clip_config.json' is no configuration of open_clip ({said(error)})") from error
    if asked:
        raise ModelError(f"'{folder}/open_clip_config.json' asks for code of its own to be run ({', '.join(sorted(asked))}), which is never done here")
    files = _open_clip_files(folder)
    if not files:  # it would draw them at random
        raise ModelError(f"'{folder}' holds no weights; expected open_clip_model.safetensors, or another file that ends in .safetensors, .bin or .pth")
    for file in files:
        read_tensors(file)


def _open_clip_files(folder):
    """The one file of weights that open_clip will take, as what else lies in a folder (an optimiser's state) is read by nobody; all of them, where its version does not say."""
    from open_clip import factory

    if hasattr(factory, "_find_checkpoint_in_dir"):
        taken = factory._find_checkpoint_in_dir(folder)
        return [] if taken is None else [pathlib.Path(taken)]
    return sorted(file for file in folder.iterdir() if file.suffix in WEIGHTS and not file.name.startswith("."))
