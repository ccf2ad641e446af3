"""Where a picture speaks for a text: Grad-CAM for convolutional towers, attention rollout for Transformers, and occlusion for any model.

A map is what the method says, not what the tower "looked at". It is worth as much as it has been tested: against the box of the thing
(`in_box`), against chance, and against the same method on a tower with random weights (Adebayo et al. 2018, arXiv:1810.03292).
"""

import contextlib

import numpy as np
import torch

from . import embedding, images, runtime
from .errors import UsageError
from .metrics.blocks import real


def grad_cam(model, picture, text, against=()):
    """Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) of the cosine of a picture and a text: (H, W) in [0, 1], the picture's height and width.

    The last activation of the image tower that is a map (C, h, w) is weighted, channel by channel, with the mean gradient of the cosine over
    space; what is negative is cut off. All zero where nothing speaks for the text. against: texts whose mean cosine is subtracted first, so
    that the map shows what speaks for this text and not for those. The map covers the picture as the tower sees it: a tower that crops does not see the edges.
    Raises `UsageError` for a tower whose last activation is no map, as in a Transformer.
    """
    picture, direction = images.open_image(picture), _direction(model, text, against)
    with _outputs(model.eval().image_tower) as outputs, torch.enable_grad():
        features = model.image_tower(_with_gradient(model.image_tower.prepare([picture])))
        score = model.project_images(features.float())[0] @ direction
    found = outputs[-1] if outputs else None
    if found is None or found.ndim != 4 or not found.requires_grad:
        raise UsageError(f"expected an image tower that ends in convolutional maps, found {model.image_tower.name}; take attention_rollout for a Transformer, or "
                         "occlusion for any tower")
    gradients = torch.autograd.grad(score, found)[0][0].nan_to_num(0.0, 0.0, 0.0)  # a head that takes roots has no slope at a silent channel, and such a one says nothing
    return enlarge(cam(found[0].detach(), gradients), picture.size)


def cam(maps, gradients):
    """(C, h, w) activations and the gradients of a score with respect to them to a map (h, w) in [0, 1]: relu of the weighted sum, over its maximum.

    Zero everywhere where nothing speaks for the score. A `UsageError` where the two do not fit, or the sum is no number.
    """
    if maps.ndim != 3 or maps.shape != gradients.shape:
        raise UsageError(f"expected activations and gradients of one shape (C, h, w), found {tuple(maps.shape)} and {tuple(gradients.shape)}")
    found = torch.relu((gradients.mean((1, 2))[:, None, None] * maps).sum(0))
    if not torch.isfinite(found).all():
        raise UsageError("the activations or their gradients hold NaN or infinity, or overflow: look for a tower that diverged")
    return found / found.max().clamp_min(1e-12)


def occlusion(model, picture, text, against=(), cells=7, window=2):
    """How far the cosine falls when a part of the picture is covered: (H, W) in [0, 1], for any model. Source: Zeiler and Fergus 2014, arXiv:1311.2901.

    A patch of window x window cells of a cells x cells grid, in the picture's mean colour, goes over each place; a cell has the mean
    fall of the patches that cover it. (cells - window + 1) squared pictures are encoded. A rise counts as 0.
    """
    picture, direction = images.open_image(picture), _direction(model, text, against)
    pixels, places = np.asarray(picture), cells - window + 1
    if not 1 <= window < cells or cells > min(picture.size):
        raise UsageError(f"expected 1 <= window < cells, and at least a pixel per cell, found window {window}, cells {cells}, a picture of {picture.size}")
    rows, columns = (np.linspace(0, side, cells + 1).round().astype(int) for side in pixels.shape[:2])
    covered = [_covered(pixels, rows[top], rows[top + window], columns[left], columns[left + window]) for top in range(places) for left in range(places)]
    scores = (embedding.image_embeddings(model, [picture, *covered]) @ direction).numpy()
    fall, times = np.zeros((cells, cells)), np.zeros((cells, cells))
    for number, score in enumerate(scores[1:]):
        top, left = divmod(number, places)
        fall[top : top + window, left : left + window] += max(0.0, scores[0] - score)
        times[top : top + window, left : left + window] += 1
    fall /= times
    return enlarge(fall / max(fall.max(), 1e-12), picture.size)


