"""Pictures: opened safely, turned upright, made RGB, resized and normalised; augmentation on pixels."""

import contextlib
import dataclasses
import io
import os
import pathlib
import warnings

import numpy as np
import torch

from . import runtime
from .errors import ImageError

MAX_PIXELS = 100_000_000  # a 100-megapixel photo is real, a 20,000 x 20,000 one is a decompression bomb
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")  # Pillow knows more, EPS among them, which would start Ghostscript
SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}
HALF = (0.5, 0.5, 0.5)


def open_image(source):
    """Open a picture and return it as PIL RGB, upright (EXIF), transparency laid over white.

    `source` is a path, the file's bytes, or a PIL image. Raises `ImageError` for a missing, empty, broken or too large file.

    >>> open_image(np_png_bytes).mode  # doctest: +SKIP
    'RGB'
    """
    from PIL import Image

    name = f"'{source}'" if isinstance(source, (str, os.PathLike)) else "the picture"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return _to_rgb(_decode(source, name))
    except ImageError:
        raise
    except Image.DecompressionBombError:  # Pillow's own limit, above ours
        raise ImageError(f"{name} has more pixels than the {MAX_PIXELS // 10**6} million allowed; make it smaller first") from None
    except FileNotFoundError:
        raise ImageError(f"{name} does not exist; check the path") from None
    except IsADirectoryError:
        raise ImageError(f"{name} is a folder; give a picture file") from None
    except Exception as error:  # decoders raise many kinds (OSError, SyntaxError, struct.error, ...) on broken files
        raise ImageError(f"{name} cannot be read as a picture ({_reason(error)}); open and save it anew, or remove it") from error


def open_head(source):
    """A picture's file of which Pillow has read the head alone: its size, its format, its EXIF. source: a path or an open file. Only `FORMATS` are tried."""
    from PIL import Image

    Image.init()
    return Image.open(source, formats=[name for name in FORMATS if name in Image.OPEN])  # AVIF is not in every build


def _reason(error):
    """The decoder's own words, without the object address or path that Pillow puts into some of them."""
    return "unknown format or damaged" if type(error).__name__ == "UnidentifiedImageError" else str(error) or type(error).__name__


def _decode(source, name):
    from PIL import Image

    if isinstance(source, Image.Image):
        return _upright(source)
    if isinstance(source, (str, os.PathLike)):
        runtime.check_ends(source, ImageError, "give a picture file")
        if pathlib.Path(source).is_file() and pathlib.Path(source).stat().st_size == 0:
            raise ImageError(f"{name} is empty (0 bytes); copy it again, or remove it")
        with open(source, "rb") as file:  # by its path Pillow would map the file, and a file that shrinks meanwhile would end the process
            return _decoded(open_head(file), name)
    if isinstance(source, (bytes, bytearray, memoryview)):
        if not len(source):
            raise ImageError(f"{name} is empty (0 bytes)")
        return _decoded(open_head(io.BytesIO(source)), name)
    if hasattr(source, "__bytes__"):  # what reads its bytes when asked, such as a picture inside a tar file
        return _decode(bytes(source), name)
    raise ImageError(f"expected a path, bytes or a PIL image, found {type(source).__name__}")


def _decoded(image, name):
    _check_size(image, name)
    if image.format == "JPEG":
        image.draft("RGB", (1024, 1024))  # decode large photos at a fraction of their size: several times faster
    image.load()
    return _upright(image)


def _upright(image):
    """The picture turned as its EXIF says; as it is where the EXIF is damaged, which says nothing of the pixels."""
    from PIL import ImageOps

    try:
        image.getexif()
    except Exception:  # decoders of EXIF raise many kinds
        return image
    return ImageOps.exif_transpose(image)


