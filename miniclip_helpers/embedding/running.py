"""A tower at work: small batches in several threads on a CPU, large ones on a GPU, compiled where asked for."""

import collections
import contextlib
import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import torch

from .. import runtime
from ..errors import ImageError

IMAGE_BATCH = 4  # measured on a CPU: small batches, channels last, are faster than one by one, and several times faster than batches of 32
GPU_BATCH = 128  # a GPU wants large ones
DECODERS = 4  # threads that open pictures while a GPU works
MOST_THREADS = 8  # that run a tower at once: about a twelfth of a batch's time is Python, which runs in one thread at a time


class CompileWarning(UserWarning):
    """The tower could not be compiled; it runs as it is."""


def compiling(asked=None):
    """Whether towers are to be compiled: as asked, else by MINICLIP_COMPILE=1."""
    return os.environ.get("MINICLIP_COMPILE", "0") not in ("", "0") if asked is None else bool(asked)


def run_batches(tower, rows, open_row, compile=None, device=None):
    """Yield (row, feature (width,) numpy), and (row, message) for a picture that cannot be read. The order is that of `rows`.

    open_row(row): a PIL picture; an `ImageError` becomes the message. Each of torch's threads takes a batch of its own, from decoding to feature:
    measured, that beats all threads on one batch, where most layers are too small to be shared. device: where to run ("cuda", "auto"); the tower
    goes back afterwards.
    """
    rows = list(rows)
    with _on(tower, device) as place:
        small = place.type == "cpu"
        size = IMAGE_BATCH if small else GPU_BATCH
        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        encode = tower.encode if not compiling(compile) or len(batches) < 2 else _compiled(tower, batches[0], open_row, size)
        threads = min(torch.get_num_threads(), MOST_THREADS) if small else DECODERS

        def work(batch):
            opened, said = _open(batch, open_row)
            pictures = [picture for _, picture in opened]
            features = encode(pictures).cpu().numpy() if pictures else ()
            return dict(zip([row for row, _ in opened], features)) | said

        def prepare(batch):
            opened, said = _open(batch, open_row)
            return [row for row, _ in opened], tower.prepare([picture for _, picture in opened]) if opened else None, said

        if not small:
            for batch, (found, ready, said) in zip(batches, _ahead(prepare, batches, threads)):
                features = tower.run(ready).cpu().numpy() if found else ()
                yield from _in_order(dict(zip(found, features)) | said, batch)
        else:
            inline = batches if threads == 1 else batches[:1]  # the first one here, because a tower may read its weights when it is first used
            for batch in inline:
                with as_encoding():
                    done = work(batch)
                yield from _in_order(done, batch)
            rest = batches[len(inline) :]
            for batch, done in zip(rest, _ahead(work, rest, threads, _threads_each()) if rest else ()):
                yield from _in_order(done, batch)


def _threads_each():
    """How many of torch's threads a batch gets: one, unless there are very many."""
    return torch.get_num_threads() // min(torch.get_num_threads(), MOST_THREADS)


@contextlib.contextmanager
def as_encoding():
    """With as many of torch's threads as a batch gets while encoding, so that the same weights give the same bits elsewhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(_threads_each())
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _in_order(done, batch):
    return ((row, done[row]) for row in batch)


def _open(batch, open_row):
    """[(row, picture)] of a batch, and {row: message} of those that cannot be read."""
    opened, said = [], {}
    for row in batch:
        try:
            opened.append((row, open_row(row)))
        except ImageError as error:
            said[row] = str(error)
    return opened, said


def _ahead(call, items, threads, intra=None):
    """The results of `call` over items, in order, by several threads, never more than a few items ahead: memory stays bounded.

    intra: how many threads torch may use within each.
    """
    before, waiting = torch.get_num_threads(), collections.deque()
    pool = ThreadPoolExecutor(threads, initializer=lambda: intra and torch.set_num_threads(intra))
    try:
        for item in items:
            waiting.append(pool.submit(call, item))
            if len(waiting) >= 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        if intra:
            torch.set_num_threads(before)  # what a thread sets holds for threads that begin later, and for MKL


@contextlib.contextmanager
def _on(tower, device):
    """The tower on `device` for a while; yields where it is."""
    first = next(tower.parameters(), None)
    here = torch.device("cpu") if first is None else first.device
    there = here if device is None else runtime.device(device)
    if there != here:
        getattr(tower, "net", None)  # one that reads its weights when first used reads them now
        tower.to(there)
    try:
        yield there
    finally:
        if there != here:
            tower.to(here)


def _compiled(tower, batch, open_row, size):
    """`tower.encode` compiled for batches of `size` pictures, and warmed up on the first; the plain one, with a `CompileWarning`, where that fails."""
    pictures = [picture for _, picture in _open(batch, open_row)[0]]
    if not pictures:
        return tower.encode
    forward = torch.compile(tower.forward, dynamic=False)

    def encode(pictures):
        full = [*pictures, *[pictures[-1]] * (size - len(pictures))]  # one shape, or it would be compiled again
        return tower.run(tower.prepare(full), forward)[: len(pictures)]

    try:
        with as_encoding():  # the code is made for the number of threads that it finds
            encode(pictures)
    except Exception as error:  # the compiler's own errors, a missing C++ compiler among them, have many types
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        warnings.warn(f"{tower.name} runs uncompiled: {reason}; compiling needs a C++ compiler (on Debian or Ubuntu: the package g++)", CompileWarning, stacklevel=2)
        return tower.encode
    return encode
