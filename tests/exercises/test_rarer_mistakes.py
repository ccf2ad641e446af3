"""Mistakes that a hint knows and that stand in no bank: each must get its own hint. The banks hold the usual ones."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bank import check_verdict

from miniclip_helpers import checks


def of(name, change):
    """The solution's answer, changed by a function of (answer, *inputs)."""
    return lambda *inputs: change(checks.exercise(name).reference(*inputs), *inputs)


def cosines(image, text):
    return F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T


def both_ways(image, text, scale):
    m = scale * image @ text.T
    return m.log_softmax(1), m.log_softmax(0)


def sharp(x, t=1.0, dim=-1):
    return (x / t).log_softmax(dim)


def top(values=None, keep=lambda places, k: places[:, :k]):
    """An answer to 02.top_k: the probabilities by `values`, the places by `keep`."""

    def answer(logits, labels, k):
        k = min(k, len(labels))
        table = logits.softmax(-1) if values is None else values(logits, k)
        places = keep(logits.argsort(dim=-1, descending=True), k)
        return [[(labels[c], float(row[c])) for c in some] for row, some in zip(table, places)]

    return answer


def of_the_best(logits, k):
    p = logits.softmax(-1)
    return p / p.topk(k).values.sum(-1, keepdim=True)


def scored(predictions, targets):
    n = len(targets)
    a = (np.asarray(predictions) == np.asarray(targets)).mean()
    return n, a, math.sqrt(a * (1 - a) / n)


def wilson(predictions, targets, z):
    n, a, _ = scored(predictions, targets)
    middle, half = (a + z * z / 2 / n) / (1 + z * z / n), z / (1 + z * z / n) * math.sqrt(a * (1 - a) / n + z * z / 4 / n / n)
    return a, middle - half, middle + half


def surprises(use):
    return lambda x, targets, temperatures: [float(use(x, torch.arange(len(targets)), targets, t)) for t in temperatures]


def pairs_where(rule):
    """An answer to 11.duplicates: the pairs for which rule(row, other) holds, the most alike first."""

    def answer(features, limit):
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        alike = unit @ unit.T
        found = [(i, j) for j in range(len(features)) for i in range(j) if rule(features, alike, i, j)]
        return sorted(found, key=lambda pair: -alike[pair])

    return answer


def nearest(alike, i):
    return np.argsort(alike[i])[-2]


def step(by=lambda model, clip: torch.nn.utils.clip_grad_norm_(model.parameters(), clip), times=1, one_way=False, report=lambda loss, length: loss.item()):
    """An answer to 04.training_step."""

    def answer(model, optimizer, images, texts, clip):
        for _ in range(times):
            image, text, scale = model(images, texts)
            m = scale * image @ text.T
            target = torch.arange(len(m))
            loss = F.cross_entropy(m, target) if one_way else (F.cross_entropy(m, target) + F.cross_entropy(m.T, target)) / 2
            optimizer.zero_grad()
            loss.backward()
            length = by(model, clip)
            optimizer.step()
        return report(loss, length)

    return answer


def to_infinity(model, clip):
    for parameter in model.parameters():
        parameter.grad /= 0


def mixed(rule):
    return lambda before, after, alpha: {name: rule(before[name], value, alpha) if np.issubdtype(value.dtype, np.floating) else value for name, value in after.items()}


def rising(step_, total, warmup, peak):
    return peak * (1 - math.cos(math.pi * (step_ + 1) / total)) / 2


def without_the_pair(image, text, scale, groups):
    same = (groups[:, None] == groups[None, :]).float() - torch.eye(len(groups))
    weight = same / same.sum(1, keepdim=True).clamp_min(1)
    rows, columns = both_ways(image, text, scale)
    return -((weight * rows).sum() + (weight * columns).sum()) / 2 / len(groups)


def last_of(states, mask):
    return states[torch.arange(len(states)), mask.long().sum(1) - 1]


