"""Labels in sentences, and the mean vector of each label's sentences."""

import collections
import importlib.util
import pathlib

import torch
from torch.nn import functional as F

from .. import embedding
from ..errors import ModelError, UsageError
from ..model import lengths

TEMPLATE = "a photo of a {}."
# Seven in the manner of Radford et al. 2021's prompts for ImageNet, in our own choice.
TEMPLATES = ("a photo of a {}.", "a picture of a {}.", "a close-up photo of a {}.", "a drawing of a {}.", "a small {}.", "a {} on a white background.", "{}")
BLOCK = 4096  # sentences encoded at once: the vectors of more are never in memory together


def imagenet_templates():
    """The 80 templates of Radford et al. 2021 for ImageNet, with {} for the label, as the open_clip package ships them."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None:
        raise ModelError("the 80 templates come with open_clip, and that is missing; install open-clip-torch")
    file = pathlib.Path(spec.submodule_search_locations[0]) / "zero_shot_metadata.py"
    spec = importlib.util.spec_from_file_location("open_clip_zero_shot_metadata", file)  # the file alone: importing open_clip takes seconds
    metadata = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(metadata)
    return tuple(template("{}") for template in metadata.OPENAI_IMAGENET_TEMPLATES)


def _checked(labels, templates):
    """Labels and templates as lists of str; a `UsageError` for none, empty ones, repeated ones, or a template without {}."""
    if isinstance(labels, str):
        raise UsageError(f"expected a list of labels, found one string; write [{labels[:30]!r}]")
    labels = [" ".join(str(label).split()) for label in labels]
    templates = [templates] if isinstance(templates, str) else list(templates)
    if not labels or not all(labels):
        raise UsageError("expected at least one label and no empty ones; give them as cat,dog,teapot")
    count = collections.Counter(label.casefold() for label in labels)  # the tokenizers write everything in small letters
    twice = sorted({label for label in labels if count[label.casefold()] > 1}) if len(count) < len(labels) else []
    if twice:
        more = f" and {len(twice) - 5} more" if len(twice) > 5 else ""
        raise UsageError(f"labels stand twice and would split their probability: {', '.join(twice[:5])}{more}; give each once")
    bad = [template for template in templates if str(template).count("{}") != 1]
    if bad or not templates:
        raise UsageError(f"expected templates with one {{}} for the label, like 'a photo of a {{}}.', found {bad or 'none'}")
    return labels, templates


def class_texts(labels, templates=(TEMPLATE,)):
    """Each label in each template: C lists of T sentences. A `UsageError` for no labels, repeated ones, or a template without {}."""
    labels, templates = _checked(labels, templates)
    return [[template.replace("{}", label) for template in templates] for label in labels]


def class_embeddings(model, labels, templates=(TEMPLATE,)):
    """(C, D) unit rows: per label the mean of its sentences' unit vectors, normalised again. Source: Radford et al. 2021, 3.1.4.

    Sentences are encoded in blocks, so that 10,000 labels in 80 templates need no more memory than 50. A sentence longer than the
    text tower's context is cut, with a `LongTextWarning`; labels that cannot be told apart after the cut are a `UsageError`.
    """
    labels, templates = _checked(labels, templates)
    tower, step = model.text_tower, max(1, BLOCK // len(templates))
    rows, cut, names = [], [], []
    for start in range(0, len(labels), step):
        texts = [template.replace("{}", label) for label in labels[start : start + step] for template in templates]
        found = lengths.long_texts(tower, texts)
        cut += [(texts[position], tokens) for position, tokens in found]
        names += sorted({start + position // len(templates) for position, _ in found})
        with torch.no_grad():
            vectors = model.eval().project_texts(embedding.text_features(tower, texts, tell=False))  # (labels * T, D)
        rows.append(F.normalize(vectors.unflatten(0, (-1, len(templates))).mean(1), dim=-1))
    rows = torch.cat(rows)
    lengths.tell(tower, cut)
    _distinct(rows, labels, names, tower)
    return rows


def _distinct(rows, labels, cut, tower):
    """A `UsageError` when two of the labels numbered in `cut` have the same vector: what told them apart was cut off."""
    seen = {}
    for number in cut:
        first = seen.setdefault(rows[number].numpy().round(5).tobytes(), number)
        if first != number:
            raise UsageError(f"labels {first + 1} and {number + 1} are the same to {tower.name} after its {tower.context} tokens: "
                             f"'{labels[first][:40]}...'; shorten them so that they differ early")
