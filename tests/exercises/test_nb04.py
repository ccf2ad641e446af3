"""The bank of notebook 04."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bank import cases, check_verdict

from miniclip_helpers import checks, losses


def clip_loss(model, images, texts):
    return losses.clip_loss(*model(images, texts))


def step(loss=clip_loss, clear=True, clip=torch.nn.utils.clip_grad_norm_, report=lambda value: value.item(), times=1):
    """An answer to 04.training_step, with one thing done otherwise."""

    def answer(model, optimizer, image_batch, text_batch, clip_norm):
        for _ in range(times):
            value = loss(model, image_batch, text_batch)
            if clear:
                optimizer.zero_grad()
            value.backward()
            clip(model.parameters(), clip_norm)
            optimizer.step()
        return report(value)

    return answer


def own_clip(model, optimizer, image_batch, text_batch, clip_norm):
    for parameter in model.parameters():
        parameter.grad = None
    image, text, scale = model(image_batch, text_batch)
    m = scale * image @ text.T
    loss = (m.logsumexp(1) + m.logsumexp(0) - 2 * m.diagonal()).mean() / 2
    loss.backward()
    length = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
    for parameter in model.parameters():
        parameter.grad *= torch.clamp(clip_norm / length, max=1.0)
    optimizer.step()
    return float(loss.detach())


def step_first(model, optimizer, image_batch, text_batch, clip_norm):
    loss = clip_loss(model, image_batch, text_batch)
    optimizer.step()
    optimizer.zero_grad()
    loss.backward()
    return loss.item()


def clear_last(model, optimizer, image_batch, text_batch, clip_norm):
    loss = clip_loss(model, image_batch, text_batch)
    loss.backward()
    optimizer.zero_grad()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return loss.item()


def clip_too_late(model, optimizer, image_batch, text_batch, clip_norm):
    loss = clip_loss(model, image_batch, text_batch)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    return loss.item()


def always_scale(parameters, norm):
    parameters = list(parameters)
    length = torch.cat([p.grad.flatten() for p in parameters]).norm()
    for parameter in parameters:
        parameter.grad *= norm / length


def one_way(model, images, texts):
    image, text, scale = model(images, texts)
    return F.cross_entropy(scale * image @ text.T, torch.arange(len(image)))


def loss_after(model, optimizer, image_batch, text_batch, clip_norm):
    step()(model, optimizer, image_batch, text_batch, clip_norm)
    return clip_loss(model, image_batch, text_batch).item()


def schedule(warm=lambda s, w: (s + 1) / w, progress=lambda s, t, w: (s - w) / (t - w), wave=lambda x: (1 + math.cos(math.pi * x)) / 2):
    """An answer to 04.learning_rate, with one thing done otherwise."""
    return lambda s, t, w, peak: peak * (warm(s, w) if s < w else wave(progress(s, t, w)))


def target(groups):
    same = (groups[:, None] == groups[None, :]).float()
    return same / same.sum(1, keepdim=True)


def multi(make=target, both=lambda a, b: (a + b) / 2, scaled=True, **options):
    """An answer to 04.multi_positive_loss, with one thing done otherwise."""

    def answer(image, text, scale, groups):
        m = (scale if scaled else 1) * image @ text.T
        return both(F.cross_entropy(m, make(groups), **options), F.cross_entropy(m.T, make(groups), **options))

    return answer


def looped(image, text, scale, groups):
    total = 0
    for a, b in ((image, text), (text, image)):
        for i in range(len(groups)):
            p = (scale * a[i] @ b.T).log_softmax(0)
            partners = [j for j in range(len(groups)) if groups[j] == groups[i]]
            total = total - sum(p[j] for j in partners) / len(partners)
    return total / (2 * len(groups))


def added_probabilities(image, text, scale, groups):
    same = (groups[:, None] == groups[None, :]).float()
    m = scale * image @ text.T
    return -((m.softmax(1) * same).sum(1).log().mean() + (m.softmax(0) * same).sum(0).log().mean()) / 2


BANK = {
    "04.training_step": {
        "right": [own_clip, step(report=lambda value: float(value.detach())), step(report=lambda value: value.detach())],
        "wrong": [
            ("backward adds to them", step(clear=False)),
            ("nothing was clipped", step(clear=False, clip=lambda *_: None)),
            ("not clipped", step(clip=lambda *_: None)),
            ("turns the direction", step(clip=torch.nn.utils.clip_grad_value_)),
            ("short enough", step(clip=always_scale)),
            ("gradients of the step before", step_first),
            ("No weight has moved", clear_last),
            ("not clipped", clip_too_late),
            ("One direction", step(loss=one_way)),
            ("climb the loss", step(loss=lambda *a: -clip_loss(*a))),
            ("with its graph", step(report=lambda value: value)),
            ("after the step", loss_after),
            ("forget `return`", step(report=lambda value: None)),
            ("No weight has moved", lambda model, optimizer, i, t, c: clip_loss(model, i, t).item()),
        ],
    },
    "04.logit_scale": {
        "right": [lambda x: torch.exp(x.clamp(max=math.log(100))), lambda x: torch.where(x.exp() > 100, torch.full_like(x, 100), x.exp())],
        "wrong": [
            ("logarithm still", lambda x: x),
            ("logarithm still", lambda x: x.clamp(max=100)),
            ("not clamped", lambda x: x.exp()),
            ("2.7e43", lambda x: x.clamp(max=100).exp()),
            ("wrong way round", lambda x: x.exp().clamp(min=100)),
            ("temperature", lambda x: (-x).exp()),
            ("above 1", lambda x: x.clamp(0, math.log(100)).exp()),
            ("gradient is lost", lambda x: torch.tensor(min(math.exp(min(float(x), 700)), 100.0))),
            ("gradient is lost", lambda x: x.exp().clamp(max=100).item()),
        ],
    },
    "04.learning_rate": {
        "right": [
            lambda s, t, w, peak: min(peak * (s + 1) / w, peak) if s < w else peak * math.cos(math.pi * (s - w) / (t - w) / 2) ** 2,
            schedule(wave=lambda x: 0.5 + 0.5 * np.cos(np.pi * x)),
        ],
        "wrong": [
            ("wasted", schedule(warm=lambda s, w: s / w)),
            ("no warm-up", lambda s, t, w, peak: peak * (1 + math.cos(math.pi * s / t)) / 2),
            ("begin where the warm-up ends", schedule(progress=lambda s, t, w: s / t)),
            ("reach 1 at the end", schedule(progress=lambda s, t, w: (s - w) / t)),
            ("whole wave", schedule(wave=lambda x: (1 + math.cos(2 * math.pi * x)) / 2)),
            ("from 1 to -1", schedule(wave=lambda x: math.cos(math.pi * x))),
            ("doubled", schedule(wave=lambda x: 1 + math.cos(math.pi * x))),
            ("quarter", schedule(wave=lambda x: math.cos(math.pi * x / 2))),
            ("straight line", schedule(wave=lambda x: 1 - x)),
            ("pi is missing", schedule(wave=lambda x: (1 + math.cos(x)) / 2)),
            ("must fall", schedule(wave=lambda x: 1)),
            ("peak is missing", lambda s, t, w, peak: schedule()(s, t, w, 1.0)),
            ("one number", lambda s, t, w, peak: [peak]),
        ],
    },
    "04.multi_positive_loss": {
        "right": [looped, lambda image, text, scale, groups: losses.multi_positive_loss(image, text, scale, groups)],
        "wrong": [
            ("diagonal loss", lambda image, text, scale, groups: losses.clip_loss(image, text, scale)),
            ("not normalised", multi(lambda groups: (groups[:, None] == groups).float())),
            ("pictures pick captions", multi(both=lambda a, b: a)),
            ("captions pick pictures", multi(both=lambda a, b: b)),
            ("added the two directions", multi(both=lambda a, b: a + b)),
            ("divided by the batch size", multi(lambda groups: (groups[:, None] == groups).float() / len(groups))),
            ("Each of its rows", multi(lambda groups: (groups[:, None] == groups).float() / (groups[:, None] == groups).sum())),
            ("scale is missing", multi(scaled=False)),
            ("summed over the batch", multi(reduction="sum")),
            ("before the logarithm", added_probabilities),
            ("sign is turned", lambda *inputs: -losses.multi_positive_loss(*inputs)),
            ("gradient is lost", lambda *inputs: losses.multi_positive_loss(*inputs).item()),
        ],
    },
}


@pytest.mark.parametrize("name, answer, words", cases(BANK))
def test_bank(name, answer, words):
    check_verdict(name, answer, words)


def test_the_references_are_what_the_package_does():
    """The loss as in `losses`, the limit as in `model`: the notebook teaches what the package runs."""
    from miniclip_helpers.model import MAX_LOGIT_SCALE

    generator = torch.Generator().manual_seed(0)
    image, text = (F.normalize(torch.randn(6, 4, generator=generator), dim=-1) for _ in range(2))
    groups = torch.tensor([0, 1, 0, 2, 2, 0])
    ours = checks.exercise("04.multi_positive_loss").reference(image, text, torch.tensor(7.0), groups)
    torch.testing.assert_close(ours, losses.multi_positive_loss(image, text, torch.tensor(7.0), groups))
    assert float(checks.exercise("04.logit_scale").reference(torch.tensor(50.0))) == MAX_LOGIT_SCALE
