"""A model as a folder: model.safetensors (heads, temperature, towers that were trained) and config.json (what rebuilds it)."""

import json
import pathlib

import torch

from .. import runtime
from ..encoders import load_encoder, read_tensors
from ..encoders.folders import MOST_PIXELS
from ..errors import ModelError, UsageError
from .heads import build_head
from .two_towers import TwoTowers

FORMAT = "miniclip-1"


def model_config(model):
    """The plain JSON that rebuilds `model` around its weights."""
    describe = lambda tower: {"name": tower.name, "options": tower.options, "locked": bool(getattr(tower, "locked", False))}  # noqa: E731
    return {
        "format": FORMAT, "name": model.name,
        "image_tower": describe(model.image_tower), "text_tower": describe(model.text_tower),
        "image_head": {"kind": model.image_head.kind, "options": model.image_head.options},
        "text_head": {"kind": model.text_head.kind, "options": model.text_head.options},
    }


def model_state(model):
    """The tensors to keep: all but those of locked towers, which come from their pinned files."""
    locked = tuple(f"{side}." for side in ("image_tower", "text_tower") if getattr(getattr(model, side), "locked", False))
    return {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items() if not key.startswith(locked or ("\0",))}


def save_model(model, folder, extra=None):
    """Write config.json and model.safetensors into an existing `folder`. extra: more keys for config.json.

    Callers that promise whole-or-nothing pass a folder from `runtime.writing_folder`.
    """
    from safetensors.torch import save_file

    folder = pathlib.Path(folder)
    save_file(model_state(model), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # it is written for its owner alone, and a model is to be shared
    config = model_config(model) | (extra or {})
    (folder / "config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf8")


def _check_sizes(config, state):
    """Build the parts that the file brings whole without memory, and compare: a `RuntimeError` for sizes that are not those of the tensors.

    Else a few letters in config.json could ask for more memory than there is, before anybody sees that the weights do not fit."""
    for side in ("image", "text"):
        name, options, locked = (config[f"{side}_tower"][key] for key in ("name", "options", "locked"))
        if not 0 < options.get("size", 224) <= MOST_PIXELS:
            raise RuntimeError(f"pictures of {options['size']:,} pixels a side")
        with torch.device("meta"):
            parts = {f"{side}_head": build_head(config[f"{side}_head"]["kind"], config[f"{side}_head"]["options"])}
            if not locked and options.get("pretrained") is not True:
                parts[f"{side}_tower"] = load_encoder(name, **options)
        for part, module in parts.items():
            wrong = next((key for key, value in module.state_dict().items() if f"{part}.{key}" in state and state[f"{part}.{key}"].shape != value.shape), None)
            if wrong:
                raise RuntimeError(f"{part}.{wrong} has the shape {tuple(state[f'{part}.{wrong}'].shape)}, and config.json asks for {tuple(module.state_dict()[wrong].shape)}")
            absent = next((key for key in module.state_dict() if f"{part}.{key}" not in state), None)
            if absent:
                raise RuntimeError(f"{part}.{absent} is missing from model.safetensors")


def load_saved(folder):
    """The model that `save_model` wrote into `folder`, in evaluation mode."""
    folder = pathlib.Path(folder)
    absent = [name for name in ("config.json", "model.safetensors") if not (folder / name).is_file()]
    if absent:
        raise ModelError(f"'{folder}' holds no finished model: {' and '.join(absent)} missing; expected what miniclip train wrote")
    try:
        config = runtime.parse_json((folder / "config.json").read_text(encoding="utf8"))
        state = read_tensors(folder / "model.safetensors")
    except (ValueError, ModelError) as error:
        raise ModelError(f"'{folder}' holds a damaged model: {error}") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ModelError(f"'{folder}/config.json' is not of the format {FORMAT}; expected what miniclip train wrote")
    try:
        _check_sizes(config, state)
        towers = []
        for side in ("image_tower", "text_tower"):
            tower = load_encoder(config[side]["name"], **config[side]["options"])
            towers.append(tower.unlock() if hasattr(tower, "unlock") and not config[side]["locked"] else tower)
        heads = [build_head(config[side]["kind"], config[side]["options"]) for side in ("image_head", "text_head")]
        model = TwoTowers(*towers, *heads, name=config.get("name", folder.name))
        missing, unexpected = model.load_state_dict(state, strict=False)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, UsageError) as error:
        raise ModelError(f"'{folder}' does not fit its own config.json: {error}") from error
    needed = [key for key in missing if key in model_state(model)]
    if needed or unexpected:
        raise ModelError(f"'{folder}': model.safetensors does not fit config.json (missing {needed[:3]}, unexpected {unexpected[:3]})")
    return model.eval()
