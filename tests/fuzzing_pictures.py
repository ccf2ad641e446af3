"""Pictures damaged on purpose: seeded, and with the structure of each format in mind. No part of the package is used here.

`damaged(seed, case)` is the same file each time; `pillow_alone` says what Pillow makes of it, without the package.
"""

import functools
import io
import random
import struct
import zlib

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

MAX_PIXELS = 100_000_000  # the limit that the package promises
PROMISED = {"JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM"}  # MPO: a JPEG with further pictures behind it, as telephones write them
SUFFIXES = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "gif": ".gif", "bmp": ".bmp", "tiff": ".tif", "avif": ".avif", "ppm": ".png"}
EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def _scene(seed, size):
    """A picture with edges, gradients and noise, which compresses as photographs do."""
    width, height = size
    random_, x, y = np.random.default_rng(seed), np.arange(width)[None, :], np.arange(height)[:, None]
    waves = [128 + 90 * np.sin(x / (5 + 3 * channel) + y / (9 - 2 * channel) + seed) for channel in range(3)]
    array = np.stack(waves, 2) + random_.normal(0, 12, (height, width, 3))
    array[height // 4 : height // 2, width // 3 :] = random_.integers(0, 256, 3)
    return Image.fromarray(array.clip(0, 255).astype(np.uint8))


def _saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _exif(orientation=6):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x9C9D] = orientation, "a camera", "me".encode("utf-16le")
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 30.0), 3: "E", 4: (2.0, 17.0, 40.0)})
    return exif.tobytes()


def _text_chunks():
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "plain")
    info.add_itxt("XML:com.adobe.xmp", '<x:xmpmeta><rdf:Description tiff:Orientation="3"/></x:xmpmeta>', zip=True)
    info.add_text("Long", "squeezed " * 60, zip=True)
    return info


