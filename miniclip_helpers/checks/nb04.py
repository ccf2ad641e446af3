"""Exercises of notebook 04: the training step, the clamped scale, the schedule, and the loss when concepts repeat."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from .core import Exercise, Wrong, array, call, compare

MAX_SCALE = 100.0  # Radford et al. 2021, section 2.5


class _Same:
    """Copied by reference: the check must see what the answer did to the model, so `call` may not copy it."""

    def __deepcopy__(self, memo):
        return self


class _Pair(_Same, torch.nn.Module):
    """The smallest model there is: a matrix per side, and a log scale."""

    def __init__(self, random, width, dim):
        super().__init__()
        self.image, self.text = (torch.nn.Parameter(torch.tensor(random.normal(size=(width, dim)), dtype=torch.float32)) for _ in range(2))
        self.log_logit_scale = torch.nn.Parameter(torch.tensor(1.5))

    def forward(self, image_batch, text_batch):
        return F.normalize(image_batch @ self.image, dim=-1), F.normalize(text_batch @ self.text, dim=-1), self.log_logit_scale.exp()


class _Descent(_Same, torch.optim.SGD):
    """Plain gradient descent, so that one step can be worked out by hand."""


def _clip_loss(image, text, scale):
    logits = scale * image @ text.T
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def training_step(model, optimizer, image_batch, text_batch, clip_norm):
    image_embeddings, text_embeddings, logit_scale = model(image_batch, text_batch)
    logits = logit_scale * image_embeddings @ text_embeddings.T
    target = torch.arange(len(logits))
    loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return loss.item()


def _flat(tensors):
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors]).double().numpy()


def grade_training_step(answer, random):
    """One step of plain gradient descent against the same step by hand, with an old gradient left in place to be cleared.

    The clip bites in one half of the trials and must leave the gradient alone in the other.
    """
    batch, width, dim, rate = int(random.integers(4, 8)), 5, 4, 0.5
    model = _Pair(random, width, dim)
    images, texts = (torch.tensor(random.normal(size=(batch, width)), dtype=torch.float32) for _ in range(2))
    parameters = list(model.parameters())
    loss = _clip_loss(*model(images, texts))
    one_way = F.cross_entropy(model.log_logit_scale.exp() * (lambda i, t, _: i @ t.T)(*model(images, texts)), torch.arange(batch))
    gradient, half = (_flat(torch.autograd.grad(value, parameters)) for value in (loss, one_way))
    length = np.linalg.norm(gradient)
    clip = float(length * (0.1 if random.random() < 0.5 else 2.5))
    before, stale = _flat(parameters), random.normal(size=len(gradient)) * length
    place = 0
    for parameter in parameters:
        parameter.grad = torch.tensor(stale[place : place + parameter.numel()], dtype=torch.float32).view_as(parameter)
        place += parameter.numel()
    found = call(answer, model, _Descent(parameters, lr=rate), images, texts, clip)
    clipped = lambda g: g * min(1.0, clip / np.linalg.norm(g))  # noqa: E731
    moved = before - _flat(parameters)
    if np.allclose(moved, 0, atol=1e-7):
        raise Wrong("No weight has moved. After loss.backward() the optimizer must take its step, in this order.")
    if not np.isfinite(moved).all():
        raise Wrong("After your step there are NaN or infinite weights.")
    compare(moved / rate, clipped(gradient), [
        (clipped(gradient + stale), "Old gradients were still there: backward adds to them. Call optimizer.zero_grad() before loss.backward()."),
        (gradient + stale, "Old gradients were still there, and nothing was clipped. The order: zero_grad, backward, clip, step."),
        (stale, "The step was taken with the gradients of the step before. backward comes first, then clip, then step."),
        (clipped(stale), "The step was taken with the gradients of the step before. backward comes first, then clip, then step."),
        (gradient, "The gradient was not clipped when the step was taken. clip_grad_norm_ stands between backward and step."),
        (gradient.clip(-clip, clip), "Each entry was clipped by itself, which turns the direction. Clip the length of all gradients together: clip_grad_norm_."),
        (gradient * clip / length, "You always scale the gradient to clip_norm. A gradient that is short enough stays as it is."),
        (clipped(half), "One direction only: the loss is the mean of both, rows and columns."),
        (half, "One direction only, and not clipped: the loss is the mean of both, rows and columns."),
        (-clipped(gradient), "You climb the loss. Check its sign."),
        (clipped(2 * gradient), "You added the two directions. Take their mean."),
        (2 * clipped(gradient), "Two steps were taken. One call is one step."),
    ], what="the step divided by the learning rate", rtol=2e-3, atol=1e-5)
    if torch.is_tensor(found) and found.requires_grad:
        raise Wrong("The step is right, but you return the loss with its graph: keeping it would keep every batch in memory. Return loss.item().")
    compare(found, loss.item(), what="the loss that you return", rtol=1e-3, atol=1e-4, mistakes=[
        (_clip_loss(*model(images, texts)).item(), "You return the loss after the step. Return the one that the step was taken on."),
        (length, "This is the length of the gradient. Return the loss."),
    ])


def logit_scale(log_logit_scale):
    return log_logit_scale.exp().clamp(max=100)


def grade_logit_scale(answer, random):
    """Below the limit, far above (in float64, which can hold exp(100) and more), just above; then whether a gradient comes through."""
    for value in (float(random.uniform(0.5, 4.4)), float(random.uniform(-2, -0.2)), float(random.uniform(120, 200)), float(random.uniform(4.7, 6))):
        expected = min(math.exp(value), MAX_SCALE)
        found = call(answer, torch.tensor(value, dtype=torch.float64))
        compare(found, expected, [
            (value, "This is the logarithm still. exp turns the parameter into the scale."),
            (min(value, MAX_SCALE), "This is the logarithm still. exp turns the parameter into the scale."),
            (math.exp(value), "The scale is not clamped: at 100 it must stop, or the softmax becomes a step and training unstable."),
            (math.exp(min(value, MAX_SCALE)), "You clamp the logarithm at 100, and exp(100) is 2.7e43. Clamp the scale, or the logarithm at log(100)."),
            (max(math.exp(value), MAX_SCALE), "min and max are the wrong way round: the scale may be 100 at most."),
            (1.0 if value < 0 else np.nan, "You also hold the scale above 1, as open_clip does. Here only the top is asked for."),
            (math.exp(-value), "This is the temperature, 1 / scale. The scale is exp(+log_logit_scale)."),
            (min(math.exp(-value), MAX_SCALE), "This is the temperature, 1 / scale. The scale is exp(+log_logit_scale)."),
            (math.exp(min(value, 1.0)), "You clamp too early: 100 is the limit of the scale, log(100) = 4.6 that of its logarithm."),
        ], what=f"the scale at log_logit_scale = {value:.3g}", rtol=1e-4)
    log_scale = torch.tensor(2.0, requires_grad=True)
    found = call(lambda x: answer(log_scale), 0)
    if not getattr(found, "requires_grad", False):
        raise Wrong("The values are right, but the gradient is lost (math.exp, .item(), float or no_grad): the scale could not be learned. Stay in torch.")


def learning_rate(step, total_steps, warmup_steps, peak):
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return peak * (1 + math.cos(math.pi * progress)) / 2


def grade_learning_rate(answer, random):
    """The whole schedule, step by step: warm-up to the peak, then half a cosine down."""
    warmup, rest, peak = int(random.integers(3, 9)), int(random.integers(12, 30)), float(random.uniform(0.001, 2))
    total = warmup + rest
    ramp = [peak * (s + 1) / warmup for s in range(warmup)]
    fall = np.arange(rest) / rest
    cosine = lambda x: list(peak * (1 + np.cos(x)) / 2)  # noqa: E731
    expected = [*ramp, *cosine(np.pi * fall)]
    steps = np.arange(total)
    whole = cosine(np.pi * steps / total)
    found = [array(call(answer, int(step), total, warmup, peak), "the learning rate") for step in steps]
    if any(value.shape != () for value in found):
        raise Wrong("Return one number: the learning rate at this step.")
    compare(np.stack(found), expected, [
        ([peak * s / warmup for s in range(warmup)] + cosine(np.pi * fall), "The first step has learning rate 0 and is wasted. Steps count from 0: use (step + 1) / warmup_steps."),
        (whole, "There is no warm-up: the first steps go at full speed, with Adam's averages still empty."),
        (ramp + whole[warmup:], "The cosine must begin where the warm-up ends: progress = (step - warmup_steps) / (total_steps - warmup_steps)."),
        (ramp + cosine(np.pi * (np.arange(rest)) / total), "Progress must reach 1 at the end: divide by total_steps - warmup_steps."),
        (ramp + cosine(2 * np.pi * fall), "That is a whole wave: it comes up again. Half of one, from 0 to pi, goes down and stays."),
        (ramp + list(peak * np.cos(np.pi * fall)), "The cosine runs from 1 to -1. Half of (1 + cosine) runs from 1 to 0."),
        (ramp + list(peak * (1 + np.cos(np.pi * fall))), "The peak is doubled: 1 + cosine starts at 2. Halve it."),
        (ramp + list(peak * np.cos(np.pi / 2 * fall)), "A quarter of a wave. Half of (1 + cos(pi * progress)) is flat at both ends."),
        (ramp + list(peak * (1 - fall)), "You go down in a straight line. A cosine is asked for."),
        (ramp + cosine(np.deg2rad(180 * np.deg2rad(fall))), "math.cos wants radians."),
        (ramp + cosine(fall), "pi is missing: cos(progress) hardly falls."),
        (ramp + [peak] * rest, "After the warm-up the learning rate must fall."),
        ([peak / value if value else np.inf for value in expected], "You divided where you should multiply."),
        ([value / peak for value in expected], "The peak is missing: multiply by it."),
        (list(peak * (1 - np.cos(np.pi * (steps + 1) / total)) / 2), "The sign of the cosine is turned: it rises."),
    ], what="the schedule (one value per step)", rtol=1e-6, atol=1e-9)


def multi_positive_loss(image_embeddings, text_embeddings, logit_scale, groups):
    logits = logit_scale * image_embeddings @ text_embeddings.T
    same = (groups[:, None] == groups[None, :]).float()
    target = same / same.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _log_softmax(m, axis):
    top = m.max(axis, keepdims=True)
    return m - top - np.log(np.exp(m - top).sum(axis, keepdims=True))


def grade_multi_positive_loss(answer, random):
    """A batch with one concept three times and one twice; the expected value is added up entry by entry in float64."""
    groups = random.permutation([7, 7, 7, 2, 2, *random.choice([0, 1, 3, 4, 5], size=int(random.integers(1, 4)), replace=False)])
    batch, scale = len(groups), float(random.uniform(3, 9))
    image, text = (torch.nn.functional.normalize(torch.tensor(random.normal(size=(batch, 6)), dtype=torch.float32), dim=-1).requires_grad_() for _ in range(2))
    m = scale * image.detach().double().numpy() @ text.detach().double().numpy().T
    rows, columns = _log_softmax(m, 1), _log_softmax(m, 0)
    same = (groups[:, None] == groups[None, :]).astype(float)
    partners = same.sum(1)
    by_row = [-sum(rows[i, j] for j in range(batch) if groups[j] == groups[i]) / partners[i] for i in range(batch)]
    by_column = [-sum(columns[i, j] for i in range(batch) if groups[i] == groups[j]) / partners[j] for j in range(batch)]
    expected = (np.mean(by_row) + np.mean(by_column)) / 2
    both = lambda weight: -((weight * rows).sum() + (weight * columns).sum()) / (2 * batch)  # noqa: E731
    others = same - np.eye(batch)
    inside = -(np.log((np.exp(rows) * same).sum(1)).mean() + np.log((np.exp(columns) * same).sum(0)).mean()) / 2
    found = call(answer, image, text, torch.tensor(scale), torch.tensor(groups))
    compare(found, expected, [
        (both(np.eye(batch)), "This is the diagonal loss: it calls the second picture of a concept a mistake. Use the groups."),
        (both(same), "The target is not normalised: a concept that stands three times counts three times as much. Divide each row by its sum."),
        (np.mean(by_row), "One direction only: pictures pick captions. The columns are missing."),
        (np.mean(by_column), "One direction only: captions pick pictures. The rows are missing."),
        (np.mean(by_row) + np.mean(by_column), "You added the two directions. Take their mean."),
        (both(others / np.maximum(others.sum(1, keepdims=True), 1)), "The pair itself is left out. A picture's own caption is right too."),
        (both(same / batch), "You divided by the batch size. Divide each row by its own number of right answers."),
        (both(same / same.sum()), "The whole target adds up to 1. Each of its rows must."),
        (lambda: both(same / partners[:, None]) / scale, "Multiply the cosines by the scale, and leave the loss alone."),
        (lambda: _multi_plain(m / scale, same / partners[:, None]), "The logit scale is missing."),
        (inside, "You added the probabilities of the right answers before the logarithm. That is content with one of them; the target here asks for all alike."),
        (-expected, "The sign is turned: the loss is minus the log-probability."),
        (batch * expected, "You summed over the batch. Take the mean."),
    ], what="the loss", rtol=1e-4, atol=1e-5)
    if not getattr(found, "requires_grad", False):
        raise Wrong("The value is right, but the gradient is lost: stay in torch, without .item() and .detach().")


def _multi_plain(cosine, target):
    return -((target * _log_softmax(cosine, 1)).sum() + (target * _log_softmax(cosine, 0)).sum()) / (2 * len(cosine))


EXERCISES = (
    Exercise(
        "04.training_step", "one training step", points=3, minutes=10, level="core", needs="the loss of notebook 01, autograd",
        hints=("Five things in a row: the loss, clear the old gradients, backward, clip, step.",
               "model(image_batch, text_batch) gives both sides as unit rows, and the scale. Rows of the logits are pictures.",
               "optimizer.zero_grad(); loss.backward(); torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm); optimizer.step(); return loss.item()"),
        grade=grade_training_step, reference=training_step,
        explanation="backward adds to the gradients that are there, so the old ones go first. Clipping scales all gradients together when their common length exceeds "
                    "clip_norm; it keeps the direction, and one odd batch cannot throw the weights away. loss.item() is a number without the graph behind it.",
        passed="Loss, clear, backward, clip, step: every neural network is trained by these five lines."),
    Exercise(
        "04.logit_scale", "the scale and its limit", points=1, minutes=4, level="warm-up", needs="exp, clamp",
        hints=("The parameter is the logarithm of the scale.", "Turn it into the scale first, then hold that at 100 or less.", "log_logit_scale.exp().clamp(max=100)"),
        grade=grade_logit_scale, reference=logit_scale,
        explanation="The logarithm keeps the scale positive. Without a limit the scale keeps growing once the training pairs are won, because sharper is then always "
                    "cheaper; the softmax becomes a step and one wrong pair costs hundreds. CLIP stops at 100, a temperature of 0.01.",
        passed="Positive by the exponential, at most 100 by the clamp, and still learnable."),
    Exercise(
        "04.learning_rate", "warm-up, then a cosine", points=2, minutes=8, level="core", needs="cos, integer steps from 0",
        hints=("Two cases: the first warmup_steps steps climb in a line, the others follow a cosine.",
               "In the second case progress runs from 0 at the end of the warm-up to 1 at total_steps.",
               "peak * (step + 1) / warmup_steps, and peak * (1 + math.cos(math.pi * progress)) / 2"),
        grade=grade_learning_rate, reference=learning_rate,
        explanation="At the start Adam's averages are empty and the gradients large: full speed would throw the weights about. At the end small steps let them settle. "
                    "Loshchilov and Hutter 2017 gave the cosine, Goyal et al. 2017 the warm-up.",
        passed="Up in a line, down in a wave."),
    Exercise(
        "04.multi_positive_loss", "the loss when concepts repeat", points=2, minutes=8, level="stretch", needs="cross-entropy with soft targets, broadcasting",
        hints=("Entry (i, j) of the target is above 0 when groups[i] equals groups[j].",
               "Each row of the target adds up to 1: divide the table of equal groups by its row sums.",
               "F.cross_entropy(logits, target) also takes a (B, B) target of probabilities; the transposed logits take the same target, as it is symmetric."),
        grade=grade_multi_positive_loss, reference=multi_positive_loss,
        explanation="The target shares its mass among all pairs of the same concept, in both directions. With every concept once in the batch it is the identity, and the "
                    "loss is CLIP's. Khosla et al. 2020 (SupCon) and Yang et al. 2022 (UniCL) use it.",
        passed="Two drawings of one thing no longer push each other's captions away."),
)
