"""What was tried on locked towers, on real photos, and what it gave: better heads, features, captions, losses, starts, ensembles, light unlocking.

    pytest tests/benchmarks/bench_tried.py -s

Hold-outs: random splits by image, the same for each way; some photos are fitted on, some are kept for choices and some are asked. A way is compared with its
group's first row, split by split. The intervals are Student's, over the splits; these overlap in their photos, so another collection may differ by more.
"""

import sys
import time
from pathlib import Path

import numpy as np
from scipy.stats import t as student

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]
from conftest import shared
from tried_photos import TRIO, Photos, drawn_parts
from tried_unlocked import unlocked
from tried_ways import (
    closed,
    closed_heads,
    conse,
    dropout,
    fitted,
    further,
    heads_of_mini,
    in_blocks,
    mini,
    mixed,
    mlp_heads,
    neighbours,
    pooled_alone,
    radial,
    ridge,
    seeds,
    spelled,
    steps,
    together,
    wordings,
)

from miniclip_helpers import metrics
from miniclip_helpers.datasets import load_dataset

DATA = {"flickr8k": ((540, 60, 100), range(100, 105)), "everyday_photos": ((147, 31, 32), range(100, 115))}  # photos to fit on, to choose on, asked; seeds
FEW = 2  # splits where a tower is unlocked, which takes much longer

ALONE = {  # what the pairs alone teach, features of `mini`'s towers
    "closed form (CCA)": closed(),
    "ridge regression, picture to caption": ridge(1.0),
    "captions of similar pictures, no map": neighbours(),
    "closed form and captions of similar pictures": together(closed(), neighbours(), shares=(0.8, 0.2)),
    "closed form on a radial kernel": radial(),
    "steps, linear heads, InfoNCE": steps(),
    "steps, heads of two layers": steps(mlp_heads),
    "steps, each caption a pair of its own": steps(every_caption=True),
    "steps, the same, multi-positive": steps(every_caption=True, loss="multi-positive"),
    "steps, margin, hardest negative": steps(loss="margin", rate=1e-3, total=80),
    "steps, sigmoid loss": steps(loss="siglip"),
    "steps, half of the features dropped": steps(augment=dropout(0.5)),
    "steps, features mixed with another's": steps(augment=mixed(0.3)),
    "steps, mean of five seeds": seeds(steps()),
    "closed form, then steps": steps(closed_heads, rate=1e-4, total=30, scale=30.0),
    "closed form and steps, mean cosine": together(closed(), steps()),
    "closed form, one view of the picture": closed(in_blocks("squash")),
    "closed form, one larger view": closed(in_blocks("larger")),
    "closed form, last convolution alone": closed(pooled_alone),
    "closed form, features not rooted": closed(in_blocks("both", rooted=False)),
    "closed form, mirrored view beside": closed(in_blocks("both", "mirrored")),
    "closed form, four corners beside": closed(in_blocks("both", "corners")),
    "closed form, three towers": closed(in_blocks(TRIO)),
    "closed form, lower layers of MiniLM beside": closed(read=wordings("layers")),
    "closed form, spelling of the captions beside": closed(reads=spelled),
    "closed form, a fifth of the words dropped": closed(more=further("dropped")),
    "closed form, synonyms": closed(more=further("synonyms")),
    "closed form, ImageNet's names as captions": closed(more=further("tags")),
    "closed form, directions weighed alike": closed(power=0.0),
    "closed form, directions by their correlation": closed(power=1.0),
}
BESIDE = {  # the heads of `mini` know something before
    "closed form, `mini` beside (a third)": fitted(),
    "closed form alone": closed(),
    "`mini` as it is": mini,
    "ImageNet's names alone (ConSE)": conse,
    "`mini`, its heads by steps": steps(heads_of_mini, rate=3e-3, scale=30.0),
    "closed form, `mini` half": together(closed(), mini),
    "closed form, `mini`, steps": together(closed(), mini, steps()),
    "closed form, `mini`, ConSE": together(closed(), mini, conse, shares=(0.6, 0.3, 0.1)),
    "half of the hubs taken off": fitted(hubs=0.5),
    "all of the hubs taken off": fitted(hubs=1.0),
    "three towers": fitted(TRIO),
    "refit with the photos to choose on": fitted(refit=True),
    "three towers, hubs by half, refit": fitted(TRIO, hubs=0.5, refit=True),
    "three towers, hubs, refit": fitted(TRIO, hubs=1.0, refit=True),
}
UNLOCKED = {
    "closed form (CCA)": closed(),
    "closed form, then steps, towers locked": steps(closed_heads, rate=3e-5, total=40, scale=30.0, batch=64),
    "last block of EfficientNet-Lite0 unlocked": unlocked("image"),
    "last layer of MiniLM unlocked": unlocked("text"),
}


def measured(way, split, seed):
    """[text to image R@1, image to text R@1, mean of both, mean MRR of both directions, seconds to fit]; the first four in percent."""
    train, asked = split
    begin = time.perf_counter()
    ask = way(train, seed)
    seconds = time.perf_counter() - begin
    found = metrics.retrieval_metrics(ask(asked).numpy(), asked.owner.numpy())
    first, mrr = ([found[way][key] for way in ("text_to_image", "image_to_text")] for key in ("R@1", "MRR"))
    return [*(100 * np.array([*first, np.mean(first), np.mean(mrr)])), seconds]


def gain(before, after):
    """The mean of a paired difference, and its 95 % interval over splits."""
    difference = after - before
    half = student.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / len(difference) ** 0.5
    return f"{difference.mean():+.1f} [{difference.mean() - half:+.1f}, {difference.mean() + half:+.1f}]"


def table(title, ways, data, splits=None):
    """Print one group on one dataset, a line as soon as it is known; {way: (splits, 5)}."""
    counts, seeds_ = DATA[data]
    photos, found = Photos(load_dataset(shared(data))), {}
    drawn = [(drawn_parts(photos, counts, seed), seed) for seed in list(seeds_)[:splits]]
    print(f"\n{data}, {title}; {counts[0]} photos fitted on, {counts[2]} asked, {len(drawn)} splits\n"
          f"| way | t2i R@1 | i2t R@1 | MRR | R@1 gained | MRR gained | seconds |\n|{'---|' * 7}", flush=True)
    for name, way in ways.items():
        found[name] = rows = np.array([measured(way, split, seed) for split, seed in drawn])
        base, mean = next(iter(found.values())), rows.mean(0)
        said = [gain(base[:, column], rows[:, column]) for column in (2, 3)] if rows is not base else ["", ""]
        print(f"| {name} | {mean[0]:.1f} | {mean[1]:.1f} | {mean[3]:.1f} | {said[0]} | {said[1]} | {np.median(rows[:, 4]):.2f} |", flush=True)
    return found


def mean_gain(found, way):
    return (found[way] - next(iter(found.values())))[:, 3].mean()


def test_pairs_alone():
    for data in DATA:
        found = table("the pairs alone", ALONE, data)
        assert mean_gain(found, "steps, linear heads, InfoNCE") < 0 < mean_gain(found, "closed form, three towers")


def test_mini_beside():
    for data in DATA:
        found = table("`mini` beside", BESIDE, data)
        assert mean_gain(found, "`mini` as it is") < 0 < mean_gain(found, "three towers, hubs by half, refit")


def test_light_unlocking():
    table("light unlocking", UNLOCKED, "flickr8k", FEW)
