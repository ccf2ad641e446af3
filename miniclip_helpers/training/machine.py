"""Where steps are computed and how: the device, the precision, and the processes that `torchrun` or `accelerate launch` started, through Accelerate."""

import atexit
import contextlib
import os
import time

import torch
from torch import distributed

from .. import runtime
from ..errors import MiniclipError, UsageError, unknown
from .gathering import average_gradients, copy_from_first, gather_with_gradients, own_norms, shard_rows, share_norms

MINUTES = 30  # after which a process that waits for another gives up; one that was killed is noticed at once
DEVICES, PRECISIONS = ("auto", "cpu", "cuda"), ("fp32", "bf16")
LOST = ("gloo", "nccl", "connection", "timed out", "timeout", "broken pipe")  # words of torch.distributed where another is gone


class LostProcess(MiniclipError):
    """Another process of the same run has stopped, or cannot be reached."""


def ahead(iterable):
    """The same items; a thread makes the next one while this one is used."""
    from concurrent.futures import ThreadPoolExecutor

    items, end = iter(iterable), object()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield item


class _Leaving:
    """How this Python ends: whether its last run did well, so that the others are still there to say goodbye."""

    well = True

    @classmethod
    def group(cls):
        if cls.well and distributed.is_initialized():
            distributed.destroy_process_group()


class Machine:
    """Where and how `fit` computes its steps. What is trained is the same anywhere, up to rounding: the batch of `TrainConfig` is that of all processes together.

    device: "auto" (a CUDA card where there is one, else the CPU), "cpu" or "cuda". precision: "fp32", or "bf16" for the towers' and heads' forward
    pass (autocast; weights, loss and optimizer stay in float32). compile: towers and heads through torch.compile, which pays after a minute.
    chunk: pairs whose activations are held at once (`gradient_cached_step`), 0 for the whole batch.

    Under a launcher each process takes its share of every batch. Without one, in fp32 on a CPU, nothing of Accelerate is imported. Use it as a
    context manager around several calls; `fit` enters it by itself. Raises `UsageError` for what this machine does not have.
    """

    def __init__(self, device="auto", precision="fp32", compile=False, chunk=0):
        for kind, name, known in (("device", device, DEVICES), ("precision", precision, PRECISIONS)):
            if name not in known:
                raise unknown(kind, name, known)
        if device == "cuda" and not torch.cuda.is_available():
            raise UsageError("there is no CUDA card here that torch can use; take --device cpu, or auto")
        if chunk < 0:
            raise UsageError(f"expected a chunk of at least one pair, or 0 for the whole batch, found {chunk}")
        self.type = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
        self.precision, self.compile, self.chunk = precision, bool(compile), int(chunk)
        self.rank, self.processes = runtime.launched()
        self.accelerator, self._entered, self._called, self._home, self._norms = None, 0, None, None, {}

    @property
    def first(self):
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    @property
    def plain(self):
        """Whether Accelerate has nothing to do."""
        return self.processes == 1 and self.type == "cpu" and self.precision == "fp32" and not self.compile

    def describe(self):
        """What it is, as plain JSON."""
        return {"device": self.type, "precision": self.precision, "compile": self.compile, "chunk": self.chunk, "processes": self.processes}

    def __enter__(self):
        self._entered += 1
        if self._entered == 1 and not self.plain:
            self._start()
        return self

    def __exit__(self, kind, *_):
        self._entered -= 1
        if self._entered or self.accelerator is None:
            return
        from accelerate.state import AcceleratorState

        if self.processes > 1:
            _Leaving.well = kind is None
            if kind is None:
                self.accelerator.wait_for_everyone()
        self.accelerator = None
        # or the next run of this Python could choose no other precision; the process group stays, since it can be made but once
        AcceleratorState._reset_state(reset_partial_state=self.processes == 1)

    def _start(self):
        import datetime

        from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs

        waiting = InitProcessGroupKwargs(timeout=datetime.timedelta(minutes=MINUTES))
        uneven = DistributedDataParallelKwargs(static_graph=True)  # a loss without a temperature, or a pooler that nobody asks, leaves weights without a gradient
        if self.processes > 1:
            atexit.unregister(_Leaving.group)
            atexit.register(_Leaving.group)
        if not self.first:
            os.environ["MINICLIP_PROGRESS"] = "0"  # one bar is enough
        with self.told():
            self.accelerator = Accelerator(cpu=self.type == "cpu", mixed_precision="bf16" if self.precision == "bf16" else "no",
                                           dynamo_backend="inductor" if self.compile else "no", kwargs_handlers=[waiting, uneven])

    @contextlib.contextmanager
    def told(self):
        """Turn what torch says when another process is gone into a `LostProcess`."""
        try:
            yield
        except RuntimeError as error:
            if self.processes == 1 or not (isinstance(error, distributed.DistError) or any(word in str(error).lower() for word in LOST)):
                raise
            what = str(error).strip().splitlines()[0].split(". This is")[0][-80:]
            raise LostProcess(f"process {self.rank} of {self.processes} stops: another one has ended or cannot be reached ({what}). "
                              "What was saved is whole; start all of them again, with --resume") from error

    def place(self, model):
        """Put `model` on the device, and make ready how steps call it; all processes begin with the weights of process 0. Undone by `release`."""
        if self.accelerator is None:
            return
        self._home = next(model.parameters()).device
        model.to(self.accelerator.device)
        if self.processes > 1:
            self._norms = share_norms(model, self.type == "cuda")
        self._called = model, self.accelerator.prepare_model(model, evaluation_mode=bool(self.chunk))  # DDP knows one backward pass a step, chunks have many
        if self.processes > 1 and self.chunk:
            copy_from_first(model)

    def release(self, model):
        """The model as it came, with its new weights."""
        if self.accelerator is not None:
            for name in ("forward", "_original_forward"):  # autocast stands in its place
                vars(model).pop(name, None)
            own_norms(model, self._norms)
            model.to(self._home)
            self.accelerator._models.clear()
        self._called, self._norms = None, {}

    def called(self, model):
        """`model` as a step calls it: placed, wrapped, compiled."""
        return self._called[1] if self._called and self._called[0] is model else model

    def check(self, model, batches):
        """Refuse, before anything is begun, what chunks or processes cannot do."""
        count = getattr(batches, "batch_size", self.processes)
        if count % self.processes:
            raise UsageError(f"{self.processes} processes cannot share batches of {count} pairs equally; take --batch-size {count - count % self.processes}")
        if self.chunk:
            from .gradient_cache import check_norms

            check_norms(model.train())

    def gathered(self, *sides):
        """(B, ...) of this process to (N, ...) of all, with gradients; one exchange for sides of one width."""
        if self.processes == 1:
            return sides
        return tuple(side.contiguous() for side in gather_with_gradients(torch.cat(sides, -1), check=False).chunk(len(sides), -1))

    def mean(self, number):
        """The mean over the processes of a scalar tensor."""
        if self.processes > 1:
            distributed.all_reduce(number)
        return number / self.processes

    def average(self, model):
        """After a backward pass that DDP knows nothing of: the mean of the gradients over the processes."""
        if self.processes > 1:
            average_gradients(model)

    def seed(self, seed, epoch):
        """Dropout's dice for an epoch: each process its own. Those of a single process on the CPU follow from its first seed alone."""
        if self.rank or self.type == "cuda":
            torch.manual_seed((seed * 1_000_003 + epoch * 10_007 + self.rank) % 2**63)

    def put(self, value):
        """A tensor, or a dict of them, on the device, without waiting."""
        if self.type == "cpu":
            return value
        if isinstance(value, dict):
            return {key: self.put(part) for key, part in value.items()}
        return value.pin_memory().to(self.accelerator.device, non_blocking=True) if value.device.type == "cpu" else value

    def epoch(self, batches, generator):
        """The batches of an epoch: this process's share of each, on the device; for a card one ahead. See `PairBatches.epoch`."""
        if self.accelerator is None:
            return batches.epoch(generator)
        if hasattr(batches, "batch_size"):
            made = batches.epoch(generator, (self.rank, self.processes), self.put)
        else:
            made = (self._mine(batch) for batch in batches.epoch(generator))
        return ahead(made) if self.type == "cuda" else made

    def _mine(self, batch):
        rows = shard_rows(len(batch[2]), self.rank, self.processes)
        return tuple(self.put({key: part[rows] for key, part in side.items()} if isinstance(side, dict) else side[rows]) for side in batch)

    def shared(self, make):
        """What `make()` returns in process 0, in all of them; its error, too."""
        if self.processes == 1:
            return make()
        found = [None, None]
        if self.first:
            found = self._tried(make)
        with self.told():
            distributed.broadcast_object_list(found)
        return self._outcome(found[0], found[1])

    def together(self, make):
        """`make()` in every process; where it fails in one, it fails in all, with the error of the first."""
        if self.processes == 1:
            return make()
        mine, error = self._tried(make)
        errors = [None] * self.processes
        with self.told():
            distributed.all_gather_object(errors, error)
        return self._outcome(mine, next((found for found in errors if found is not None), None))

    @staticmethod
    def _tried(make):
        try:
            return [make(), None]
        except MiniclipError as error:
            return [None, error]

    def _outcome(self, value, error):
        if error is None:
            return value
        error.said_by_first = True  # the command line says it once
        raise error