def _covered(pixels, top, bottom, left, right):
    from PIL import Image

    changed = pixels.copy()
    changed[top:bottom, left:right] = pixels.mean((0, 1)).round()
    return Image.fromarray(changed)


def attention_rollout(model, picture):
    """Attention rollout (Abnar and Zuidema 2020, arXiv:2005.00928) of a Transformer image tower: (h, w) patches, shares that add up to 1.

    Per layer the attention is averaged over heads, mixed half and half with the identity (the residual path), and the layers are multiplied. Read at
    the class token, or, in a tower without one, as the mean over all patches. It does not know the text. model: a model or an image tower.
    Raises `UsageError` for a tower without attention, or one with other tokens beside patches and class.
    """
    tower, picture = getattr(model, "image_tower", model), images.open_image(picture)
    with _attentions(tower) as layers:
        tower.encode([picture])
    if not layers:
        raise UsageError(f"expected an image tower with attention, found {tower.name}; take grad_cam for a convolutional one, or occlusion for any")
    mixed = rollout(layers)
    side = int(len(mixed) ** 0.5)
    if side * side == len(mixed):
        shares = mixed.mean(0)
    elif int((len(mixed) - 1) ** 0.5) ** 2 == len(mixed) - 1:
        shares, side = mixed[0, 1:], int((len(mixed) - 1) ** 0.5)
    else:
        raise UsageError(f"expected a square of patches, with or without a class token, found {len(mixed)} tokens in {tower.name}")
    return (shares / shares.sum()).reshape(side, side).numpy()


def rollout(layers):
    """Attentions (T, T) of each layer, first layer first, rows that add up to 1, to the (T, T) share that each token takes from each input token."""
    if not len(layers) or any(attention.shape != (len(layers[0]),) * 2 or not torch.isfinite(attention).all() for attention in layers):
        raise UsageError(f"expected attentions (T, T) of one size, finite, of one layer at least, found {[tuple(attention.shape) for attention in layers]}")
    mixed = torch.eye(len(layers[0]), dtype=layers[0].dtype)
    for attention in layers:
        mixed = (attention / 2 + torch.eye(len(attention), dtype=attention.dtype) / 2) @ mixed
    return mixed


def enlarge(values, size):
    """A map (h, w) at the (width, height) of a picture: (H, W) in float32, linearly between the middles of the cells."""
    values = torch.as_tensor(_map(values), dtype=torch.float32)[None, None]
    if min(size) < 1:
        raise UsageError(f"expected the size (width, height) of a picture, one pixel at least, found {tuple(size)}")
    return torch.nn.functional.interpolate(values, size=tuple(size[::-1]), mode="bilinear", align_corners=False)[0, 0].numpy()


def in_box(values, box):
    """{"hit", "share", "area"}: whether the map (H, W) is largest inside the box (left, top, right, bottom), which share of it lies in there, and of the picture.

    "area" is what chance would give to both. A map that is zero everywhere hits nothing and has share 0; of equal maxima the first counts, row by row. What
    of the box lies outside the picture counts nothing. A `UsageError` for NaN, negative values and no pixels. Source of the pointing game: Zhang et al. 2016.
    """
    values = _map(values)
    if values.min() < 0 or not all(float(side).is_integer() for side in box):
        raise UsageError(f"expected a map without negative values, and a box of whole pixels, found a minimum of {values.min():g} and {tuple(box)}")
    left, top, right, bottom = (max(0, int(side)) for side in box)
    inside = np.zeros(values.shape, dtype=bool)
    inside[top:bottom, left:right] = True
    best, whole = values.argmax(), values.sum()
    return {"hit": bool(whole > 0 and inside.flat[best]), "share": float(values[inside].sum() / whole) if whole > 0 else 0.0, "area": float(inside.mean())}


def grade_maps(maps, boxes):
    """A table, a row per map (H, W): "in the box", "right half", "share", "area".

    right half: whether the map is largest in that half of the picture, left or right, in which the middle of the box lies; chance is a half.
    """
    import pandas

    maps, boxes, rows = [_map(values) for values in maps], list(boxes), []
    if not maps or len(maps) != len(boxes):
        raise UsageError(f"expected a box for each map, and one map at least, found {len(maps)} maps and {len(boxes)} boxes")
    for values, box in zip(maps, boxes, strict=True):
        height, width = values.shape
        middle = width // 2
        half = (0, 0, middle, height) if box[0] + box[2] < width else (middle, 0, width, height)
        found = in_box(values, box)
        rows.append({"in the box": found["hit"], "right half": in_box(values, half)["hit"], "share": found["share"], "area": found["area"]})
    return pandas.DataFrame(rows).astype(float)


