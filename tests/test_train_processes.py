"""Training by several processes against one with the same batch, started in earnest over the loopback; what happens when one is killed."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import share_training
import torch
from conftest import ROOT, picture
from loopback import find_port, worker_environment

from miniclip_helpers import cli, images, runtime
from miniclip_helpers.datasets import ImageTextDataset
from miniclip_helpers.encoders.minilm import MiniLM
from miniclip_helpers.errors import DataError, MiniclipError, UsageError
from miniclip_helpers.model import load_saved
from miniclip_helpers.runtime import generator
from miniclip_helpers.training import Machine, PairBatches, TrainConfig, fit, train_run
from miniclip_helpers.training.machine import LostProcess, ahead, throughput

SMALL = ["--image-encoder", "small-cnn", "--text-encoder", "bag-of-words", "--batch-size", 8, "--val-size", 0.25, "--device", "cpu"]
EXACT = [case for case in share_training.CASES if case != "bf16"]


def start(command, rank, port, count=2):
    """One of `count` processes of a launcher."""
    environment = worker_environment(rank, count, port) | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    return subprocess.Popen([sys.executable, *map(str, command)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(workers, timeout=300):
    """[(return code, stdout, stderr)] of each; none is left running."""
    try:
        said = [worker.communicate(timeout=timeout) for worker in workers]
        return [(worker.returncode, *lines) for worker, lines in zip(workers, said)]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Every case of `share_training` by two processes, and the run that one of them goes on with."""
    folder = tmp_path_factory.mktemp("two")
    share_training.cut(folder / "one.pt", 2)
    port = find_port()
    found = ended([start([ROOT / "tests" / "share_training.py", folder], rank, port) for rank in range(2)])
    assert [code for code, *_ in found] == [0, 0], found
    return folder, [torch.load(folder / f"found-{rank}.pt", weights_only=True) for rank in range(2)]


def furthest(state, other):
    assert state.keys() == other.keys() and len(state) > 3
    return max((state[key].double() - other[key].double()).abs().max().item() for key in state)


@pytest.mark.parametrize("case", EXACT)
def test_two_processes_train_as_one_does(case, two):
    """The same batch in all: the same losses, gradients and weights after nine steps, in every process."""
    records, state = share_training.train(case)
    start = share_training.model_of(case).state_dict()
    for found in two[1]:
        assert found[case]["loss"] == pytest.approx([record.loss for record in records], abs=1e-5) and len(records) == 9
        assert found[case]["norm"] == pytest.approx([record.grad_norm for record in records], rel=1e-4)
        assert furthest(found[case]["state"], state) < 1e-5 < 1e-2 < furthest(found[case]["state"], start)


def test_bf16_stays_close(two):
    records, _ = share_training.train("bf16")
    losses = two[1][0]["bf16"]["loss"]
    assert losses == pytest.approx([record.loss for record in records], abs=0.05) and losses == two[1][1]["bf16"]["loss"]


@pytest.mark.parametrize("case", ["resumed", "cut"])
def test_another_number_of_processes_goes_on(case, two):
    """From one process to two, and from two to one: what follows is what an uninterrupted run does."""
    folder, found = two
    records, state = share_training.train("clip")
    if case == "resumed":
        losses, after = found[0]["resumed"]["loss"], found[1]["resumed"]["state"]
    else:
        rest, after = share_training.train("clip", checkpoint=folder / "cut.pt")
        losses = [record.loss for record in rest]
    assert losses == pytest.approx([record.loss for record in records[6:]], abs=1e-5) and len(losses) == 3
    assert furthest(after, state) < 1e-5


def test_dropout_throws_other_dice_in_each_process(two):
    first, second = (found["dice"] for found in two[1])
    assert not torch.equal(first, second)


