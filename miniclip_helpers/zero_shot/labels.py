"""Where labels come from: a column of a dataset, its captions, a file."""

import pathlib
import re

import numpy as np

from .. import runtime
from ..errors import DataError, UsageError, unknown

COLUMNS = ("label", "concept")


def labels_of(dataset, column=None):
    """The labels of a dataset and the label of each picture: (C strings in alphabetical order, (N,) int64 places in it).

    column: which column holds them; by default "label" or "concept" where there is one, else each picture's only caption, without
    article and full stop ("A frog." is frog). Labels that differ only in small and capital letters are one.
    """
    if column is not None and column not in dataset.columns:
        raise unknown(f"column of {dataset.name}", column, dataset.columns)
    column = column or next((name for name in COLUMNS if name in dataset.columns), None)
    found = _from_captions(dataset) if column is None else dataset.columns[column]
    found = [" ".join(str(label).split()) if label is not None and label == label else "" for label in found]  # noqa: PLR0124
    without = [name for name, label in zip(dataset.names, found) if not label]
    if without:
        raise DataError(f"{len(without)} of {len(dataset)} pictures of {dataset.name} have no label in {column or 'their caption'!r}", without)
    spelling = {}
    for label in found:
        spelling.setdefault(label.casefold(), label)
    labels = sorted(spelling.values())
    place = {label.casefold(): number for number, label in enumerate(labels)}
    return labels, np.array([place[label.casefold()] for label in found], dtype=np.int64)


def _from_captions(dataset):
    """The only caption of each picture, bare."""
    other = [f"{name}: {len(row)} captions" for name, row in zip(dataset.names, dataset.captions) if len(row) != 1]
    if other:
        raise DataError(f"{dataset.name} has no column {' or '.join(COLUMNS)}, and not every picture has one caption; name a column "
                        f"({', '.join(dataset.columns) or 'there is none'}), or take dataset.first_captions()", other)
    return [re.sub(r"^(a|an|the)\s+", "", row[0].strip().rstrip("."), flags=re.IGNORECASE) for row in dataset.captions]


def read_labels(path):
    """Labels out of a file: one a line, or a JSON list. Empty lines do not count; a label that stands twice is a `DataError` with its lines."""
    path = pathlib.Path(path)
    runtime.check_ends(path, pipes=True)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"the file of labels '{path}' does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the file of labels '{path}' cannot be read as text in UTF-8 ({error}); expected one label a line") from error
    labels = _json_list(path, text) if path.suffix.lower() == ".json" else text.split("\n")
    seen, twice, kept = {}, [], []
    for line, label in enumerate(labels, 1):
        label = " ".join(label.split())
        if label:
            first = seen.setdefault(label.casefold(), line)
            twice += [f"line {line}: {label!r}, first in line {first}"] if first != line else []
            kept.append(label)
    if twice:
        raise DataError(f"'{path}' repeats labels, which would split their probability; give each once", twice)
    if not kept:
        raise UsageError(f"'{path}' holds no label; expected one a line")
    return kept


def _json_list(path, text):
    try:
        labels = runtime.parse_json(text)
    except ValueError as error:
        raise DataError(f"'{path}' is not valid JSON: {error}") from error
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise DataError(f"'{path}' must be a JSON list of strings, like [\"cat\", \"dog\"]")
    return labels
