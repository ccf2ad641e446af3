"""CLIP and SigLIP from the hub, opened up for training: towers without their projections, the projections as heads, and back again."""

import copy
import json
import pathlib
import types

import torch

from ..encoders import Tower, weights_fingerprint
from ..errors import ModelError, UsageError
from ..model import TwoTowers, save_model
from ..runtime import digest
from .methods import SIDES, tower_of

SAME_WEIGHTS = {  # elsewhere than on the hub, and their names on it
    "clip:ViT-B/32": "openai/clip-vit-base-patch32", "clip:ViT-B/16": "openai/clip-vit-base-patch16",
    "clip:ViT-L/14": "openai/clip-vit-large-patch14", "clip:ViT-L/14@336px": "openai/clip-vit-large-patch14-336",
    "open_clip:ViT-B-32/openai": "openai/clip-vit-base-patch32", "open_clip:ViT-B-16/openai": "openai/clip-vit-base-patch16",
    "open_clip:ViT-L-14/openai": "openai/clip-vit-large-patch14", "open_clip:ViT-L-14-336/openai": "openai/clip-vit-large-patch14-336",
    "open_clip:ViT-B-32/laion2b_s34b_b79k": "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    "open_clip:ViT-B-16/laion2b_s34b_b88k": "laion/CLIP-ViT-B-16-laion2B-s34B-b88K",
    "open_clip:ViT-L-14/laion2b_s32b_b82k": "laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
    "open_clip:ViT-H-14/laion2b_s32b_b79k": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
}


def check_name(name, done="fine-tuned"):
    """Refuse what cannot be written in a format of ours, with the name of the same weights on the hub where there is one. done: what was asked for, in a word."""
    if not str(name).startswith(("clip:", "open_clip:")):
        return
    same = SAME_WEIGHTS.get(str(name))
    hint = f"the same weights are on the hub as {same}: use that name" if same else "take a CLIP or SigLIP of the hub, such as openai/clip-vit-base-patch32"
    raise UsageError(f"'{name}' can be used here, but not {done}: its library has no model folder to write; {hint}")


class HubTower(Tower):
    """One side of a hub model up to its projection. batch to (B, width), what the projection is then given."""

    pretrained = True

    def __init__(self, name, net, prepare, preprocess=None):
        super().__init__()
        self.name, self.net, self.width = name, net, getattr(net.config, "projection_size", None) or net.config.hidden_size
        self._prepare, self.preprocess = prepare, preprocess

    @property
    def locked(self):
        """Whether nothing of it learns."""
        return not any(p.requires_grad for p in self.net.parameters())

    def unlock(self):
        """Make the weights trainable."""
        self.net.requires_grad_(True)
        return self

    @property
    def fingerprint(self):
        return digest(self.name, "before the projection", weights_fingerprint(self.net))

    def prepare(self, inputs):
        return self._prepare(inputs)

    def forward(self, batch):
        return (self.net(**batch) if isinstance(batch, dict) else self.net(pixel_values=batch)).pooler_output


class HubTwoTowers(TwoTowers):
    """A hub model as two towers and two heads. `whole` is the network they are parts of: what is trained here is trained there."""

    def __init__(self, whole, *parts, **options):
        super().__init__(*parts, **options)
        self.__dict__["whole"] = whole  # past nn.Module, which would list every weight twice


def _opened(model, whole):
    """`HubTwoTowers` over the network `whole`; `model` prepares pictures and texts."""
    image_source, text_source = model.image_tower, model.text_tower
    towers = (HubTower(f"{model.name} image", whole.vision_model, lambda pictures: image_source.prepare(pictures), _normalisation(model.name)),
              HubTower(f"{model.name} text", whole.text_model, lambda texts: text_source.prepare(texts)))
    for name in ("context", "token_counts"):  # how many tokens it reads, and how many a text has
        if hasattr(text_source, name):
            setattr(towers[1], name, getattr(text_source, name))
    heads = [getattr(whole, name, None) for name in ("visual_projection", "text_projection")]  # SigLIP has none
    return HubTwoTowers(whole, *towers, *heads, logit_scale=model.logit_scale.item(), name=model.name).eval()