def test_two_captions_of_one_image_never_meet():
    """Shares of one order: each image stands in a batch once, so no process holds another caption of it as a wrong answer; together they are the batch."""
    batches = share_training.batches_of("clip")
    owner = torch.arange(len(batches.images)).repeat_interleave(batches.count)
    batches.images, batches.texts, batches.augment = torch.arange(len(batches.images)), torch.arange(len(owner)), None
    for seed in range(20):
        whole = list(batches.epoch(generator(seed)))
        shares = [list(batches.epoch(generator(seed), (rank, 5))) for rank in range(5)]
        for step, (pictures, texts, groups) in enumerate(whole):
            assert len(set(pictures.tolist())) == len(pictures) == 10 and torch.equal(owner[texts], pictures)
            for side, values in enumerate((pictures, texts, groups)):
                assert torch.equal(torch.cat([share[step][side] for share in shares]), values)


def test_a_share_is_augmented_as_within_its_batch():
    pixels = torch.randint(0, 256, (6, 3, 12, 12), dtype=torch.uint8, generator=generator(0))
    settings = {"hue": 0.3, "wobble": 0.1}
    whole = images.augment(pixels, generator(1), **settings)
    parts = [images.augment(pixels[rows], generator(1), **settings, share=(rows, 6)) for rows in (slice(0, 2), slice(2, 6))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-6)
    batches = PairBatches(pixels, torch.arange(6), range(6), 6, augment=lambda shown, random: shown.float() + torch.rand(len(shown), 1, 1, 1, generator=random))
    shares = [next(batches.epoch(generator(2), (rank, 2)))[0] for rank in range(2)]  # one that knows nothing of shares sees the whole batch
    assert torch.equal(torch.cat(shares), next(batches.epoch(generator(2)))[0])


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """24 small pictures with two captions each, as a folder."""
    folder, rows = tmp_path_factory.mktemp("squares"), []
    for number in range(24):
        picture(number, (20, 20)).save(folder / f"{number}.png")
        rows += [{"file_name": f"{number}.png", "caption": caption} for caption in (f"square number {number}", f"a {number} tile")]
    (folder / "captions.json").write_text(json.dumps(rows))
    return folder


