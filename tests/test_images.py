"""Pictures: EXIF, transparency, grey, 16 bit, broken files, bombs; preprocessing against torchvision."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from conftest import picture
from PIL import Image
from torchvision.transforms import v2 as T

from miniclip_helpers import images
from miniclip_helpers.errors import ImageError
from miniclip_helpers.runtime import generator


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_exif_turns_the_picture_upright():
    """Orientation 6: the camera lay on its side; the top left corner of the upright picture is the stored bottom left."""
    array = np.zeros((20, 30, 3), dtype=np.uint8)
    array[10:, :10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = images.open_image(encoded(Image.fromarray(array), "PNG", exif=exif))
    assert upright.size == (20, 30) and upright.getpixel((2, 2)) == (255, 255, 255) and upright.getpixel((17, 27)) == (0, 0, 0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "1", "CMYK", "I;16", "F", "YCbCr"])
def test_every_mode_becomes_rgb(mode, tmp_path):
    source = picture(1)
    if mode in ("I;16", "F"):
        image = Image.fromarray(np.asarray(source.convert("L")).astype(np.uint16 if mode == "I;16" else np.float32) * (257 if mode == "I;16" else 1))
    else:
        image = source.convert(mode)
    kind = {"CMYK": "JPEG", "YCbCr": "JPEG", "F": "TIFF"}.get(mode, "PNG")
    opened = images.open_image(encoded(image, kind))
    assert opened.mode == "RGB" and opened.size == source.size and np.asarray(opened).std() > 30


def test_transparency_lies_over_white():
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert images.open_image(encoded(clear)).getpixel((4, 4)) == (255, 255, 255)


def bomb(width, height):
    """A PNG whose header promises width x height pixels in a few bytes."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("data, words", [
    (b"", "empty"), (b"not a picture at all", "cannot be read"), (encoded(picture(2), "JPEG")[:300], "cannot be read"),
    (encoded(picture(2))[:-40], "cannot be read"), (bomb(20_000, 20_000), "pixels"), (bomb(12_000, 12_000), "144|million")])
def test_broken_pictures_are_told(data, words, tmp_path):
    file = tmp_path / "x.png"
    file.write_bytes(data)
    for source in (data, file):
        with pytest.raises(ImageError, match=words):
            images.open_image(source)


def test_missing_file_folder_and_wrong_type_are_told(tmp_path):
    for source, words in ((tmp_path / "no.jpg", "does not exist"), (tmp_path, "folder"), (5, "found int")):
        with pytest.raises(ImageError, match=words):
            images.open_image(source)


def test_preprocess_equals_torchvision():
    """Within one part in 255: both resize with Pillow's bicubic filter, and differ in how they round sides."""
    source = picture(3, (300, 300))
    theirs = T.Compose([T.Resize(256, T.InterpolationMode.BICUBIC), T.CenterCrop(224), T.PILToTensor(), T.ToDtype(torch.float32, scale=True), T.Normalize([0.5] * 3, [0.5] * 3)])
    torch.testing.assert_close(images.Preprocess()(source), theirs(source), atol=2 / 255, rtol=0)


@pytest.mark.parametrize("kind", ["EPS", "TGA", "ICO"])
def test_formats_that_no_camera_writes_are_not_even_tried(kind, tmp_path):
    file = tmp_path / "photo.jpg"
    Image.new("RGB", (16, 16)).save(file, kind)
    for source in (file, file.read_bytes()):
        with pytest.raises(ImageError, match="unknown format"):
            images.open_image(source)
    with pytest.raises(ImageError, match="unknown format"):
        images.check_header(file)


def test_crop_cuts_the_sides_and_squash_keeps_them():
    wide = Image.new("RGB", (400, 100), "white")
    wide.paste((255, 0, 0), (0, 0, 40, 100))
    crop, squash = images.Preprocess(size=32)(wide), images.Preprocess(size=32, mode="squash")(wide)
    assert crop[1].min() > 0.9 and squash[1].min() < -0.9 and crop.shape == squash.shape == (3, 32, 32)


def cropped(frame, image):
    """The mode "crop" as models are tested: all of the picture scaled, its centre cut out."""
    scale = round(frame.size / frame.crop) / min(image.size)
    image = image.resize([max(frame.size, round(side * scale)) for side in image.size], Image.Resampling.BICUBIC)
    left, top = ((side - frame.size) // 2 for side in image.size)
    return np.asarray(image.crop((left, top, left + frame.size, top + frame.size)))


@pytest.mark.parametrize("size", [(300, 200), (37, 53), (20, 400), (401, 21), (5, 100)])
def test_pictures_of_ordinary_shape_are_scaled_whole(size):
    frame = images.Preprocess(size=24)
    assert np.array_equal(frame.pixels(picture(4, size)), cropped(frame, picture(4, size)))


def test_narrow_pictures_are_cut_to_their_middle_before_they_are_scaled(monkeypatch):
    """What is seen of them stays; what the scaled picture takes has a limit."""
    frame, asked, resize = images.Preprocess(size=24), [], Image.Image.resize
    for size in ((10, 400), (400, 10), (9, 301)):
        smooth = resize(Image.linear_gradient("L").rotate(30), size).convert("RGB")
        assert np.abs(frame.pixels(smooth).astype(int) - cropped(frame, smooth)).max() <= 2, size
    monkeypatch.setattr(Image.Image, "resize", lambda image, size, *more: asked.append(tuple(size)) or resize(image, [min(side, 600) for side in size], *more))
    for size in ((1, 65_000), (65_000, 1), (3, 61), (3, 60)):
        assert frame.pixels(Image.new("RGB", size)).shape == (24, 24, 3)
    assert asked == [(27, 540), (540, 27), (27, 540), (27, 540)]


def test_a_large_jpeg_is_decoded_smaller_and_looks_the_same():
    smooth = Image.linear_gradient("L").resize((4400, 3000)).convert("RGB")
    opened = images.open_image(encoded(smooth, "JPEG"))
    assert opened.size == (2200, 1500)
    small = [np.asarray(image.resize((30, 20), Image.Resampling.BOX), dtype=float) for image in (opened, smooth)]
    assert np.abs(small[0] - small[1]).max() < 4


def test_augment_is_seeded_bounded_and_leaves_white_outside():
    pixels = images.stack_pixels([picture(seed) for seed in range(4)], 24)
    first, again, other = (images.augment(pixels, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == pixels.shape and first.min() >= 0 and first.max() <= 1
    still = images.augment(pixels, generator(0), rotation=0, scale=0, shift=0, colour=0, flip=0)
    torch.testing.assert_close(still, pixels.float() / 255, atol=1e-5, rtol=0)
    flipped = images.augment(pixels, generator(0), rotation=0, scale=0, shift=0, colour=0, flip=1)
    torch.testing.assert_close(flipped, pixels.flip(-1).float() / 255, atol=1e-5, rtol=0)
    white = torch.full((2, 3, 16, 16), 255, dtype=torch.uint8)
    torch.testing.assert_close(images.augment(white, generator(0), colour=0), torch.ones(2, 3, 16, 16))
