"""Build stamps.parquet: Tux Paint's rubber stamps, photos and drawings on white, 160 x 160 pixels, with their captions.

Run `uv run python data/build_stamps.py --check` to rebuild and compare with the committed file (fetches 161 MB).
"""

import fnmatch
import pathlib

import build_table
from build_sources import Package, unpacked
from PIL import Image

SIDE = 160
# Tux Paint's names of languages, and the names that emoji.parquet uses.
LANGUAGES = {code: code for code in "fr de es it pt nl pl ru uk el tr ar hi ja ko".split()}  # noqa: SIM905
LANGUAGES |= {"zh_CN": "zh", "zh_TW": "zh-hant"}
PACKAGES = (
    Package(
        "debian",
        "tuxpaint-stamps-default",
        "2022.06.04-1",
        "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
        ("usr/share/tuxpaint/stamps/",),
    ),
)

# The package does not say which pictures are drawings. Its folders and formats tell most (see `style`); these, in
# other folders, were picked by eye from a sheet of all that was left. In doubt (road signs) a picture is a photo.
DRAWN = """
animals/mammals/hedgehog.png clothes/button.png clothes/hats/* clothes/t_* food/pizza.png medical/tooth.png
people/body_parts/eye.png space/planets/0_sun.png vehicles/emergency/sedan_police.png seasonal/christmas/Santa.png
seasonal/christmas/bow.png seasonal/christmas/candy_cane.png seasonal/christmas/hard_candy.png
seasonal/christmas/lamp.png seasonal/christmas/santahat.png seasonal/christmas/star.png
seasonal/christmas/stocking.png seasonal/christmas/tree.png seasonal/christmas/xmas_tp_bulb.png seasonal/easter/*
seasonal/hanukkah/* seasonal/newyears/confetti.png seasonal/newyears/party-* seasonal/halloween/bat_left.png
seasonal/halloween/blackcat.png seasonal/halloween/ghost.png seasonal/halloween/jackolantern_mean.png
seasonal/halloween/skull.png seasonal/halloween/spider.png town/flags/* town/monuments/inukshuk-outline.png
town/roadsigns/arrow.png town/roadsigns/crossroads.png town/roadsigns/hospital.png town/roadsigns/roundabout.png
town/roadsigns/stoplight_* town/roadsigns/t-junction.png
""".split()  # noqa: SIM905


def style(path):
    """ "drawing" for an SVG, a folder `cartoon`, a symbol (coins are photos) or one of DRAWN; "photo" for the rest."""
    coin = path.startswith("symbols/money/") and not path.startswith("symbols/money/00_symbols/")
    symbol = path.startswith("symbols/") and not coin
    listed = any(fnmatch.fnmatchcase(path, pattern) for pattern in DRAWN)
    return "drawing" if path.endswith(".svg") or "/cartoon/" in path or symbol or listed else "photo"


def read_captions(file):
    """The caption and {language: caption} of a stamp's text file: English first, then lines like `fr.utf8=Un chat`."""
    english, *others = file.read_text(encoding="utf8", errors="replace").splitlines()
    english, said = english.strip(), {}
    for line in others:
        code, found, caption = line.partition(".utf8=")
        if found and code.strip() in LANGUAGES and caption.strip() not in ("", english):
            said[LANGUAGES[code.strip()]] = caption.strip()
    return english, said


def encode(file):
    """The stamp, cut to what is not transparent, 160 pixels long, in the middle of a white square, as WebP bytes."""
    if file.suffix == ".svg":
        picture = build_table.render_svg(file.read_text(encoding="utf8"), width=2 * SIDE)
    else:
        picture = Image.open(file)
    picture = picture.convert("RGBA")
    seen = picture.getchannel("A").point(lambda alpha: 255 if alpha > 8 else 0).getbbox()
    picture = build_table.flatten(picture.crop(seen) if seen else picture)
    scale = SIDE / max(picture.size)
    size = tuple(max(1, round(side * scale)) for side in picture.size)
    return build_table.webp(build_table.square(picture.resize(size, Image.Resampling.LANCZOS), SIDE))


def row(root, file, english, said):
    """One row of the table."""
    path = file.relative_to(root).as_posix()
    category, *rest = [folder for folder in path.split("/")[:-1] if folder != "cartoon"]
    return {
        "id": f"tuxpaint/{path}",
        "image": encode(file),
        "captions": [english],
        "tags": [],
        "translations": list(said.items()),
        "source": "tuxpaint",
        "licence": "GPL-2.0-or-later",
        "category": category,
        "subcategory": "/".join(rest) or None,
        "style": style(path),
        "hexcode": None,
    }


def build(sources):
    """The rows of the table, by path. A stamp is a text file with a PNG, or else an SVG, of its name."""
    rows = []
    with unpacked(PACKAGES, sources) as folder:
        root = folder / PACKAGES[0].name / PACKAGES[0].keep[0]
        for text in sorted(root.rglob("*.txt"), key=str):
            pictures = [text.with_suffix(suffix) for suffix in (".png", ".svg")]
            for file in [picture for picture in pictures if picture.exists()][:1]:
                rows.append(row(root, file, *read_captions(text)))
    return rows


if __name__ == "__main__":
    build_table.main(build, PACKAGES, pathlib.Path(__file__).with_name("stamps.parquet"), __doc__)
