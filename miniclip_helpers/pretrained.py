"""One small interface over the embedded `mini`, transformers, OpenAI's clip, open_clip and this package's own folders.

Every one becomes a `TwoTowers`: `encode_image(list of PIL) -> (N, D)`, `encode_text(list of str) -> (M, D)`, unit rows, and
`logit_scale`, already exponentiated.
"""

import importlib
import pathlib
import warnings

import torch

from . import images, runtime
from .downloads import need_network
from .encoders import Tower, check_finite, read_tensors, weights_fingerprint
from .encoders.folders import WEIGHTS, check_hub_folder, check_open_clip_folder, check_whole, read_json
from .encoders.tensors import said
from .errors import ModelError, unknown
from .model import TwoTowers, load_saved

FORMS = ["mini", "a folder", "clip:ViT-B/32", "open_clip:ViT-B-32/laion2b_s34b_b79k", "openai/clip-vit-base-patch32"]


def load_model(name):
    """The model called `name`: "mini", a folder, "clip:ViT-B/32", "open_clip:ARCH/PRETRAINED", or CLIP or SigLIP on the hub.

    Weights of your own, which need no network: "clip:FILE" (a state dict in OpenAI's layout), "open_clip:ARCH/FILE", "open_clip:FOLDER" (with
    an open_clip_config.json). A FILE is safetensors, or a plain state dict of torch; nothing in it is ever executed.

    Raises `UsageError` for an unknown name, `OfflineError` when it would need the network and there is none, `ModelError` or
    `ChecksumError` for weights that are not what they should be.
    """
    name = str(name)
    if not name.strip():
        raise unknown("model", name, FORMS)
    if name == "mini":
        return load_mini()
    if pathlib.Path(name).is_dir():
        return _from_folder(pathlib.Path(name))
    if name.startswith("clip:"):
        return _openai_clip(name.removeprefix("clip:"))
    if name.startswith("open_clip:"):
        return _open_clip(name.removeprefix("open_clip:"))
    if name.count("/") == 1 and not name.startswith((".", "/")):
        return _transformers(name)
    if "/" in name or "\\" in name or name.startswith("."):
        raise ModelError(f"the model folder '{name}' does not exist; expected what miniclip train wrote, or a CLIP folder in the hub's format")
    raise unknown("model", name, FORMS)


def load_mini():
    """The embedded default: EfficientNet-Lite0 and MiniLM-L6 out of their wheels, with the heads in data/. See data/MODEL_CARD.md."""
    return load_saved(runtime.data_dir() / "mini")


def _from_folder(folder):
    if (folder / "open_clip_config.json").is_file() and not (folder / "config.json").is_file():
        return _open_clip(str(folder))
    try:
        config = read_json(folder / "config.json")
    except FileNotFoundError:
        raise ModelError(f"'{folder}' holds no config.json; expected what miniclip train wrote, or a CLIP folder in the hub's format") from None
    except ValueError as error:
        raise ModelError(f"'{folder}/config.json' is not valid JSON: {error}") from error
    if isinstance(config, dict) and config.get("model_type") == "miniclip":
        raise ModelError(f"'{folder}' is what miniclip export wrote for transformers, and brings code, which is never run here; name the run that it was made from")
    if not isinstance(config, dict) or "model_type" not in config:
        return load_saved(folder)
    check_hub_folder(folder)
    return _transformers(str(folder))


class _ImageTower(Tower):
    """A pretrained image encoder with its own preprocessing; `encode` maps a prepared batch to projected features."""

    pretrained = True

    def __init__(self, name, net, width, preprocess, encode, fingerprint):
        super().__init__()
        self.name, self.width, self.net = name, width, net
        self._preprocess, self._encode, self._fingerprint = preprocess, encode, fingerprint

    @property
    def fingerprint(self):
        return runtime.digest(self.name, type(self).__name__, "2", self._fingerprint)  # "2": pictures resized by Pillow

    def prepare(self, inputs):
        return self._preprocess(inputs)

    def forward(self, batch):
        return self._encode(batch)


class _TextTower(_ImageTower):
    """The same for texts. context: the tokens it reads, start and end included. count: texts to their numbers of tokens, uncut."""

    def __init__(self, name, net, width, preprocess, encode, context, count, fingerprint):
        super().__init__(name, net, width, preprocess, encode, fingerprint)
        self.context, self.token_counts = context, count


