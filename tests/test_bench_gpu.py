"""The benchmark for a CUDA card, walked through on the CPU at toy size, so that it works the day that there is a card."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent / "benchmarks"))

import bench_gpu  # noqa: E402

TOY = {"embed_dim": 16, "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "layers": 2, "head_width": 16},
       "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 2}}


def test_our_towers_are_the_same_network():
    pictures, ids = bench_gpu.random_pairs(TOY, 5, torch.float32)
    theirs, ours = bench_gpu.network(TOY).eval(), bench_gpu.two_towers(TOY).eval()
    with torch.no_grad():
        expected, (images, texts, _) = theirs(pictures, ids), ours(pictures, ids)
    torch.testing.assert_close(images, expected["image_features"])
    torch.testing.assert_close(texts, expected["text_features"])
    assert sum(w.numel() for w in theirs.parameters()) == sum(w.numel() for w in ours.parameters())


def test_training_in_both_loops():
    made = bench_gpu.table(["batch", "loop", "pairs/s", "peak MB"],
                           bench_gpu.training_rows(TOY, (6,), 1, (False,), "cpu", steps=3, warm=1))
    assert [(batch, name) for batch, name, *_ in made] == [(6, "open_clip"), (6, "miniclip")] and all(rate > 0 for _, _, rate, _ in made)


def test_the_loss_and_encoding(capsys):
    made = bench_gpu.table(["loss", "s", "MB"], bench_gpu.loss_rows(64, 8, (16, 64), "cpu", 1))
    assert [name for name, *_ in made] == ["plain", "chunks of 16", "chunks of 64"]
    made = bench_gpu.table(["side", "batch", "how", "items/s"], bench_gpu.encoding_rows(TOY, (4,), "cpu", (False,), 1))
    assert [row[:3] for row in made] == [("pictures", 4, "as it is"), ("texts", 4, "as it is")]
    assert capsys.readouterr().out.count("\n| --- |") == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_it_is_skipped_with_a_reason():
    assert bench_gpu.pytestmark.args == (True,) and "CUDA" in bench_gpu.pytestmark.kwargs["reason"]
