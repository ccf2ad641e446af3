"""Datasets too large for a folder of files: tar shards in webdataset's layout, written the same to the byte, and read as a stream."""

import collections
import json
import lzma
import pathlib
import random
import re
import tarfile
import warnings
import zlib

import torch

from .. import images, runtime
from ..errors import DataError, ImageError, UsageError
from .writing import _picture, check_whole_letters

INDEX = "index.json"
END = bytes(1024)  # what a whole tar file ends with
MOST_PICTURE, MOST_TEXT = 2**29, 2**26  # bytes of one file in a tar: packed, it may say any size in a few of them
TEXTS = {"json", "txt"}
NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")  # webdataset's rule: the key ends at the first dot of the file's name
META = re.compile("__[^/]*__($|/)")  # names that webdataset keeps for itself

Sample = collections.namedtuple("Sample", "picture captions name")
Sample.__doc__ = "What a stream yields: a PIL RGB picture, its captions (a list of str), its name."


def write_shards(dataset, folder, size=1000):
    """Write an `ImageTextDataset` as folder/00000.tar, 00001.tar, ..., `size` pictures each, and folder/index.json. Returns the folder.

    A sample is three members: KEY.jpg (or .png, ...), the file as it was; KEY.json with "name" and "captions"; KEY.txt, the first caption, for
    readers that want one. KEY is the row's number: webdataset cuts a member's name at its first dot, so names of pictures cannot be keys.
    Times and owners are zero and the order is the dataset's: equal datasets give equal bytes. Whole or not at all; nothing is overwritten.
    """
    if size < 1 or not len(dataset):
        raise UsageError(f"expected a dataset with pictures and shards of at least one, found {len(dataset)} pictures and a size of {size}")
    check_whole_letters((*dataset.names, *dataset.all_captions))
    folder = pathlib.Path(folder)
    runtime.check_replaceable(folder, [])
    with runtime.writing_folder(folder) as fresh:
        shards = []
        for number, start in enumerate(range(0, len(dataset), size)):
            rows = range(start, min(start + size, len(dataset)))
            file = fresh / f"{number:05d}.tar"
            _write_shard(dataset, rows, file)
            shards.append({"file": file.name, "pictures": len(rows), "captions": sum(len(dataset.captions[row]) for row in rows),
                           "bytes": file.stat().st_size, "sha256": runtime.sha256(file)})
        about = {"format": 1, "name": dataset.name, "pictures": len(dataset), "captions": len(dataset.owner), "shards": shards}
        (fresh / INDEX).write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf8")
    return folder


def _write_shard(dataset, rows, file):
    from webdataset import TarWriter

    with open(file, "wb") as stream, TarWriter(stream, user="", group="", encoder=False, mtime=0) as tar:
        for row in rows:
            data, suffix = _picture(dataset, row)
            said = {"name": dataset.names[row], "captions": dataset.captions[row]}
            first = {"txt": dataset.captions[row][0].encode()} if dataset.captions[row] else {}
            tar.write({"__key__": f"{row:09d}", suffix[1:]: data, "json": json.dumps(said, ensure_ascii=False).encode()} | first)


def shard_files(shards):
    """The tar files behind a folder, a pattern such as "train/*.tar", one file or a list of files, and what index.json says of them: {} without one."""
    whole = isinstance(shards, (str, pathlib.Path)) and pathlib.Path(shards).is_dir()
    if isinstance(shards, (list, tuple)):
        files = [pathlib.Path(shard) for shard in shards]
    elif whole:
        files = sorted(pathlib.Path(shards).glob("*.tar"))
    else:
        place = pathlib.Path(shards)
        files = [place] if place.is_file() else sorted(place.parent.glob(place.name))
    known = {}
    for folder in {file.parent for file in files} | ({pathlib.Path(shards)} if whole else set()):
        if (folder / INDEX).is_file():
            known |= _read_index(folder / INDEX)
    missing = sorted(str(file) for file in {*files, *(known if whole else ())} if not file.is_file())
    if missing or not files:
        raise DataError(f"'{shards}': expected tar files, found {'some missing' if missing else 'none'}", [f"{file} does not exist" for file in missing])
    return files, known


def _read_index(index):
    try:
        shards = runtime.parse_json(index.read_text(encoding="utf8"))["shards"]
        return {index.parent / str(shard["file"]): {"pictures": int(shard["pictures"]), "sha256": str(shard["sha256"])} for shard in shards}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"'{index}' is not an index of shards ({type(error).__name__}: {error}); write the shards again, or remove it") from error


