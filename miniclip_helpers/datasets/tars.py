"""Tar shards as a dataset: the headers are read once, a picture when it is asked for, from its place in the file."""

import dataclasses
import os
import pathlib
import tarfile

from .. import images
from ..errors import DataError, ImageError
from .shards import TEXTS, ended_well, kind_of, misfit, said_of, shard_files
from .table import ImageTextDataset

TABLES, LISTS = {".jsonl", ".csv", ".tsv", ".parquet"}, {"captions.json", "captions.txt", "Flickr8k.token.txt"}


@dataclasses.dataclass(frozen=True)
class Member:
    """The bytes of one picture inside a tar file."""

    file: pathlib.Path
    offset: int
    size: int

    def __bytes__(self):
        with open(self.file, "rb") as tar:
            if self.offset + self.size > os.fstat(tar.fileno()).st_size:  # else memory would be taken for all that is promised
                raise ImageError(f"'{self.file}' ends inside a picture; copy the shard again")
            tar.seek(self.offset)
            data = tar.read(self.size)
        if len(data) < self.size:
            raise ImageError(f"'{self.file}' ends inside a picture; copy the shard again")
        return data


def is_shards(path):
    """Whether a path is a tar file, or a folder that holds some, and neither a table of captions nor pictures beside them."""
    path = pathlib.Path(path)
    if not path.is_dir():
        return path.suffix == ".tar" and path.is_file()
    if not any(path.glob("*.tar")) or any(file.suffix in TABLES or file.name in LISTS for file in path.iterdir()):
        return False
    return not any(file.suffix.lower() in images.SUFFIXES for file in path.rglob("*"))


def load_tars(path, skip_problems=False):
    """A folder of tar shards, or one of them, as an `ImageTextDataset`: names and captions in memory, pictures left where they are.

    For more pictures than that is good for there are `shards.read_shards`, which reads them as a stream, and `miniclip encode`.
    """
    files, known = shard_files(path)
    rows, problems = {}, []
    for file in files:
        samples = list(_samples(file, problems))
        expected = known.get(file, {}).get("pictures", len(samples))
        if len(samples) != expected:
            problems.append(f"{file.name}: {len(samples)} of {expected} samples were found; it ends early, or a header is damaged")
        for key, parts in samples:
            _add(rows, file, key, parts, skip_problems, problems)
    if problems and not skip_problems:
        raise DataError(f"'{path}' has {len(problems)} problem(s); copy the shards again, or leave out what cannot be read with skip_problems (--skip-problems):", problems)
    if not rows:
        raise DataError(f"'{path}' holds no usable picture; expected tar files with pictures ({', '.join(sorted(images.SUFFIXES))})", problems)
    captions, sources = zip(*rows.values())
    root = pathlib.Path(path)
    return ImageTextDataset(root.resolve().stem, list(rows), captions, sources, problems=problems, root=root)


def _samples(file, problems):
    """(key, {suffix: the member's bytes for texts, its `Member` for pictures}) of each sample."""
    key, parts = None, {}
    try:
        with open(file, "rb") as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                if reason := misfit(member):
                    problems.append(f"{file.name}, {member.name!r}: {reason}")
                    return
                found = kind_of(member.name)
                if not member.isreg() or not found:
                    continue
                if found[0] != key:
                    if parts:
                        yield key, parts
                    key, parts = found[0], {}
                suffix = found[1]
                parts[suffix] = tar.extractfile(member).read() if suffix in TEXTS else Member(file, member.offset_data, member.size)
            if parts:
                yield key, parts
            stream.seek(tar.offset)
            if not ended_well(stream, file):
                problems.append(f"{file.name}, after {key or 'its beginning'}: ends early, or a header is damaged")
    except (tarfile.TarError, OSError, ValueError) as error:  # ValueError: a size beyond what a file can have
        problems.append(f"{file.name}, after {key or 'its beginning'}: {error}")


def _add(rows, file, key, parts, thorough, problems):
    """Put one sample into rows {name: (captions, Member)}, or a line into `problems`."""
    place, kind = f"{file.name}, {key}", next((suffix for suffix in parts if f".{suffix}" in images.SUFFIXES), None)
    if kind is None:
        return problems.append(f"{place}: no picture among its members ({', '.join(parts)})")
    try:
        name, captions = said_of(parts, key)
        if thorough:
            images.open_image(parts[kind])
    except ValueError as error:
        return problems.append(f"{place}{error}")
    except ImageError as error:
        return problems.append(f"{place}.{kind}: {error}")
    if name in rows:
        return problems.append(f"{place}: the name {name!r} stands twice")
    rows[name] = ([caption for caption in captions if caption.strip()], parts[kind])
    return None