@functools.cache
def whole_pictures():
    """{name: (format, the bytes of a file that is whole)}: each format in the kinds that decoders treat differently."""
    base, small = _scene(1, (97, 61)), _scene(2, (24, 17))
    alpha, frames = base.copy(), [_scene(seed, (40, 30)) for seed in (3, 4, 5)]
    alpha.putalpha(Image.fromarray(np.tile(np.arange(97, dtype=np.uint8) * 2, (61, 1))))
    sixteen = Image.fromarray(np.asarray(base.convert("L"), np.uint16) * 257)
    icc, more = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), {"save_all": True, "append_images": frames[1:]}
    palette = base.quantize(32)
    made = {
        "jpeg": _saved(base, "JPEG", quality=80), "jpeg progressive": _saved(base, "JPEG", progressive=True, quality=70), "jpeg grey": _saved(base.convert("L"), "JPEG"),
        "jpeg cmyk": _saved(base.convert("CMYK"), "JPEG"), "jpeg exif icc": _saved(base, "JPEG", exif=_exif(6), icc_profile=icc, comment=b"hello"),
        "jpeg restarts": _saved(base, "JPEG", restart_marker_blocks=2, subsampling=2), "jpeg mpo": _saved(frames[0], "MPO", **more), "jpeg pixel": _saved(base.crop((0, 0, 1, 1)), "JPEG"),
        "jpeg large": _saved(_scene(6, (2300, 700)), "JPEG", quality=40),
        "png": _saved(base, "PNG"), "png alpha": _saved(alpha, "PNG", exif=_exif(8)), "png palette": _saved(palette, "PNG", transparency=bytes(range(32))),
        "png grey alpha": _saved(alpha.convert("LA"), "PNG"), "png 16 bit": _saved(sixteen, "PNG"), "png bits": _saved(base.convert("1"), "PNG"),
        "png texts icc": _saved(base, "PNG", pnginfo=_text_chunks(), icc_profile=icc), "png animated": _saved(frames[0], "PNG", **more), "png pixel": _saved(base.crop((0, 0, 1, 1)), "PNG"),
        "png key": _saved(base, "PNG", transparency=(10, 20, 30)),
        "webp": _saved(base, "WEBP", quality=60), "webp lossless": _saved(small, "WEBP", lossless=True), "webp alpha": _saved(alpha, "WEBP", exif=_exif(3), icc_profile=icc),
        "webp animated": _saved(frames[0], "WEBP", **more),
        "gif": _saved(palette, "GIF", interlace=0), "gif interlaced": _saved(palette, "GIF", interlace=1), "gif transparent": _saved(palette, "GIF", transparency=3),
        "gif animated": _saved(frames[0].quantize(16), "GIF", save_all=True, append_images=[frame.quantize(16) for frame in frames[1:]], loop=0, duration=50, disposal=2),
        "bmp": _saved(small, "BMP"), "bmp palette": _saved(small.quantize(16), "BMP"), "bmp bits": _saved(small.convert("1"), "BMP"), "bmp alpha": _saved(small.convert("RGBA"), "BMP"),
        "tiff": _saved(small, "TIFF"), "tiff lzw": _saved(small, "TIFF", compression="tiff_lzw"), "tiff deflate": _saved(alpha, "TIFF", compression="tiff_adobe_deflate"),
        "tiff jpeg": _saved(base, "TIFF", compression="jpeg"), "tiff packbits": _saved(small.quantize(16), "TIFF", compression="packbits"), "tiff 16 bit": _saved(sixteen, "TIFF"),
        "tiff float": _saved(Image.fromarray(np.asarray(small.convert("L"), np.float32)), "TIFF"), "tiff cmyk": _saved(small.convert("CMYK"), "TIFF"),
        "tiff lab": _saved(ImageCms.profileToProfile(small, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"), "TIFF"),
        "tiff pages": _saved(_scene(3, (40, 30)), "TIFF", save_all=True, append_images=[_scene(4, (40, 30))]), "tiff fax": _saved(base.convert("1"), "TIFF", compression="group4"),
        "ppm": _saved(small, "PPM"), "ppm words": b"P3\n# a comment\n4 3\n255\n" + b" ".join(b"%d" % (7 * number % 256) for number in range(36)) + b"\n",
        "ppm 16 bit": b"P5 4 3 65535\n" + bytes(range(24)), "ppm bits": _saved(small.convert("1"), "PPM"),
    }
    if "AVIF" in Image.SAVE or Image.init() and "AVIF" in Image.SAVE:
        made |= {"avif": _saved(small, "AVIF", speed=10), "avif alpha": _saved(alpha, "AVIF", speed=10, exif=_exif(6), icc_profile=icc),
                 "avif animated": _saved(frames[0], "AVIF", speed=10, **more)}
    return {name: (name.split()[0], data) for name, data in made.items()}


# --- the pieces of each format: lists of bytes whose join is the file -------------------------------------------------------------


def _png_pieces(data):
    pieces, at = [data[:8]], 8
    while at + 12 <= len(data):
        size = 12 + struct.unpack(">I", data[at : at + 4])[0]
        pieces.append(data[at : at + size])
        at += size
    return [*pieces, data[at:]]


def _jpeg_pieces(data):
    pieces, at = [data[:2]], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        size = 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
        pieces.append(data[at : at + size])
        at += size
    return [*pieces, data[at:]]


def _riff_pieces(data):
    pieces, at = [data[:12]], 12
    while at + 8 <= len(data):
        size = 8 + struct.unpack("<I", data[at + 4 : at + 8])[0]
        pieces.append(data[at : at + size + size % 2])
        at += size + size % 2
    return [*pieces, data[at:]]


def _box_pieces(data):
    pieces, at = [], 0
    while at + 8 <= len(data):
        size = max(8, struct.unpack(">I", data[at : at + 4])[0])
        pieces.append(data[at : at + size])
        at += size
    return [*pieces, data[at:]]


def _even_pieces(data):
    step = max(1, len(data) // 9)
    return [data[at : at + step] for at in range(0, len(data), step)]


PIECES = {"png": _png_pieces, "jpeg": _jpeg_pieces, "webp": _riff_pieces, "avif": _box_pieces}


def _whole_crc(piece):
    """A PNG chunk with the checksum that its content should have, so that a decoder looks at what is in it."""
    return piece[:-4] + struct.pack(">I", zlib.crc32(piece[4:-4])) if len(piece) >= 12 else piece


# --- what is done to a file: each takes (random, format, bytes) -----------------------------------------------------------------------


def cut(rng, kind, data):
    return data[: rng.randrange(len(data))]


def cut_the_end(rng, kind, data):
    return data[: -rng.randint(1, min(40, len(data) - 1))]


def flip_bits(rng, kind, data):
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 40))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def flip_in_the_head(rng, kind, data):
    data = bytearray(data)
    for _ in range(rng.choice((1, 2, 4))):
        data[rng.randrange(min(len(data), 120))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(data)


def edge_number(rng, kind, data):
    """A number of 1, 2 or 4 bytes becomes one at which counters turn over."""
    size = rng.choice((1, 2, 4))
    at = rng.randrange(max(1, min(len(data), rng.choice((64, 400, len(data)))) - size))
    value = rng.choice(EDGES) % (1 << 8 * size)
    return data[:at] + value.to_bytes(size, rng.choice(("little", "big"))) + data[at + size :]


def zeros(rng, kind, data):
    at = rng.randrange(len(data))
    size = rng.randint(1, 200)
    return data[:at] + bytes(min(size, len(data) - at)) + data[at + size :]


def junk_inside(rng, kind, data):
    at = rng.randrange(len(data))
    return data[:at] + rng.randbytes(rng.randint(1, 300)) + data[at:]


def lost_inside(rng, kind, data):
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.randint(1, 300) :]


def junk_behind(rng, kind, data):
    return data + rng.randbytes(rng.randint(1, 5000))


def two_files(rng, kind, data):
    other = rng.choice(list(whole_pictures().values()))[1]
    return rng.choice((data + other, data[: len(data) // 2] + other, data[: len(data) // 2] + other[len(other) // 2 :]))


def pieces_moved(rng, kind, data):
    """Chunks or segments of the file swapped, dropped or doubled."""
    pieces = PIECES.get(kind, _even_pieces)(data)
    one, two = rng.randrange(len(pieces)), rng.randrange(len(pieces))
    act = rng.choice(("swap", "drop", "double"))
    if act == "swap":
        pieces[one], pieces[two] = pieces[two], pieces[one]
    elif act == "drop":
        del pieces[one]
    else:
        pieces.insert(two, pieces[one])
    return b"".join(pieces)


def wrong_length(rng, kind, data):
    """A chunk says that it is longer or shorter than it is."""
    pieces = PIECES.get(kind, _even_pieces)(data)
    number = rng.randrange(len(pieces))
    piece, (at, size, order) = pieces[number], {"png": (0, 4, "big"), "jpeg": (2, 2, "big"), "webp": (4, 4, "little"), "avif": (0, 4, "big")}.get(kind, (0, 2, "little"))
    value = rng.choice((*EDGES, len(piece), len(piece) - 1, len(piece) + rng.randint(1, 9999))) % (1 << 8 * size)
    pieces[number] = piece[:at] + value.to_bytes(size, order) + piece[at + size :] if len(piece) >= at + size else piece
    return b"".join(pieces)


def inside_one_piece(rng, kind, data):
    """Bytes of one chunk change (EXIF, a profile, a palette, a frame's head or pixels), and its checksum, where there is one, is right."""
    pieces = PIECES.get(kind, _even_pieces)(data)
    number = rng.randrange(len(pieces))
    piece, start = bytearray(pieces[number]), 8 if kind == "png" else 4
    if len(piece) > start + 5:
        for _ in range(rng.choice((1, 3, 10, 30))):
            piece[rng.randrange(start, len(piece) - (4 if kind == "png" else 0))] = rng.choice((0, 0xFF, rng.randrange(256)))
    pieces[number] = _whole_crc(bytes(piece)) if kind == "png" and number else bytes(piece)
    return b"".join(pieces)


def _places_of_size(kind, data):
    """[(offset, bytes, order)] of width and height in the head."""
    if kind == "png":
        return [(16, 4, "big"), (20, 4, "big")]
    if kind == "gif":
        return [(6, 2, "little"), (8, 2, "little")]
    if kind == "bmp":
        return [(18, 4, "little"), (22, 4, "little")]
    if kind == "jpeg":
        at = next((at for at in range(len(data) - 9) if data[at] == 0xFF and data[at + 1] in (0xC0, 0xC2)), 0)
        return [(at + 7, 2, "big"), (at + 5, 2, "big")]
    if kind == "webp":
        return [(24, 3, "little"), (27, 3, "little")] if data[12:16] == b"VP8X" else [(26, 2, "little"), (28, 2, "little")]
    if kind == "tiff":
        found = [data.find(struct.pack("<HH", tag, 4)) for tag in (256, 257)] if data[:2] == b"II" else []
        found = found or [0]
        return [(at + 8, 4, "little") for at in found if at > 0] or [(8, 4, "little")]
    if kind == "avif":
        at = data.find(b"ispe")
        return [(at + 8, 4, "big"), (at + 12, 4, "big")]
    return [(3, 1, "big"), (5, 1, "big")]


def another_size(rng, kind, data):
    """Width and height in the head become one pixel, none, huge, or a line."""
    data, sizes = bytearray(data), rng.choice(((1, 1), (0, 0), (65535, 65535), (1, 65535), (65535, 1), (10_001, 10_000), (9_999, 9_999), (3000, 2000), (31, 0x80000001), (96, 62)))
    for (at, size, order), value in zip(_places_of_size(kind, data), sizes):
        if at + size <= len(data):
            data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, order)
    if kind == "png":
        pieces = _png_pieces(bytes(data))
        return b"".join([pieces[0], _whole_crc(pieces[1]), *pieces[2:]])
    return bytes(data)


def another_kind_of_pixels(rng, kind, data):
    """Bit depth, colour type, sampling, filters: what the head says of the pixels, with a right checksum."""
    data = bytearray(data)
    if kind == "png":
        data[rng.choice((24, 25, 26, 27, 28))] = rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
        pieces = _png_pieces(bytes(data))
        return b"".join([pieces[0], _whole_crc(pieces[1]), *pieces[2:]])
    (at, _, _), *_ = _places_of_size(kind, data)
    for _ in range(2):
        place = min(len(data) - 1, max(0, at + rng.randint(-6, 16)))
        data[place] = rng.choice((0, 1, 2, 3, 4, 8, 16, 32, 0x11, 0x22, 0x44, 255))
    return bytes(data)


def as_it_was(rng, kind, data):
    return data


DAMAGES = (cut, cut_the_end, flip_bits, flip_in_the_head, edge_number, zeros, junk_inside, lost_inside, junk_behind, two_files, pieces_moved, wrong_length,
           inside_one_piece, inside_one_piece, another_size, another_kind_of_pixels, as_it_was)


def damaged(seed, case, photos=()):
    """Case number `case` of a seed: (name for messages, suffix, bytes). photos: bytes of real JPEGs that are damaged, too. One in ten has the suffix of another format."""
    rng = random.Random(f"{seed}/{case}")
    names = [*whole_pictures(), *(f"photo {number}" for number in range(len(photos)))]
    name = names[case % len(names)]
    kind, data = ("jpeg", photos[int(name.split()[1])]) if name.startswith("photo") else whole_pictures()[name]
    acts = [rng.choice(DAMAGES)]
    if rng.random() < 0.15:
        acts.append(rng.choice(DAMAGES))
    for act in acts:
        data = act(rng, kind, data) if data else data
    suffix = SUFFIXES[kind] if rng.random() < 0.9 else rng.choice(sorted(set(SUFFIXES.values())))
    return f"seed {seed}, case {case}: {name}, {' and '.join(act.__name__.replace('_', ' ') for act in acts)}", suffix, data


# --- what Pillow alone says -----------------------------------------------------------------------------------------------------

TURNS = {2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1], 5: lambda a: a.transpose(1, 0, 2), 6: lambda a: np.rot90(a, -1),
         7: lambda a: a[::-1, ::-1].transpose(1, 0, 2), 8: lambda a: np.rot90(a)}  # EXIF 2.32, tag 0x0112


def pillow_alone(data):
    """(H, W, 3) float32, 0 to 255, upright and over white; or a string: why there is no picture. From bytes, by Pillow and NumPy alone."""
    try:
        image = Image.open(io.BytesIO(data))
        if image.format not in PROMISED:
            return f"the format {image.format} is not promised"
        if image.width * image.height > MAX_PIXELS:
            return "more pixels than allowed"
        if image.format == "JPEG":
            image.draft("RGB", (1024, 1024))  # what a large JPEG is decoded at is a choice, not a fault
        image.load()
        array = _over_white(image)
    except Exception as error:  # decoders raise many kinds
        return f"{type(error).__name__}: {error}"
    try:
        turn = TURNS.get(image.getexif().get(0x0112))
    except Exception:  # a damaged EXIF says nothing of how the camera was held
        turn = None
    return turn(array) if turn else array


def _over_white(image):
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image, np.float64)
        known = values[np.isfinite(values)]  # a float TIFF may hold what is no number
        top = 65535.0 if image.mode.startswith("I;16") else max([1.0, *([float(known.max())] if known.size else [])])
        values = np.where(np.isnan(values), 0, np.where(values > top, top, np.where(values < 0, 0, values)))
        return np.repeat(np.floor(values * (255 / top))[:, :, None], 3, 2).astype(np.float32)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        array = np.asarray(image.convert("RGBA"), np.float32)
        share = array[:, :, 3:] / 255
        return array[:, :, :3] * share + 255 * (1 - share)
    return np.asarray(image.convert("RGB"), np.float32)
