"""Exercises of notebook 01: normalise, the logits, the symmetric loss, and its target when captions repeat."""

import numpy as np
import torch
import torch.nn.functional as F

from .core import Exercise, Wrong, array, call, compare


def _features(random, rows, width):
    """(rows, width) float32, no row of unit length, no column either."""
    return torch.tensor(random.normal(size=(rows, width)) * random.uniform(0.5, 4, size=(rows, 1)), dtype=torch.float32)


def _unit(random, rows, width):
    rows_ = random.normal(size=(rows, width))
    return torch.tensor(rows_ / np.sqrt((rows_ ** 2).sum(1, keepdims=True)), dtype=torch.float32)


def l2_normalise(features):
    return features / features.norm(dim=-1, keepdim=True)


def grade_l2_normalise(answer, random):
    """Rectangular and square batches; lengths are computed by a loop over the rows."""
    rows = int(random.integers(3, 7))
    features = _features(random, rows, rows if random.random() < 0.5 else rows + 3)
    x = features.double().numpy()
    expected = np.stack([row / sum(v * v for v in row) ** 0.5 for row in x])
    length = np.sqrt((x ** 2).sum(1, keepdims=True))
    compare(call(answer, features), expected, [
        (x, "Nothing has changed. Divide each row by its length."),
        (x / np.sqrt((x ** 2).sum(0)), "You normalised over the wrong axis: the columns have length 1, the rows should. One row is one picture: dim=-1."),
        (x / np.sqrt((x ** 2).sum()), "You divided by one length for the whole batch. Each row has its own: norm(dim=-1, keepdim=True)."),
        (lambda: x / length.ravel() if len(x) == x.shape[1] else np.nan,
         "Each column was divided by the length of a row. Without keepdim=True the lengths (B,) are laid along the columns."),
        (x / length ** 2, "You divided by the squared length. The square root is missing."),
        (x / np.abs(x).sum(1, keepdims=True), "The absolute values of each row add up to 1 (L1). L2 is asked for: the squares do."),
        (np.exp(x) / np.exp(x).sum(1, keepdims=True), "This is a softmax: it makes probabilities. A unit vector keeps its direction."),
        ((x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True), "This is standardising (mean 0, deviation 1). Unit length is asked for."),
        ((x - x.mean(1, keepdims=True)) / x.std(1, ddof=1, keepdims=True), "This is standardising (mean 0, deviation 1). Unit length is asked for."),
        (x / np.abs(x).max(1, keepdims=True), "You divided by the largest entry. Divide by the length, the root of the sum of squares."),
        (length, "These are the lengths. Divide the rows by them."),
        (length.ravel(), "These are the lengths. Divide the rows by them."),
    ], what="the unit rows")


def logits(image_features, text_features, log_logit_scale):
    image_embeddings = F.normalize(image_features, dim=-1)
    text_embeddings = F.normalize(text_features, dim=-1)
    return log_logit_scale.exp() * image_embeddings @ text_embeddings.T


def grade_logits(answer, random):
    """More texts than pictures or fewer; cosines are computed pair by pair."""
    images, texts = (int(n) for n in random.permutation([3, 4, 5])[:2])
    width = int(random.integers(6, 9))
    image, text = _features(random, images, width), _features(random, texts, width)
    log_scale = torch.tensor(random.uniform(1.5, 2.5), dtype=torch.float32)
    x, y, s = image.double().numpy(), text.double().numpy(), float(log_scale)
    cosine = np.array([[sum(a * b) / (sum(a * a) * sum(b * b)) ** 0.5 for b in y] for a in x])
    raw, scale = x @ y.T, np.exp(s)
    ux, uy = (v / np.sqrt((v ** 2).sum(1, keepdims=True)) for v in (x, y))
    wrong = "You normalised over the wrong axis. Each row is one picture or one text, and each row gets length 1: dim=-1."
    cx, cy = (v / np.sqrt((v ** 2).sum(0)) for v in (x, y))
    one_axis = lambda m: m / m.sum(0, keepdims=True), lambda m: m / m.sum(1, keepdims=True)  # noqa: E731
    mistakes = [
        (scale * raw, "The rows are not normalised: long vectors win whatever they say. Normalise both sides first."),
        (raw, "The rows are not normalised, and the temperature is missing."),
        (s * raw, "The rows are not normalised, and exp is missing: log_logit_scale is the logarithm."),
        (s * cosine, "exp is missing: log_logit_scale is the logarithm of the scale."),
        (cosine, "These are the cosines. Multiply by the logit scale: exp of log_logit_scale."),
        (np.exp(scale) * cosine, "exp was applied twice. Once turns the logarithm into the scale."),
        (cosine / scale, "You divided by the scale. It is already 1 / temperature: multiply."),
        (cosine / s, "You divided by the logarithm of the scale. Multiply by its exp."),
        (np.exp(s * cosine), "exp belongs to the scale alone: exp(log_logit_scale) * cosine."),
        (scale * ux @ y.T, "Only the pictures are normalised. The texts need it too."),
        (scale * x @ uy.T, "Only the texts are normalised. The pictures need it too."),
        (scale * cx @ cy.T, wrong), (scale * ux @ cy.T, wrong), (scale * cx @ uy.T, wrong),
        (scale * cosine.T, "Rows are texts here. Rows must be pictures, columns texts: (B, C)."),
        *((norm(np.exp(scale * cosine)), "This is already a softmax. The logits are what goes into it.") for norm in one_axis),
    ]
    compare(call(answer, image, text, log_scale), scale * cosine, mistakes, what="the logits", rtol=1e-4, atol=1e-4)


