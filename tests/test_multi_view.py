"""Several pictures of one thing: the loss among pictures, and batches that bring them together."""

import pytest
import torch
from torch.nn import functional as F

from miniclip_helpers import losses
from miniclip_helpers.errors import UsageError
from miniclip_helpers.runtime import generator
from miniclip_helpers.training import PairBatches, TrainConfig
from miniclip_helpers.training.loop import loss_of


def rows(count, seed=0, width=6):
    return F.normalize(torch.randn(count, width, generator=generator(seed), dtype=torch.float64), dim=-1)


def naive_supervised(embeddings, scale, groups):
    """Khosla et al. 2020, equation 2, in loops: minus the mean log probability of the positives, the anchor itself left out."""
    costs = []
    for i, anchor in enumerate(embeddings):
        others = [j for j in range(len(groups)) if j != i]
        positives = [j for j in others if groups[j] == groups[i]]
        everyone = sum(torch.exp(scale * anchor @ embeddings[j]) for j in others)
        if positives:
            costs.append(-sum(torch.log(torch.exp(scale * anchor @ embeddings[j]) / everyone) for j in positives) / len(positives))
    return torch.stack(costs).mean()


@pytest.mark.parametrize("groups", [[0, 0, 1, 1], [0, 0, 0, 1, 1, 2], [5, 3, 5, 9, 3, 3, 5]])
def test_the_loss_among_pictures_equals_the_loops(groups):
    embeddings, groups = rows(len(groups)).requires_grad_(), torch.tensor(groups)
    found, expected = losses.supervised_loss(embeddings, 7.0, groups), naive_supervised(embeddings, 7.0, groups)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, embeddings)[0] for value in (found, expected)))


def test_known_values_alone_twins_and_nobody_alike():
    same = torch.ones(5, 1).double()
    torch.testing.assert_close(losses.supervised_loss(same, 9.0, torch.tensor([0, 0, 1, 1, 2])), torch.tensor(4.0).double().log())  # knows nothing: one of four others
    apart = torch.eye(2).double().repeat_interleave(2, 0)
    assert losses.supervised_loss(apart, 50.0, torch.tensor([0, 0, 1, 1])) < 1e-9
    alone = rows(4).requires_grad_()
    nothing = losses.supervised_loss(alone, 9.0, torch.arange(4))
    assert nothing == 0 and not torch.autograd.grad(nothing, alone)[0].any()
    with pytest.raises(UsageError, match="one group per pair"):
        losses.supervised_loss(rows(4), 9.0, torch.arange(3))


def test_multi_view_is_clip_where_all_differ_and_adds_half_of_the_pictures_question():
    images, texts = rows(6), rows(6, seed=1)
    torch.testing.assert_close(losses.multi_view_loss(images, texts, 9.0, torch.arange(6)), losses.clip_loss(images, texts, 9.0))
    groups = torch.tensor([0, 1, 1, 2, 0, 3])
    expected = losses.multi_positive_loss(images, texts, 9.0, groups) + 0.5 * naive_supervised(images, 9.0, groups)
    torch.testing.assert_close(losses.multi_view_loss(images, texts, 9.0, groups), expected)
    torch.testing.assert_close(loss_of(TrainConfig(loss="multi-view"), images, texts, 9.0, groups), expected)


def batches_of(groups, size, **options):
    count = len(groups)
    return PairBatches(torch.arange(count), torch.arange(count), range(count), size, groups=groups, **options)


def test_together_brings_each_group_side_by_side_in_a_drawn_order():
    groups = torch.tensor([4, 9, 4, 7, 9, 9, 2])
    orders = set()
    for seed in range(20):
        (images, texts, found), = batches_of(groups, 7, together=True).epoch(generator(seed))
        assert sorted(images.tolist()) == list(range(7)) and torch.equal(images, texts) and torch.equal(found, groups[images])
        assert len(torch.unique_consecutive(found)) == 4  # no group is torn
        orders.add(tuple(images.tolist()))
    assert len(orders) > 15
    assert len({order[0] for order in orders}) > 3
    once, again = (next(batches_of(groups, 7, together=True).epoch(generator(3)))[0] for _ in range(2))
    assert torch.equal(once, again)


def test_without_together_the_order_stays_what_it_was():
    (images, _, _), = batches_of(torch.tensor([0, 0, 1, 1]), 4).epoch(generator(5))
    assert torch.equal(images, torch.randperm(4, generator=generator(5)))


def test_twins_meet_in_a_batch_only_when_drawn_together():
    groups = torch.arange(200) // 2

    def share(**options):
        batches = [found for _, _, found in batches_of(groups, 20, **options).epoch(generator(0))]
        return torch.cat([(found[:, None] == found).sum(1) > 1 for found in batches]).float().mean().item()

    assert share(together=True) == 1 and share() < 0.25