LAUNCHERS = {"torchrun": ["torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port"],
             "accelerate": ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no",
                            "--dynamo_backend", "no", "--main_process_port"]}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launcher_starts_miniclip_train(launcher, squares, tmp_path, monkeypatch):
    """Locked towers, then gradient steps: features are shared out and encoded once, lines are said once, the model is one process's."""
    monkeypatch.setenv("MINICLIP_CACHE", str(tmp_path / "cache"))
    argv = ["train", "--data", squares, "--image-encoder", "small-cnn", "--text-encoder", "minilm", "--epochs", 1, *SMALL[4:]] if launcher == "accelerate" else [
            "train", "--data", squares, "--image-encoder", "efficientnet-lite0", "--text-encoder", "minilm", "--size", 64, "--epochs", 3, *SMALL[4:]]
    command = [sys.executable, "-m", *LAUNCHERS[launcher], str(find_port()), "-m", "miniclip_helpers.cli", *map(str, argv), "--out", str(tmp_path / "two")]
    places = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | ({"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {})
    done = subprocess.run(command, env=os.environ | places, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("image tower") == done.stdout.count("trained: ") == 1 and "Traceback" not in done.stderr
    assert sorted(file.name for file in (tmp_path / "two").iterdir()) == ["config.json", "history.csv", "model.safetensors", "split.json"]
    assert json.loads((tmp_path / "two" / "config.json").read_text())["training"]["machine"]["processes"] == 2
    if launcher == "torchrun":
        assert cli.main([*map(str, argv), "--out", str(tmp_path / "one")]) == 0
        ours, theirs = load_saved(tmp_path / "two").state_dict(), load_saved(tmp_path / "one").state_dict()
        assert furthest(ours, theirs) < 1e-4
        rows = [list(csv.DictReader(open(tmp_path / name / "history.csv", newline=""))) for name in ("one", "two")]
        assert len(rows[0]) == len(rows[1]) and all(float(a["loss"]) == pytest.approx(float(b["loss"]), abs=1e-4) for a, b in zip(*rows))


@pytest.mark.parametrize("victim", [0, 1])
def test_one_that_is_killed_stops_the_others_and_leaves_the_checkpoint_whole(victim, squares, tmp_path):
    command = ["-m", "miniclip_helpers.cli", "train", "--data", squares, "--out", tmp_path / "run", *SMALL, "--epochs", 300]
    port = find_port()
    workers = [start(command, rank, port) for rank in range(2)]
    try:
        deadline = time.monotonic() + 400
        while not (tmp_path / "run" / "checkpoint.pt").is_file() and time.monotonic() < deadline and all(worker.poll() is None for worker in workers):
            time.sleep(0.05)
        workers[victim].send_signal(signal.SIGKILL)
        other = workers[1 - victim]
        said = other.communicate(timeout=90)  # at once, on a machine with nothing else to do
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert other.returncode == 1 and "Traceback" not in said[1], said[1][-3000:]
    assert f"miniclip: process {1 - victim} of 2 stops: another one has ended" in said[1] and "--resume" in said[1]
    epoch = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["numbers"]["epoch"]
    assert 1 <= epoch < 300
    (tmp_path / "run" / ".checkpoint.pt.abc.pt").write_bytes(b"half of it")  # as one that was killed while writing leaves behind
    assert cli.main(list(map(str, command[2:] + ["--resume"]))) == 0
    rows = list(csv.DictReader(open(tmp_path / "run" / "history.csv", newline="")))
    assert [int(row["step"]) for row in rows] == list(range(600)) and not (tmp_path / "run" / "checkpoint.pt").exists()


def test_wrong_use_is_told_once(squares, tmp_path):
    """A batch that two cannot share: both end with 2, one speaks, nothing is written."""
    port = find_port()
    command = ["-m", "miniclip_helpers.cli", "train", "--data", squares, "--out", tmp_path / "run", *SMALL, "--epochs", 2, "--batch-size", 7]
    (code, out, told), (other, quiet, silent) = ended([start(command, rank, port) for rank in range(2)])
    assert (code, other) == (2, 2) and "2 processes cannot share batches of 7 pairs equally; take --batch-size 6" in told, told
    assert out == quiet == "" and "miniclip:" not in silent and not (tmp_path / "run").exists()


def test_without_a_launcher_nothing_of_it_is_loaded():
    code = "import sys, torch; from miniclip_helpers.training import Machine, fit; m = Machine('cpu').__enter__(); print('accelerate' in sys.modules, m.plain, torch.distributed.is_initialized())"
    said = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=200)
    assert said.stdout.split() == ["False", "True", "False"], said.stderr


def test_who_is_who_by_the_launcher_s_variables(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    assert runtime.launched() == (0, 1)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert runtime.launched() == (0, 1)  # a number alone is no launcher
    monkeypatch.setenv("RANK", "3"), monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    assert runtime.launched() == (3, 4) and not Machine("cpu").first
    records = list(fit(share_training.model_of("features"), share_training.batches_of("features"), TrainConfig(epochs=1, batch_size=10)))
    assert len(records) == 3  # without a machine: here, alone


def test_bf16_is_close_to_fp32_and_leaves_no_trace():
    (plain, _), model = share_training.train("clip"), share_training.model_of("clip")
    config = TrainConfig(epochs=3, batch_size=10, learning_rate=3e-3)
    records = list(fit(model, share_training.batches_of("clip"), config, machine=Machine("cpu", "bf16")))
    losses = [record.loss for record in records]
    assert losses == pytest.approx([record.loss for record in plain], abs=0.05) and losses != [record.loss for record in plain]
    assert "forward" not in vars(model) and all(weight.dtype == torch.float32 for weight in model.parameters())
    assert model(*next(share_training.batches_of("clip").epoch(generator(0)))[:2])[0].dtype == torch.float32


def test_a_checkpoint_goes_on_in_another_precision(tmp_path):
    share_training.cut(tmp_path / "c.pt", 2)
    records, _ = share_training.train("clip", machine=Machine("cpu", "bf16"), checkpoint=tmp_path / "c.pt")
    assert [record.epoch for record in records] == [2, 2, 2]


def test_chunks_in_the_loop():
    """The weights of the plain loop, and refused before anything is begun where a batch normalisation stands in the way."""
    plain, chunked = share_training.train("clip"), share_training.train("chunk")
    assert furthest(plain[1], chunked[1]) < 1e-5
    with pytest.raises(UsageError, match="batch normalisation"):
        share_training.train("batch norm", machine=Machine("cpu", chunk=4))


def test_chunk_and_towers_that_share_statistics_leave_nothing(squares, tmp_path, capsys):
    assert cli.main(["train", "--data", str(squares), "--out", str(tmp_path / "run"), *map(str, SMALL), "--epochs", "1", "--chunk", "4"]) == 2
    assert "batch normalisation" in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.parametrize("settings", [{"device": "gpu"}, {"precision": "fp16"}, {"chunk": -1}])
def test_what_a_machine_is_not(settings):
    with pytest.raises(UsageError):
        Machine(**settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_a_card_that_is_not_there(squares, tmp_path, capsys):
    assert cli.main(["train", "--data", str(squares), "--out", str(tmp_path / "run"), "--device", "cuda"]) == 2
    assert "no CUDA card here" in capsys.readouterr().err and Machine("auto").type == "cpu"


def test_what_torch_says_of_a_lost_process():
    machine = Machine("cpu")
    machine.processes, machine.rank = 3, 1
    with pytest.raises(LostProcess, match=r"process 1 of 3 stops.*closed by peer"), machine.told():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:3441")
    with pytest.raises(RuntimeError, match="mat1 and mat2"), machine.told():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="closed"), Machine("cpu").told():  # alone it is somebody else's connection
        raise RuntimeError("Connection closed by peer")


def test_batches_ahead_are_the_batches():
    assert list(ahead(iter(range(5)))) == [0, 1, 2, 3, 4] and list(ahead([])) == []
    with pytest.raises(MiniclipError):
        list(ahead(number if number < 2 else share_training.fail() for number in range(4)))


def test_throughput():
    model = share_training.model_of("features")
    found = throughput(model, torch.randn(30, 20), torch.randn(30, 12), 10, Machine("cpu"), steps=4, warm=2)
    assert found["pairs_per_second"] == pytest.approx(10 / found["seconds_per_step"]) and found["peak_mb"] == 0 and found["loss"] > 0


def toy(count=12):
    stream = [io.BytesIO() for _ in range(count)]
    for number, place in enumerate(stream):
        picture(number, (20, 20)).save(place, "PNG")
    return ImageTextDataset("toy", [f"{n}.png" for n in range(count)], [[f"square number {n}"] for n in range(count)], [place.getvalue() for place in stream])


@pytest.mark.parametrize("part", ["train", "val"])
def test_features_that_are_no_numbers_are_told_by_name(part, tmp_path, monkeypatch, private_cache):
    """A locked text tower beside one that learns: the loop is never fed what the encoder broke."""
    data = toy()
    names = data.split({"val": 0.25, "train": 0.75}, seed=0)[part].names
    bad = f"square number {names[1].removesuffix('.png')}"
    encode = MiniLM.encode

    def broken(self, texts):
        rows = encode(self, texts).clone()
        rows[[text == bad for text in texts]] = float("inf")
        return rows

    monkeypatch.setattr(MiniLM, "encode", broken)
    with pytest.raises(DataError, match=f"NaN or infinity(?s:.)*{bad}"):
        train_run(data, tmp_path / "run", image_encoder="small-cnn", text_encoder="minilm", epochs=1, batch_size=4, val_size=0.25)
    assert not (tmp_path / "run").exists()
