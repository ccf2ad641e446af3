"""What happens at the edge of the numbers: NaN, infinity, zeros, one row, none, ties, other types and layouts. Each has one behaviour: a value, or an error of ours.

Two tables, `REFUSED` and `VALUES`, hold a line per function and edge; losses and rankings are compared with loops in float64, written out here. A function
that joins one of the modules in `MODULES` must join the tables, or `ELSEWHERE` with the reason.
"""

import importlib
import inspect
import math
import re

import numpy as np
import pytest
import torch
from test_model import small_model
from test_training_loop import noise_batches

from miniclip_helpers import finetuning, index, losses, metrics, probes, retrieval, saliency, search, training, zero_shot
from miniclip_helpers.errors import DataError, MiniclipError, ModelError, UsageError
from miniclip_helpers.model import LinearHead, MlpHead, TwoTowers, load_saved, save_model
from miniclip_helpers.training import PairBatches, TrainConfig, canonical_maps, fit, pair_statistics, scaling, shares, text_head
from miniclip_helpers.training.locked import Features, check_finite, measure
from miniclip_helpers.training.loop import Diverged, check_sound

NAN, INF = math.nan, math.inf
RANDOM = np.random.default_rng(8)


def unit(rows, width, seed=0):
    """Unit rows (rows, width) in float64, the same for a seed."""
    values = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(values, dim=-1)


def put(values, number, row=0):
    """A copy with `number` in a whole row."""
    values = values.clone() if torch.is_tensor(values) else np.array(values, dtype=float)
    values[row] = number
    return values


# --- losses against loops in float64 --------------------------------------------------------------------------------------------


def log_sum_exp(values):
    most = max(values)
    return most + math.log(sum(math.exp(value - most) for value in values))


def by_hand(name, images, texts, scale, groups=None, bias=-10.0, margin=0.2):
    """The loss `name` in Python's own floats: nothing of torch but the numbers that go in."""
    x, y = images.double().tolist(), texts.double().tolist()
    groups = list(range(len(x))) if groups is None or name == "clip" else groups
    dot = lambda a, b: math.fsum(p * q for p, q in zip(a, b))  # noqa: E731
    if name == "supervised":
        total = []
        for i, row in enumerate(x):
            others = {j: scale * dot(row, x[j]) for j in range(len(x)) if j != i}
            own = [value for j, value in others.items() if groups[j] == groups[i]]
            total += [log_sum_exp(list(others.values())) - sum(own) / len(own)] if own else []
        return sum(total) / len(total) if total else 0.0
    if name == "multi_view":
        return by_hand("multi_positive", images, texts, scale, groups) + 0.5 * by_hand("supervised", images, texts, scale, groups)
    logits = [[scale * dot(a, b) for b in y] for a in x]
    size = len(logits)
    if name == "siglip":
        softplus = lambda z: max(z, 0) + math.log1p(math.exp(-abs(z)))  # noqa: E731
        return sum(softplus(-(1 if i == j else -1) * (logits[i][j] + bias)) for i in range(size) for j in range(size)) / size
    if name == "margin":
        cosine = [[dot(a, b) for b in y] for a in x]
        wrong = lambda i, way: max(cosine[i][j] if way else cosine[j][i] for j in range(size) if j != i)  # noqa: E731
        return 0.0 if size == 1 else sum(max(0, margin + wrong(i, way) - cosine[i][i]) for i in range(size) for way in (0, 1)) / size / 2
    total = 0
    for i in range(size):
        own = [j for j in range(size) if groups[j] == groups[i]]
        for line in (logits[i], [row[i] for row in logits]):
            total += log_sum_exp(line) - sum(line[j] for j in own) / len(own)
    return total / size / 2