def _check_size(image, name):
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{name} has {width} x {height} pixels, more than the {MAX_PIXELS // 10**6} million allowed; make it smaller first")


@contextlib.contextmanager
def reading_head(source, name="the picture"):
    """`open_head` with its errors as `ImageError`, for an unknown or too large file, too. source: a path or an open file; name: what the error calls it."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with open_head(source) as image:
                _check_size(image, name)
                yield image
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(f"{name} has more pixels than the {MAX_PIXELS // 10**6} million allowed; make it smaller first") from None
    except Exception as error:
        raise ImageError(f"{name} cannot be read as a picture ({_reason(error)})") from error


def check_header(path):
    """Look at a picture's header only, which is fast: raises `ImageError` for an empty, unknown or too large file."""
    if os.path.getsize(path) == 0:
        raise ImageError(f"'{path}' is empty (0 bytes)")
    with reading_head(path, f"'{path}'"):
        pass


def _to_rgb(image):
    from PIL import Image

    if image.mode in {"I;16", "I;16B", "I", "F"}:
        image = Image.fromarray(_eight_bits(np.array(image, dtype=np.float64), 65535.0 if image.mode.startswith("I;16") else None))
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        image = white
    return image.convert("RGB")


def _eight_bits(values, top):
    """Numbers (float64, changed in place) from 0 to `top`, or to the largest, as uint8 from 0 to 255. What is no number is 0, and infinity is `top`."""
    if top is None:
        top = max(float(values.max(where=np.isfinite(values), initial=0)), 1.0)
    np.nan_to_num(values, copy=False, nan=0.0, posinf=top, neginf=0.0)
    values.clip(0, top, out=values)
    values *= 255 / top
    return values.astype(np.uint8)


def bare_jpeg(picture, side):
    """A PIL RGB picture as JPEG bytes, at most `side` pixels wide and high, with its pixels and nothing else: no EXIF, XMP, IPTC, comment or
    colour profile, so no place, owner or camera. Colours of another profile than sRGB are converted, so that they look as they should."""
    from PIL import Image

    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    small = _in_srgb(small, picture.info.get("icc_profile"))
    bare = Image.frombytes("RGB", small.size, small.tobytes())  # Pillow copies comment and XMP from a picture's `info` into files: a new one has none
    out = io.BytesIO()
    bare.save(out, "JPEG", quality=88)
    return out.getvalue()


def _in_srgb(image, profile):
    """A PIL RGB picture as browsers take one without a profile. profile: the bytes of its own, as most telephones write one, or None."""
    from PIL import ImageCms

    if not profile:
        return image
    try:
        return ImageCms.profileToProfile(image, io.BytesIO(profile), ImageCms.createProfile("sRGB"))
    except (ImageCms.PyCMSError, OSError, ImportError):  # damaged, for another kind of pixels, or a Pillow without colour management
        return image


def difference_hash(image, side=8):
    """A number of side * side bits that hardly changes when a picture (PIL) is scaled, compressed or made brighter.

    The picture becomes (side, side + 1) grey values; a bit says whether a value is greater than its right neighbour, rows first, the
    first bit highest. The number of bits in which two hashes differ, `(a ^ b).bit_count()`, is how different two pictures look: 0 to
    about 5 of 64 for copies, about 32 for pictures that have nothing in common.
    """
    from PIL import Image

    grey = np.asarray(image.convert("L").resize((side + 1, side), Image.Resampling.BOX), dtype=np.int16)
    bits = (grey[:, :-1] > grey[:, 1:]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big") >> (-bits.size % 8)


def middle(image):
    """The picture; of a line, with one side more than 20 times the other, its middle: scaled by its short side, one of 1 x 65,000 pixels would take gigabytes."""
    most = 20 * min(image.size)
    left, top = ((side - min(side, most)) // 2 for side in image.size)
    return image.crop((left, top, left + min(image.width, most), top + min(image.height, most))) if max(image.size) > most else image


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """A picture to the numbers that a tower was trained on.

    size: side in pixels. mean, std: per channel, of values in [0, 1]. mode "crop" scales the shorter side to size / crop and
    cuts the centre, as ImageNet models are tested; "squash" scales both sides, and so keeps what lies at the edges.
    "crop" takes the `middle` of lines.
    """

    size: int = 224
    mean: tuple = HALF
    std: tuple = HALF
    crop: float = 0.875
    mode: str = "crop"

    def pixels(self, image):
        """The resized picture, (size, size, 3) uint8."""
        from PIL import Image

        if self.mode == "squash":
            return np.asarray(image.resize((self.size, self.size), Image.Resampling.BICUBIC))
        image = middle(image)
        scale = round(self.size / self.crop) / min(image.size)
        image = image.resize([max(self.size, round(side * scale)) for side in image.size], Image.Resampling.BICUBIC)
        left, top = ((side - self.size) // 2 for side in image.size)
        return np.asarray(image.crop((left, top, left + self.size, top + self.size)))

    def batch(self, images):
        """Images (list of PIL RGB) to a float tensor (B, 3, size, size), normalised, channels last in memory."""
        array = np.stack([self.pixels(image) for image in images])
        pixels = torch.from_numpy(array).permute(0, 3, 1, 2).float() / 255
        return normalise(pixels, self.mean, self.std)

    def __call__(self, image):
        """One picture to (3, size, size)."""
        return self.batch([image])[0]


def normalise(pixels, mean=HALF, std=HALF):
    """(B, 3, H, W) values in [0, 1] to (x - mean) / std, per channel. Augment before this step, never after it."""
    mean = torch.tensor(mean, dtype=pixels.dtype, device=pixels.device)[:, None, None]
    std = torch.tensor(std, dtype=pixels.dtype, device=pixels.device)[:, None, None]
    return (pixels - mean) / std


def stack_pixels(images, size):
    """Images (iterable of PIL RGB) squashed to one (N, 3, size, size) uint8 tensor: a small dataset in memory, decoded once."""
    frame = Preprocess(size=size, mode="squash")
    return torch.from_numpy(np.stack([frame.pixels(image) for image in images])).permute(0, 3, 1, 2).contiguous()


def augment(pixels, generator, rotation=0.25, scale=0.2, shift=0.08, colour=0.3, flip=0.5, hue=0.0, wobble=0.0, share=None):
    """Random flip, rotation, zoom, shift and colour, each picture its own. uint8 (B, 3, H, W) in, float in [0, 1] out.

    rotation: radians either way. scale, shift: fractions either way. colour: contrast per channel either way. flip: probability.
    hue: radians either way around the grey axis. wobble: how far a coarse grid of points is pulled, in half sides of the picture.
    Works on pixels; normalise afterwards (colour jitter on normalised values would treat the mean colour as black).
    share: (rows, whole) where these are only the pictures `rows`, a slice, of a batch of `whole`: each looks as it would among all of them.
    """
    batch, functional = len(pixels), torch.nn.functional
    rows, whole = share or (slice(None), batch)

    def uniform(*shape):
        return torch.rand(whole, *shape[1:], generator=generator)[rows].to(pixels.device)

    def draw(*shape):
        return uniform(*shape) * 2 - 1

    angle, zoom = draw(batch) * rotation, 1 + draw(batch) * scale
    mirror = torch.where(uniform(batch) < flip, -1.0, 1.0)
    theta = torch.stack([zoom * angle.cos() * mirror, -zoom * angle.sin(), draw(batch) * shift * 2,
                         zoom * angle.sin() * mirror, zoom * angle.cos(), draw(batch) * shift * 2], 1).view(batch, 2, 3)
    grid = functional.affine_grid(theta, list(pixels.shape), align_corners=False)
    if wobble:
        down, across = (_spread(4, side).to(pixels.device) for side in pixels.shape[2:])
        grid = grid + (down @ (draw(batch, 2, 4, 4) * wobble) @ across.T).permute(0, 2, 3, 1)
    inverted = 1 - pixels.float() / 255  # so that what comes in from outside is white, not black
    moved = 1 - functional.grid_sample(inverted, grid, align_corners=False)
    if hue:
        moved = turn_hue(moved, draw(batch) * hue)
    moved = (moved - 0.5) * (1 + draw(batch, 3, 1, 1) * colour) + 0.5 + draw(batch, 3, 1, 1) * colour / 3
    return moved.clamp(0, 1)


def _spread(points, side):
    """(side, points): a row of `points` values to `side` values between them, bicubic. Two products with it are far cheaper than resizing each picture's grid."""
    return torch.nn.functional.interpolate(torch.eye(points)[None, None], size=(side, points), mode="bicubic", align_corners=True)[0, 0]


def turn_hue(pixels, angle):
    """Turn the colours of (B, 3, H, W) around the grey axis, each picture by its angle (B,) in radians; a third of a circle makes red green."""
    cosine, sine = angle.cos(), angle.sin() / 3**0.5
    rest = (1 - cosine) / 3
    rows = [cosine + rest, rest - sine, rest + sine, rest + sine, cosine + rest, rest - sine, rest - sine, rest + sine, cosine + rest]
    return torch.einsum("bij,bjhw->bihw", torch.stack(rows, 1).view(-1, 3, 3), pixels)
