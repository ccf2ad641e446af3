"""Build emoji.parquet: every emoji but flags, as Noto, Twemoji and Fluent draw it, 64 x 64 pixels.

Labels, tags and translations are emojibase's, which come from Unicode's CLDR.
Run `uv run python data/build_emoji.py --check` to rebuild and compare with the committed file.
"""

import json
import pathlib

import build_table
from build_sources import Package, unpacked
from PIL import Image

SIDE = 64
LANGUAGES = "de fr es it pt nl pl ru uk da sv nb fi hu et lt ja ko zh zh-hant hi bn th vi ms".split()  # noqa: SIM905
LICENCES = {"noto": "Apache-2.0", "twemoji": "CC-BY-4.0", "fluent": "MIT"}
LABELS, NOTO, TWEMOJI, FLUENT = PACKAGES = (
    Package(
        "npm",
        "emojibase-data",
        "17.0.0",
        "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
        ("package/en/messages.json", *(f"package/{language}/data.json" for language in ("en", *LANGUAGES))),
    ),
    Package(
        "npm",
        "emoji-datasource-google",
        "16.0.0",
        "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
        ("package/emoji.json", "package/img/google/64/"),
    ),
    Package(
        "npm",
        "emoji-datasource-twitter",
        "16.0.0",
        "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
        ("package/img/twitter/64/",),
    ),
    Package(
        "npm",
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        ("package/icons.json", "package/chars.json"),
    ),
)


def read(folder, package, path):
    """A JSON file of an unpacked package."""
    return json.loads((folder / package.name / "package" / path).read_text(encoding="utf8"))


def without_selector(hexcode):
    """The code without FE0F, which asks for the coloured form: packages disagree on writing it."""
    return hexcode.replace("-FE0F", "")


def concepts(folder):
    """Every emoji but flags and parts of emoji, in order: dicts with label, tags, hexcode, category, subcategory."""
    names = read(folder, LABELS, "en/messages.json")
    groups = {group["order"]: group["key"] for group in names["groups"]}
    subgroups = {group["order"]: group["key"] for group in names["subgroups"]}
    for emoji in read(folder, LABELS, "en/data.json"):
        category = groups.get(emoji.get("group"))
        if category in (None, "component", "flags"):
            continue
        yield {
            "hexcode": emoji["hexcode"],
            "label": emoji["label"],
            "tags": emoji.get("tags", []),
            "category": category,
            "subcategory": subgroups.get(emoji.get("subgroup")),
        }


def translated_labels(folder):
    """{language: {hexcode: label}}"""
    tables = {language: read(folder, LABELS, f"{language}/data.json") for language in LANGUAGES}
    return {language: {emoji["hexcode"]: emoji["label"] for emoji in table} for language, table in tables.items()}


def png_pictures(folder):
    """A function from a hexcode to {vendor: picture} for the two vendors that ship PNG files of one naming."""
    files = {}
    for emoji in read(folder, NOTO, "emoji.json"):
        code = emoji["unified"].upper()
        files[code] = files[without_selector(code)] = emoji["image"]
    places = {
        "noto": folder / NOTO.name / "package/img/google/64",
        "twemoji": folder / TWEMOJI.name / "package/img/twitter/64",
    }

    def pictures(hexcode):
        file = files.get(hexcode) or files.get(without_selector(hexcode))
        paths = {vendor: place / file for vendor, place in places.items() if file}
        return {vendor: Image.open(path) for vendor, path in paths.items() if path.exists()}

    return pictures


def fluent_pictures(folder):
    """The same for Fluent, whose pictures are SVG bodies in one JSON file."""
    icons = read(folder, FLUENT, "icons.json")
    names = {code.upper(): name for code, name in read(folder, FLUENT, "chars.json").items()}

    def pictures(hexcode):
        icon = icons["icons"].get(names.get(hexcode) or names.get(without_selector(hexcode)))
        if icon is None:
            return {}
        width, height = (icon.get(side, icons.get(side, 32)) for side in ("width", "height"))
        head = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        svg = f'{head} viewBox="0 0 {width} {height}" width="{width}" height="{height}">{icon["body"]}</svg>'
        return {"fluent": build_table.render_svg(svg, width=2 * SIDE)}

    return pictures


def encode(picture):
    """The picture as WebP bytes, at most 64 pixels a side, in the middle of a white square."""
    picture = build_table.flatten(picture)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return build_table.webp(build_table.square(picture, SIDE))


def build(sources):
    """The rows of the table: three vendors' pictures of a concept stand together."""
    rows = []
    with unpacked(PACKAGES, sources) as folder:
        labels = translated_labels(folder)
        png, fluent = png_pictures(folder), fluent_pictures(folder)
        for concept in concepts(folder):
            code, label, tags = concept["hexcode"], concept["label"], concept["tags"]
            said = {language: table.get(code) for language, table in labels.items()}
            for vendor, picture in {**png(code), **fluent(code)}.items():
                rows.append(
                    {
                        "id": f"{vendor}/{code}",
                        "image": encode(picture),
                        "captions": [label, ", ".join(tags)] if tags else [label],
                        "tags": tags,
                        "translations": [
                            (language, other) for language, other in said.items() if other and other != label
                        ],
                        "source": vendor,
                        "licence": LICENCES[vendor],
                        "category": concept["category"],
                        "subcategory": concept["subcategory"],
                        "style": "drawing",
                        "hexcode": code,
                    }
                )
    return rows


if __name__ == "__main__":
    build_table.main(build, PACKAGES, pathlib.Path(__file__).with_name("emoji.parquet"), __doc__)
