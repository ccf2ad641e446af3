"""The heads of `mini`, in closed form: three views of the same picture, each a linear map, side by side in one unit vector.

1. ConSE (Norouzi et al. 2014): the image tower's class probabilities average text vectors of the classes.
2. A map from the pooled features to texts, fitted on pseudo-pairs: the classifier's row for a class stands for its pictures, as in
   DeViSE (Frome et al. 2013) without images.
3. A map fitted on real pairs: stamps and emoji with their captions.

No photo with a caption is trained on. The choices below were made on stamps nouns held out from training; data/MODEL_CARD.md has the
table of what else was tried.
"""

import torch
from torch.nn import functional as F

from .. import embedding, runtime, zero_shot
from ..encoders import load_encoder
from ..encoders.efficientnet import BLOCKS, block_slices
from ..metrics import proportion_interval
from ..model import ConcatHead, TwoTowers, load_saved, save_model
from . import mini_data

CLASSES = BLOCKS["logits"]
TEMPERATURE = 2.0  # softer than the classifier's own 1: a scene holds more than one thing
SCENES = 3.0  # how much scenes weigh against name, synonyms and gloss, 1 each, in a class's text vector
DIMS = {"conse": 256, "pseudo": 128, "pictures": 128}
SHARES = {"conse": 0.5, "pseudo": 0.25, "pictures": 0.25}
PICTURE_BLOCKS = ("block5", "block6", "pooled")
TEXT_SHRINK, PICTURE_SHRINK, WHITEN_SHRINK = 3.0, 10.0, 0.3  # in units of the mean variance


def shrunk(covariance, shrink):
    """A covariance with `shrink` times its mean variance added to the diagonal."""
    return covariance + shrink * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=covariance.dtype)


def canonical_maps(images, texts, weights, dim):
    """Regularised CCA of pairs in closed form. images (P, W), texts (P, V), weights (P,). Returns the means and maps of both sides.

    Each canonical direction is scaled by the root of its correlation: what the two sides share most counts most.
    Source: Hardoon et al. 2004; by Cholesky factors, which give the same directions as symmetric roots and sooner.
    """
    images, texts, weights = images.double(), texts.double(), (weights / weights.sum()).double()[:, None]
    image_mean, text_mean = (weights * images).sum(0), (weights * texts).sum(0)
    images, texts = images - image_mean, texts - text_mean
    image_root = torch.linalg.cholesky(shrunk(images.T @ (weights * images), PICTURE_SHRINK))
    text_root = torch.linalg.cholesky(shrunk(texts.T @ (weights * texts), TEXT_SHRINK))
    solve = lambda root, right: torch.linalg.solve_triangular(root, right, upper=False)  # noqa: E731
    between = solve(text_root, solve(image_root, images.T @ (weights * texts)).T).T  # (W, V), both sides whitened
    left, correlations, right = torch.linalg.svd(between, full_matrices=False)
    unwhiten = lambda root, axes: torch.linalg.solve_triangular(root.T, axes, upper=True)  # noqa: E731
    scale = correlations[:dim] ** 0.5
    return image_mean, unwhiten(image_root, left[:, :dim]) * scale, text_mean, unwhiten(text_root, right[:dim].T) * scale


def image_head():
    """The untrained image head: features (B, 2904) to (B, 512)."""
    columns = {key: [span.start, span.stop] for key, span in block_slices().items()}
    blocks = [BLOCKS[block] for block in PICTURE_BLOCKS]
    return ConcatHead([
        {"kind": "conse", "options": {"classes": CLASSES, "dim": DIMS["conse"], "temperature": TEMPERATURE},
         "columns": columns["logits"], "share": SHARES["conse"]},
        {"kind": "blocks", "options": {"widths": [BLOCKS["pooled"]], "dim": DIMS["pseudo"]}, "columns": columns["pooled"], "share": SHARES["pseudo"]},
        {"kind": "blocks", "options": {"widths": blocks, "dim": DIMS["pictures"]},
         "columns": [columns[PICTURE_BLOCKS[0]][0], columns[PICTURE_BLOCKS[-1]][1]], "share": SHARES["pictures"]},
    ])


