"""Splits by image: seeded, written beside the run, read back from JSON."""

import json
import pathlib

import numpy as np

from .. import runtime
from ..errors import DataError, UsageError

FRACTIONS = {"train": 0.70, "val": 0.15, "test": 0.15}


def split_rows(count, fractions=None, seed=0, groups=None):
    """Rows 0 to count - 1 in seeded random parts: {part: sorted list of rows}.

    fractions: {part: share}, shares that add up to 1. groups: one label per row; rows of one label stay together.
    """
    fractions = dict(fractions or FRACTIONS)
    if abs(sum(fractions.values()) - 1) > 1e-6 or min(fractions.values()) < 0:
        raise UsageError(f"expected shares that add up to 1, found {fractions}")
    members = {}
    for row, group in enumerate(groups if groups is not None else range(count)):
        members.setdefault(group, []).append(row)
    order = np.random.default_rng(seed).permutation(len(members))
    keys = list(members)
    rows = [row for place in order for row in members[keys[place]]]
    first = {row: members[key][0] for key in members for row in members[key]}
    parts, start, taken = {}, 0, 0.0
    for part, share in fractions.items():
        taken += share
        stop = count if part == list(fractions)[-1] else start + int(share * count + 1e-9)
        while start < stop < count and first[rows[stop]] == first[rows[stop - 1]]:
            stop += 1  # equal pictures go to one side
        parts[part] = sorted(rows[start:stop])
        start = max(start, stop)
    return parts


def write_split(path, parts):
    """Write {part: list of image names} as JSON, whole or not at all."""
    with runtime.writing(path) as temporary:
        temporary.write_text(json.dumps({part: list(names) for part, names in parts.items()}, indent=1, ensure_ascii=False) + "\n", encoding="utf8")


def read_names(path):
    """Read a text file of image names, one a line; blank lines are left out. A file that names none is a `DataError`."""
    return list(runtime.read_lines(path, "image name").values())


def read_split(path):
    """Read {part: list of image names}. A name in two parts is a leak, and a `DataError`."""
    path = pathlib.Path(path)
    runtime.check_ends(path, pipes=True)
    try:
        parts = runtime.parse_json(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DataError(f"the split file '{path}' does not exist") from None
    except (ValueError, OSError) as error:
        raise DataError(f"the split file '{path}' is not readable JSON: {error}") from error
    good = isinstance(parts, dict) and all(isinstance(names, list) and all(isinstance(n, str) for n in names) for names in parts.values())
    if not good:
        raise DataError(f"the split file '{path}' must be an object of lists of image names, like {{\"train\": [\"a.jpg\"], \"val\": [], \"test\": []}}")
    seen = {}
    leaks = [f"{name!r} in {seen[name]} and {part}" for part, names in parts.items() for name in names if seen.setdefault(name, part) != part]
    if leaks:
        raise DataError(f"the split file '{path}' puts images in two parts", leaks)
    return parts
