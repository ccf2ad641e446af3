"""Saliency against maps worked out by hand, known boxes, naive loops and towers of three libraries."""

import numpy as np
import pytest
import torch
from PIL import Image
from standin import openai_layout, save_hub_clip
from torch import nn

from miniclip_helpers import encoders, pretrained, saliency
from miniclip_helpers.encoders import Tower
from miniclip_helpers.errors import UsageError
from miniclip_helpers.model import TwoTowers


class Eyes(Tower):
    """A tower that sees red and blue apart: a convolution of 8 x 8 cells, and the mean of each colour."""

    name, width = "eyes", 2

    def __init__(self, twice=False):
        super().__init__(twice=twice)
        self.net = nn.Sequential(nn.Conv2d(3, 2, 8, stride=8, bias=False), nn.ReLU())
        with torch.no_grad():
            self.net[0].weight.zero_()
            self.net[0].weight[0, 0], self.net[0].weight[1, 2] = 1 / 64, 1 / 64

    def prepare(self, pictures):
        pixels = torch.stack([torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255 for picture in pictures])
        return {"one": pixels, "other": pixels.flip(3)} if self.options["twice"] else pixels

    def forward(self, batch):
        views = batch.values() if isinstance(batch, dict) else [batch]
        return sum(self.net(view).mean((2, 3)) for view in views)


class Names(Tower):
    """"red" is the first axis, "blue" the second."""

    name, width = "names", 2

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def prepare(self, texts):
        return torch.tensor([[float("red" in text), float("blue" in text)] for text in texts])

    def forward(self, batch):
        return batch * self.scale


def two_spots():
    """64 x 48 pixels, black: a red spot at the upper left, a blue one at the lower right, with their boxes."""
    pixels = np.zeros((48, 64, 3), dtype=np.uint8)
    pixels[0:16, 0:16, 0] = 255
    pixels[32:48, 40:64, 2] = 255
    return Image.fromarray(pixels), (0, 0, 16, 16), (40, 32, 64, 48)


@pytest.fixture
def seeing(tmp_path, monkeypatch):
    monkeypatch.setenv("MINICLIP_CACHE", str(tmp_path))
    return TwoTowers(Eyes(), Names(), name="seeing").eval()


def test_grad_cam_finds_the_spot_that_is_named(seeing):
    picture, red, blue = two_spots()
    for text, box, other in (("red", red, blue), ("blue", blue, red)):
        values = saliency.grad_cam(seeing, picture, text)
        assert values.shape == (48, 64) and values.min() >= 0 and values.max() == pytest.approx(1, abs=1e-5)
        found = saliency.in_box(values, box)
        assert found["hit"] and found["share"] > 0.6 and saliency.in_box(values, other)["share"] < 0.01


def test_grad_cam_is_the_gradient_of_the_cosine(seeing):
    """The map from finite differences: each channel is turned up a little, everywhere, and the cosine measured."""
    picture, *_ = two_spots()
    maps = seeing.image_tower.net(seeing.image_tower.prepare([picture])).detach()[0].double()
    text = torch.tensor([1.0, 0.0]).double()
    cosine = lambda m: torch.nn.functional.normalize(m.mean((1, 2)), dim=0) @ text  # noqa: E731
    weights = torch.stack([(cosine(maps + 1e-6 * torch.eye(2).double()[c][:, None, None]) - cosine(maps)) / 1e-6 for c in range(2)])
    naive = torch.relu((weights[:, None, None] * maps).sum(0))
    np.testing.assert_allclose(saliency.grad_cam(seeing, picture, "red"), saliency.enlarge(naive / naive.max(), picture.size), atol=1e-4)


def test_nothing_speaks_for_a_text_against_itself(seeing):
    picture, *_ = two_spots()
    assert saliency.grad_cam(seeing, picture, "red", ["red"]).max() == 0


def test_a_tower_that_looks_twice_is_mapped_by_its_first_look(tmp_path, monkeypatch):
    monkeypatch.setenv("MINICLIP_CACHE", str(tmp_path))
    picture, red, _ = two_spots()
    assert saliency.in_box(saliency.grad_cam(TwoTowers(Eyes(twice=True), Names()).eval(), picture, "red"), red)["hit"]


def test_grad_cam_leaves_no_trace(seeing):
    picture, *_ = two_spots()
    saliency.grad_cam(seeing, picture, "red")
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in seeing.modules())
    assert all(parameter.grad is None for parameter in seeing.parameters())


def test_occlusion_finds_the_spot_and_equals_a_loop(seeing):
    picture, red, blue = two_spots()
    values = saliency.occlusion(seeing, picture, "blue", cells=6, window=2)
    assert values.shape == (48, 64) and saliency.in_box(values, blue)["hit"] and saliency.in_box(values, red)["share"] < 0.05
    pixels, base = np.asarray(picture), float(seeing.encode_image([picture]) @ seeing.encode_text(["blue"]).T)
    rows, columns = np.linspace(0, 48, 7).round().astype(int), np.linspace(0, 64, 7).round().astype(int)
    falls = [[[] for _ in range(6)] for _ in range(6)]
    for top in range(5):
        for left in range(5):
            covered = pixels.copy()
            covered[rows[top] : rows[top + 2], columns[left] : columns[left + 2]] = pixels.mean((0, 1)).round()
            fall = max(0.0, base - float(seeing.encode_image([Image.fromarray(covered)]) @ seeing.encode_text(["blue"]).T))
            for row in (top, top + 1):
                for column in (left, left + 1):
                    falls[row][column].append(fall)
    naive = np.array([[np.mean(cell) for cell in line] for line in falls])
    np.testing.assert_allclose(values, saliency.enlarge(naive / naive.max(), picture.size), atol=1e-4)