def clip_loss(image_embeddings, text_embeddings, logit_scale):
    logits = logit_scale * image_embeddings @ text_embeddings.T
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _log_softmax(m, axis):
    top = m.max(axis, keepdims=True)
    return m - top - np.log(np.exp(m - top).sum(axis, keepdims=True))


def grade_clip_loss(answer, random):
    """Unit rows; the expected value comes from NumPy in float64. Then a large scale, and a look at the gradient."""
    batch = int(random.integers(3, 9))
    image, text = (_unit(random, batch, 6).requires_grad_() for _ in range(2))
    scale = float(random.uniform(4, 12))
    m = scale * image.detach().double().numpy() @ text.detach().double().numpy().T
    rows, columns = (-np.diagonal(_log_softmax(m, axis)) for axis in (1, 0))
    loss = (rows.mean() + columns.mean()) / 2
    cosine = m / scale
    plain = (-np.diagonal(_log_softmax(cosine, 1)).mean() - np.diagonal(_log_softmax(cosine, 0)).mean()) / 2
    hot = _log_softmax(m / scale ** 2, 1), _log_softmax(m / scale ** 2, 0)
    p_rows, p_columns = (np.exp(_log_softmax(m, axis)) for axis in (1, 0))
    twice = [-np.diagonal(_log_softmax(p, axis)).mean() for p, axis in ((p_rows, 1), (p_columns, 0))]
    doubled = _log_softmax(np.exp(min(scale, 700)) * cosine, 1), _log_softmax(np.exp(min(scale, 700)) * cosine, 0)
    half = lambda pair: (-np.diagonal(pair[0]).mean() - np.diagonal(pair[1]).mean()) / 2  # noqa: E731
    found = call(answer, image, text, torch.tensor(scale))
    compare(found, loss, [
        (rows.mean(), "One direction only: each picture picks its text. Each text must pick its picture too: the same over the columns."),
        (columns.mean(), "The softmax runs over the batch of pictures only (the columns). The other direction is missing: over each row."),
        (rows.mean() + columns.mean(), "You added the two directions. The loss is their mean: with all logits equal it must be log N, not 2 log N."),
        ((rows.sum() + columns.sum()) / 2, "You summed over the batch. Take the mean, or the loss grows with the batch size."),
        (rows.sum() + columns.sum(), "You summed over the batch and the directions. Take the mean of both."),
        (plain, "The logit scale is missing: the logits are the scale times the cosines."),
        (half(hot), "You divided by the scale. It is already 1 / temperature: multiply."),
        (half(doubled), "exp was applied again. logit_scale is already exponentiated here."),
        (sum(twice) / 2, "A softmax before cross_entropy: it has one inside. Give it the logits."),
        (-np.diagonal(m).mean(), "This only pulls the pairs together. The rest of each row, the denominator, must push the others away."),
        (-loss, "The sign is turned: the loss is minus the log-probability of the right pair."),
        ((p_rows.diagonal().mean() + p_columns.diagonal().mean()) / 2, "These are probabilities. The loss is minus their logarithm."),
    ], what="the loss", rtol=1e-4, atol=1e-5)
    if not getattr(found, "requires_grad", False):
        raise Wrong("The value is right, but the gradient is lost: a .item(), a .detach() or NumPy stands in between, and nothing could be trained.")
    sharp = _unit(random, batch, 6)
    value = array(call(answer, sharp, sharp, torch.tensor(100.0)), "the loss")
    if not np.isfinite(value).all():
        raise Wrong("At CLIP's own scale of 100 your loss overflows: exp(100) is too large for float32. Use F.cross_entropy or torch.logsumexp, "
                    "which subtract the maximum first.")


def multi_positive_target(groups):
    same = groups[:, None] == groups[None, :]
    return same / same.sum(dim=1, keepdim=True)


