"""Zero-shot classification: labels become sentences, sentences become class vectors, the nearest one names the picture."""

from .evaluate import cosines, evaluate_labels, score_report
from .labels import labels_of, read_labels
from .predict import OPPOSITES, binary, check_several, class_probabilities, classify, fit_temperature, scale_of, top_labels, yes_no
from .probes import Probe, few_shot, linear_probe
from .prompts import TEMPLATE, TEMPLATES, class_embeddings, class_texts, imagenet_templates

__all__ = [
    "OPPOSITES", "Probe", "TEMPLATE", "TEMPLATES", "binary", "check_several", "class_embeddings", "class_probabilities", "class_texts", "classify", "cosines",
    "evaluate_labels", "few_shot", "fit_temperature", "imagenet_templates", "labels_of", "linear_probe", "read_labels", "scale_of", "score_report", "top_labels",
    "yes_no",
]