WAYS = {
    "clip_loss": ("clip", lambda x, y, s, g: losses.clip_loss(x, y, s)),
    "chunked_clip_loss": ("clip", lambda x, y, s, g: losses.chunked_clip_loss(x, y, s, 1 + len(x) // 3)),
    "clip_loss_local": ("clip", lambda x, y, s, g: losses.clip_loss_local(x, y, x, y, s, 0)),
    "multi_positive_loss": ("multi_positive", lambda x, y, s, g: losses.multi_positive_loss(x, y, s, g)),
    "chunked_multi_positive_loss": ("multi_positive", lambda x, y, s, g: losses.chunked_multi_positive_loss(x, y, s, g, 1 + len(x) // 3)),
    "supervised_loss": ("supervised", lambda x, y, s, g: losses.supervised_loss(x, s, g)),
    "multi_view_loss": ("multi_view", lambda x, y, s, g: losses.multi_view_loss(x, y, s, g)),
    "siglip_loss": ("siglip", lambda x, y, s, g: losses.siglip_loss(x, y, s, -10.0)),
    "chunked_siglip_loss": ("siglip", lambda x, y, s, g: losses.chunked_siglip_loss(x, y, s, -10.0, 1 + len(x) // 3)),
    "margin_loss": ("margin", lambda x, y, s, g: losses.margin_loss(x, y)),
}
X, Y = unit(6, 5, 1), unit(6, 5, 2)
GROUPS = [0, 1, 0, 2, 1, 3]
BATCHES = {
    "random": (X, Y, 20.0),
    "one pair": (X[:1], Y[:1], 100.0),
    "perfect pairs at the clamp": (X, X, 100.0),
    "identical captions": (X, Y[:1].expand(6, 5), 50.0),
    "identical pictures": (X[:1].expand(6, 5), Y, 50.0),
    "all alike": (X[:1].expand(6, 5), X[:1].expand(6, 5), 100.0),
    "a row of zeros": (put(X, 0.0, 2), Y, 30.0),
    "subnormal": (X * 1e-310, Y, 10.0),
    "1e-30": (X * 1e-30, Y * 1e-30, 100.0),
    "infinite temperature": (X, Y, 0.0),
    "a scale far beyond the clamp": (X, Y, 1e6),
    "columns as rows": (unit(5, 6, 3).T, unit(5, 6, 4).T, 10.0),
    "every second row": (unit(12, 5, 5)[::2], unit(12, 5, 6)[1::2], 10.0),
}
HALVES = {torch.float16: 2**-11, torch.bfloat16: 2**-8}  # the rounding of one number, relative


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", WAYS)
def test_losses_at_the_edge_equal_a_loop_in_float64(name, batch):
    (kind, ask), (x, y, scale) = WAYS[name], BATCHES[batch]
    groups = GROUPS[: len(x)]
    exact = by_hand(kind, x, y, scale, groups)
    found = ask(x, y, scale, torch.tensor(groups))
    assert found.shape == () and found.dtype == torch.float64 and found >= 0
    assert found.item() == pytest.approx(exact, rel=1e-9, abs=1e-9)
    if batch not in ("subnormal", "a scale far beyond the clamp"):
        single = ask(x.float(), y.float(), scale, torch.tensor(groups))
        assert single.dtype == torch.float32 and single.item() == pytest.approx(exact, rel=1e-4, abs=2e-4)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", WAYS)
def test_half_precision_is_near_the_exact_loss_of_its_own_numbers_and_never_infinite(name, dtype):
    """512 pairs at the scale of 100: a sum of exponentials, and one over the matrix, would overflow float16."""
    kind, ask = WAYS[name]
    x, y = unit(512, 16, 7).to(dtype), unit(512, 16, 8).to(dtype)
    groups = torch.arange(512) // 2
    double = ask(x.double(), y.double(), 100.0, groups).item()
    small = by_hand(kind, x[:8], y[:8], 100.0, groups[:8].tolist())
    assert ask(x[:8].double(), y[:8].double(), 100.0, groups[:8]).item() == pytest.approx(small, rel=1e-9), "the yardstick is itself measured"
    logit = 100 if kind != "margin" else 1
    wide = name.startswith("chunked")
    least = 1e-4 * logit if wide else 4 * HALVES[dtype] * logit  # a logit is rounded in its scaled picture, its product and its bias
    for scale in (100.0, torch.tensor(100.0), torch.tensor(100.0).to(dtype)):
        found = ask(x, y, scale, groups)
        assert found.dtype == (torch.float32 if wide else dtype) and math.isfinite(found.item())
        assert abs(found.item() - double) <= least + 2 * HALVES[dtype] * double * (not wide), (found.item(), double)


@pytest.mark.parametrize("name", WAYS)
def test_towers_of_two_dtypes_take_the_wider(name):
    kind, ask = WAYS[name]
    groups = torch.tensor(GROUPS)
    for one, other in ((torch.float16, torch.float32), (torch.float32, torch.float64), (torch.bfloat16, torch.float32)):
        x, y = X.to(one), Y.to(other)
        x = x.to(other) if name == "supervised_loss" else x
        assert ask(x, y, 20.0, groups).dtype == torch.promote_types(torch.promote_types(one, other), torch.float32)
        assert ask(x, y, 20.0, groups).item() == pytest.approx(by_hand(kind, x, y, 20.0, GROUPS), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("worth", [NAN, INF, -INF, 1e30])
@pytest.mark.parametrize("name", WAYS)
def test_losses_say_by_their_value_that_something_is_no_number(name, worth):
    """And not by an error, nor by a number: they must not look into tensors on a card. `train_step` stops there, see below."""
    ask, groups = WAYS[name][1], torch.tensor(GROUPS)
    spoilt = put(X.float(), worth, 1) if worth != 1e30 else X.float() * 1e30
    assert not math.isfinite(ask(spoilt, Y.float() if worth != 1e30 else spoilt, 10.0, groups).item())
    if name != "margin_loss" and worth != 1e30:
        assert not math.isfinite(ask(X.float(), Y.float(), worth, groups).item()), "a temperature of 0, or a scale that was lost"


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("rows, words", [(lambda rows: rows.numpy(), "tensors"), (lambda rows: rows.long(), "floating-point"), (lambda rows: rows[:0], "empty batch"),
                                         (lambda rows: rows[0], r"\(B, D\)"), (lambda rows: rows > 0, "floating-point"), (lambda rows: rows + 0j, "floating-point")])
def test_losses_refuse_what_is_no_batch_of_embeddings(name, rows, words):
    with pytest.raises(UsageError, match=words):
        WAYS[name][1](rows(X), rows(Y), 10.0, torch.tensor(GROUPS))


@pytest.mark.parametrize("groups", [[0.0] * 6, [NAN] * 6, [0] * 5, [[0] * 6]])
@pytest.mark.parametrize("loss", [losses.multi_positive_loss, losses.chunked_multi_positive_loss, losses.multi_view_loss])
def test_groups_are_one_integer_each(loss, groups):
    with pytest.raises(UsageError, match="one group per pair"):
        loss(X, Y, 10.0, groups)
    assert loss(X, Y, 10.0, GROUPS) == loss(X, Y, 10.0, np.array(GROUPS)) == loss(X, Y, 10.0, torch.tensor(GROUPS))


# --- scores in every type and layout --------------------------------------------------------------------------------------------


def naive_ranks(scores, owner):
    """{direction: ranks}, a tie costs half a place, rounded up; as `metrics.ranks` says, written as loops over Python's numbers."""
    scores, by_image, by_text = [[float(value) for value in row] for row in scores], [], []
    for image, row in enumerate(scores):
        best = max(value for value, whose in zip(row, owner) if whose == image)
        wrong = [value for value, whose in zip(row, owner) if whose != image]
        by_image.append(1 + sum(value > best for value in wrong) + (sum(value == best for value in wrong) + 1) // 2)
    for caption, whose in enumerate(owner):
        column = [row[caption] for row in scores]
        wrong = column[:whose] + column[whose + 1 :]
        by_text.append(1 + sum(value > column[whose] for value in wrong) + (sum(value == column[whose] for value in wrong) + 1) // 2)
    return {"image_to_text": by_image, "text_to_image": by_text}


OWNER = [0, 0, 1, 2, 2, 2, 3]
SCORES = RANDOM.integers(-3, 4, (4, 7)) * 16.0  # whole numbers, so that every type holds them, with many ties


def read_only(values):
    values = values.copy()
    values.flags.writeable = False
    return values


CONTAINERS = {
    "lists": lambda s: s.tolist(), "float64": lambda s: s, "float32": lambda s: s.astype(np.float32), "float16": lambda s: s.astype(np.float16),
    "long double": lambda s: s.astype(np.longdouble), "int8": lambda s: s.astype(np.int8), "int64": lambda s: s.astype(np.int64),
    "uint8": lambda s: (s + 48).astype(np.uint8), "big-endian": lambda s: s.astype(">f8"), "read-only": read_only, "Fortran": np.asfortranarray,
    "negative strides": lambda s: np.ascontiguousarray(s[::-1, ::-1])[::-1, ::-1], "a window": lambda s: np.pad(s, 3)[3:-3, 3:-3],
    "torch": torch.from_numpy, "torch, half": lambda s: torch.from_numpy(s).half(), "torch, bfloat16": lambda s: torch.from_numpy(s).bfloat16(),
    "torch, with a gradient": lambda s: torch.from_numpy(s).requires_grad_(), "torch, transposed": lambda s: torch.from_numpy(s.T.copy()).T,
    "1e300": lambda s: s * 1e298, "subnormal": lambda s: s * 2.0**-1070, "shifted": lambda s: s - 1000,
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_scores_rank_alike_in_every_type_and_layout(container):
    scores, expected = CONTAINERS[container](SCORES), naive_ranks(SCORES, OWNER)
    found = metrics.ranks(scores, OWNER)
    assert {way: rank.tolist() for way, rank in found.items()} == expected
    assert {way: rank.tolist() for way, rank in metrics.ranks(scores, torch.tensor(OWNER), block=1).items()} == expected
    share = np.mean(np.array(expected["text_to_image"]) <= 2)
    assert metrics.retrieval_metrics(scores, OWNER, ks=(2,))["text_to_image"]["R@2"] == share == retrieval.report(scores, OWNER, ks=(2,))["text_to_image"]["R@2"]
    targets = [0, 3, 3, 6]
    right = [1 + sum(v > row[t] for v in row) + (sum(v == row[t] for v in row)) // 2 for row, t in zip(SCORES, targets)]
    assert metrics.target_ranks(scores, targets).tolist() == right
    assert zero_shot.score_report(scores, list("abcdefg"), targets)["top-1"] == np.mean(np.array(right) == 1)
    times = metrics.k_occurrence(scores, 7)
    assert times.tolist() == [4] * 7 and metrics.hubness(scores, 7)["largest"] == 1
    best = metrics.k_occurrence(np.unique(SCORES, axis=1)[:1] if container == "float64" else scores, 1)
    assert best.sum() == (1 if container == "float64" else 4)
    for place, answer in zip(naive_order(SCORES[:, 5], OWNER[5]), retrieval.answers(scores, OWNER, "text_to_image", 5)):
        assert place == answer.candidate


def naive_order(column, right):
    return sorted(range(len(column)), key=lambda place: (-column[place], place == right, place))


def test_the_best_of_unsigned_and_of_the_smallest_numbers():
    """Negating them wraps round: 0 would be the largest of uint8, and -128 of int8."""
    for row in (np.array([[0, 200, 3]], np.uint8), np.array([[-128, 100, 3]], np.int8), np.array([[False, True, False]])):
        assert metrics.k_occurrence(row, 1).tolist() == [0, 1, 0]
    cosines = metrics.Cosines(np.full((1, 9), 100, np.int8), np.full((1, 9), 100, np.int8))
    assert cosines.row(0).tolist() == [90_000]


@pytest.mark.parametrize("value", [0.0, -1.0, 1e30, 5e-324])
def test_where_all_scores_tie_a_model_is_as_good_as_chance_and_no_better(value):
    """R@K as documented: half of the rivals, rounded up, stand before the right answer."""
    many, owner = 10, np.arange(10)
    found = metrics.retrieval_metrics(np.full((many, many), value), owner, ks=(1, 5, 6, 10))
    for way in metrics.DIRECTIONS:
        assert found[way] == {"R@1": 0.0, "R@5": 0.0, "R@6": 1.0, "R@10": 1.0, "MRR": pytest.approx(1 / 6), "MedR": 6.0, "MeanR": 6.0}
    zeros = metrics.Cosines(np.zeros((many, 3)), np.ones((many, 3)))  # pictures of zeros, or captions that are all the same
    assert metrics.ranks(zeros, owner)["text_to_image"].tolist() == [6] * many


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4", np.longdouble, "bfloat16", np.int16, np.uint16, bool])
def test_cosines_of_any_type_are_the_products_of_their_numbers(dtype):
    images, texts = (np.random.default_rng(seed).integers(0, 2, (5, 6)) for seed in (1, 2))
    given = [torch.from_numpy(rows).bfloat16() if dtype == "bfloat16" else rows.astype(dtype) for rows in (images, texts)]
    cosines = metrics.Cosines(*given)
    assert cosines.rows(0, 5).tolist() == (images @ texts.T).tolist()
    assert metrics.Cosines(given[0], texts.astype(float)).rows(0, 5).tolist() == (images @ texts.T).tolist()


# --- what is refused, and with which words --------------------------------------------------------------------------------------

S, ROWS = np.array([[0.9, 0.1, 0.5, 0.2], [0.3, 0.4, 0.6, 0.1]]), unit(12, 8, 9).numpy()
O4, HALF = [0, 0, 1, 1], np.full((2, 2), 0.5)
NAMES = [f"p{number}" for number in range(12)]
FLAT = index.build_index(ROWS, NAMES, "flat")
PICTURES, CLASSES = unit(4, 6, 11).float(), unit(3, 6, 12).float()
IMAGES, TEXTS = torch.randn(8, 5, generator=torch.Generator().manual_seed(1)), torch.randn(8, 4, generator=torch.Generator().manual_seed(2))


def a_probe(**changes):
    return probes.Probe(**{"name": "p", "question": "?", "pictures": [None] * 2, "choices": [["a", "b"]] * 2, "right": np.array([0, 1])} | changes)


def maps(images=IMAGES, texts=TEXTS, owner=range(8), **options):
    return canonical_maps(pair_statistics(images, texts, owner), **options)


TAKE_SCORES = {
    "metrics.ranks": lambda s: metrics.ranks(s, O4), "metrics.retrieval_metrics": lambda s: metrics.retrieval_metrics(s, O4),
    "metrics.retrieval_intervals": lambda s: metrics.retrieval_intervals(s, O4, draws=5), "metrics.target_ranks": lambda s: metrics.target_ranks(s, [0, 1]),
    "metrics.top_k_accuracy": lambda s: metrics.top_k_accuracy(s, [0, 1]), "metrics.k_occurrence": lambda s: metrics.k_occurrence(s, 1),
    "metrics.hubness": lambda s: metrics.hubness(s, 1), "metrics.inverted_softmax": lambda s: metrics.inverted_softmax(s, S, 1.0),
    "metrics.inverted_softmax bank": lambda s: metrics.inverted_softmax(S, s, 1.0), "metrics.querybank_normalised": lambda s: metrics.querybank_normalised(s, S, 1.0),
    "metrics.calibration_table": lambda s: metrics.calibration_table(s, [0, 1]), "metrics.expected_calibration_error": lambda s: metrics.expected_calibration_error(s, [0, 1]),
    "metrics.modality_gap": lambda s: metrics.modality_gap(s, S), "metrics.modality_gap texts": lambda s: metrics.modality_gap(S, s),
    "metrics.Cosines": lambda s: metrics.Cosines(s, S), "metrics.Cosines texts": lambda s: metrics.Cosines(S, s),
    "retrieval.report": lambda s: retrieval.report(s, O4), "retrieval.compare": lambda s: retrieval.compare(S, s, O4),
    "retrieval.answers": lambda s: retrieval.answers(s, O4, "text_to_image", 0), "zero_shot.score_report": lambda s: zero_shot.score_report(s, list("abcd"), [0, 1]),
    "zero_shot.fit_temperature": lambda s: zero_shot.fit_temperature(s, [0, 1]), "index.build_index": lambda s: index.build_index(s, ["a", "b"]),
    "index.spectrum_like": lambda s: index.spectrum_like(s, 3, 0), "index.choose": lambda s: index.choose(s),
    "index.measure": lambda s: index.measure(FLAT, FLAT, s), "training.locked.measure": lambda s: measure(torch.as_tensor(np.asarray(s)), torch.tensor(O4)),
}


@pytest.mark.parametrize("worth", [NAN, INF, -INF])
@pytest.mark.parametrize("name", TAKE_SCORES)
def test_what_takes_scores_or_vectors_refuses_what_is_no_number(name, worth):
    with pytest.raises(MiniclipError, match=r"NaN|infinity|sum to 1"):
        TAKE_SCORES[name](np.where(S == 0.6, worth, S))


@pytest.mark.parametrize("bad", [S + 0j, S.astype(str), S.astype(object), [[1.0], [1.0, 2.0]], S[:0], S[0], None], ids=["complex", "text", "objects", "ragged", "none", "flat", "None"])
@pytest.mark.parametrize("name", [name for name in TAKE_SCORES if not name.startswith("training")])
def test_what_takes_scores_or_vectors_refuses_what_is_no_matrix(name, bad):
    if (name in ("metrics.inverted_softmax", "metrics.querybank_normalised") or name.startswith("metrics.Cosines")) and isinstance(bad, np.ndarray) and bad.shape == (0, 4):
        return  # no query has no scores: in `VALUES`
    with pytest.raises(UsageError):
        TAKE_SCORES[name](bad)


REFUSED = [
    ("losses.similarity_logits through clip_loss", lambda: losses.clip_loss(X, Y[:, :3], 1.0), "one shape"),
    ("losses.get_loss", lambda: losses.get_loss("NaN"), "unknown loss"),
    ("losses.chunked_clip_loss", lambda: losses.chunked_clip_loss(X, Y, 1.0, 0), "chunk_size"),
    ("losses.chunked_siglip_loss", lambda: losses.chunked_siglip_loss(X, Y, 1.0, -10.0, NAN), "chunk_size"),
    ("losses.clip_loss_local", lambda: losses.clip_loss_local(X, Y, X, Y, 1.0, 0.5), "rank 0.5"),
    ("losses.clip_loss_local", lambda: losses.clip_loss_local(X[:4], Y[:4], X, Y, 1.0, 0), "equal shares"),
    *[("metrics.retrieval_metrics", lambda k=k: metrics.retrieval_metrics(S, O4, ks=(k,)), "K of R@K") for k in (0, -1, 1.5, NAN, INF, "1", True)],
    *[("metrics.top_k_accuracy", lambda k=k: metrics.top_k_accuracy(S, [0, 1], ks=(k,)), "k of top-k") for k in (0, -1, 1.5, NAN)],
    *[("metrics.k_occurrence", lambda k=k: metrics.k_occurrence(S, k), "k") for k in (0, -1, 1.5, 5, NAN)],
    *[("metrics.ranks", lambda b=b: metrics.ranks(S, O4, block=b), "block") for b in (0, -1, 1.5)],
    *[("metrics.ranks", lambda o=o: metrics.ranks(S, o), "owner|caption") for o in ([0.0, 0, 1, 1], [0, 0, 1, 2], [0, 0, 1, -1], [0, 0, 0, 0], [0, 1], [NAN] * 4)],
    *[("metrics.target_ranks", lambda t=t: metrics.target_ranks(S, t), "targets") for t in ([0, 4], [0, -1], [0.0, 1.0], [0], [[0, 1]], [NAN, 0])],
    *[("metrics.summarise", lambda r=r: metrics.summarise(r), "rank") for r in ([], [0, 1], [NAN, 1], [[1, 2]], [INF])],
    *[("metrics.chance", lambda a=a: metrics.chance(*a), "owner|n_images") for a in ((0, []), (2, [0, 0]), (2, [0, 5]), (2, [0, -1]), (2, [0.0, 1.0]), (0, [0]))],
    ("metrics.chance", lambda: metrics.chance(2, [0, 1], ks=(0,)), "K of R@K"),
    ("metrics.bag_of_words_similarity", lambda: metrics.bag_of_words_similarity("a cat", ["a cat"]), "one string"),
    ("metrics.caption_baseline", lambda: metrics.caption_baseline(["a", "b"], [-1, -1]), "owner"),
    ("metrics.caption_baseline", lambda: metrics.caption_baseline(["a", "b"], [0.0, 0.0]), "owner"),
    ("metrics.caption_baseline", lambda: metrics.caption_baseline(["a"], [0]), "two captions"),
    *[("metrics.bootstrap_interval", lambda a=a: metrics.bootstrap_interval(*a), "rank|K of R@K") for a in (([NAN, 1],), ([0, 1], "MRR"), ([1, 2], 0), ([1, 2], 1.5), ([1], NAN))],
    *[("metrics.bootstrap_interval", lambda o=o: metrics.bootstrap_interval([1, 2], **o), "level|draws|groups") for o in ({"level": 2}, {"level": 0}, {"level": NAN}, {"draws": 0},
                                                                                                                            {"groups": [0]})],
    ("metrics.rank_intervals", lambda: metrics.rank_intervals({"image_to_text": np.array([1, 2])}, [0, 1], ks=(0,), draws=3), "K of R@K"),
    *[("metrics.proportion_interval", lambda a=a: metrics.proportion_interval(*a), "hits|level") for a in ((NAN, 3), (0, 0), (0, NAN), (1, INF), (4, 3), (-1, 3), (1, 2, 1.0), (1, 2, 0.0))],
    *[("metrics.paired_interval", lambda a=a: metrics.paired_interval(*a), "score|groups|level|draws") for a in (([NAN], [1]), ([], []), ([0, 1], [1, 1], [0]), ([0], [1], None, 2),
                                                                                                                   ([0], [1], None, 0.9, 0), ([1e308] * 2, [1e308] * 2))],
    *[("metrics.sign_flip_test", lambda a=a: metrics.sign_flip_test(*a), "scores|groups|draws") for a in (([INF], [1]), ([0, 1], [1, 1], [0]), ([0], [1], None, 0), ([0, 0.0], [1e308] * 2))],
    ("metrics.mcnemar_test", lambda: metrics.mcnemar_test([0.5], [1]), "hits"),
    ("metrics.mcnemar_test", lambda: metrics.mcnemar_test([], []), "one score"),
    *[("metrics.modality_gap", lambda a=a: metrics.modality_gap(*a), "expected images") for a in ((PICTURES, unit(4, 1)), (PICTURES[:0], PICTURES), (PICTURES[0], PICTURES))],
    *[("metrics.inverted_softmax", lambda s=s: metrics.inverted_softmax(S, S, s), "finite scale") for s in (NAN, INF, -INF, 1.7e308 * 10)],
    *[("metrics.calibration_table", lambda a=a: metrics.calibration_table(*a), "target|bins|sum to 1") for a in ((HALF, [0]), (HALF, [0, 7]), (HALF, [0, -1]), (HALF, [0.0, 1.0]),
                                                                                                                (HALF, [0, 1], 0), (np.zeros((0, 2)), []), (np.zeros((2, 0)), [0, 0]), (-HALF, [0, 1]))],
    *[("retrieval.answers", lambda q=q: retrieval.answers(S, O4, "text_to_image", q), "query") for q in (-1, 4, 0.0, NAN, True)],
    ("retrieval.answers", lambda: retrieval.answers(S, O4, "text_to_image", 0, count=0), "count"),
    ("retrieval.by_group", lambda: retrieval.by_group([0, 1], ["a", "b"]), "rank"),
    ("retrieval.by_group", lambda: retrieval.by_group([1, 1], ["a", "b"], k=0), "k"),
    ("retrieval.compare", lambda: retrieval.compare(S, S, O4, k=0), "k"),
    ("retrieval.select", lambda: retrieval.select([1], "NaN"), "expected one of"),
    *[("index.Index.search", lambda k=k: FLAT.search(ROWS[:1], k), "k") for k in (0, -1, 1.5, NAN, True)],
    ("index.Index.search", lambda: FLAT.search(ROWS[:0], 1), "queries"),
    ("index.Index.search", lambda: FLAT.search(ROWS[:, :3], 1), "8 numbers"),
    ("index.Index.vectors", lambda: FLAT.vectors(["nobody"]), "nobody"),
    ("index.Index.first", lambda: FLAT.first(0), "count"),
    ("index.build_index", lambda: index.build_index(ROWS * 1e30, NAMES), "overflow"),
    ("index.build_index", lambda: index.build_index(ROWS.astype(float) * 1e300, NAMES), "NaN or infinity"),
    ("index.build_index", lambda: index.build_index(ROWS, NAMES[:-1] + ["p0"]), "unique"),
    ("index.build_index", lambda: index.build_index(ROWS, NAMES, "ivfpq"), "at least 16"),
    ("index.build_index", lambda: index.build_index(ROWS, NAMES, recall=NAN), "recall"),
    *[("index.choose_kind", lambda r=r: index.choose_kind(10, r), "recall") for r in (0, -1, 1.1, NAN, "all")],
    ("index.measure", lambda: index.measure(FLAT, FLAT, ROWS[:1], repeats=0), "repeats"),
    ("index.measure", lambda: index.measure(FLAT, FLAT, ROWS[:1], k=0), "k"),
    ("index.recall", lambda: index.recall([], FLAT, ROWS[:0]), "queries"),
    ("index.check_kind", lambda: index.check_kind(""), "unknown index kind"),
    ("search.search_text", lambda: search.search_text(FLAT, None, "  "), "empty"),
    ("search.search_many", lambda: search.search_many(FLAT, None, []), "at least one query"),
    ("search.query_vectors", lambda: search.query_vectors(FLAT, None, ["a", ""]), "query 2 of 2 is empty"),
    *[("zero_shot.class_probabilities", lambda a=a: zero_shot.class_probabilities(*a), "expected") for a in (
        (put(PICTURES, NAN), CLASSES, 1.0), (PICTURES, put(CLASSES, INF), 1.0), (PICTURES, CLASSES, NAN), (PICTURES, CLASSES, INF), (PICTURES, CLASSES[:, :3], 1.0),
        (PICTURES[0], CLASSES, 1.0), (PICTURES, CLASSES[:0], 1.0))],
    ("zero_shot.check_several", lambda: zero_shot.check_several(["cat"]), "one label"),
    *[("zero_shot.scale_of", lambda t=t: zero_shot.scale_of(None, t), "temperature") for t in (0, -1, INF, NAN, 1e-40, 1e-300, "warm", True)],
    *[("zero_shot.top_labels", lambda k=k: zero_shot.top_labels(HALF, "ab", k), "k") for k in (0, -1, 1.5, NAN)],
    *[("zero_shot.top_labels", lambda a=a: zero_shot.top_labels(*a), "expected finite") for a in ((HALF * NAN, "ab", 1), (HALF, "a", 1), (HALF, "abc", 1), (HALF[0], "ab", 1))],
    *[("zero_shot.fit_temperature", lambda t=t: zero_shot.fit_temperature(np.eye(2), t), "target") for t in ([0.0, 1.0], [0, 2], [0, -1], [0], [NAN, 1])],
    ("zero_shot.score_report", lambda: zero_shot.score_report(np.eye(2), ["a", "a"], [0, 1]), "stands twice"),
    ("zero_shot.class_texts", lambda: zero_shot.class_texts([]), "at least one label"),
    ("zero_shot.class_texts", lambda: zero_shot.class_texts(["cat", "  "]), "no empty ones"),
    ("zero_shot.class_texts", lambda: zero_shot.class_texts(["cat", "CAT"]), "stand twice"),
    *[("zero_shot.linear_probe", lambda a=a, o=o: zero_shot.linear_probe(*a, **o), w) for a, o, w in (
        ((ROWS * NAN, [0, 1] * 6, ROWS), {}, "NaN"), ((ROWS, [0] * 12, ROWS), {}, "two or more classes"), ((ROWS.astype(float) * 1e300, [0, 1] * 6, ROWS), {}, "too large"),
        ((ROWS, [0, 1] * 6, ROWS), {"strengths": (0,)}, "strengths"), ((ROWS, [0, 1] * 6, ROWS), {"strengths": (NAN,)}, "strengths"), ((ROWS, [0, 1] * 6, ROWS), {"share": 2}, "share"),
        ((ROWS, [0.5, 1] * 6, ROWS), {}, "integer targets"), ((ROWS[:0], [], ROWS), {}, "two or more"))],
    *[("zero_shot.few_shot", lambda o=o: zero_shot.few_shot(ROWS, [0, 1] * 6, **o), "shots") for o in ({"shots": (0,)}, {"shots": (1.5,)}, {"shots": ()}, {"seeds": ()}, {"test_share": 1})],
    *[("probes.Probe", lambda c=c: a_probe(**c), "probe p") for c in ({"right": [NAN, 1]}, {"right": [0.5, 1]}, {"right": [0, 2]}, {"right": [-1, 0]}, {"choices": [["a", "a"]] * 2},
                                                                      {"choices": [["a", " "]] * 2}, {"choices": [["a"]] * 2}, {"pictures": [], "choices": [], "right": []})],
    *[("probes.judge", lambda c=c: probes.judge(c, a_probe()), "cosine") for c in ([[0.1, NAN]] * 2, [[0.1, INF]] * 2, [[0.1, 0.2]], [[0.1, 0.2, 0.3]] * 2, [])],
    *[("probes.interval", lambda c=c: probes.interval(c), "credit") for c in ([], [NAN], [2.0, 0.0], [-1.0], [[1.0]])],
    ("probes.interval", lambda: probes.interval([1.0, 0.0], [0, 0]), "two groups"),
    *[("saliency.cam", lambda a=a: saliency.cam(*a), "expected|NaN") for a in ((torch.ones(2, 3, 3) * NAN, torch.ones(2, 3, 3)), (torch.ones(2, 3, 3) * 1e30, torch.ones(2, 3, 3) * 1e30),
                                                                                (torch.ones(2, 3, 3), torch.ones(1, 3, 3)), (torch.ones(3, 3), torch.ones(3, 3)))],
    *[("saliency.rollout", lambda a=a: saliency.rollout(a), "attentions") for a in ([], [torch.eye(2) * NAN], [torch.eye(2), torch.eye(3)], [torch.ones(2, 3)])],
    *[("saliency.in_box", lambda v=v, b=b: saliency.in_box(v, b), "map") for v, b in ((HALF * NAN, (0, 0, 1, 1)), (HALF[:0], (0, 0, 1, 1)), (-HALF, (0, 0, 1, 1)), (HALF, (0, 0, 0.5, 1)))],
    *[("saliency.enlarge", lambda v=v, s=s: saliency.enlarge(v, s), "map|size") for v, s in ((HALF * INF, (4, 4)), (HALF[:0], (4, 4)), (HALF, (0, 4)))],
    ("saliency.grade_maps", lambda: saliency.grade_maps([HALF], []), "box for each map"),
    ("saliency.grade_maps", lambda: saliency.grade_maps([], []), "one map at least"),
    *[("training.pair_statistics", lambda a=a: maps(*a), w) for a, w in (
        ((put(IMAGES, NAN),), "NaN"), ((IMAGES, put(TEXTS, INF)), "NaN"), ((IMAGES.double() * 1e200,), "too large"), ((IMAGES[:1].expand(8, 5),), "are the same"),
        ((IMAGES, TEXTS * 0), "are the same"), ((IMAGES[:1], TEXTS[:1], [0]), "two images"), ((IMAGES[:0], TEXTS[:0], []), "two images"),
        ((IMAGES, TEXTS, [0, 1, 2, 3, 4, 5, 6, 9]), "owners"), ((IMAGES, TEXTS, [0, 1, 2, 3, 4, 5, 6, -1]), "owners"), ((IMAGES, TEXTS, [0.0, 1, 2, 3, 4, 5, 6, 7]), "owners"))],
    *[("training.canonical_maps", lambda o=o: maps(**o), "finite") for o in ({"image_shrink": -1}, {"text_shrink": NAN}, {"image_shrink": INF}, {"power": NAN}, {"dim": 0})],
    ("training.canonical_maps", lambda: maps(torch.tensor([[1.0], [-1], [0], [0]]), torch.tensor([[0.0], [0], [1], [-1]]), range(4)), "nothing to learn"),
    ("training.text_head.linear_heads", lambda: text_head.linear_heads(put(TEXTS, NAN), IMAGES, range(8)), "NaN"),
    ("training.text_head.fit_text_head", lambda: text_head.fit_text_head(TEXTS, IMAGES, range(8), sharpness=0), "sharpness"),
    ("training.text_head.cross_validated", lambda: text_head.cross_validated(text_head.linear_heads, TEXTS, IMAGES, torch.arange(8), folds=1), "folds"),
    *[("training.shares.reshare", lambda s=s: shares.reshare(None, s), "share") for s in (NAN, INF, -0.1, 1.1)],
    ("training.locked.check_finite", lambda: check_finite(Features(put(IMAGES, NAN, 3), TEXTS, None)), "row 3"),
    ("training.scaling.spread", lambda: scaling.spread(torch.ones(3, 2)), "no spread"),
    ("training.scaling.spread", lambda: scaling.spread(torch.ones(1, 2)), "no spread"),
    ("training.scaling.spread", lambda: scaling.spread(put(torch.eye(3), NAN)), "no spread"),
    *[("training.scaling.fit_power_law", lambda a=a: scaling.fit_power_law(*a), "above 0|NaN") for a in (([1, 2], [0.5, 0.0]), ([1], [0.5]), ([2, 2], [0.5, 0.4]), ([0, 2], [0.5, 0.4]),
                                                                                                       ([1, 2], [0.5, NAN]), ([1, 2], [0.5]), ([1, 2, 4], [0.5, 0.4]), ([], []))],
    ("training.scaling.fit_floor", lambda: scaling.fit_floor([1, 2], [0.5, 0.4]), "3 different sizes"),
    ("training.scaling.judge_law", lambda: scaling.judge_law([1, 2, 4, 8], [[0.5, 0.4, 0.3, NAN]]), "NaN"),
    ("training.scaling.recall_at_10", lambda: scaling.recall_at_10(PICTURES * NAN, PICTURES), "NaN"),
    *[("training.TrainConfig", lambda o=o: TrainConfig(**o), "expected") for o in ({"learning_rate": NAN}, {"learning_rate": INF}, {"learning_rate": -1}, {"epochs": 0}, {"epochs": 1.5}, {"epochs": INF},
                                                                                   {"batch_size": 1}, {"batch_size": NAN}, {"batch_size": 2.5}, {"warmup": 2}, {"warmup": NAN}, {"clip_norm": 0},
                                                                                   {"clip_norm": NAN}, {"margin": NAN}, {"weight_decay": INF}, {"weight_decay": NAN})],
    ("training.PairBatches", lambda: PairBatches(IMAGES[:1], TEXTS[:1], [0], 2), "two pairs"),
    ("training.PairBatches", lambda: PairBatches(IMAGES, TEXTS, [0] * 8, 2), "needs a caption"),
    *[("model.TwoTowers", lambda s=s: TwoTowers(torch.nn.Identity(), torch.nn.Identity(), logit_scale=s), "logit scale") for s in (0.0, -1.0, NAN, INF)],
    ("model.TwoTowers.encode_text", lambda: small_model().encode_text([]), "at least one"),
    ("model.TwoTowers.encode_image", lambda: small_model().encode_image([]), "at least one"),
    ("model.TwoTowers batch of one", lambda: TwoTowers(torch.nn.Identity(), torch.nn.Identity(), MlpHead(5, 4), LinearHead(4, 4))(IMAGES[:1], TEXTS[:1]), "two pairs or more"),
    *[("finetuning.interpolate", lambda a=a: finetuning.interpolate(None, None, a), "alpha") for a in (NAN, INF, -0.1, 1.1)],
    ("finetuning.broken_scorer", lambda: finetuning.broken_scorer(S, [0]), "one owner"),
]


@pytest.mark.parametrize("call, words", [pytest.param(call, words, id=f"{number}-{name}") for number, (name, call, words) in enumerate(REFUSED)])
def test_what_cannot_be_answered_is_refused_in_our_words(call, words, recwarn):
    with pytest.raises((UsageError, DataError), match=words):
        call()
    assert not [str(warning.message) for warning in recwarn if issubclass(warning.category, RuntimeWarning)], "NumPy had to warn first"


# --- values at the edge, by hand ------------------------------------------------------------------------------------------------

VALUES = [
    ("losses.similarity_logits", lambda: losses.similarity_logits(torch.eye(2).half(), torch.eye(2), 3.0).tolist(), [[3, 0], [0, 3]]),
    ("metrics.ranks of one", lambda: metrics.ranks([[5.0]], [0])["image_to_text"].tolist(), [1]),
    ("metrics.retrieval_metrics, K above all", lambda: metrics.retrieval_metrics(S, O4, ks=(100,))["text_to_image"]["R@100"], 1.0),
    ("metrics.summarise", lambda: metrics.summarise([1, 2, 4], ks=(2,)), {"R@2": 2 / 3, "MRR": 7 / 12, "MedR": 2.0, "MeanR": 7 / 3}),
    ("metrics.chance of one image", lambda: metrics.chance(1, [0], ks=(1, 100))["image_to_text"], {"R@1": 1.0, "R@100": 1.0, "MRR": 1.0, "MeanR": 1.0}),
    ("metrics.bag_of_words_similarity, empty", lambda: metrics.bag_of_words_similarity(["", "a"], ["a", ""]).tolist(), [[0, 0], [1, 0]]),
    ("metrics.bag_of_words_similarity, none", lambda: metrics.bag_of_words_similarity([], []).shape, (0, 0)),
    ("metrics.caption_baseline, all alike", lambda: metrics.caption_baseline(["a"] * 4, [0, 0, 1, 1]).tolist(), [2] * 4),
    ("metrics.bootstrap_interval of one", lambda: metrics.bootstrap_interval([1], 1), (1.0, 1.0)),
    ("metrics.proportion_interval", lambda: metrics.proportion_interval(0, 1), (0.0, pytest.approx(0.793451, abs=1e-6))),
    ("metrics.paired_interval of one", lambda: metrics.paired_interval([0], [1]), (1.0, 1.0, 1.0)),
    ("metrics.sign_flip_test, nothing differs", lambda: metrics.sign_flip_test([1, 1], [1, 1], draws=10), 1.0),
    ("metrics.sign_flip_test, any unit", lambda: len({metrics.sign_flip_test([0] * 6, np.array([3, 1, -2, 5, 1, 2.0]) * u, draws=400) for u in (1e-30, 1e-12, 1, 1e100)}), 1),
    ("metrics.mcnemar_test, nothing differs", lambda: metrics.mcnemar_test([True, False], [True, False]), (0, 0, 1.0)),
    ("metrics.modality_gap", lambda: metrics.modality_gap(torch.tensor([[1.0, 0]]).bfloat16(), np.array([[0, 1]])), pytest.approx(2**0.5)),
    ("metrics.inverted_softmax, no query", lambda: metrics.inverted_softmax(S[:0], S, 1.0).shape, (0, 4)),
    ("metrics.inverted_softmax, scale 0", lambda: metrics.inverted_softmax(S, S, 0.0), pytest.approx(np.full((2, 4), -math.log(2)))),
    ("metrics.querybank_normalised, no query", lambda: metrics.querybank_normalised(S[:0], S, 1.0).shape, (0, 4)),
    ("metrics.inverted_softmax, large", lambda: metrics.inverted_softmax([[1e4, 0.0]], [[1e4, 0.0]], 100.0).tolist(), [[0.0, 0.0]]),
    ("metrics.calibration_table", lambda: metrics.calibration_table([[1.0]], [0], 2)["count"].tolist(), [0, 1]),
    ("metrics.expected_calibration_error in bfloat16", lambda: metrics.expected_calibration_error(torch.tensor([[0.5, 0.5]]).bfloat16(), [0]), 0.5),
    ("metrics.hubness, all tied", lambda: metrics.hubness(np.zeros((3, 2)), 2), {"skewness": 0.0, "anti_hubs": 0.0, "largest": 1.0, "fair": 1.0}),
    ("metrics.as_scores", lambda: metrics.as_scores([[True, False]]).row(0).tolist(), [1.0, 0.0]),
    ("metrics.Cosines, no image", lambda: metrics.Cosines(np.zeros((0, 3)), np.eye(3)).rows(0, 4).shape, (0, 3)),
    ("index.Index.search, a query of zeros", lambda: FLAT.search(ROWS[:1] * 0, 2)[0].tolist(), [[0.0, 0.0]]),
    ("index.Index.search, k above all", lambda: len(FLAT.search(ROWS[:1], 10**9)[1][0]), 12),
    ("index.Index.search in bfloat16", lambda: FLAT.search(torch.from_numpy(ROWS[2:3]).bfloat16(), 1)[1], [["p2"]]),
    ("index.Index.search, backwards and read-only", lambda: FLAT.search(read_only(ROWS)[::-1], 1)[1], [[name] for name in NAMES[::-1]]),
    ("index.build_index of one vector", lambda: index.build_index(ROWS[:1], ["a"]).search(ROWS[:1], 3)[1], [["a"]]),
    ("index.build_index, all alike", lambda: sorted(index.build_index(np.repeat(ROWS[:1], 12, 0), NAMES, "hnsw").search(ROWS[:1], 12)[1][0]), sorted(NAMES)),
    ("index.build_index, subnormal", lambda: index.build_index(ROWS * np.float32(1e-42), NAMES).search(ROWS[:1], 1)[1], [["p0"]]),
    ("index.recall", lambda: index.recall([["p0"]], FLAT, ROWS[:1], k=1), 1.0),
    ("index.choose_kind of none", lambda: index.choose_kind(0), "flat"),
    ("index.spectrum_like of one", lambda: index.spectrum_like(ROWS[:1], 2, 0), pytest.approx(ROWS[[0, 0]], abs=1e-6)),
    ("index.spectrum_like, none asked", lambda: index.spectrum_like(ROWS, 0, 0).shape, (0, 8)),
    ("zero_shot.class_probabilities of zeros", lambda: zero_shot.class_probabilities(torch.zeros(1, 6), CLASSES, 100.0).tolist(), [pytest.approx([1 / 3] * 3)]),
    ("zero_shot.class_probabilities of none", lambda: tuple(zero_shot.class_probabilities(PICTURES[:0], CLASSES, 100.0).shape), (0, 3)),
    ("zero_shot.class_probabilities, two types", lambda: zero_shot.class_probabilities(PICTURES.half(), CLASSES.double(), 100.0).sum(1).tolist(), [pytest.approx(1)] * 4),
    ("zero_shot.class_probabilities, any scale", lambda: zero_shot.class_probabilities(torch.eye(2), torch.eye(2), 1e30).tolist(), [[1, 0], [0, 1]]),
    ("zero_shot.scale_of", lambda: zero_shot.scale_of(None, 1e30).item(), pytest.approx(1e-30)),
    ("zero_shot.top_labels, k above all", lambda: zero_shot.top_labels([[0.2, 0.8]], "ab", 99), [[("b", pytest.approx(0.8)), ("a", pytest.approx(0.2))]]),
    ("zero_shot.fit_temperature, all right", lambda: zero_shot.fit_temperature(np.eye(2), [0, 1]), 1e4),
    ("zero_shot.fit_temperature, all tied", lambda: zero_shot.fit_temperature(torch.zeros(2, 2).bfloat16(), [0, 1]), 1e4),
    ("zero_shot.fit_temperature, all wrong", lambda: zero_shot.fit_temperature(np.eye(2), [1, 0]), 1e-2),
    ("zero_shot.linear_probe, all alike", lambda: len(set(zero_shot.linear_probe(np.ones((4, 3)), [0, 1, 0, 1], np.ones((3, 3))).predicted.tolist())), 1),
    ("zero_shot.linear_probe, nothing to test", lambda: zero_shot.linear_probe(ROWS, [0, 1] * 6, ROWS[:0]).predicted.shape, (0,)),
    ("zero_shot.linear_probe, any unit", lambda: len({tuple(zero_shot.linear_probe(ROWS.astype(float) * u, [3, -7] * 6, ROWS.astype(float) * u).predicted) for u in (1e-30, 1, 1e100)}), 1),
    ("zero_shot.few_shot, more shots than there are", lambda: zero_shot.few_shot(ROWS, [0, 1] * 6, shots=(100,), seeds=(0,), strengths=(1.0,))["n_train"].tolist(), [6]),
    ("zero_shot.score_report of one label", lambda: zero_shot.score_report([[0.0]], ["a"], [0])["top-1"], 1.0),
    ("retrieval.compare with itself", lambda: retrieval.compare(S, S, O4)["text_to_image"]["p"], 1.0),
    ("retrieval.by_group of one", lambda: retrieval.by_group([1], ["a"])["a"]["R@1"], 1.0),
    ("probes.judge, tied", lambda: probes.judge([[0.3, 0.3], [0.3, 0.3]], a_probe())["accuracy"], 0.5),
    ("probes.judge in bfloat16", lambda: probes.judge(torch.tensor([[0.5, 0.1], [0.1, 0.5]]).bfloat16(), a_probe())["accuracy"], 1.0),
    ("probes.interval, all right", lambda: probes.interval([1.0] * 4, [0, 0, 1, 1])[1], 1.0),
    ("saliency.cam, nothing speaks for it", lambda: saliency.cam(torch.ones(2, 2, 2), -torch.ones(2, 2, 2)).sum().item(), 0.0),
    ("saliency.rollout, one layer of one token", lambda: saliency.rollout([torch.ones(1, 1)]).tolist(), [[1.0]]),
    ("saliency.in_box, zeros", lambda: saliency.in_box(np.zeros((2, 2)), (0, 0, 1, 1)), {"hit": False, "share": 0.0, "area": 0.25}),
    ("saliency.in_box, outside", lambda: saliency.in_box(np.ones((4, 4)), (-3, -3, -1, -1)), {"hit": False, "share": 0.0, "area": 0.0}),
    ("saliency.in_box, half outside", lambda: saliency.in_box(np.ones((2, 2)), (-9, -9, 1, 1)), {"hit": True, "share": 0.25, "area": 0.25}),
    ("saliency.enlarge", lambda: saliency.enlarge(torch.ones(1, 1).bfloat16(), (3, 2)).tolist(), [[1.0] * 3] * 2),
    ("saliency.grade_maps", lambda: saliency.grade_maps([np.ones((2, 2))], [(0, 0, 2, 2)])["share"].tolist(), [1.0]),
    ("training.canonical_maps, any unit", lambda: [float((maps(IMAGES.double() * u).correlations - maps(IMAGES.double()).correlations).abs().max()) < 1e-9 for u in (1e-30, 1e60)], [True, True]),
    ("training.pair_statistics of two pairs", lambda: maps(IMAGES[:2], TEXTS[:2], [0, 1]).correlations.shape, (1,)),
    ("training.canonical_maps, dim above all", lambda: tuple(maps(dim=99).correlations.shape), (4,)),
    ("training.canonical_maps, numpy", lambda: torch.equal(maps(IMAGES.numpy(), TEXTS.numpy()).correlations, maps().correlations), True),
    ("training.schedule of one step", lambda: (training.schedule(0, 1, 0), training.schedule(0, 1, 1)), (1.0, 1.0)),
    ("training.scaling.fit_power_law", lambda: scaling.fit_power_law([1, 4], [1e-30, 5e-31])[0], pytest.approx(0.5)),
    ("training.scaling.recall_at_10 of one", lambda: scaling.recall_at_10(PICTURES[:1], PICTURES[:1]), 1.0),
    ("finetuning.broken_scorer of one", lambda: finetuning.broken_scorer([[1.0]], [0])["R@1"], 1.0),
    ("model.TwoTowers, a vector of zeros", lambda: TwoTowers(torch.nn.Identity(), torch.nn.Identity()).project_images(torch.zeros(1, 3)).tolist(), [[0.0] * 3]),
]


@pytest.mark.parametrize("call, expected", [pytest.param(call, expected, id=name) for name, call, expected in VALUES])
def test_values_at_the_edge(call, expected):
    assert call() == expected


# --- training ends before a number is lost --------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["clip", "siglip", "margin", "multi-positive", "multi-view", "chunked-clip"])
def test_a_batch_that_is_no_number_stops_training_at_its_step_and_leaves_good_weights(loss):
    model, config = small_model(), TrainConfig(epochs=3, batch_size=8, learning_rate=0.01, loss=loss)
    batches, seen = noise_batches(model), []
    original = batches.epoch

    def poisoned(*args, **options):
        for images, texts, groups in original(*args, **options):
            seen.append(1)
            yield (images * NAN if len(seen) == 5 else images), texts, groups

    batches.epoch = poisoned
    records = []
    with pytest.raises(Diverged, match=r"step 4 of 9, learning rate 0\.\d+: the (loss|gradient) is not a number any more"):  # noqa: PT012
        for record in fit(model, batches, config):
            records.append(record)
    assert [record.step for record in records] == [0, 1, 2, 3]
    check_sound(model, 4)  # all weights are numbers


def test_a_last_step_that_overflows_the_weights_is_told_and_not_kept(tmp_path):
    """No loss comes after it: without a look at the weights a model of infinities would be written."""
    model, config = small_model(), TrainConfig(epochs=1, batch_size=8, learning_rate=0.01)
    before, path = {name: value.clone() for name, value in model.state_dict().items()}, tmp_path / "checkpoint.pt"
    batches = noise_batches(model, count=8)  # one step
    running = fit(model, batches, config, checkpoint=path)
    next(running)
    with torch.no_grad():
        model.image_head.weight[0, 0] = INF
    with pytest.raises(Diverged, match=r"after 1 steps the weight image_head\.weight is not a number"):
        next(running)
    assert not path.exists() and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_weights_that_are_no_numbers_are_not_loaded(tmp_path):
    model = small_model()
    with torch.no_grad():
        model.text_head.weight[1, 1] = NAN
    save_model(model, tmp_path)
    with pytest.raises(ModelError, match=r"NaN|finite|not a number"):
        load_saved(tmp_path)


def test_the_learned_temperature_comes_back_from_its_clamp():
    model, config = small_model(), TrainConfig(batch_size=8, learning_rate=0.5)
    with torch.no_grad():
        model.log_logit_scale.fill_(50.0)  # exp overflows no float32, and 100 counts
    assert model.logit_scale.item() == 100
    batch = next(noise_batches(model).epoch(torch.Generator().manual_seed(0)))
    optimizer = training.build_optimizer(model, config)
    training.train_step(model.train(), batch, optimizer, config)
    assert model.log_logit_scale.item() == pytest.approx(math.log(100), abs=1e-5)
    training.train_step(model, batch, optimizer, config)
    assert model.log_logit_scale.grad.abs() > 0, "just below the limit there is a way back"


def test_small_steps_stop_where_the_loss_is_lost():
    images = put(torch.randn(8, 5), NAN)
    with pytest.raises(Diverged, match="small batch is not a number"):
        list(scaling.train_small(images, torch.randn(8, 4), (2,)))


# --- nothing is forgotten -------------------------------------------------------------------------------------------------------

MODULES = ("losses", "metrics", "index", "zero_shot", "retrieval", "probes", "saliency", "training", "training.heads", "training.scaling", "training.text_head", "search")
ELSEWHERE = {
    # load files or fetch what stands there: tests of reading
    "index": {"load_index", "check_target"}, "zero_shot": {"labels_of", "read_labels", "imagenet_templates", "class_embeddings", "classify", "binary", "yes_no", "cosines", "evaluate_labels"},
    # encode pictures and hand the cosines to what is in the tables
    "retrieval": {"similarity", "cosines", "evaluate", "as_table"}, "probes": {"run", "scoreboard", "caption_cosine", "linear_readout", "compare_languages", "concepts", "unknown_share", *probes.PROBES,
                                                                               "examples_figure", "languages_figure", "maps_figure", "scoreboard_figure"},
    "saliency": {"grad_cam", "occlusion", "attention_rollout", "shuffled"}, "search": {"check_model", "check_sheet", "draw", "draw_many", "gone", "holds_captions", "holds_sentences",
                                                                                      "index_captions", "index_dataset", "index_shards", "model_of", "picture_of", "read_queries",
                                                                                      "search_image", "text_of"},
    "training": {"build_optimizer", "fit", "train_run", "train_step"},  # below the tables
    "training.heads": {"principal_axes", "fill", "pair_statistics", "canonical_maps"}, "training.scaling": {"emoji_pairs", "small_towers", "flat_gradient", "accumulated_step", "train_small",
                                                                                                           "small_scores", "learning_curve"},
    "training.text_head": {"checked", "corrected", "into_image_space", "cosines"},  # behind those of the tables
}


@pytest.mark.parametrize("module", MODULES)
def test_every_public_function_is_asked_at_the_edge(module):
    loaded = importlib.import_module(f"miniclip_helpers.{module}")
    names = getattr(loaded, "__all__", None) or [name for name, value in vars(loaded).items() if not name.startswith("_") and getattr(value, "__module__", "") == loaded.__name__]
    public = {name for name in names if inspect.isfunction(getattr(loaded, name))}
    asked = {re.split("[ ,]", name)[0] for name in [*(entry[0] for entry in REFUSED + VALUES), *TAKE_SCORES]} | {f"losses.{name}" for name in WAYS}
    missing = {name for name in public - ELSEWHERE.get(module, set()) if f"{module}.{name}" not in asked}
    assert not missing, f"{module}: what do {sorted(missing)} make of NaN, of nothing, of one?"
    assert ELSEWHERE.get(module, set()) <= public, "the list of what is elsewhere names something that is gone"
