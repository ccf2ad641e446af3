"""Exercises of notebook 10: a log-sum-exp that never sees the whole row, the way back of a gather, the second pass of gradient caching."""

import weakref

import numpy as np
import torch

from .core import Exercise, Wrong, array, call, compare


def streaming_logsumexp(blocks):
    highest, total = torch.tensor(-torch.inf), torch.tensor(0.0)
    for block in blocks:
        new = torch.maximum(highest, block.max(dim=1).values)
        total = total * torch.exp(highest - new) + torch.exp(block - new[:, None]).sum(dim=1)
        highest = new
    return highest + torch.log(total)


class _Blocks:
    """Blocks of a matrix, handed out one by one, once. It counts how many of them the answer still holds when it asks for the next."""

    def __init__(self, matrix, widths):
        self.matrix, self.widths, self.held, self.asked = matrix, widths, 0, 0

    def __deepcopy__(self, memo):
        return self

    def __iter__(self):
        self.asked += 1
        given, start = [], 0
        for width in self.widths:
            self.held = max(self.held, sum(block() is not None for block in given))
            block = torch.tensor(self.matrix[:, start : start + width], dtype=torch.float32)
            given.append(weakref.ref(block))
            start += width
            yield block
            del block


def _matrix(random):
    """(rows, columns) logits and the widths of the blocks: rows far up, far down and near zero; the maximum early, late, in the last short block."""
    width, whole = int(random.integers(4, 7)), int(random.integers(3, 5))
    widths = [width] * whole + [int(random.integers(2, width))]
    matrix = random.normal(size=(7, sum(widths))) * 3
    matrix += np.array([0, 150, -150, 100, 0, 2, 0])[:, None]
    matrix[3, :width] += 25
    matrix[4, width : 2 * width] += 12
    matrix[5, -widths[-1] :] += 18
    matrix[6] += np.linspace(0, 25, sum(widths))  # climbs: every block brings a new maximum
    return matrix.astype(np.float32), widths


def _logsumexp_mistakes(matrix, widths):
    """[(value, hint)] of the usual wrong sums."""
    cuts = np.cumsum(widths)[:-1]
    blocks = np.split(matrix.astype(np.float64), cuts, axis=1)
    each = np.stack([np.logaddexp.reduce(block, axis=1) for block in blocks])  # (blocks, rows)
    truth = np.logaddexp.reduce(each, axis=0)
    tops = np.stack([block.max(1) for block in blocks])
    running = np.maximum.accumulate(tops)
    unscaled = np.log(sum(np.exp(block - top[:, None]).sum(1) for block, top in zip(blocks, running)))
    with np.errstate(over="ignore", divide="ignore", under="ignore", invalid="ignore"):
        naive = np.log(np.exp(matrix).sum(1))
        one_top = np.log(np.exp(matrix - matrix.max()).sum(1)) + matrix.max()
    overflow = ("Rows near 150 give infinity, rows near -150 minus infinity: exp of 89 is the largest that float32 holds. Take each row's maximum out before exp, "
                "and add it again after log.")
    return truth, [
        (naive, overflow),
        (one_top, "One maximum for all rows is taken out, and the rows far below it vanish. Each row has its own maximum: block.max(dim=1)."),
        (running[-1] + unscaled, "The old sum was taken relative to the old maximum. When the maximum rises from m to n, multiply the sum so far by exp(m - n)."),
        (tops[-1] + np.log(sum(np.exp(block - top[:, None]).sum(1) for block, top in zip(blocks, tops))),
         "You add the last block's maximum at the end. The largest over all blocks is needed, and the sum so far rescaled whenever it rises."),
        (unscaled, "The maximum that was taken out is not added again: highest + log(total)."),
        (truth - running[-1], "The maximum that was taken out is not added again: highest + log(total)."),
        (each.mean(0), "This is the mean of the blocks' values. Exponentials add up, not logarithms: log(exp(a) + exp(b)), which is torch.logaddexp(a, b)."),
        (each.sum(0), "The blocks' values are added. Exponentials add up, not logarithms: log(exp(a) + exp(b)), which is torch.logaddexp(a, b)."),
        (each.max(0), "This is the largest of the blocks' values. The others count, too: torch.logaddexp."),
        (running[-1], "This is the maximum. It is the largest part of the answer; log of the sum of exp(x - maximum) is missing."),
        (np.logaddexp.reduce(each[:-1], axis=0), "The last block is missing: it is shorter than the others, and counts all the same."),
        (each[-1], "This is the last block's value alone. Carry the sum from block to block."),
        (each[0], "This is the first block's value alone. Is there a return inside the loop?"),
        (np.logaddexp(truth, 0), "There is a 1 too many in the sum: it starts at 0, and the logarithm of nothing is -inf, not 0."),
        (truth - np.log(matrix.shape[1]), "This is the logarithm of the mean. The sum is asked for."),
    ]


