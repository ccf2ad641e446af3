"""A parquet shard of vectors: names, embeddings, and what made them. Written whole or not at all, and known to be whole when read."""

import json
import pathlib

import numpy as np

from .. import runtime
from ..datasets.parquet import check_unpacked
from ..errors import DataError, UsageError

FORMAT = "miniclip-vectors-1"
KEY = b"miniclip"
MODEL = ("image_tower", "text_tower", "heads")  # the parts of `about` that say which model it was


def write_vectors(file, names, vectors, about, captions=None):
    """Write names (N), vectors (N, D) and, where there are some, captions (N) as columns of a parquet file; about, plain JSON, goes into its metadata."""
    import pyarrow
    import pyarrow.parquet

    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    about = about | {"format": FORMAT, "dim": vectors.shape[1], "rows": len(names), "digest": _digest(names, vectors, captions)}
    cells = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.ravel(), pyarrow.float32()), vectors.shape[1])
    said = {} if captions is None else {"caption": pyarrow.array(captions, pyarrow.string())}
    table = pyarrow.table({"name": pyarrow.array(names, pyarrow.string()), "embedding": cells} | said)
    with runtime.writing(file, kept="finished shards are kept") as fresh:
        pyarrow.parquet.write_table(table.replace_schema_metadata({KEY: json.dumps(about, ensure_ascii=False)}), fresh)


def _digest(names, vectors, captions):
    return runtime.digest(*names, vectors.tobytes(), *(captions or ()))


def read_about(file):
    """What made a shard, or None where it is no shard of vectors."""
    import pyarrow
    import pyarrow.parquet

    try:
        about = runtime.parse_json((pyarrow.parquet.read_schema(file).metadata or {}).get(KEY, b"null"))
    except (OSError, ValueError, pyarrow.ArrowException):
        return None
    return about if isinstance(about, dict) and about.get("format") == FORMAT else None


def read_vectors(file):
    """(names, vectors (N, D) float32, about) of a shard; about["captions"] is a list (N) in one of captions. A `DataError` where it is damaged, or no shard of vectors."""
    import pyarrow
    import pyarrow.parquet

    about = read_about(file)
    try:
        check_unpacked(file)
        table = pyarrow.parquet.read_table(file)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise DataError(f"'{file}' is no readable shard of vectors ({error}); encode it again") from error
    if about is None:
        raise DataError(f"'{file}' is no shard of vectors that miniclip encode wrote")
    names = table["name"].to_pylist()
    vectors = table["embedding"].combine_chunks().flatten().to_numpy().reshape(len(names), about["dim"])
    captions = table["caption"].to_pylist() if "caption" in table.column_names else None
    if about["rows"] != len(names) or about["digest"] != _digest(names, vectors, captions):
        raise DataError(f"'{file}' was altered since it was written; remove it, and run miniclip encode again")
    return names, vectors, about | ({} if captions is None else {"captions": captions})


def shard_files(folder):
    """The shards of vectors in a folder, in order; [] where it holds none."""
    folder = pathlib.Path(folder)
    return [file for file in sorted(folder.glob("*.parquet")) if not file.name.startswith(".") and read_about(file)] if folder.is_dir() else []


def read_all(folder):
    """(names, vectors (N, D), about) of all shards of one corpus. A `UsageError` for vectors of several models, a `DataError` for shards that are missing or damaged."""
    files = shard_files(folder)
    if not files:
        raise DataError(f"'{folder}' holds no shards of vectors; make some with: miniclip encode --data D --out {folder}")
    parts = [read_vectors(file) for file in files]
    first = parts[0][2]
    for file, (_, _, about) in zip(files, parts):
        other = [key for key in ("model", *MODEL, "holds", "dim") if about.get(key) != first.get(key)]
        if other:
            raise UsageError(f"'{folder}' mixes vectors that cannot be compared: {file.name} and {files[0].name} differ in {', '.join(other)}; "
                             "keep the shards of one model, and of pictures or captions, in one folder")
    missing = sorted(set(range(first["shards"])) - {about["shard"] for _, _, about in parts})
    if missing or len({about["shards"] for _, _, about in parts}) > 1:
        raise DataError(f"'{folder}' holds {len(files)} of {first['shards']} shards; run the same miniclip encode again, which goes on where it stopped",
                        [f"shard {number:05d} is missing" for number in missing])
    if "captions" in first:
        first = first | {"captions": [caption for _, _, about in parts for caption in about["captions"]]}
    return [name for names, _, _ in parts for name in names], np.concatenate([vectors for _, vectors, _ in parts]), first
