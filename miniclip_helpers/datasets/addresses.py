"""Conceptual Captions (Sharma et al. 2018) is a table of captions and addresses, without pictures: read here, and downloaded only when asked."""

import io
import json
import pathlib
import re

from .. import downloads, images, runtime
from ..errors import DataError, ImageError, OfflineError, UsageError
from .readers import IMAGE_KEYS

THREADS = 8
TIMEOUT = (5, 15)  # seconds to connect, and without a byte: many of these addresses are dead
NUMBERED = re.compile(r".+#\d+")  # a picture and the number of its caption, as in Flickr8k.token.txt
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif", "AVIF": ".avif"}


def _is_address(text):
    return text.strip().lower().startswith(("http://", "https://"))


def holds_addresses(file):
    """Whether a file's first lines are a caption and an address of a picture, parted by a tab, with or without a header."""
    if file.suffix not in {".tsv", ".txt", ".csv"} or not file.is_file():
        return False
    with open(file, encoding="utf-8-sig", errors="replace") as handle:
        lines = [[cell.strip() for cell in handle.readline(2**16).split("\t")] for _ in range(2)]
    if set(lines[0]) & set(IMAGE_KEYS):  # a table of pictures, whatever its captions say
        return False
    return any(len(cells) > 1 and any(map(_is_address, cells[:2])) and not NUMBERED.fullmatch(cells[0]) for cells in lines)


def refuse(file):
    """Raise a `DataError` when a file holds addresses: nothing is downloaded unless asked."""
    if holds_addresses(file):
        raise DataError(
            f"'{file}' holds captions and addresses of pictures, not pictures, and nothing is downloaded unasked. To fetch some of them: "
            f"datasets.download_pictures(datasets.read_addresses('{file}'), 'pictures/', limit=100), then load 'pictures/'")


def read_addresses(path, limit=None, skip_problems=False):
    """CC3M's table as a pandas DataFrame (caption, url), without any download; `limit` rows at most.

    Lines are `caption<TAB>address`, as Google gives them, or the other way round as in CC12M, with or without a header.
    Other lines are listed in a `DataError`; with `skip_problems` they are left out, and listed in `.attrs["problems"]`.
    """
    import pandas

    path, rows, problems = pathlib.Path(path), [], []
    runtime.check_ends(path)
    try:
        with open(path, encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if limit is not None and len(rows) >= limit:
                    break
                cells = line.rstrip("\r\n").split("\t")
                if len(cells) >= 2 and _is_address(cells[1]) and cells[0].strip():
                    rows.append((cells[0].strip(), cells[1].strip()))
                elif len(cells) >= 2 and _is_address(cells[0]) and cells[1].strip():
                    rows.append((cells[1].strip(), cells[0].strip()))
                elif line.strip() and not (number == 1 and {"caption", "url"} <= {cell.strip().lower() for cell in cells}):
                    problems.append(f"{path.name}, line {number}: expected caption<TAB>address, found {line[:60].rstrip()!r}")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' cannot be read as a table of captions and addresses: {error}") from error
    if problems and not skip_problems or not rows:
        raise DataError(f"'{path}' has {len(problems)} line(s) that are not caption<TAB>address; leave them out with skip_problems:", problems)
    table = pandas.DataFrame(rows, columns=["caption", "url"])
    table.attrs["problems"] = problems
    return table


def download_pictures(table, folder, limit=100):
    """Fetch the pictures of the first `limit` rows of a DataFrame (caption, url) into `folder`, and return them as a dataset.

    folder: images/ and captions.json, so that `load_dataset(folder)` reads it again. A picture is there whole or not at all, one
    that is there already is not fetched twice, and `.problems` of the dataset says which addresses gave none, and why: in
    collections like these a good part is dead. A picture is named by a digest of its address; rows of one address are one picture.
    """
    if not isinstance(limit, int) or limit < 1:
        raise UsageError(f"expected limit, the most pictures to fetch, as a whole number from 1, found {limit!r}")
    if not {"caption", "url"} <= set(table.columns):
        raise UsageError(f"expected a table with the columns caption and url, as read_addresses gives it, found {', '.join(map(str, table.columns))}")
    if runtime.offline():
        raise OfflineError("pictures cannot be downloaded: the network is switched off (MINICLIP_OFFLINE or HF_HUB_OFFLINE)")
    folder = pathlib.Path(folder)
    runtime.check_replaceable(folder, ["images", "captions.json"])
    rows = [(str(caption), str(url)) for caption, url in zip(table["caption"][:limit], table["url"][:limit])]
    found, problems = _download_all(list(dict.fromkeys(url for _, url in rows)), folder / "images"), []
    records = []
    for number, (caption, url) in enumerate(rows, 1):
        if isinstance(found[url], str):
            problems.append(f"row {number}, {url}: {found[url]}")
        else:
            records.append({"file_name": found[url].name, "caption": caption})
    if not records:
        raise DataError(f"none of {len(rows)} addresses gave a picture:", problems)
    with runtime.writing(folder / "captions.json") as file:
        file.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", encoding="utf8")
    from .formats import load_path

    dataset = load_path(folder / "captions.json")
    dataset.problems += problems
    return dataset


def _download_all(urls, folder):
    """{address: the picture's file, or why there is none}."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(THREADS) as pool:
        fetched = pool.map(lambda url: _download_one(url, folder), urls)
        return dict(zip(urls, runtime.progress(fetched, "pictures", len(urls))))


def _download_one(url, folder):
    stem = runtime.digest(url)[:16]
    there = next(folder.glob(f"{stem}.*"), None)
    if there is not None:
        return there
    try:
        data = downloads.read_url(url, timeout=TIMEOUT)
        images.open_image(data)
    except (OfflineError, ImageError) as error:
        return str(error)
    with runtime.writing(folder / (stem + picture_suffix(data))) as file:
        file.write_bytes(data)
    return folder / (stem + picture_suffix(data))


def picture_suffix(data):
    """The suffix for a picture file's bytes, by their format; "" for one that has none here. `ImageError` for what is no picture."""
    with images.reading_head(io.BytesIO(data)) as picture:
        return SUFFIXES.get(picture.format, "")