def earlier(least):
    def answer(states, mask):
        return states[torch.arange(len(states)), (mask.long().sum(1) - 2).clamp_min(least)]

    return answer


RARER = [
    ("00.cosine", "This is a distance between the points", lambda a, b: np.abs(a - b).sum()),
    ("00.best_five", "the five worst, best of them first", lambda scores: np.argsort(scores)[:5][::-1]),
    ("01.l2_normalise", "divided by the largest entry", lambda x: x / x.abs().amax(-1, keepdim=True)),
    ("01.logits", "not normalised, and the temperature is missing", lambda i, t, s: i @ t.T),
    ("01.logits", "not normalised, and exp is missing", lambda i, t, s: s * i @ t.T),
    ("01.logits", "divided by the logarithm of the scale", lambda i, t, s: cosines(i, t) / s),
    ("01.logits", "exp belongs to the scale alone", lambda i, t, s: (s * cosines(i, t)).exp()),
    ("01.clip_loss", "summed over the batch and the directions", lambda i, t, s: -sum(part.diagonal().sum() for part in both_ways(i, t, s))),
    ("01.clip_loss", "These are probabilities", lambda i, t, s: sum(part.exp().diagonal().mean() for part in both_ways(i, t, s)) / 2),
    ("01.multi_positive_target", "left out, and the rows are not normalised", lambda g: (g[:, None] == g[None, :]).float() - torch.eye(len(g))),
    ("01.multi_positive_target", "One column per group", lambda g: (g[:, None] == torch.unique(g)[None, :]).float()),
    ("02.prompt_ensemble", "Only the last template", lambda x: F.normalize(x[:, -1], dim=-1)),
    ("02.prompt_ensemble", "the median", lambda x: F.normalize(torch.tensor(np.median(F.normalize(x, dim=-1), axis=1)), dim=-1)),
    ("02.prompt_ensemble", "turned on its side", of("02.prompt_ensemble", lambda found, x: found.T)),
    ("02.top_k", "These are all labels", top(keep=lambda places, k: places)),
    ("02.top_k", "Only the best one", top(keep=lambda places, k: places[:, :1])),
    ("02.top_k", "The best one is missing", top(keep=lambda places, k: places[:, 1 : k + 1])),
    ("02.top_k", "taken twice", top(lambda x, k: x.softmax(-1).softmax(-1))),
    ("02.top_k", "logarithms of probabilities", top(lambda x, k: x.log_softmax(-1))),
    ("02.top_k", ("divided by the sum of the best k", "over the best k alone"), top(of_the_best)),
    ("02.accuracy_interval", ("cut at 0 and 1", "can leave 0 to 1"), lambda p, t: (lambda n, a, e: (a, *np.clip([a - 1.96 * e, a + 1.96 * e], 0, 1)))(*scored(p, t))),
    ("02.accuracy_interval", "one standard error to each side", lambda p, t: (lambda n, a, e: (a, a - e, a + e))(*scored(p, t))),
    ("02.accuracy_interval", "a 99 % interval", lambda p, t: wilson(p, t, 2.575829)),
    ("02.accuracy_interval", "These are counts", lambda p, t: tuple(len(t) * value for value in wilson(p, t, 1.96))),
    ("02.mean_surprise", "The denominator of the softmax is missing", surprises(lambda x, rows, targets, t: -(x / t)[rows, targets].mean())),
    ("02.mean_surprise", "These are bits", surprises(lambda x, rows, targets, t: -sharp(x, t)[rows, targets].mean() / math.log(2))),
    ("02.mean_surprise", "The temperature is not used", surprises(lambda x, rows, targets, t: -sharp(x)[rows, targets].mean())),
    ("04.training_step", "NaN or infinite weights", step(to_infinity)),
    ("04.training_step", ("One direction only, and not clipped", "One direction only:"), step(lambda model, clip: None, one_way=True)),
    ("04.training_step", "the length of the gradient", step(report=lambda loss, length: float(length))),
    ("04.logit_scale", "You clamp too early", lambda s: s.clamp(max=1.0).exp()),
    ("04.learning_rate", "divided where you should multiply", of("04.learning_rate", lambda rate, s, total, warmup, peak: peak / rate)),
    ("04.learning_rate", "The sign of the cosine is turned", rising),
    ("04.multi_positive_loss", "The pair itself is left out", without_the_pair),
    ("04.multi_positive_loss", "Multiply the cosines by the scale", of("04.multi_positive_loss", lambda loss, i, t, s, g: loss / s)),
    ("05.last_token_pooling", "This is the same place in each row", lambda states, mask: states[:, -2]),
    ("05.last_token_pooling", "One place too early", earlier(-1)),
    ("05.last_token_pooling", "This is the sum over the real tokens", lambda states, mask: (states * mask[..., None]).sum(1)),
    ("05.last_token_pooling", "the largest value of each feature", lambda states, mask: states.masked_fill(~mask[..., None], -math.inf).amax(1)),
    ("05.diagnostic", "You added the standard deviations", of("05.diagnostic", lambda found, x: (float(x.std(0, unbiased=False).sum()), found[1]))),
    ("05.diagnostic", "the length of the mean from 1", of("05.diagnostic", lambda found, x: (1 - float(x.mean(0).norm()), found[1]))),
    ("05.diagnostic", "rounded to whole numbers", of("05.diagnostic", lambda found, x: (found[0], len(torch.unique(x.round(), dim=0))))),
    ("05.diagnostic", "These are the repetitions", of("05.diagnostic", lambda found, x: (found[0], len(x) - found[1]))),
    ("06.wise_ft", "was taken from after", lambda before, after, alpha: after if 0 < alpha < 1 else checks.exercise("06.wise_ft").reference(before, after, alpha)),
    ("06.wise_ft", "do not multiply them", mixed(lambda b, a, alpha: b * (1 - alpha) * alpha * a)),
    ("06.wise_ft", "a geometric mean", mixed(lambda b, a, alpha: np.sign(b) * np.abs(b) ** (1 - alpha) * np.abs(a) ** alpha)),
    ("09.probe", ("one over the number of colours", "one over the number of nouns"), of("09.probe", lambda found, nouns, colours, random: (found[0], 1 / len(colours)))),
    ("09.probe", "A scene is a dict of two different nouns", of("09.probe", lambda found, *rest: ([(list(scene), captions, right) for scene, captions, right in found[0]], 0.5))),
    ("09.probe", "Expected a list of two captions", of("09.probe", lambda found, *rest: ([(scene, captions[0], right) for scene, captions, right in found[0]], 0.5))),
    ("09.grad_cam", "The maps play no part here", lambda maps, gradients: (lambda g: g / max(np.abs(g).max(), 1e-12))(np.maximum(gradients.mean(0), 0))),
    ("11.duplicates", "A pair came twice", of("11.duplicates", lambda pairs, *rest: [pair for pair in pairs for _ in range(2)])),
    ("11.duplicates", "No pair was found", lambda features, limit: []),
    ("11.duplicates", "Each photo was given its nearest, copy or not", pairs_where(lambda x, alike, i, j: nearest(alike, i) == j or nearest(alike, j) == i)),
    ("11.duplicates", ("the distance of rows that are not of length 1", "No pair was found"), pairs_where(lambda x, alike, i, j: np.linalg.norm(x[i] - x[j]) <= 0.9)),
    ("11.failing_query", "The first right photo has rank", of("11.failing_query", lambda found, *rest: (found[0], found[1] and found[1] + 5))),
    ("11.duplicates", "of which", pairs_where(lambda x, alike, i, j: (i + j) % 2 == 0)),
]


@pytest.mark.parametrize("name, words, answer", [pytest.param(*row, id=f"{row[0]}-{number}") for number, row in enumerate(RARER)])
def test_a_rarer_mistake_gets_its_own_hint(name, words, answer):
    check_verdict(name, answer, words)