@pytest.mark.parametrize("options", [{"cells": 3, "window": 3}, {"window": 0}, {"cells": 99}])
def test_impossible_grids_are_refused(seeing, options):
    with pytest.raises(UsageError, match="window"):
        saliency.occlusion(seeing, two_spots()[0], "red", **options)


def test_rollout_by_hand():
    first, second = torch.tensor([[0.5, 0.5], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    a, b = [[0.75, 0.25], [0.0, 1.0]], [[1.0, 0.0], [0.25, 0.75]]
    expected = [[sum(b[i][k] * a[k][j] for k in range(2)) for j in range(2)] for i in range(2)]
    np.testing.assert_allclose(saliency.rollout([first, second]), expected)


def naive_rollout(attentions):
    mixed = None
    for layer in attentions:
        share = 0.5 * layer[0].mean(0).numpy() + 0.5 * np.eye(layer.shape[-1])
        mixed = share if mixed is None else share @ mixed
    return mixed[0, 1:] / mixed[0, 1:].sum()


def noise(size=64):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, size=(size, size, 3), dtype=np.uint8))


def test_rollout_of_a_vit_equals_the_library_s_own_attentions():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tower = encoders.load_encoder("vit", pretrained=False, size=64, layers=2, heads=2, hidden=32).eval()
    before = tower.net.config._attn_implementation
    found = saliency.attention_rollout(tower, noise())
    assert tower.net.config._attn_implementation == before  # the quick way is back
    tower.net.set_attn_implementation("eager")
    with torch.no_grad():
        theirs = tower.net(tower.prepare([noise()]), output_attentions=True).attentions
    assert found.shape == (8, 8) and found.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(found.ravel(), naive_rollout(theirs), atol=1e-6)


def test_rollout_is_the_same_through_transformers_and_clip(tmp_path):
    """One set of weights, two libraries that hide their attention in two ways."""
    from clip.model import build_model

    folder = save_hub_clip(tmp_path / "hub", width=256)  # clip has a head for every 64 of width
    hub = pretrained.load_model(str(folder))
    net = build_model(openai_layout(hub.image_tower.net.state_dict())).float().eval()
    pixels = hub.image_tower.prepare([noise()])

    class ClipTower(Tower):
        name, width = "clip", 32

        def __init__(self):
            super().__init__()
            self.net = net

        def prepare(self, pictures):
            return pixels

        def forward(self, batch):
            return self.net.encode_image(batch)

    ours = saliency.attention_rollout(hub, noise())
    assert ours.shape == (4, 4)
    np.testing.assert_allclose(ours, saliency.attention_rollout(ClipTower(), noise()), atol=1e-5)
    with pytest.raises(UsageError, match="attention_rollout"):
        saliency.grad_cam(hub, noise(), "a cat")


def test_each_kind_of_tower_says_what_to_take_instead(seeing):
    with pytest.raises(UsageError, match="grad_cam"):
        saliency.attention_rollout(seeing, noise())


def test_boxes_and_halves():
    values = np.zeros((4, 8))
    values[1, 6], values[0, 0] = 3, 1
    assert saliency.in_box(values, (6, 0, 8, 2)) == {"hit": True, "share": 0.75, "area": 4 / 32}
    assert saliency.in_box(np.zeros((4, 8)), (0, 0, 8, 4)) == {"hit": False, "share": 0.0, "area": 1.0}
    table = saliency.grade_maps([values, values], [(6, 0, 8, 2), (0, 0, 2, 2)])
    assert table["right half"].tolist() == [1, 0] and table["in the box"].tolist() == [1, 0]


def test_shuffled_weights_come_back(seeing):
    before = {name: value.clone() for name, value in seeing.image_tower.state_dict().items()}
    name, print_ = seeing.image_tower.name, seeing.image_tower.fingerprint
    with pytest.raises(RuntimeError), saliency.shuffled(seeing, 1):  # noqa: PT012
        weight = seeing.image_tower.net[0].weight
        assert not torch.equal(weight, before["net.0.weight"]) and torch.equal(weight.flatten().sort().values, before["net.0.weight"].flatten().sort().values)
        assert seeing.image_tower.fingerprint != print_  # else the feature cache would mix the two
        raise RuntimeError("whatever happens")
    assert seeing.image_tower.name == name and seeing.image_tower.fingerprint == print_
    assert all(torch.equal(value, before[key]) for key, value in seeing.image_tower.state_dict().items())


def test_mini_points_at_what_is_named():
    """The real tower, its roots and unit blocks: three pictures of two things; the map lies in the half of the named one."""
    from miniclip_helpers.probes.pictures import cut_out
    from miniclip_helpers.probes.scenes import side_by_side

    mini = pretrained.load_model("mini")
    for one, other in (("teapot", "tiger"), ("violin", "koala"), ("banana", "gorilla")):
        picture, boxes = side_by_side(cut_out(one), cut_out(other))
        maps = [saliency.grad_cam(mini, picture, f"a photo of a {a}", [f"a photo of a {b}"]) for a, b in ((one, other), (other, one))]
        assert np.isfinite(maps).all() and saliency.grade_maps(maps, boxes)["right half"].tolist() == [1, 1]