def text_head(width):
    """The untrained text head: features (B, 384) to (B, 512), in the same three parts."""
    return ConcatHead([
        {"kind": "blocks", "options": {"widths": [width], "dim": DIMS[part], "rooted": False}, "columns": [0, width], "share": SHARES[part]}
        for part in DIMS
    ])


def mean_per_class(vectors, classes):
    """The unit mean of the vectors (M, V) of each class: (1000, V), zero where a class has none."""
    total = torch.zeros(CLASSES, vectors.shape[1]).index_add(0, torch.tensor(classes), vectors)
    return F.normalize(total, dim=-1)


def natural_pooled_mean(net):
    """The mean pooled feature (1280,) over the photos that the tower was trained on, out of its last batch normalisation alone.

    There each channel is normal with mean `bias` and deviation `weight`, and ReLU6 follows: the mean over 1,000 quantiles.
    """
    quantiles = torch.special.ndtri((torch.arange(1000, dtype=torch.float64) + 0.5) / 1000)
    channels = net.bn2.bias.double() + net.bn2.weight.double().abs() * quantiles[:, None]
    return channels.clamp(0, 6).mean(0).float()


def fill(head, mean, weight):
    """Put a mean and a map into a head."""
    with torch.no_grad():
        if mean is not None:
            head.mean.copy_(mean)
        head.weight.copy_(weight)


def fit_classes(model, nouns):
    """Parts 1 and 2, from what is said about the ImageNet classes and from the classifier's weights."""
    said, tower = mini_data.class_texts(nouns), model.text_tower
    rows = {kind: F.normalize(embedding.text_features(tower, [text for _, text in getattr(said, kind)]), dim=-1) for kind in vars(said)}
    classes = {kind: [place for place, _ in getattr(said, kind)] for kind in vars(said)}
    means = {kind: mean_per_class(rows[kind], classes[kind]) for kind in rows}
    vectors = F.normalize(means["names"] + means["photos"] + means["glosses"] + SCENES * means["scenes"], dim=-1)  # (1000, 384)

    conse_image, pseudo_image, _ = model.image_head.heads
    conse_text, pseudo_text, _ = model.text_head.heads
    corpus = torch.cat(list(rows.values())).double()
    values, axes = torch.linalg.eigh(shrunk(torch.cov(corpus.T, correction=0), WHITEN_SHRINK))
    whiten = axes[:, -DIMS["conse"]:] * values[-DIMS["conse"]:] ** -0.5
    fill(conse_image, None, (vectors - vectors.mean(0)).double() @ whiten)
    fill(conse_text, corpus.mean(0), whiten)

    kinds = ("names", "photos_mean", "glosses", "scenes")  # one vector for all synonyms of a class, so that many names do not weigh more
    rows["photos_mean"], classes["photos_mean"] = means["photos"], list(range(CLASSES))
    texts, owner = torch.cat([rows[kind] for kind in kinds]), sum((classes[kind] for kind in kinds), [])
    net = model.image_tower.net
    pictures = pseudo_image.blocks(net.classifier.weight.clamp_min(0))  # pooled features are never negative: nor is what stands for them
    _, image_map, text_mean, text_map = canonical_maps(pictures[owner], texts, torch.ones(len(owner)), DIMS["pseudo"])
    fill(pseudo_image, pseudo_image.blocks(natural_pooled_mean(net)[None])[0], image_map)
    fill(pseudo_text, text_mean, text_map)


def fit_pictures(model, datasets):
    """Part 3, from real pictures with captions; each dataset weighs the same, however large."""
    head, part = model.image_head.heads[2], model.image_head.options["parts"][2]
    images, texts, weights = [], [], []
    for dataset in datasets:
        owner = torch.from_numpy(dataset.owner)
        images.append(head.blocks(embedding.image_features(model.image_tower, dataset)[:, slice(*part["columns"])])[owner])
        texts.append(F.normalize(embedding.text_features(model.text_tower, dataset.all_captions), dim=-1))
        weights.append(torch.full((len(owner),), 1 / len(owner)))
    image_mean, image_map, text_mean, text_map = canonical_maps(torch.cat(images), torch.cat(texts), torch.cat(weights), DIMS["pictures"])
    fill(head, image_mean, image_map)
    fill(model.text_head.heads[2], text_mean, text_map)


