"""The bank of notebook 10."""

import numpy as np
import pytest
import torch
from bank import cases, check_verdict

from miniclip_helpers import checks
from miniclip_helpers.losses import clip_loss
from miniclip_helpers.training.gradient_cache import gradient_cached_step


def folded(fold, start=None):
    """An answer to 10.logsumexp that folds the blocks' own values."""

    def answer(blocks):
        found = start
        for block in blocks:
            found = block.logsumexp(1) if found is None else fold(torch.as_tensor(found), block.logsumexp(1))
        return found

    return answer


def by_numpy(blocks):
    found = -np.inf
    for block in blocks:
        found = np.logaddexp(found, np.logaddexp.reduce(block.numpy().astype(np.float64), axis=1))
    return found


def running(rescale=True, top=lambda old, new: torch.maximum(old, new), back=True, per_row=True, skip=None):
    """An answer to 10.logsumexp with one thing done otherwise."""

    def answer(blocks):
        highest, total, width = torch.tensor(-torch.inf), 0.0, None
        for block in blocks:
            width = width or block.shape[1]
            if skip == "short" and block.shape[1] < width:
                continue
            new = top(highest, block.max(1).values if per_row else block.max().expand(len(block)))
            total = total * (torch.exp(highest - new) if rescale else 1) + torch.exp(block - new[:, None]).sum(1)
            highest = new
        return (highest if back else 0) + torch.log(total)

    return answer


def naive(blocks):
    return torch.log(sum(block.exp().sum(1) for block in blocks))


def hoard(blocks):
    return torch.cat(list(blocks), dim=1).logsumexp(1)


def twice(blocks):
    top = None
    for block in blocks:
        top = block.max(1).values if top is None else torch.maximum(top, block.max(1).values)
    return top + torch.log(sum(torch.exp(block - top[:, None]).sum(1) for block in blocks))


def mean_of_blocks(blocks):
    found = [block.logsumexp(1) for block in blocks]
    return sum(found) / len(found)


def first_block(blocks):
    for block in blocks:
        return block.logsumexp(1)


def last_block(blocks):
    for block in blocks:
        found = block.logsumexp(1)
    return found


def maximum(blocks):
    return torch.stack([block.max(1).values for block in blocks]).max(0).values


def share(pulls, rank):
    size = len(pulls[0]) // len(pulls)
    return slice(rank * size, (rank + 1) * size)


def everybody(pulls, rank):
    return torch.stack(pulls).sum(0)


def by_autograd(pulls, rank):
    """Right: a real gather in one process, its gradient left to torch."""
    size = len(pulls[0]) // len(pulls)
    rows = [torch.zeros(size, pulls[0].shape[1], dtype=pulls[0].dtype, requires_grad=True) for _ in pulls]
    sum((torch.cat(rows) * pull).sum() for pull in pulls).backward()
    return rows[rank].grad


