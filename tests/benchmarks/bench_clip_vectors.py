"""A text head against the locked image vectors of the real CLIP ViT-B/32, and what of project 002's table can be had without CLIP's text tower.

    pytest tests/benchmarks/bench_clip_vectors.py -s

Fitted on the project's 1,213 validation images, asked on its 1,215 test images. Settings are compared by cross-validation among the validation
images alone. Captions are encoded by MiniLM once, into the feature cache; that time is not in the seconds shown.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from conftest import shared

from miniclip_helpers import embedding, metrics
from miniclip_helpers.encoders import load_encoder
from miniclip_helpers.finetuning import broken_scorer
from miniclip_helpers.index import build_index, measure
from miniclip_helpers.training.text_head import cosines, cross_validated, fit_text_head, into_image_space, linear_heads

PUBLISHED = {"image_to_text": (70.0, 89.1, 94.9), "text_to_image": (50.7, 76.9, 85.8)}  # project 002, CLIP's own text tower
KS = (1, 5, 10)


def as_they_are(*rows):
    return into_image_space(*linear_heads(*rows))


def corrected(*sides, **settings):
    return lambda *rows: fit_text_head(*rows, correct=sides, **settings)


WAYS = {  # from the least freedom to the most; the last is the one that is kept
    "image vectors as they are": as_they_are,
    "and a linear map of them (CCA)": linear_heads,
    "and hubs among captions corrected": corrected("text"),
    "and hubs among pictures corrected": corrected("image", "text"),
}
SETTINGS = {
    "text shrinkage 3": {"text_shrink": 3.0}, "text shrinkage 10": {"text_shrink": 10.0}, "image shrinkage 0.5": {"image_shrink": 0.5},
    "image shrinkage 2": {"image_shrink": 2.0}, "sharpness 8": {"sharpness": 8.0}, "sharpness 15": {"sharpness": 15.0}, "sharpness 20": {"sharpness": 20.0},
}


@pytest.fixture(scope="module")
def data():
    """{part: (text features (M, 384), image embeddings (N, 512), owner (M,))} of "val" and "test"."""
    folder, tower, parts = shared("flickr8k_clip_b32"), load_encoder("minilm"), {}
    for part in ("val", "test"):
        kept = np.load(folder / f"{part}_image_embeddings.npz")
        place = {str(name): row for row, name in enumerate(kept["image_id"])}
        rows = [json.loads(row) for row in (folder / f"{part}_captions.jsonl").read_text(encoding="utf8").splitlines()]
        begin = time.monotonic()
        texts = embedding.text_features(tower, [row["caption"] for row in rows])
        print(f"\n{part}: {len(place)} images, {len(rows)} captions; encoded, or read from the cache, in {time.monotonic() - begin:.0f} s")
        parts[part] = texts, torch.from_numpy(kept["embedding"]).float(), torch.tensor([place[row["image_id"]] for row in rows])
    return parts


def said(report, interval=None, ks=KS):
    """R@K of both directions in percent, with intervals where there are some."""
    cells = []
    for way in metrics.DIRECTIONS:
        cells += [f"{100 * report[way][f'R@{k}']:.1f}" + ("" if interval is None else " [{:.1f}, {:.1f}]".format(*(100 * x for x in interval[way][f"R@{k}"]))) for k in ks]
    return " | ".join(cells)


def test_settings_by_cross_validation(data):
    """Five parts of the validation images; the kept setting is among the best, and none of its neighbours is much better."""
    found = {}
    for name, fit in WAYS.items():
        found[name] = cross_validated(fit, *data["val"])
        print(f"{name:38s} {said(found[name])}", flush=True)
    for name, settings in SETTINGS.items():
        found[name] = cross_validated(corrected("image", "text", **settings), *data["val"])
        print(f"{name:38s} {said(found[name])}", flush=True)
    score = {name: sum(report[way]["MRR"] for way in metrics.DIRECTIONS) / 2 for name, report in found.items()}
    assert score["and hubs among pictures corrected"] > max(score.values()) - 0.005


def test_text_head(data):
    """The table: R@1, 5 and 10 of both directions with 95 % intervals, images drawn."""
    texts, images, owner = data["test"]
    for name, fit in WAYS.items():
        begin = time.monotonic()
        heads = fit(*data["val"])
        similarity = cosines(heads, images, texts)
        report = metrics.retrieval_metrics(similarity, owner.numpy(), KS)
        seconds = time.monotonic() - begin
        print(f"{name:38s} {said(report, metrics.retrieval_intervals(similarity, owner.numpy(), KS))} | {seconds:.1f} s", flush=True)
        print(f"{'':38s} hubs: {', '.join(f'{k} {v:.2f}' for k, v in metrics.hubness(similarity.T).items())}")
    print(f"{'chance':38s} {said(metrics.chance(len(images), owner.numpy(), KS))}")
    print(f"{'CLIP with its own text tower, published':38s} {' | '.join(str(value) for way in metrics.DIRECTIONS for value in PUBLISHED[way])}")
    assert report["image_to_text"]["R@1"] >= 0.48 and report["text_to_image"]["R@1"] >= 0.39


def test_project_002_without_its_text_tower(data):
    """Its sizes, its unit vectors, and what its scorer makes of a perfect model."""
    for part, count in (("val", 1213), ("test", 1215)):
        texts, images, owner = data[part]
        assert images.shape == (count, 512) and len(texts) == 5 * count and (np.bincount(owner) == 5).all()
        torch.testing.assert_close(images.norm(dim=1), torch.ones(count), atol=1e-5, rtol=0)
    _, images, owner = data["test"]
    perfect = (images @ images[owner].T).numpy()  # each caption is given its image's own vector
    perfect[owner.numpy(), np.arange(len(owner))] = 1.01  # rounding must not decide
    right, wrong = metrics.retrieval_metrics(perfect, owner.numpy()), broken_scorer(perfect, owner.numpy())
    print(f"\na perfect text side: R@1 {right['text_to_image']['R@1']:.2%}, by the broken scorer {wrong['R@1']:.2%}")
    assert right["text_to_image"]["R@1"] == right["image_to_text"]["R@1"] == 1 and wrong["R@1"] == 5 / 6075
    chance = metrics.chance(len(images), owner.numpy())
    assert chance["text_to_image"]["R@1"] == pytest.approx(1 / 1215) and chance["image_to_text"]["R@1"] == pytest.approx(5 / 6075)


def test_exact_search_and_hnsw(data):
    """Project 002's index (M 16, efConstruction 200) over its test images: R@1 and single queries, exact against HNSW."""
    heads, (texts, images, owner) = fit_text_head(*data["val"]), data["test"]
    with torch.no_grad():
        gallery, queries = [torch.nn.functional.normalize(head(rows), dim=-1).numpy() for head, rows in zip(heads, (images, texts), strict=True)]
    names = [str(row) for row in range(len(images))]
    exact, graph = build_index(gallery, names, "flat"), build_index(gallery, names, "hnsw")
    asked = queries[::5]
    print()
    for label, index, ef in [("exact", exact, None), *(("HNSW", graph, ef) for ef in (50, 100, 200, 400))]:
        if ef:
            index.ef_search = ef
        best = index.search(queries, 1)[1]
        hit = np.mean([int(row[0]) == who for row, who in zip(best, owner.tolist(), strict=True)])
        speed = measure(index, exact, asked)
        print(f"{label} {ef or '':4} R@1 {hit:.2%}  recall@10 {speed['recall@10']:.4f}  p50 {speed['p50_ms']:.3f} ms  p95 {speed['p95_ms']:.3f} ms", flush=True)
    assert exact.kind == "flat" and graph.kind == "hnsw"