def fit_heads(nouns):
    """A `TwoTowers` whose heads were fitted without any picture or caption of `nouns`."""
    towers = load_encoder("efficientnet-lite0"), load_encoder("minilm")
    model = TwoTowers(*towers, image_head(), text_head(towers[1].width), name="mini").eval()
    with torch.no_grad():
        fit_classes(model, nouns)
        fit_pictures(model, mini_data.training_pictures(nouns))
    return model


def scores(model, dataset, names, templates=zero_shot.TEMPLATES):
    """Cosines (N, C) of the pictures with the classes."""
    return embedding.image_embeddings(model, dataset) @ zero_shot.class_embeddings(model, names, templates).T


def accuracy(similarity, labels, ks=(1, 5)):
    """{"n", "classes", "top1", "top1_interval95", "top5", ...}: is the right class among the k best?"""
    labels = torch.as_tensor(labels)
    rank = (similarity > similarity.gather(1, labels[:, None])).sum(1) + 1
    found = {"n": len(labels), "classes": similarity.shape[1]}
    for k in ks:
        hits = int((rank <= k).sum())
        found |= {f"top{k}": hits / len(labels), f"top{k}_interval95": [round(x, 4) for x in proportion_interval(hits, len(labels))]}
    return found


def best_scale(similarity, labels):
    """The logit scale that makes the right classes most likely: the best of 5 to 100 in steps of 2 %."""
    grid = [5 * 1.02**step for step in range(152)]
    losses = [F.cross_entropy(scale * similarity, torch.as_tensor(labels)).item() for scale in grid]
    return grid[losses.index(min(losses))]


def train_mini(out=None, seed=0):
    """Fit the heads of `mini` and write the model to the folder `out` (default: over the embedded one). Returns a report.

    The concepts in data/mini_split.json are never trained on. The logit scale is chosen by likelihood on other nouns, in a first fit
    without them. Nothing is random but the choice of concepts: `seed` other than 0 holds out others than the shipped file does.
    Two runs on one machine give the same bytes.
    """
    out = runtime.data_dir() / "mini" if out is None else out
    runtime.check_replaceable(out, ("config.json", "model.safetensors"))
    unseen = (mini_data.held_out() if seed == mini_data.held_out()["seed"] else mini_data.make_split(seed))["nouns"]
    tuning = mini_data.validation_nouns(unseen)
    trial = fit_heads([*unseen, *tuning])
    dataset, labels = mini_data.unseen_stamps(tuning)
    similarity = scores(trial, dataset, tuning)
    scale = best_scale(similarity, labels)

    model = fit_heads(unseen)
    with torch.no_grad():
        model.log_logit_scale.fill_(torch.tensor(scale).log())
    model.image_head.half(), model.text_head.half()  # half the file; cosines move by less than 0.0001
    with runtime.writing_folder(out) as folder:
        save_model(model, folder, extra={"training": {"command": "miniclip train-mini", "seed": seed, "never_trained_on": unseen}})
    return report(load_saved(out), unseen) | {"validation": accuracy(similarity, labels), "logit_scale": round(scale, 2), "seed": seed}


def report(model, nouns):
    """How well the model names pictures of concepts that it never trained on: stamps by one prompt and by several, emoji."""
    stamps, labels = mini_data.unseen_stamps(nouns)
    emoji, emoji_labels, names = mini_data.unseen_emoji(nouns)
    return {
        "unseen_stamps": accuracy(scores(model, stamps, nouns), labels),
        "unseen_stamps_one_prompt": accuracy(scores(model, stamps, nouns, (zero_shot.TEMPLATE,)), labels),
        "unseen_emoji": accuracy(scores(model, emoji, names), emoji_labels),
    }
