"""What the builds share: the schema, pictures into WebP, writing a table, comparing with the committed file."""

import argparse
import importlib.metadata
import io
import pathlib
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, features

from miniclip_helpers import runtime
from miniclip_helpers.errors import MiniclipError

STRINGS = pa.list_(pa.string())
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.binary()),
        ("captions", STRINGS),
        ("tags", STRINGS),
        ("translations", pa.map_(pa.string(), pa.string())),
        ("source", pa.string()),
        ("licence", pa.string()),
        ("category", pa.string()),
        ("subcategory", pa.string()),
        ("style", pa.string()),
        ("hexcode", pa.string()),
    ]
)


def flatten(picture):
    """The picture as RGB, what is transparent turned white."""
    picture = picture.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    return white.convert("RGB")


def square(picture, side):
    """The picture in the middle of a white square of `side` pixels."""
    canvas = Image.new("RGB", (side, side), "white")
    canvas.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return canvas


def webp(picture):
    """The picture as bytes of a WebP file: a quarter of PNG's size at 64 pixels, hardly to be told apart."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=82, method=6)
    return buffer.getvalue()


def render_svg(svg, width):
    """An SVG text as an RGBA picture `width` pixels wide.

    Letters are drawn with the fonts inside matplotlib, not with the machine's, so that every machine draws the same.
    Without a resolution resvg takes sizes in pt or cm for nothing and refuses 38 of the stamps; CSS has 96 dpi.
    """
    import matplotlib
    import resvg_py

    fonts = pathlib.Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    drawn = resvg_py.svg_to_bytes(
        svg_string=svg,
        width=width,
        dpi=96,
        skip_system_fonts=True,
        font_files=[str(fonts / "DejaVuSans.ttf"), str(fonts / "DejaVuSans-Bold.ttf")],
        font_family="DejaVu Sans",
        sans_serif_family="DejaVu Sans",
        serif_family="DejaVu Sans",
    )
    return Image.open(io.BytesIO(bytes(drawn)))


def tools():
    """The versions that decide what the pixels are."""
    resvg = importlib.metadata.version("resvg-py")
    return f"resvg-py {resvg}, Pillow {Image.__version__}, libwebp {features.version('webp')}"


def write_table(rows, packages, path):
    """Write the rows (dicts, one per picture) as parquet; the packages and tools stand in the file's metadata."""
    notes = {"packages": "; ".join(map(str, packages)), "drawn_with": tools()}
    table = pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata(notes))
    with runtime.writing(path) as temporary:
        plain = [name for name in SCHEMA.names if name not in ("image", "id")]
        pq.write_table(table, temporary, compression="zstd", use_dictionary=plain, row_group_size=20_000)


def pixels(data):
    """The decoded picture, (H, W, 3) uint8."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def distance(one, other):
    """The largest difference of two encoded pictures in any channel, 0 to 255; 256 where their sizes differ."""
    if one == other:
        return 0
    one, other = pixels(one).astype(int), pixels(other).astype(int)
    return int(np.abs(one - other).max()) if one.shape == other.shape else 256


def differences(rows, path):
    """What differs between the rows of a build and the table in `path`: a line per kind, none if they are equal."""
    committed = {row["id"]: row for row in pq.read_table(path).to_pylist()}
    built = {row["id"]: row for row in pa.Table.from_pylist(rows, schema=SCHEMA).to_pylist()}
    said = []
    for what, ids in (
        ("only in the file", committed.keys() - built.keys()),
        ("only in the build", built.keys() - committed.keys()),
    ):
        if ids:
            said.append(f"{len(ids)} rows {what}: {_few(ids)}")
    both = [name for name in built if name in committed]
    if not said and list(built) != list(committed):
        said.append("the rows stand in another order")
    for column in SCHEMA.names:
        if column == "image":
            far = {name: distance(built[name][column], committed[name][column]) for name in both}
            if any(far.values()):
                worst = sorted((name for name in far if far[name]), key=lambda name: -far[name])
                largest = f"by {far[worst[0]]} of 255 at most"
                said.append(f"pixels differ in {len(worst)} pictures, {largest}: {_few(worst, ranked=True)}")
        else:
            other = [name for name in both if built[name][column] != committed[name].get(column)]
            if other:
                said.append(f"{column} differs in {len(other)} rows: {_few(other)}")
    return said


def _few(ids, ranked=False):
    ids = list(ids) if ranked else sorted(ids)
    return ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")


def main(build, packages, default, description):
    """The command line of both builds. `build(sources folder)` returns the rows."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; compare with the file, exit 1 where anything differs"
    )
    parser.add_argument("--out", type=pathlib.Path, default=default, help="the parquet file (default: %(default)s)")
    parser.add_argument(
        "--sources", type=pathlib.Path, default=runtime.build_dir() / "sources", help="where the packages are kept"
    )
    options = parser.parse_args()
    try:
        rows = build(options.sources)
    except MiniclipError as error:
        sys.exit(f"error: {error}")
    if not options.check:
        write_table(rows, packages, options.out)
        print(f"wrote {len(rows):,} pictures to {options.out} ({options.out.stat().st_size:,} bytes, {tools()})")
        return
    said = differences(rows, options.out)
    for line in said:
        print(line)
    if said:
        made = (pq.read_schema(options.out).metadata or {}).get(b"drawn_with", b"unknown tools").decode()
        sys.exit(f"{options.out} was drawn with {made}; this build with {tools()}")
    print(f"{options.out}: {len(rows):,} pictures, the same pixels, captions, tags and translations")