ALONE = Machine("cpu")
ALONE.processes, ALONE.rank = 1, 0  # what `fit` does without a machine: here, where the model lies, whoever started this Python


def throughput(model, images, texts, batch_size, machine, steps=20, warm=5, loss="clip", learning_rate=1e-4):
    """Pairs a second of `fit` on this machine: {"pairs_per_second", "seconds_per_step", "peak_mb" (of the card; 0 on a CPU), "loss"}.

    images: (N, ...). texts: (N, ...). The first `warm` steps, one at least, are not counted. The model is left as it has become.
    """
    from .batches import PairBatches
    from .config import TrainConfig
    from .loop import fit

    batches = PairBatches(images, texts, range(len(images)), batch_size)
    config = TrainConfig(epochs=-(-(max(1, warm) + steps) // len(batches)), batch_size=batch_size, loss=loss, learning_rate=learning_rate)
    if machine.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    count = 0
    with contextlib.closing(fit(model, batches, config, machine=machine)) as run:
        for record in run:
            count, last = count + 1, record.loss
            if count == max(1, warm):
                begin = time.perf_counter()
            if count == max(1, warm) + steps:
                break
    seconds = (time.perf_counter() - begin) / steps
    peak = torch.cuda.max_memory_allocated() / 2**20 if machine.type == "cuda" else 0.0
    return {"pairs_per_second": batch_size / seconds, "seconds_per_step": seconds, "peak_mb": peak, "loss": last}