def _map(values):
    """A map (h, w) as a NumPy array of its own type; a `UsageError` for NaN, infinity and no pixels."""
    values = real(values, "a map")
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise UsageError(f"expected a map (h, w) of finite numbers, one pixel at least, found {values.shape}" + " with NaN or infinity in it" * bool(values.size))
    return values


@contextlib.contextmanager
def shuffled(model, seed=0):
    """Within the block each weight tensor of the image tower has its numbers in another order: as loud as before, and knowing nothing. After it, all is back.

    For the sanity check of Adebayo et al. 2018: a map that looks the same with such a tower says nothing about the tower.
    """
    tower, generator = model.image_tower, runtime.generator(seed)
    _parts(tower)
    kept, name = [(weight, weight.detach().clone()) for weight in tower.parameters()], tower.name
    try:
        tower.name = f"{name}, shuffled {seed} {len(kept)}"  # a name of its own in the feature cache
        with torch.no_grad():
            for weight, _ in kept:
                weight.copy_(weight.flatten()[torch.randperm(weight.numel(), generator=generator)].view(weight.shape))
        yield model
    finally:
        tower.name = name
        with torch.no_grad():
            for weight, before in kept:
                weight.copy_(before)


def _direction(model, text, against):
    """(D,) what an image vector is multiplied with."""
    rows = embedding.text_embeddings(model, [text, *against])
    return rows[0] - rows[1:].mean(0) if len(rows) > 1 else rows[0]


def _with_gradient(batch):
    """A prepared batch whose pixels ask for gradients: locked weights do not, and with neither no graph is kept."""
    if isinstance(batch, dict):
        return {key: value.clone().requires_grad_() for key, value in batch.items()}
    return batch.clone().requires_grad_()


@contextlib.contextmanager
def _outputs(tower):
    """Yield a list that fills with what each part of the tower gave first, in the order of the calls: maps (1, C, h, w) larger than one place, and rows of tokens (1, T, D).

    The first, as a tower may look at a picture twice: then the map is of the first view.
    """
    seen, outputs = set(), []

    def keep(part, inputs, output):
        if part not in seen and torch.is_tensor(output) and (output.ndim == 3 or output.ndim == 4 and min(output.shape[2:]) > 1):
            seen.add(part)
            outputs.append(output)

    with _hooked([part.register_forward_hook(keep) for part in _parts(tower)]):
        yield outputs


@contextlib.contextmanager
def _attentions(tower):
    """Yield a list that fills with the attention (T, T) of each layer, the mean over heads, while libraries are asked not to hide it."""
    layers, hooks = [], []

    def keep(part, inputs, output):
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if torch.is_tensor(weights) and weights.ndim in (3, 4) and weights.shape[-1] == weights.shape[-2]:
            layers.append(weights.detach().float().reshape(-1, *weights.shape[-2:]).mean(0))

    def ask(part, inputs, options):
        return inputs, options | {"need_weights": True, "average_attn_weights": True}

    for part in _parts(tower):
        hooks.append(part.register_forward_hook(keep))
        if isinstance(part, torch.nn.MultiheadAttention):  # clip and open_clip
            hooks.append(part.register_forward_pre_hook(ask, with_kwargs=True))
    configs = {id(part.config): part.config for part in _parts(tower) if hasattr(getattr(part, "config", None), "_attn_implementation")}
    before = {key: config._attn_implementation for key, config in configs.items()}
    try:
        for config in configs.values():  # transformers: only the plain implementation returns its weights
            config._attn_implementation = "eager"
        with _hooked(hooks):
            yield layers
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]


def _parts(tower):
    """The modules of a tower below itself; a tower that reads its weights late reads them now."""
    getattr(tower, "net", None)
    return [part for part in tower.modules() if part is not tower]


@contextlib.contextmanager
def _hooked(hooks):
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