def verify_shards(shards):
    """Read every byte and compare with the sha256 in index.json; a `DataError` lists the shards that differ. Returns how many were compared."""
    files, known = shard_files(shards)
    faults = [f"{file.name}: its sha256 is not the one in {INDEX}" for file in files if file in known and runtime.sha256(file) != known[file]["sha256"]]
    if faults:
        raise DataError(f"{len(faults)} of {len(files)} shards have changed since they were written; copy them again", faults)
    return sum(file in known for file in files)


def read_shards(shards, buffer=1000, seed=0, skip_problems=False, rank=None, processes=None):
    """A `ShardStream` over a folder of tar shards, a pattern, or a list of files; nothing is unpacked to the disk.

    buffer: samples held to be mixed, 0 for the order in which they were written. seed: of the order. skip_problems: leave out what is damaged, and
    list it in `.problems`, instead of stopping. rank, processes: this process's number and how many there are; by default as torch.distributed says.
    """
    return ShardStream(shards, buffer, seed, skip_problems, rank, processes)


class ShardStream(torch.utils.data.IterableDataset):
    """Iterates over `Sample`s, in an order given by the seed and the epoch. At most `buffer` encoded pictures and one decoded are in memory.

    Every sample is seen once among all processes and `DataLoader` workers: whole shards are dealt out, or, where there are fewer shards than
    readers, each reader takes every so-manieth sample. Readers may get unequal numbers: processes must stop together, at the smallest.
    """

    def __init__(self, shards, buffer=1000, seed=0, skip_problems=False, rank=None, processes=None):
        super().__init__()
        self.files, self.known = shard_files(shards)
        self.buffer, self.seed, self.skip_problems, self.epoch, self.problems = int(buffer), seed, skip_problems, 0, []
        ready = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.rank = rank if rank is not None else torch.distributed.get_rank() if ready else 0
        self.processes = processes if processes is not None else torch.distributed.get_world_size() if ready else 1
        if not 0 <= self.rank < self.processes:
            raise UsageError(f"expected a rank below {self.processes}, the number of processes, found {self.rank}")

    def set_epoch(self, epoch):
        """Choose the order of the next pass, in every process alike; a `DataLoader`'s workers get it along with their copy."""
        self.epoch = int(epoch)

    def __iter__(self):
        from webdataset import shuffle

        worker = torch.utils.data.get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        reader, readers = self.rank * workers + number, self.processes * workers
        self.problems, files = [], list(self.files)
        if self.buffer:
            random.Random(f"{self.seed}/{self.epoch}").shuffle(files)
        encoded = self._dealt(files, reader, readers)
        if self.buffer:
            mixed = random.Random(f"{self.seed}/{self.epoch}/{reader}")
            encoded = shuffle(self.buffer, initial=self.buffer, rng=mixed)(encoded)
        for sample in encoded:
            decoded = self._decode(sample)
            if decoded is not None:
                yield decoded
            del decoded  # or it would still be open while the next one is decoded

    def _dealt(self, files, reader, readers):
        """This reader's encoded samples, a dict each."""
        if len(files) >= readers:
            for file in files[reader::readers]:
                yield from self._encoded(file)
        else:
            everything = (sample for file in files for sample in self._encoded(file))
            yield from (sample for number, sample in enumerate(everything) if number % readers == reader)

    def _encoded(self, file):
        """The encoded samples of one shard. Whatever is damaged is told with the shard and the member."""
        from webdataset.tariterators import group_by_keys

        last, count = ["its beginning"], 0

        def broken(error):
            reason = str(error.args[0]).partition(" @ ")[0] if error.args else type(error).__name__
            self._fault(f"{file.name}, at {last[0]}: {reason}")
            return False  # what follows in this shard cannot be found

        def twice(error):
            self._fault(f"{file.name}, {str(error.args[0]).partition(':')[0]}: stands twice")
            return True

        def remember(member):
            last[0] = member
            return member

        with open(file, "rb") as stream:
            members = _members(file, stream, broken, remember)
            before = len(self.problems)
            for sample in group_by_keys(members, handler=twice):
                count += 1
                yield sample
            expected = self.known.get(file, {}).get("pictures", count)
            if len(self.problems) == before and (count != expected or not ended_well(stream, file)):
                of = f" of {expected}" if file in self.known else ""
                self._fault(f"{file.name}, at {last[0]}: ends early, or a header is damaged; {count}{of} samples were found")

    def _fault(self, problem):
        if not self.skip_problems:
            raise DataError("the shards are damaged; copy them again, or leave out what cannot be read with skip_problems", [problem])
        self.problems.append(problem)
        if torch.utils.data.get_worker_info() is not None:  # a worker's list is its own copy, and ends with it
            warnings.warn(problem, stacklevel=2)

    def _decode(self, sample):
        """A `Sample`, or None where it is damaged and left out."""
        file, key = pathlib.Path(sample["__url__"]).name, sample["__key__"]
        kind = next((suffix for suffix in sample if f".{suffix}" in images.SUFFIXES), None)
        if kind is None:
            return self._fault(f"{file}, {key}: no picture among its members ({', '.join(part for part in sample if not part.startswith('__'))})")
        try:
            name, captions = said_of(sample, key)
        except ValueError as error:
            return self._fault(f"{file}, {key}{error}")
        try:
            return Sample(images.open_image(sample[kind]), captions, name)
        except ImageError as error:
            return self._fault(f"{file}, {key}.{kind} ({name!r}): {error}")


