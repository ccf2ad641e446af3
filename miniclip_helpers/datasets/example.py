"""A folder of photos as they lie on somebody's disk, made of embedded ones: copies, a sideways one, a broken one, places in the files. To learn with."""

import dataclasses
import io
import json
import pathlib

import numpy as np

from .. import runtime
from .duplicates import copies
from .exif import GPS
from .parquet import load_parquet

COPIES_OF_EACH_KIND = 4
PLACED = 6  # photos that hold a place
WHITE = 250  # lighter than this is background, and transparent where that is asked for
GREENWICH = {1: "N", 2: (51.0, 28.0, 38.0), 3: "W", 4: (0.0, 0.0, 5.0)}  # EXIF's way to write 51 degrees 28' 38" north
MAKE, MODEL, ORIENTATION, DATE = 0x010F, 0x0110, 0x0112, 0x0132  # tags of EXIF 2.32
ALBUMS = {"Tiko": ("animals",), "Bramble": ("birds",), "Juno": ("food",), "Mulberry": ("plants",),
          "Orsola": ("household", "hobbies", "clothes", "medical", "sports", "military", "vehicles", "town")}
OTHER_ALBUM = "Pebble"


@dataclasses.dataclass(frozen=True)
class Truth:
    """What whoever made the folder knows of it. captions, albums: {name: text}. copies: {name of the copy: (name of the photo, kind)}.
    unseen: names of photos that show a noun `mini` was never trained on. broken: names of files that are no readable picture.
    """

    captions: dict
    albums: dict
    copies: dict
    unseen: set
    broken: list


def write_example(folder, others=100, seed=0):
    """Write photos of Tux Paint's stamps as IMG_0001.jpg and so on into the folders 2024 and 2025 of `folder`; returns the `Truth`.

    All photos of the nouns that `mini` never saw, and `others` more; copies of 20 of them; one is sideways (EXIF says so), one grey, one a
    PNG that is transparent; six name a place; two files are broken, one is no picture. Nothing here depends on the machine but JPEG itself.
    """
    folder, random = pathlib.Path(folder), np.random.default_rng(seed)
    stamps, rows, unseen = _chosen(others, random)
    kinds = [kind for kind in copies(stamps.image(rows[0])) for _ in range(COPIES_OF_EACH_KIND)]
    doubled = random.choice(rows, min(len(kinds), len(rows)), replace=False).tolist()
    files = [(row, None) for row in rows] + list(zip(doubled, kinds))
    order = random.permutation(len(files))
    names = {files[place]: f"{2024 + 2 * number // len(files)}/IMG_{number + 1:04d}.jpg" for number, place in enumerate(order)}
    odd = dict(zip(("sideways", "grey", "transparent"), (int(row) for row in rows if row not in doubled)))
    names[odd["transparent"], None] = names[odd["transparent"], None].replace("IMG", "CUT").replace("jpg", "png")
    placed = {file for file in sorted(names, key=names.get)[:PLACED]}
    for file, name in names.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(_file(stamps, *file, odd, file in placed))
    broken = _write_broken(folder, folder / names[doubled[0], None])
    told = {name: row for (row, _), name in names.items()}
    return Truth(captions={name: stamps.captions[row][0] for name, row in sorted(told.items())},
                 albums={name: album_of(stamps.columns["category"][row], stamps.columns["subcategory"][row]) for name, row in sorted(told.items())},
                 copies={names[row, kind]: (names[row, None], kind) for row, kind in zip(doubled, kinds)},
                 unseen={name for name, row in told.items() if row in unseen}, broken=broken)


def album_of(category, subcategory):
    """The made-up name of the album that a stamp of this category lies in; birds have their own."""
    kind = "birds" if category == "animals" and "birds" in str(subcategory) else category
    return next((album for album, kinds in ALBUMS.items() if kind in kinds), OTHER_ALBUM)


def _chosen(others, random):
    """The stamps, the rows of those to write, and which of them `mini` never saw: photos, each content once."""
    stamps = load_parquet(runtime.data_dir() / "stamps.parquet", name="stamps")
    nouns = set(json.loads((runtime.data_dir() / "mini_split.json").read_text(encoding="utf8"))["nouns"])
    once = {stamps.fingerprint(row): row for row in reversed(range(len(stamps))) if stamps.columns["style"][row] == "photo"}
    photos = sorted(once.values())
    unseen = {row for row in photos if nouns & _words(stamps.captions[row][0])}
    seen = [row for row in photos if row not in unseen]
    return stamps, sorted([*unseen, *random.choice(seen, min(others, len(seen)), replace=False).tolist()]), unseen


def _words(caption):
    """The words of a caption, and without a plural's ending."""
    found = {"".join(letter for letter in word if letter.isalpha()) for word in caption.lower().replace("-", " ").split()}
    return found | {word[:-1] for word in found if word.endswith("s")} | {word[:-3] + "y" for word in found if word.endswith("ies")}


def _file(stamps, row, kind, odd, placed):
    """The bytes of one file."""
    from PIL import Image

    picture, exif, buffer = stamps.image(row), Image.Exif(), io.BytesIO()
    if kind is None and row == odd["transparent"]:
        pixels = np.asarray(picture.convert("RGBA")).copy()
        pixels[pixels[..., :3].min(-1) > WHITE, 3] = 0
        Image.fromarray(pixels).save(buffer, "PNG")
        return buffer.getvalue()
    picture = copies(picture)[kind] if kind else picture
    if kind is None and row == odd["grey"]:
        picture = picture.convert("L")
    if kind is None and row == odd["sideways"]:
        picture, exif[ORIENTATION] = picture.rotate(90, expand=True), 6  # "turn me to the right to see me"
    if placed:
        exif[MAKE], exif[MODEL], exif[DATE] = "Example", "Pocket 3", "2024:05:17 10:31:00"
        exif.get_ifd(GPS).update(GREENWICH)
    picture.save(buffer, "JPEG", quality=90, exif=exif)
    return buffer.getvalue()


def _write_broken(folder, whole):
    """A photo of which half was copied, one of which nothing was, and a text: what the first two are called."""
    half, empty = folder / "2025" / "IMG_0900.jpg", folder / "2025" / "IMG_0901.jpg"
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    empty.write_bytes(b"")
    (folder / "notes.txt").write_text("sort these some day\n", encoding="utf8")
    return [file.relative_to(folder).as_posix() for file in (half, empty)]