def _two_towers(name, net, width, image, text, logit_scale):
    """A `TwoTowers` of one network's two sides; image is (preprocess, encode), text is (preprocess, encode, context, count)."""
    net.eval().requires_grad_(False)
    prepare, encode = image
    image = (lambda pictures: prepare([images.middle(picture) for picture in pictures])), encode
    check_finite(net.state_dict(), name)
    print_ = weights_fingerprint(net)
    towers = _ImageTower(name, net, width, *image, print_), _TextTower(name, net, width, *text, print_)
    return TwoTowers(*towers, logit_scale=logit_scale.item(), name=name).eval()


def _quietly(package):
    """Import a package without what it says on import, such as clip's word on pkg_resources, which no user can mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(package)


def _state_dict(path):
    """The tensors in a file of weights by name, in float32. Only tensors are read: no program, no pickled object."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise ModelError(f"the file of weights '{path}' does not exist; expected one that ends in {', '.join(WEIGHTS)}")
    return {key.removeprefix("module."): value.float() if value.is_floating_point() else value for key, value in read_tensors(path).items()}


def _need_hub(missing, how):
    """Raise `OfflineError` where the hub would have to be asked and cannot be."""
    from huggingface_hub.constants import ENDPOINT

    need_network(missing, ENDPOINT, how, "the model 'mini' always works offline")


def _transformers(name):
    """CLIP or SigLIP through transformers, from a folder or the hub."""
    from huggingface_hub import try_to_load_from_cache
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    local = pathlib.Path(name).is_dir() or runtime.offline()
    if not pathlib.Path(name).is_dir() and not isinstance(try_to_load_from_cache(name, "config.json"), str):
        _need_hub(f"no folder is called '{name}' here; as a model of the hub, {name} is not in the hub's cache on this machine (HF_HOME)", f"hf download {name}")
        local = False
    safely = {"local_files_only": local, "trust_remote_code": False}  # without a word on the latter, transformers asks whoever sits there
    try:
        net, told = AutoModel.from_pretrained(name, use_safetensors=True, output_loading_info=True, **safely)
        processor = AutoImageProcessor.from_pretrained(name, backend="pil", **safely)  # as CLIP was trained; tensors resize a grey level off
        tokenizer = AutoTokenizer.from_pretrained(name, **safely)
    except Exception as error:  # configurations and weights that are damaged on purpose fail in any way
        raise ModelError(f"'{name}' cannot be loaded as CLIP: {said(error)}") from error
    check_whole(name, told, processor)
    if not hasattr(net, "get_image_features") or not hasattr(net, "get_text_features"):
        raise ModelError(f"'{name}' is a {type(net).__name__}, not a model with two towers; expected CLIP or SigLIP")
    config = net.config.text_config
    padding = "max_length" if "siglip" in net.config.model_type else True  # SigLIP was trained on texts padded to the full length

    def features(output):
        return output if torch.is_tensor(output) else output.pooler_output

    image = (lambda pictures: processor(images=list(pictures), return_tensors="pt")["pixel_values"],
             lambda batch: features(net.get_image_features(pixel_values=batch)))
    context = config.max_position_embeddings
    text = (lambda texts: dict(tokenizer(list(texts), padding=padding, truncation=True, max_length=context, return_tensors="pt")),
            lambda batch: features(net.get_text_features(**batch)),
            context, lambda texts: [len(row) for row in tokenizer(list(texts), verbose=False)["input_ids"]])
    width = getattr(net.config, "projection_dim", None) or config.projection_size
    return _two_towers(name, net, width, image, text, net.logit_scale.exp())


def _openai_clip(name):
    """OpenAI's own package: one of its names, or a file with a state dict in its layout."""
    clip = _quietly("clip")

    if name not in clip.available_models() and (name.endswith(WEIGHTS) or pathlib.Path(name).is_file()):
        return _clip_from_file(name)
    if name not in clip.available_models():
        raise unknown("clip model", name, [*clip.available_models(), "a file of weights"])
    root = runtime.cache_dir() / "clip"
    file = root / (name.replace("/", "-") + ".pt")
    if not file.is_file():
        _need_hub(f"clip:{name} is not in '{root}'", f"python -c \"import clip; clip.load('{name}', download_root='{root}')\"")
    net, preprocess = clip.load(name, device="cpu", download_root=str(root))
    return clip_towers(f"clip:{name}", net.float(), preprocess)


