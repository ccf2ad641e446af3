"""Another share for `mini`'s heads: the cosine of the mixture against the weighted sum of the two, worked out apart."""

import pytest
import torch

from miniclip_helpers.errors import UsageError
from miniclip_helpers.model import LinearHead, TwoTowers
from miniclip_helpers.training.locked import beside
from miniclip_helpers.training.shares import reshare


@pytest.fixture
def parts():
    generator = torch.Generator().manual_seed(0)
    heads = [LinearHead(5, 3), LinearHead(5, 4), LinearHead(6, 3), LinearHead(6, 4)]
    with torch.no_grad():
        for head in heads:
            for weight in head.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator))
    return heads, torch.randn(7, 5, generator=generator), torch.randn(8, 6, generator=generator)


def mixture(heads, share):
    fitted_image, mini_image, fitted_text, mini_text = heads
    return TwoTowers(torch.nn.Identity(), torch.nn.Identity(), beside(fitted_image, mini_image, [(0, 5)] * 2, share), beside(fitted_text, mini_text, [(0, 6)] * 2, share), logit_scale=17.0)


@torch.no_grad()
@pytest.mark.parametrize("share", [0, 0.25, 0.7, 1])
def test_the_cosine_is_the_weighted_sum_of_both(parts, share):
    heads, images, texts = parts
    unit = torch.nn.functional.normalize
    fitted, mini = (unit(heads[a](images), dim=-1) @ unit(heads[b](texts), dim=-1).T for a, b in ((0, 2), (1, 3)))
    model = mixture(heads, 1 / 3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = reshare(model, share)
    torch.testing.assert_close(found.project_images(images) @ found.project_texts(texts).T, (1 - share) * fitted + share * mini)
    torch.testing.assert_close(found.logit_scale, torch.tensor(17.0))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items()) and model.image_head.options["parts"][1]["share"] == 1 / 3


def test_what_cannot_be_mixed_is_said(parts):
    with pytest.raises(UsageError, match="between 0 and 1"):
        reshare(mixture(parts[0], 0.5), 1.2)
    with pytest.raises(UsageError, match="no heads of `mini` beside"):
        reshare(TwoTowers(torch.nn.Identity(), torch.nn.Identity(), LinearHead(5, 3), LinearHead(6, 3)), 0.5)
