"""Two real processes with Accelerate on gloo against one process with the whole batch; the wrong ways to gather, each caught."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from loopback import find_port, worker_environment
from torch.nn import functional as F

from miniclip_helpers.errors import MiniclipError, UsageError
from miniclip_helpers.losses import clip_loss, clip_loss_local
from miniclip_helpers.runtime import generator
from miniclip_helpers.training import processes
from miniclip_helpers.training.processes import gather_with_gradients, one_process, run_processes, shard_rows, small_batch, small_towers


@pytest.fixture(scope="module")
def one():
    return one_process(seed=1)


@pytest.fixture(scope="module")
def two():
    return run_processes(2, seed=1)


def difference(found, expected):
    """The largest difference in the loss and in any gradient."""
    assert found["gradients"].keys() == expected["gradients"].keys() and len(expected["gradients"]) == 9
    return max(abs(found["loss"] - expected["loss"]), *(np.abs(found["gradients"][name] - value).max() for name, value in expected["gradients"].items()))


def towers(gradients):
    return np.concatenate([value.ravel() for name, value in gradients.items() if name != "log_logit_scale"])


def test_two_processes_equal_one_to_a_millionth(one, two):
    assert difference(two["gather with gradients"], one) <= 1e-6
    assert np.abs(towers(one["gradients"])).max() > 1e-2  # and the gradients are no zeros


@pytest.mark.parametrize("way", [way for way in processes.WAYS if way != "gather with gradients"])
def test_every_other_way_is_caught(one, two, way):
    assert difference(two[way], one) > 1e-3


def test_what_each_wrong_way_does(one, two):
    """No gather: another loss. Detached: the same loss, another direction. Own block: half the gradient, and once doubled twice the temperature's."""
    right, scale = towers(one["gradients"]), one["gradients"]["log_logit_scale"]
    found = {way: (result["loss"], towers(result["gradients"]), result["gradients"]["log_logit_scale"]) for way, result in two.items()}
    cosine = {way: float(right @ rows / np.linalg.norm(right) / np.linalg.norm(rows)) for way, (_, rows, _) in found.items()}
    assert found["no gather"][0] < one["loss"] - 0.3
    assert found["gather, detached"][0] == pytest.approx(one["loss"], abs=1e-5) and cosine["gather, detached"] < 0.99
    assert found["own block only"][0] == pytest.approx(one["loss"], abs=1e-5) and cosine["own block only"] == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(found["own block only"][1], right / 2, atol=1e-6)
    np.testing.assert_allclose(found["own block only"][2], scale, atol=1e-6)
    np.testing.assert_allclose(found["own block, loss times W"][1], right, atol=1e-6)
    np.testing.assert_allclose(found["own block, loss times W"][2], 2 * scale, atol=1e-6)


def test_the_table_says_so(one, two):
    rows = {row["way"]: row for row in processes.compare(one, two)}
    assert [way for way, row in rows.items() if row["equal to 1e-6"]] == ["gather with gradients"]
    assert rows["own block only"]["towers: length"] == pytest.approx(0.5) and rows["own block, loss times W"]["temperature"] == pytest.approx(2)
    assert rows["own block only"]["towers: cosine"] == 1 > rows["gather, detached"]["towers: cosine"]


def test_one_process_is_the_plain_loss(one):
    """The reference of the comparison, worked out anew with nothing of the module's but its inputs."""
    model = small_towers(1)
    images, texts = small_batch(1)
    rows = F.normalize(model.image_tower(images), dim=-1), F.normalize(model.text_tower(texts), dim=-1)
    logits = model.log_logit_scale.exp() * rows[0] @ rows[1].T
    loss = -(logits.log_softmax(1).diagonal().mean() + logits.log_softmax(0).diagonal().mean()) / 2
    loss.backward()
    assert difference({"loss": loss.item(), "gradients": {name: weight.grad.numpy() for name, weight in model.named_parameters()}}, one) < 1e-6


def test_torchrun_starts_it_too(one, tmp_path):
    """As on a machine with several cards, where no notebook starts the workers."""
    out = tmp_path / "two.npz"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port", str(find_port()),
               "-m", "miniclip_helpers.training.processes", str(out), "--seed", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else os.environ
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(out) as table:
        assert int(table["processes"]) == 2
        assert float(table["gather with gradients/loss"]) == pytest.approx(one["loss"], abs=1e-6)