def grade_logsumexp(answer, random):
    """One matrix in blocks; the truth in float64 over whole rows."""
    matrix, widths = _matrix(random)
    truth, mistakes = _logsumexp_mistakes(matrix, widths)
    blocks = _Blocks(matrix, widths)
    found = array(call(answer, blocks))
    if found.shape == (sum(widths),):
        raise Wrong("One value per column. The sum runs over the columns, dim=1: one value per row.")
    compare(found, truth, mistakes, what="the log-sum-exp of each row", rtol=1e-5, atol=1e-3)
    if blocks.held > 2:
        raise Wrong("The values are right, but you keep the blocks: with all of them in memory nothing is saved. Keep a maximum and a sum per row, and let each block go.")
    if blocks.asked > 1:
        raise Wrong("The values are right, but you went through the blocks more than once, and each time every logit is computed anew. One pass is enough: "
                    "rescale the sum when the maximum rises.")


def gather_backward(pulls, rank):
    share = len(pulls[0]) // len(pulls)
    mine = slice(rank * share, (rank + 1) * share)
    return sum(pull[mine] for pull in pulls)


def grade_gather(answer, random):
    """Three to five processes; what each pulls at every row is known, so is what arrives at one of them."""
    processes, share, width = int(random.integers(3, 6)), int(random.integers(2, 5)), 3
    for rank in (int(random.integers(1, processes - 1)), 0, processes - 1):
        pulls = random.normal(size=(processes, processes * share, width))
        rows = np.arange(rank * share, (rank + 1) * share)
        by_process = pulls.reshape(processes, processes, share, width)  # who pulls, whose row
        expected = np.zeros((share, width))
        for pull in pulls:
            expected += pull[rows]
        swapped = by_process[rank].sum(0)
        compare(call(answer, [torch.tensor(pull) for pull in pulls], rank), expected, [
            (pulls[rank][rows], "Only this process's own loss pulls here. That is what a gather without gradients does: in the other processes these rows stand among "
                                "the negatives, and their pull must come home as well."),
            (expected / processes, "This is the mean over the processes. The derivative of a sum of losses is the sum; DDP divides by their number later, once."),
            (expected * processes, "One factor too many: the pulls are added up, and that is all."),
            (expected - pulls[rank][rows], "The pull of this process's own loss is missing."),
            (swapped, "You added up what this one process pulls at everybody's rows. It is the other way round: what everybody pulls at this process's rows."),
            (pulls.sum(0), "This is the pull at all rows. Return the block that belongs to this process."),
            (by_process[:, 0].sum(0), "These are the rows of process 0. The block of process `rank` begins at row rank * B."),
            (by_process[:, -1].sum(0), "These are the last rows. The block of process `rank` begins at row rank * B."),
            (lambda pulls=pulls: pulls.sum(0)[rank::processes], "You took every W-th row. The processes' rows stand one block after the other: rank * B to (rank + 1) * B."),  # noqa: B023
            (pulls[0][rows], "Only process 0's loss pulls here. Add up those of all."),
            (np.concatenate([pull[rows] for pull in pulls]), "The pulls stand one under the other. Each row has one gradient: their sum."),
            (np.stack([pull[rows] for pull in pulls]), "The pulls stand side by side. Each row has one gradient: their sum."),
        ], what=f"the gradient that arrives at process {rank} of {processes}", rtol=1e-6, atol=1e-8)


def second_pass(tower, inputs, pull, chunk):
    for start in range(0, len(inputs), chunk):
        part = slice(start, start + chunk)
        (tower(inputs[part]) * pull[part]).sum().backward()
    return tower


class _Tower(torch.nn.Module):
    """A small tower that remembers how many rows it was shown with a graph."""

    def __init__(self, random, width=5, dim=3):
        super().__init__()
        self.first, self.last = (torch.nn.Parameter(torch.tensor(random.normal(size=shape))) for shape in ((width, 6), (6, dim)))
        self.rows = []

    def forward(self, inputs):
        self.rows.append(len(inputs))
        return torch.tanh(inputs @ self.first) @ self.last


def _weights_grad(tower):
    if any(weight.grad is None for weight in tower.parameters()):
        raise Wrong("No gradient arrived at the weights. The second pass needs a graph (no torch.no_grad), and a backward().")
    return np.concatenate([weight.grad.numpy().ravel() for weight in tower.parameters()])