def _members(file, stream, broken, remember):
    """The files in a tar as webdataset's reader gives them, which would read a member of any size at once. broken: told of an error that ends it. remember: told each name."""
    try:
        with tarfile.open(fileobj=stream, mode="r|*") as tar:
            for member in tar:
                ours = member.isreg() and not META.match(member.name)
                if ours:
                    remember(member.name)
                if reason := misfit(member):
                    raise tarfile.ReadError(reason)
                data = tar.extractfile(member).read() if ours and most_of(member.name) else _passed_over(tar, member)
                if ours:
                    yield {"fname": member.name, "data": data, "__url__": str(file)}
                tar.members = []  # or it would keep them all
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        broken(error)


def _passed_over(tar, member):
    """No bytes of a member that nobody asks for. It is read in pieces, as tarfile's own way would go on to any size that a header gives, long after the file's end."""
    if member.isreg() or member.type not in tarfile.SUPPORTED_TYPES:
        part = tar.extractfile(member)
        while part.read(2**20):
            pass
    return b""


def kind_of(name):
    """(key, suffix) of a member's name; None where it belongs to no sample."""
    found = NAME.fullmatch(name)
    return found and (found[1], found[2].lower())


def most_of(name):
    """The most bytes that a member of this name may have: a picture, or a text with captions; None for one that is passed over, such as a film."""
    suffix = (kind_of(name) or ("", ""))[1]
    return MOST_PICTURE if f".{suffix}" in images.SUFFIXES else MOST_TEXT if suffix in TEXTS else None


def misfit(member):
    """Why a tar file is read no further than this member, as its header describes it; None for a good one. To be asked of each, passed over or not."""
    if member.size < 0:  # it would lead back to a header that was read before, for ever
        return "its header gives a size below zero"
    if member.issparse():
        return "it is a sparse file, of which a tar holds parts; pack it anew"
    most = most_of(member.name) if member.isreg() else None
    return f"it has {member.size:,} bytes, more than the {most:,} allowed" if most and member.size > most else None


def said_of(sample, key):
    """The name and the captions of one sample's members {suffix: bytes}; a `ValueError` says what is wrong, behind the key."""
    try:
        said = runtime.parse_json(sample["json"]) if "json" in sample else {}
        said = said if isinstance(said, dict) else {}
        captions = said.get("captions", said.get("caption", [sample["txt"].decode()] if "txt" in sample else []))
    except ValueError as error:
        raise ValueError(f": its captions cannot be read ({error})") from error
    captions, name = [captions] if isinstance(captions, str) else captions, said.get("name", key)
    if not isinstance(name, str) or not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        raise ValueError(".json: expected a name and a list of captions")
    return name, captions


def ended_well(stream, file):
    """Whether nothing but zeros follows where reading stopped, and the file has a tar's ending. tarfile takes a damaged header for the end."""
    if file.suffix != ".tar":  # compressed ones end otherwise
        return True
    while block := stream.read(2**20):
        if block.count(0) != len(block):
            return False
    stream.seek(max(0, file.stat().st_size - len(END)))
    return stream.read() == END
