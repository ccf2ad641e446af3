"""Zero-shot classification: labels become sentences, sentences become class vectors, the nearest one names the picture."""

import torch
from torch.nn import functional as F

from . import embedding
from .errors import UsageError

TEMPLATE = "a photo of a {}."
# Seven in the manner of Radford et al. 2021's prompts for ImageNet, in our own choice.
TEMPLATES = ("a photo of a {}.", "a picture of a {}.", "a close-up photo of a {}.", "a drawing of a {}.", "a small {}.", "a {} on a white background.", "{}")


def class_texts(labels, templates=(TEMPLATE,)):
    """Each label in each template: C lists of T sentences. A `UsageError` for no labels, repeated ones, or a template without {}."""
    labels = [str(label).strip() for label in labels]
    templates = [templates] if isinstance(templates, str) else list(templates)
    if not labels or not all(labels):
        raise UsageError("expected at least one label and no empty ones; give them as cat,dog,teapot")
    twice = sorted({label for label in labels if labels.count(label) > 1}) if len(set(labels)) < len(labels) else []
    if twice:
        raise UsageError(f"labels stand twice and would split their probability: {', '.join(twice[:5])}")
    bad = [template for template in templates if template.count("{}") != 1]
    if bad or not templates:
        raise UsageError(f"expected templates with one {{}} for the label, like 'a photo of a {{}}.', found {bad or 'none'}")
    return [[template.replace("{}", label) for template in templates] for label in labels]


def class_embeddings(model, labels, templates=(TEMPLATE,)):
    """(C, D) unit rows: per label the mean of its sentences' unit vectors, normalised again. Source: Radford et al. 2021, 3.1.4."""
    texts = class_texts(labels, templates)
    vectors = embedding.text_embeddings(model, [sentence for row in texts for sentence in row])  # (C * T, D)
    return F.normalize(vectors.unflatten(0, (len(texts), -1)).mean(1), dim=-1)


def class_probabilities(image_embeddings, class_embeddings, logit_scale):
    """(N, D) pictures and (C, D) classes to (N, C) probabilities: rows sum to 1. logit_scale: exponentiated, 1 / temperature."""
    return (torch.as_tensor(logit_scale) * image_embeddings @ class_embeddings.T).softmax(-1)


def classify(model, source, labels, templates=(TEMPLATE,)):
    """Probabilities (N, C) of each label for each picture of a dataset or a list of pictures."""
    classes = class_embeddings(model, labels, templates)
    return class_probabilities(embedding.image_embeddings(model, source), classes, model.logit_scale.detach())


def top_labels(probabilities, labels, k=5):
    """Per picture the k best (label, probability), best first. A k above the number of labels counts as all of them."""
    values, columns = torch.as_tensor(probabilities).topk(min(k, len(labels)), dim=-1)
    return [[(labels[column], float(value)) for value, column in zip(*row)] for row in zip(values.tolist(), columns.tolist())]