def grade_second_pass(answer, random):
    """A batch that the chunk does not divide, against the gradient worked out row by row; weights that hold a gradient already keep it."""
    chunk, chunks = int(random.integers(3, 6)), int(random.integers(2, 4))
    count, tower = chunk * chunks + int(random.integers(1, chunk)), _Tower(random)
    inputs, pull = torch.tensor(random.normal(size=(count, 5))), torch.tensor(random.normal(size=(count, 3)))
    by_row = []
    for row in range(count):
        grads = torch.autograd.grad((torch.tanh(inputs[row] @ tower.first) @ tower.last * pull[row]).sum(), list(tower.parameters()))
        by_row.append(np.concatenate([grad.numpy().ravel() for grad in grads]))
    by_row, starts = np.array(by_row), range(0, count, chunk)
    parts = np.array([by_row[start : start + chunk].sum(0) for start in starts])
    first_pull = sum(_pulled(tower, inputs[start : start + chunk], pull[: min(chunk, count - start)]) for start in starts)
    no_pull = _pulled(tower, inputs, torch.ones_like(pull))
    found = call(answer, tower, inputs, pull, chunk)
    if not isinstance(found, _Tower):
        raise Wrong(f"Return the tower, whose weights hold the gradient now; found {type(found).__name__}.")
    compare(_weights_grad(found), parts.sum(0), [
        (parts[-1], "Only the last chunk's gradient is left. backward() adds to .grad: do not clear it between the chunks."),
        (parts[0], "Only the first chunk's gradient is there. Is the return inside the loop?"),
        (parts[:-1].sum(0), "The last, shorter chunk is missing: range(0, N, chunk) reaches it."),
        (parts.mean(0), "You divided by the number of chunks. The cache holds the gradient of the whole loss already: add the chunks up."),
        (sum(part / (3 * len(by_row[start : start + chunk])) for part, start in zip(parts, starts)),
         "A mean over the chunk instead of a sum: each row's pull counts in full. Use .sum()."),
        (first_pull, "Every chunk is pulled by the first rows of the cache. Rows i to i + chunk of the tower belong to rows i to i + chunk of the cache."),
        (no_pull, "The cache is not used: this is the gradient of the sum of all embeddings. Multiply the embeddings with their rows of `pull`, then sum."),
        (-parts.sum(0), "The sign is turned. The cache holds the gradient; the optimizer takes the minus."),
    ], what="the gradient of the weights", rtol=1e-6, atol=1e-9)
    if max(found.rows) > chunk:
        raise Wrong(f"The gradient is right, but the tower saw {max(found.rows)} rows at once, and held their activations. Show it {chunk} at a time.")


def _pulled(tower, inputs, pull):
    grads = torch.autograd.grad((torch.tanh(inputs @ tower.first) @ tower.last * pull).sum(), list(tower.parameters()))
    return np.concatenate([grad.numpy().ravel() for grad in grads])


EXERCISES = (
    Exercise(
        "10.logsumexp", "log-sum-exp, block by block", points=2, minutes=12, level="core", needs="softmax, maximum along an axis",
        hints=("Two numbers per row are enough to go on: the highest logit so far, and the sum of exp(logit - highest) so far.",
               "A new block may bring a higher maximum. Then the old sum must be expressed relative to it: multiply by exp(old - new).",
               "new = torch.maximum(highest, block.max(dim=1).values); total = total * torch.exp(highest - new) + torch.exp(block - new[:, None]).sum(dim=1); "
               "in the end highest + torch.log(total). Begin with -inf and 0."),
        grade=grade_logsumexp, reference=streaming_logsumexp,
        explanation="The softmax needs one sum over the whole row, and a sum can be taken in pieces. Taking the running maximum out keeps every exponent at or below 0. "
                    "torch.logaddexp(so_far, block.logsumexp(1)) does the same for each block. FlashAttention rests on this trick, and so does the chunked loss.",
        passed="Two numbers per row stand for a row of any length."),
    Exercise(
        "10.gather", "the way back of a gather", points=2, minutes=8, level="core", needs="the derivative of a sum, slices",
        hints=("My rows stand in everybody's matrix. Whose loss depends on them?",
               "Everybody's. The derivative of a sum of losses is the sum of the derivatives.",
               "B = len(pulls[0]) // len(pulls); sum over p of pulls[p][rank * B : (rank + 1) * B]"),
        grade=grade_gather, reference=gather_backward,
        explanation="Forward, a gather copies my rows into every process; backward, copies become a sum: an all-reduce, of which I keep my block. Without it each tower hears "
                    "only its own process's complaint. DDP then takes the mean over the processes, which turns the sum of the local losses into their mean: the whole loss.",
        passed="What was copied out comes home as a sum."),
    Exercise(
        "10.second_pass", "the second pass of gradient caching", points=2, minutes=8, level="core", needs="backward() adds to .grad",
        hints=("The loss is not needed any more: the cache says how strongly each number of each embedding is pulled.",
               "The gradient of (embeddings * pull).sum() with respect to the weights is the chain rule, when pull is held fixed.",
               "for start in range(0, len(inputs), chunk): (tower(inputs[start:start + chunk]) * pull[start:start + chunk]).sum().backward()"),
        grade=grade_second_pass, reference=second_pass,
        explanation="The chain rule splits the gradient in two: of the loss with respect to the embeddings, which needs all of them at once but no tower, and of the embeddings "
                    "with respect to the weights, which needs a tower but one row at a time. The second is a sum over rows, so it may be taken in pieces.",
        passed="One large batch, in the memory of a small one."),
)