def _clip_from_file(path):
    """A network in OpenAI's layout out of a file; its shape is read off the weights."""
    state = _state_dict(path)
    numbers = ("input_resolution", "context_length", "vocab_size")  # OpenAI's files hold them beside the weights
    try:
        net = _quietly("clip.model").build_model(dict(state)).float()
        net.load_state_dict({key: value for key, value in state.items() if key not in numbers})  # build_model rounds to half precision; here they are whole
    except (KeyError, RuntimeError, AssertionError, ZeroDivisionError) as error:
        raise ModelError(f"'{path}' does not have the layout of OpenAI's clip ({said(error)}); for a file of transformers, "
                         "name its folder; for one of open_clip, open_clip:ARCHITECTURE/FILE") from error
    return clip_towers(f"clip:{path}", net, _quietly("clip.clip")._transform(net.visual.input_resolution))


def clip_towers(name, net, preprocess):
    """A `TwoTowers` over a `clip.model.CLIP` network in float32 and its torchvision preprocessing."""
    clip = _quietly("clip.clip")

    image = (lambda pictures: torch.stack([preprocess(picture) for picture in pictures]), net.encode_image)
    text = (lambda texts: clip.tokenize(list(texts), net.context_length, truncate=True), net.encode_text,
            net.context_length, lambda texts: [len(clip._tokenizer.encode(text)) + 2 for text in texts])
    return _two_towers(name, net, net.text_projection.shape[1], image, text, net.logit_scale.exp())


def _open_clip(name):
    """open_clip: ARCHITECTURE/PRETRAINED, as its `list_pretrained` names them; ARCHITECTURE/FILE; or a folder in its format."""
    open_clip = _quietly("open_clip")

    if (pathlib.Path(name) / "open_clip_config.json").is_file():
        check_open_clip_folder(pathlib.Path(name))
        return _open_clip_load(name, f"local-dir:{name}")
    architecture, _, tag = name.partition("/")
    if architecture not in open_clip.list_models():
        raise unknown("open_clip architecture", architecture, open_clip.list_models())
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag not in tags and tag.endswith(WEIGHTS):
        _state_dict(tag)  # told in our words what is no file of weights, before open_clip reads it
        return _open_clip_load(name, architecture, pretrained=tag)
    if tag not in tags:
        raise unknown(f"open_clip weights of {architecture}", tag, [*tags, "a file of weights"])
    if not _open_clip_at_hand(open_clip.pretrained.get_pretrained_cfg(architecture, tag)):
        _need_hub(f"open_clip:{name} is not in open_clip's cache", f"python -c \"import open_clip; open_clip.create_model('{architecture}', '{tag}')\"")
    quick = bool(_quietly("open_clip.pretrained").get_pretrained_cfg(architecture, tag).get("quick_gelu"))
    return _open_clip_load(name, architecture, pretrained=tag, force_quick_gelu=quick)  # else OpenAI's weights would meet another activation


def _open_clip_at_hand(about):
    """Whether open_clip has these weights on this machine: in the hub's cache, or its own."""
    from huggingface_hub import try_to_load_from_cache

    repository, _, file = about.get("hf_hub", "").rpartition("/")
    names = [file] if file else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    own = pathlib.Path("~/.cache/clip").expanduser() / about.get("url", "").rpartition("/")[2]
    return own.is_file() or bool(repository) and any(isinstance(try_to_load_from_cache(repository, name), str) for name in names)


def _open_clip_load(name, architecture, **options):
    """Build, load, wrap. A file that does not fit its architecture is a `ModelError`."""
    open_clip = _quietly("open_clip")
    _quietly("transformers.dynamic_module_utils").TIME_OUT_REMOTE_CODE = 0  # else it asks whether code may be run that a tokenizer brings; now it refuses
    try:
        net, _, preprocess = open_clip.create_model_and_transforms(architecture, **options)
        tokenizer = open_clip.get_tokenizer(architecture)
    except Exception as error:  # files that are damaged on purpose fail in any way
        raise ModelError(f"'open_clip:{name}' cannot be loaded: {said(error)}") from error
    return open_clip_towers(f"open_clip:{name}", net, preprocess, tokenizer)


def open_clip_towers(name, net, preprocess, tokenizer):
    """A `TwoTowers` over an open_clip network, its preprocessing and its tokenizer."""
    def count(texts):
        if hasattr(tokenizer, "encode"):
            return [len(tokenizer.encode(text)) + 2 for text in texts]
        return [len(row) for row in tokenizer.tokenizer([tokenizer.clean_fn(text) for text in texts], verbose=False)["input_ids"]]

    image = (lambda pictures: torch.stack([preprocess(picture) for picture in pictures]), net.encode_image)
    text = (lambda texts: tokenizer(list(texts)), net.encode_text, tokenizer.context_length, count)
    width = net.text_projection.shape[1] if torch.is_tensor(getattr(net, "text_projection", None)) else net.text.output_dim
    return _two_towers(name, net, width, image, text, net.logit_scale.exp())