def passed(weigh=lambda rows, pull: (rows * pull).sum(), clear=False, stop=None, shift=True, divide=False, whole=False, back=True):
    """An answer to 10.second_pass with one thing done otherwise."""

    def answer(tower, inputs, pull, chunk):
        chunk = len(inputs) if whole else chunk
        starts = range(0, len(inputs), chunk) if stop is None else range(0, len(inputs) // chunk * chunk, chunk)
        for start in starts:
            if clear:
                tower.zero_grad()
            rows = tower(inputs[start : start + chunk])
            pulled = weigh(rows, pull[start : start + chunk] if shift else pull[: len(rows)])
            (pulled / len(starts) if divide else pulled).backward()
            if stop == "first":
                break
        return tower if back else [weight.grad for weight in tower.parameters()]

    return answer


def by_vector(tower, inputs, pull, chunk):
    for part, weight in zip(inputs.split(chunk), pull.split(chunk)):
        tower(part).backward(weight)
    return tower


def no_graph(tower, inputs, pull, chunk):
    with torch.no_grad():
        for part in inputs.split(chunk):
            tower(part)
    return tower


BANK = {
    "10.logsumexp": {
        "right": [folded(torch.logaddexp), folded(torch.logaddexp, -np.inf), by_numpy, running()],
        "wrong": [
            ("exp of 89", naive),
            ("One maximum for all rows", running(per_row=False)),
            ("multiply the sum so far", running(rescale=False)),
            ("last block's maximum", running(rescale=False, top=lambda old, new: new)),
            ("not added again", running(back=False)),
            ("not added again", running(rescale=False, back=False)),
            ("mean of the blocks", mean_of_blocks),
            ("The blocks' values are added", folded(lambda old, new: old + new)),
            ("largest of the blocks", folded(torch.maximum)),
            ("This is the maximum", maximum),
            ("shorter than the others", running(skip="short")),
            ("last block's value alone", last_block),
            ("first block's value alone", first_block),
            ("a 1 too many", folded(torch.logaddexp, 0.0)),
            ("keep the blocks", hoard),
            ("more than once", twice),
            ("One value per column", lambda blocks: torch.cat([block.logsumexp(0) for block in blocks])),
            ("None", lambda blocks: None),
        ],
    },
    "10.gather": {
        "right": [
            by_autograd,
            lambda pulls, rank: everybody(pulls, rank)[share(pulls, rank)],
            lambda pulls, rank: np.sum([pull.numpy() for pull in pulls], axis=0)[share(pulls, rank)],
            lambda pulls, rank: everybody(pulls, rank).chunk(len(pulls))[rank],
        ],
        "wrong": [
            ("gather without gradients", lambda pulls, rank: pulls[rank][share(pulls, rank)]),
            ("mean over the processes", lambda pulls, rank: torch.stack(pulls).mean(0)[share(pulls, rank)]),
            ("factor too many", lambda pulls, rank: len(pulls) * everybody(pulls, rank)[share(pulls, rank)]),
            ("own loss is missing", lambda pulls, rank: sum(pull[share(pulls, rank)] for number, pull in enumerate(pulls) if number != rank)),
            ("other way round", lambda pulls, rank: sum(pulls[rank].chunk(len(pulls)))),
            ("pull at all rows", everybody),
            ("rows of process 0", lambda pulls, rank: everybody(pulls, rank)[share(pulls, 0)]),
            ("last rows", lambda pulls, rank: everybody(pulls, rank)[share(pulls, len(pulls) - 1)]),
            ("one block after the other", lambda pulls, rank: everybody(pulls, rank)[rank :: len(pulls)]),
            ("Only process 0", lambda pulls, rank: pulls[0][share(pulls, rank)]),
            ("one under the other", lambda pulls, rank: torch.cat([pull[share(pulls, rank)] for pull in pulls])),
            ("side by side", lambda pulls, rank: torch.stack([pull[share(pulls, rank)] for pull in pulls])),
        ],
    },
    "10.second_pass": {
        "right": [by_vector, passed(weigh=lambda rows, pull: torch.einsum("nd,nd->", rows, pull))],
        "wrong": [
            ("last chunk's gradient", passed(clear=True)),
            ("first chunk's gradient", passed(stop="first")),
            ("shorter chunk is missing", passed(stop="whole")),
            ("number of chunks", passed(divide=True)),
            ("Use .sum()", passed(weigh=lambda rows, pull: (rows * pull).mean())),
            ("first rows of the cache", passed(shift=False)),
            ("cache is not used", passed(weigh=lambda rows, pull: rows.sum())),
            ("sign is turned", passed(weigh=lambda rows, pull: -(rows * pull).sum())),
            ("rows at once", passed(whole=True)),
            ("No gradient arrived", no_graph),
            ("Return the tower", passed(back=False)),
        ],
    },
}


@pytest.mark.parametrize("name, answer, words", cases(BANK))
def test_bank(name, answer, words):
    check_verdict(name, answer, words)


def test_the_second_pass_is_the_package_s():
    """The reference on both towers, with the cache from the loss, gives the weights what `gradient_cached_step` gives them."""
    torch.manual_seed(0)
    sides, inputs = [torch.nn.Linear(4, 3).double() for _ in range(2)], [torch.randn(7, 4, dtype=torch.float64) for _ in range(2)]

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.sides = torch.nn.ModuleList(sides)

        def forward(self, images, texts):
            return self.sides[0](images), self.sides[1](texts), torch.tensor(2.0, requires_grad=True)

    model = Both()
    gradient_cached_step(model, *inputs, clip_loss, 3)
    ours = [weight.grad.clone() for weight in model.parameters()]
    model.zero_grad()
    leaves = [side(rows).detach().requires_grad_() for side, rows in zip(sides, inputs)]
    clip_loss(*leaves, 2.0).backward()
    for side, rows, leaf in zip(sides, inputs, leaves):
        checks.exercise("10.second_pass").reference(side, rows, leaf.grad, 3)
    for found, weight in zip(ours, model.parameters()):
        torch.testing.assert_close(found, weight.grad)