def grade_multi_positive_target(answer, random):
    """A batch in which at least one group stands three times; the expected target is filled in by two loops."""
    groups = random.permutation([7, 7, 7, 2, 2, *random.choice([0, 1, 3, 4, 5], size=int(random.integers(1, 4)), replace=False)])
    batch = len(groups)
    same = np.zeros((batch, batch))
    expected = np.zeros((batch, batch))
    for i in range(batch):
        partners = [j for j in range(batch) if groups[j] == groups[i]]
        for j in partners:
            same[i, j], expected[i, j] = 1, 1 / len(partners)
    others = same - np.eye(batch)
    exp = np.exp(same)
    compare(call(answer, torch.tensor(groups)), expected, [
        (np.eye(batch), "This is the diagonal target. It calls a second picture of the same thing wrong: look at the groups."),
        (np.arange(batch), "This is the diagonal target as numbers. Here a row may have several right answers: give a (B, B) table."),
        (same, "The rows add up to more than 1. A target is a distribution: divide each row by its number of right answers."),
        (same / batch, "You divided by the batch size. Divide each row by its own number of right answers."),
        (same / same.sum(), "The whole table adds up to 1. Each row must: divide by its own sum."),
        (others / np.maximum(others.sum(1, keepdims=True), 1), "The pair itself is left out. A picture's own caption is right too: keep the diagonal."),
        (others, "The pair itself is left out, and the rows are not normalised."),
        (exp / exp.sum(1, keepdims=True), "This is a softmax of the table: wrong answers get some of the mass. Divide by the sum instead."),
        (1 - same, "These are the wrong answers. Turn == round."),
        (lambda: (groups[:, None] == np.unique(groups)[None, :]), "One column per group. The columns are the captions of the batch: (B, B)."),
    ], what="the target")


EXERCISES = (
    Exercise(
        "01.l2_normalise", "rows of unit length", points=1, minutes=4, level="warm-up", needs="norm, dim, keepdim",
        hints=("Each row is one picture. Its length is the root of the sum of its squares.",
               "features.norm(dim=-1) has shape (B,). Dividing (B, D) by it needs (B, 1).",
               "features / features.norm(dim=-1, keepdim=True)"),
        grade=grade_l2_normalise, reference=l2_normalise,
        explanation="dim=-1 runs along one row, keepdim=True keeps the result as a column (B, 1), so that every entry of a row is divided by "
                    "that row's length. F.normalize(features, dim=-1) does the same, and survives a row of zeros.",
        passed="Each row has length 1, so a dot product of two rows is now their cosine."),
    Exercise(
        "01.logits", "the N x N matrix", points=2, minutes=6, level="core", needs="matrix product, exp",
        hints=("Normalise both sides; then one matrix product gives all cosines.",
               "Rows are pictures, columns are texts: images @ texts.T.",
               "The parameter is the logarithm of the scale: log_logit_scale.exp() * cosines."),
        grade=grade_logits, reference=logits,
        explanation="CLIP learns the logarithm of the scale, so that the scale itself is always positive and a step changes it by a factor. "
                    "exp turns it back; 1 / scale is called the temperature.",
        passed="Pictures down, texts across, sharpened by the scale. All of CLIP's questions are put to this matrix."),
    Exercise(
        "01.clip_loss", "the symmetric loss", points=3, minutes=10, level="core", needs="cross-entropy, transpose",
        hints=("A row of the matrix is a classification: which of the N texts belongs to this picture? The right class of row i is i.",
               "A column is the same question the other way round: use the transposed matrix.",
               "target = torch.arange(N); the mean of F.cross_entropy(logits, target) and F.cross_entropy(logits.T, target)"),
        grade=grade_clip_loss, reference=clip_loss,
        explanation="Two classifications share one matrix. F.cross_entropy takes logits, has a stable log-softmax inside and averages over the batch. "
                    "When nothing is known all logits are equal and both directions cost log N, so their mean does too.",
        passed="Both directions, the mean, and the gradient alive. This is the loss that CLIP was trained with."),
    Exercise(
        "01.multi_positive_target", "the target when captions repeat", points=2, minutes=8, level="stretch", needs="broadcasting",
        hints=("Entry (i, j) is a right answer when groups[i] equals groups[j].",
               "groups[:, None] == groups[None, :] compares all with all: (B, B).",
               "Divide each row by its sum, so that it becomes a distribution."),
        grade=grade_multi_positive_target, reference=multi_positive_target,
        explanation="With a different group in each row this is the identity, and the loss is CLIP's. With two dogs in the batch the diagonal would "
                    "punish the model for seeing that they are both dogs. Khosla et al. 2020 (SupCon) and Yang et al. 2022 (UniCL) share the "
                    "mass among all right answers.",
        passed="Twins are no longer called strangers."),
)