def test_a_worker_that_fails_is_told_and_none_is_left(monkeypatch):
    started = []
    popen = subprocess.Popen

    def watched(command, **options):
        environment = dict(options.pop("env"))
        if environment["RANK"] == "1":
            command = [sys.executable, "-c", "raise SystemExit('no memory left')"]
        started.append(popen(command, env=environment, **options))
        return started[-1]

    monkeypatch.setattr(processes.subprocess, "Popen", watched)
    with pytest.raises(MiniclipError, match=r"process 1 of 2 failed(?s:.)*no memory left"):
        run_processes(2)
    assert len(started) == 2 and all(worker.poll() is not None for worker in started)


def test_one_that_hangs_is_ended(monkeypatch):
    popen = subprocess.Popen
    started = []

    def sleeping(command, **options):
        started.append(popen([sys.executable, "-c", "import time; time.sleep(100)"], **options))
        return started[-1]

    monkeypatch.setattr(processes.subprocess, "Popen", sleeping)
    with pytest.raises(MiniclipError, match="took longer than 1 s"):
        run_processes(2, timeout=1)
    assert all(worker.poll() is not None for worker in started)


def test_workers_talk_over_the_loopback_alone(monkeypatch):
    monkeypatch.setenv("ACCELERATE_CONFIG_FILE", "somebody's")
    seen = processes._environment(1, 2)
    assert seen["MASTER_ADDR"] == "127.0.0.1" and seen["RANK"] == "1" and "ACCELERATE_CONFIG_FILE" not in seen
    assert sys.platform != "linux" or seen["GLOO_SOCKET_IFNAME"] == "lo"


def test_without_a_process_group_gathering_is_nothing():
    rows = torch.randn(3, 2, requires_grad=True)
    assert gather_with_gradients(rows) is rows


def test_shares():
    assert [shard_rows(12, rank, 3) for rank in range(3)] == [slice(0, 4), slice(4, 8), slice(8, 12)]
    for wrong in ((13, 0, 3), (12, 3, 3), (12, -1, 3), (12, 0, 0)):
        with pytest.raises(UsageError, match="share equally"):
            shard_rows(*wrong)
    with pytest.raises(UsageError, match="share equally"):
        run_processes(2, batch=31)


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_local_losses_average_to_the_whole_one(count):
    """In one process, in float64: the mean over the ranks, and its gradients."""
    images, texts = (F.normalize(torch.randn(12, 5, generator=generator(seed), dtype=torch.float64), dim=-1).requires_grad_() for seed in (1, 2))
    scale = torch.tensor(7.0, dtype=torch.float64, requires_grad=True)
    whole = clip_loss(images, texts, scale)
    parts = [shard_rows(12, rank, count) for rank in range(count)]
    mean = sum(clip_loss_local(images[part], texts[part], images, texts, scale, rank) for rank, part in enumerate(parts)) / count
    torch.testing.assert_close(mean, whole, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(torch.autograd.grad(mean, (images, texts, scale)), torch.autograd.grad(whole, (images, texts, scale))):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("local", "rank"), [(5, 0), (4, 3), (4, -1)])
def test_shares_that_do_not_fit_are_told(local, rank):
    with pytest.raises(UsageError, match="equal shares"):
        clip_loss_local(torch.zeros(local, 2), torch.zeros(local, 2), torch.zeros(12, 2), torch.zeros(12, 2), 1.0, rank)


GATHER = """
import os
import torch
from torch import distributed
from miniclip_helpers.errors import UsageError
from miniclip_helpers.training.processes import gather_with_gradients
distributed.init_process_group("gloo")
rank = distributed.get_rank()
try:
    gather_with_gradients(torch.zeros(2 + rank, 3))
except UsageError as error:
    assert "found [2, 3]" in str(error)
else:
    raise SystemExit("uneven rows were taken")
rows = (torch.arange(4.0).view(2, 2) + 10 * rank).requires_grad_()
whole = gather_with_gradients(rows)
assert whole[:, 0].tolist() == [0, 2, 10, 12], whole
(whole * torch.arange(1.0, 5)[:, None] * (rank + 1)).sum().backward()  # process r pulls row i by (i + 1) (r + 1): 3 (i + 1) in all
assert rows.grad[:, 0].tolist() == [3 * (2 * rank + 1), 3 * (2 * rank + 2)], rows.grad
distributed.barrier()
os._exit(0)  # torch 2.6 hangs in one of eight farewells
"""


def test_gather_by_hand_and_uneven_shares():
    port = find_port()
    workers = [subprocess.Popen([sys.executable, "-c", GATHER], env=worker_environment(rank, 2, port), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                text=True) for rank in range(2)]
    try:
        said = [worker.communicate(timeout=300)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], said
