"""One set of random weights in CLIP's real shape through transformers, OpenAI's clip and open_clip: the same logits.

ViT-B/32: 12 layers, 768 and 512 wide, 224 pixels, 49,408 tokens, CLIP's real tokenizer, each library's own preprocessing. Everything
goes through `load_model`, from local files and without network.
"""

import warnings

import pytest
import torch
from conftest import picture
from standin import openai_layout, save_hub_clip

from miniclip_helpers import pretrained
from miniclip_helpers.datasets import load_dataset
from miniclip_helpers.model.lengths import LongTextWarning

TEXTS = ["a photo of a dog.", "Two naïve cafés — 100% & more!", "¡olé! 🐶 42 x", "a red ball " * 60]
LIBRARIES = ("transformers", "clip", "open_clip")


# The motorcycle, 741 x 500: resized so that the shorter side is 224, it is 107 pixels too long. Half of that is 53.5: transformers begins its
# crop at 53, torchvision, which the other two use, rounds to 54. So it is whenever what is too long is 3 more than a multiple of 4.
PHOTOS = ("chelsea.png", "coffee.png", "motorcycle_left.png")


def pictures():
    """Noise, small and upright, and photos; the last is cropped one pixel aside by transformers."""
    photos = load_dataset("photos8")
    return [picture(2, (60, 90)), *(photos.image(photos.row(name)) for name in PHOTOS)]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each library answers: {library: {"images", "texts", "logits", "pixels", "tokens", "package"}}. The models are freed one by one."""
    from safetensors.torch import load_file, save_file

    folder = save_hub_clip(tmp_path_factory.mktemp("same") / "hub", seed=3, real_shape=True)
    file = folder.parent / "openai.safetensors"
    state = load_file(folder / "model.safetensors")
    state["logit_scale"] = torch.tensor(100.0).log()  # as in the published CLIP: the strictest
    for key in ("text_projection.weight", "visual_projection.weight", "vision_model.embeddings.class_embedding"):
        state[key] = state[key] * 3  # random weights say nearly the same of everything; this spreads their answers
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(openai_layout(state), file)
    return {library: answers(pretrained.load_model(name)) for library, name in
            zip(LIBRARIES, (folder, f"clip:{file}", f"open_clip:ViT-B-32-quickgelu/{file}"), strict=True)}


def answers(model):
    net = model.image_tower.net
    assert sum(value.numel() for value in net.parameters()) == 151_277_313  # ViT-B/32
    tokens = model.text_tower.prepare(TEXTS)
    out = {"images": model.encode_image(pictures()), "package": type(net).__module__.split(".")[0], "pixels": model.image_tower.prepare(pictures()),
           "tokens": tokens["input_ids"] if isinstance(tokens, dict) else tokens}
    with pytest.warns(LongTextWarning, match="1 text is longer than the 77 tokens"):
        out["texts"] = model.encode_text(TEXTS)
    out["logits"] = (model.logit_scale * out["images"] @ out["texts"].T).detach()
    if out["package"] == "open_clip":
        out["other_activation"] = with_plain_gelu(model)
    return out


def with_plain_gelu(model):
    """The text embeddings of an open_clip network whose QuickGELU is taken for GELU: the mistake that gives no error."""
    for block in model.text_tower.net.transformer.resblocks:
        assert type(block.mlp.gelu).__name__ == "QuickGELU"
        block.mlp.gelu = torch.nn.GELU()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LongTextWarning)
        return model.encode_text(TEXTS)


def test_three_libraries_answered(found):
    assert tuple(answer["package"] for answer in found.values()) == LIBRARIES


@pytest.mark.parametrize("library", LIBRARIES[1:])
def test_the_same_logits(found, library):
    """To 1e-4, where the logits themselves differ by units between texts and by tenths between pictures."""
    ours = found["transformers"]["logits"]
    torch.testing.assert_close(found[library]["logits"][:-1], ours[:-1], atol=1e-4, rtol=0)
    assert ours.std(1).min() > 1 and ours[:-1].std(0).min() > 0.05


@pytest.mark.parametrize("library", LIBRARIES[1:])
def test_the_same_tokens(found, library):
    """Up to the end token; behind it transformers repeats it, and the others put 0. The overlong text is cut and keeps its end."""
    for ours, theirs in zip(found["transformers"]["tokens"].tolist(), found[library]["tokens"].tolist(), strict=True):
        end = ours.index(49407)
        assert theirs[: end + 1] == ours[: end + 1] and ours[0] == 49406 and set(theirs[end + 1 :]) <= {0}
    assert found[library]["tokens"][-1, 76] == 49407


def test_the_same_pixels_but_for_a_crop_that_is_rounded_otherwise(found):
    pixels = {library: answer["pixels"] for library, answer in found.items()}
    for library in LIBRARIES[1:]:
        torch.testing.assert_close(pixels[library][:-1], pixels["transformers"][:-1], atol=1e-5, rtol=0)
    ours, theirs = pixels["transformers"][-1], pixels["clip"][-1]
    assert torch.equal(theirs, pixels["open_clip"][-1]) and (ours - theirs).abs().max() > 0.5
    torch.testing.assert_close(theirs[..., :-1], ours[..., 1:], atol=1e-5, rtol=0)  # one pixel aside, else the same


def test_a_pixel_aside_moves_the_answer_a_little(found):
    """Less than half as far as another photo is away, and by less than one in the logits, which are a hundred times the cosines."""
    ours, theirs = found["transformers"], found["clip"]
    difference = (ours["images"][-1] - theirs["images"][-1]).norm()
    assert 1e-4 < difference < (ours["images"][1] - ours["images"][-1]).norm() / 2
    assert (ours["logits"][-1] - theirs["logits"][-1]).abs().max() < 1


def test_another_activation_is_another_function(found):
    """Why ViT-B-32-quickgelu: the same file under plain GELU loads without a word, and answers otherwise."""
    wrong = found["open_clip"]["other_activation"]
    assert (wrong - found["open_clip"]["texts"]).norm(dim=-1).min() > 0.01