def _normalisation(name):
    """What the model's preprocessing subtracts and divides by: with it pictures are kept as bytes, a quarter of the size."""
    from transformers import AutoImageProcessor

    try:
        found = AutoImageProcessor.from_pretrained(name, local_files_only=True, backend="pil")
        return types.SimpleNamespace(mean=tuple(found.image_mean), std=tuple(found.image_std))
    except (OSError, ValueError, AttributeError, TypeError):
        return None


def opened(model):
    """`model` as two towers with heads that can learn. Models of this package are that already; a hub model is opened up, sharing its weights.

    Raises `UsageError` for models of other libraries, and for hub models of another shape.
    """
    if isinstance(model, HubTwoTowers):
        return model
    net = getattr(model.image_tower, "net", None)
    if net is None or net is not getattr(model.text_tower, "net", None):
        return model
    check_name(model.name)
    if not all(hasattr(net, part) for part in ("vision_model", "text_model", "save_pretrained")):
        raise UsageError(f"'{model.name}' is a {type(net).__name__}; fine-tuning knows CLIP and SigLIP of the hub, mini, and what miniclip train wrote")
    return _opened(model, net)


def own_copy(model, learning=SIDES):
    """A copy of `model` that may be trained; nothing of `model` itself changes. Towers of this package on sides that do not learn are shared, not copied."""
    found = opened(model)
    if found is not model:
        return _opened(model, copy.deepcopy(found.whole))
    return model_copy(model, () if isinstance(model, HubTwoTowers) else [side for side in SIDES if side not in learning])


def model_copy(model, shared):
    """A copy that has the towers of the sides `shared` in common with `model`: they weigh a hundred megabytes, and nothing writes to them."""
    towers = [tower_of(model, side) for side in shared]
    return copy.deepcopy(model, {id(tower): tower for tower in towers})


def how_made(folder):
    """What the config.json of a model's folder says of how the model was made: {"training": ...} or {"fine_tuning": ...}; {} where it says nothing."""
    file = pathlib.Path(folder) / "config.json"
    config = json.loads(file.read_text(encoding="utf8")) if file.is_file() else {}
    return config.get("miniclip") or {key: config[key] for key in ("training", "fine_tuning") if key in config}


def save(model, folder, extra=None):
    """Write a model into a folder of `runtime.writing_folder` in the format it came from, for `load_model`. extra: more keys for config.json.

    Hub models take their tokenizer and preprocessing along.
    """
    if not isinstance(model, HubTwoTowers):
        check_name(model.name)
        return save_model(model, folder, extra)
    from transformers import AutoImageProcessor, AutoTokenizer
    from transformers.utils import logging

    folder, whole, bars = pathlib.Path(folder), model.whole, logging.is_progress_bar_enabled()
    with torch.no_grad():
        whole.logit_scale.copy_(model.log_logit_scale)
    whole.config.miniclip = extra or {}
    try:
        prepare = [AutoImageProcessor.from_pretrained(model.name, local_files_only=True, backend="pil"), AutoTokenizer.from_pretrained(model.name, local_files_only=True)]
    except (OSError, ValueError) as error:
        raise ModelError(f"the tokenizer and the preprocessing of '{model.name}' cannot be taken along: {str(error).splitlines()[0]}") from error
    logging.disable_progress_bar()
    try:
        whole.save_pretrained(folder, max_shard_size="1000GB")
        for one in prepare:
            one.save_pretrained(folder)
    finally:
        if bars:
            logging.enable_progress_bar()
    (folder / "model.safetensors").chmod(0o644)  # it is written for its owner alone, and a model is to be shared
