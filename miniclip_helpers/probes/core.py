"""What a probe is, and what a model makes of it: a share that is right, its interval, chance, and the control beside it."""

import dataclasses

import numpy as np

from .. import embedding, metrics
from ..errors import UsageError
from ..metrics.blocks import finite_real

TIE = 1e-6  # cosines of one text in two batches differ by rounding

@dataclasses.dataclass(frozen=True)
class Probe:
    """N pictures with a question each, and the answers to choose from.

    pictures: N PIL pictures. choices: N lists of captions, two or more, no two alike. right: (N,) which of the choices is true. groups: (N,) what the
    picture was made from; whole groups are drawn for the interval (None: each picture stands for itself). says: for whom the probe is
    new, which is too easy, what it cannot tell. control: a `Probe` on the same or like pictures whose failure would explain this one away.
    """

    name: str
    question: str
    pictures: list
    choices: list
    right: np.ndarray
    groups: object = None
    control: object = None
    says: str = ""

    def __post_init__(self):
        right = np.asarray(self.right)
        if not len(self.pictures) == len(self.choices) == len(right) > 0:
            raise UsageError(f"probe {self.name}: expected as many lists of choices and right answers as pictures, found {len(self.pictures)} pictures, "
                             f"{len(self.choices)} lists and {len(right)} answers")
        if self.groups is not None and len(self.groups) != len(right):
            raise UsageError(f"probe {self.name}: expected one group per picture, found {len(self.groups)} for {len(right)}")
        for place, captions in enumerate(self.choices):
            if len(captions) < 2 or len(set(captions)) < len(captions):
                raise UsageError(f"probe {self.name}, picture {place}: expected two or more captions, no two alike, found {captions}")
            if not all(str(caption).strip() for caption in captions):
                raise UsageError(f"probe {self.name}, picture {place}: expected captions that say something, found an empty one")
            if right[place] not in range(len(captions)):
                raise UsageError(f"probe {self.name}, picture {place}: the right answer {right[place]} is none of {len(captions)} choices")

    def __len__(self):
        return len(self.pictures)

    @property
    def chance(self):
        """The share that somebody gets right who guesses: the mean of 1 / number of choices."""
        return float(np.mean([1 / len(captions) for captions in self.choices]))

    def always(self):
        """The share that somebody gets right who sees no picture and always names the most frequent place: above chance, the probe is unbalanced."""
        return float(np.bincount(np.asarray(self.right).astype(int)).max() / len(self))


def run(model, probe):
    """{"accuracy", "interval95", "chance", "n", "credit" (N,), "chosen" (N,), "margin" (N,)} of a model with encode_image and encode_text.

    chosen: the place of the caption with the largest cosine, the first of them in a tie. margin: the right caption's cosine less the best wrong one's. credit: 1 where the
    right caption is best, 0 where it is not, and 1 / k where k captions share the best place, what a coin would bring. interval95: Wilson's, or by drawing whole groups where the
    probe has some.
    """
    texts = sorted({caption for captions in probe.choices for caption in captions})
    column = {text: number for number, text in enumerate(texts)}
    cosines = np.asarray(_image_embeddings(model, probe.pictures) @ _text_embeddings(model, texts).T)  # (N, different captions)
    return judge([row[[column[caption] for caption in captions]] for row, captions in zip(cosines, probe.choices, strict=True)], probe)


def judge(cosines, probe):
    """What `run` returns, out of the cosines: N arrays or lists, one finite value per choice; a `UsageError` for others."""
    margin, credit, cosines = [], [], [finite_real(row, "cosines") for row in cosines]
    if [row.shape for row in cosines] != [(len(captions),) for captions in probe.choices]:
        raise UsageError(f"probe {probe.name}: expected a cosine for each choice of {len(probe)} pictures, found rows of {sorted({row.shape for row in cosines})}")
    for row, answer in zip(cosines, np.asarray(probe.right).astype(int), strict=True):
        best = row >= row.max() - TIE
        margin.append(row[answer] - np.delete(row, answer).max())
        credit.append(best[answer] / best.sum())
    return {"accuracy": float(np.mean(credit)), "interval95": interval(credit, probe.groups), "chance": probe.chance, "n": len(probe), "credit": np.array(credit),
            "chosen": np.array([int(row.argmax()) for row in cosines]), "margin": np.array(margin)}


def interval(credit, groups=None):
    """(low, high), 95 %, of a mean share. Wilson's; with groups (N,) a bootstrap that draws whole groups.

    credit: (N,) from 0 to 1. Where all is right, or all wrong, a bootstrap would say +- 0: there it is Wilson's for as many pictures as there are groups.
    """
    credit = finite_real(credit, "credit")
    if credit.ndim != 1 or not len(credit) or credit.min() < 0 or credit.max() > 1:
        raise UsageError(f"expected a credit from 0 to 1 for each of one picture or more, found {credit.shape}, like {credit.ravel()[:5]}")
    if groups is None:
        return metrics.proportion_interval(credit.sum(), len(credit))
    names = np.unique(np.asarray(groups))
    if len(names) < 2:
        raise UsageError("expected two groups or more: one source of pictures says nothing about others")
    if credit.min() == credit.max() and credit[0] in (0, 1):
        return metrics.proportion_interval(credit[0] * len(names), len(names))
    return tuple(metrics.paired_interval(np.zeros(len(credit)), credit, groups)[1:])


def scoreboard(model, probes):
    """{name: {"probe": run(...), "control": run(...) or None}} for a list of probes."""
    return {probe.name: {"probe": run(model, probe), "control": run(model, probe.control) if probe.control else None} for probe in probes}


def _image_embeddings(model, pictures):
    return embedding.image_embeddings(model, pictures) if hasattr(model, "image_tower") else model.encode_image(list(pictures))


def _text_embeddings(model, texts):
    return embedding.text_embeddings(model, texts) if hasattr(model, "text_tower") else model.encode_text(list(texts))
