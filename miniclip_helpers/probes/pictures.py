"""Pictures to probe with: stamps cut out of their white ground, put together, recoloured, written on. Pillow and numpy only draw; chance is the caller's."""

import functools

import numpy as np

from ..datasets import load_dataset
from ..errors import unknown

SIZE = 224  # pixels, both sides
PAPER = (255, 255, 255)
# Photos among the stamps that show one whole thing; all but a few are of the 100 nouns that `mini` never trained on.
OBJECTS = {
    "airplane": "vehicles/flight/planes/747.png", "badger": "animals/mammals/badger.png", "banana": "food/fruit/banana.png",
    "beaver": "animals/mammals/rodents/beaver.png", "dingo": "animals/mammals/dogs/dingo.png", "gorilla": "animals/mammals/apes/gorilla.png",
    "hammer": "household/tools/hammer.png", "iguana": "animals/lizards/iguana.png", "koala": "animals/marsupials/koala.png",
    "lightbulb": "household/Lightbulb.png", "lion": "animals/mammals/cats/lion.png", "mug": "household/dishes/mug.png",
    "otter": "animals/mammals/aquatic/otter.png", "pigeon": "animals/birds/pigeon.png",
    "rabbit": "animals/mammals/rodents/rabbit.png", "syringe": "medical/syringe.png", "teapot": "household/dishes/teapot.png",
    "tiger": "animals/mammals/cats/tiger.png", "trumpet": "hobbies/music/brass/trumpet.png", "violin": "hobbies/music/string/violin.png",
    "wombat": "animals/marsupials/wombat.png",
}
SURFACES = {  # things that a piece of their surface gives away
    "broccoli": "food/vegetables/broccoli.png", "corn": "food/vegetables/corn.png", "giraffe": "animals/mammals/giraffe.png",
    "pineapple": "food/fruit/pineapple.png", "raspberry": "food/fruit/raspberry.png", "strawberry": "food/fruit/strawberry.png",
    "tiger": "animals/mammals/cats/tiger.png", "zebra": "animals/mammals/equines/zebra.png",
}


@functools.cache
def embedded(name):
    """The embedded dataset of this name, read once."""
    return load_dataset(name)


@functools.cache
def cut_out(noun):
    """The stamp of one of `OBJECTS` without its white ground: a PIL RGBA picture, as small as the thing itself. Not to be drawn upon: it is kept."""
    from PIL import Image
    from scipy import ndimage

    files = OBJECTS | SURFACES
    if noun not in files:
        raise unknown("object", noun, files)
    stamps = embedded("stamps")
    pixels = np.asarray(stamps.image(stamps.row("tuxpaint/" + files[noun])))
    pale = np.pad(pixels.min(-1) > 236, 1, constant_values=True)
    ground = ndimage.label(pale)[0]
    alpha = ground != ground[0, 0]  # pale pixels that reach the edge are ground
    holes, count = ndimage.label((np.pad(pixels.min(-1), 1) > 250) & alpha)
    large = 1 + np.flatnonzero(ndimage.sum_labels(holes > 0, holes, np.arange(1, count + 1)) > 80)
    alpha = (alpha & ~np.isin(holes, large))[1:-1, 1:-1]  # and so is what a handle or two legs enclose
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    found = Image.fromarray(np.dstack([pixels, alpha.astype(np.uint8) * 255]))
    return found.crop((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))


def fitted(thing, width, height):
    """An RGBA picture scaled so that it just fits into width x height."""
    from PIL import Image

    scale = min(width / thing.width, height / thing.height)
    return thing.resize((max(1, round(thing.width * scale)), max(1, round(thing.height * scale))), Image.Resampling.LANCZOS)


def paper(colour=PAPER):
    """An empty square picture."""
    from PIL import Image

    return Image.new("RGB", (SIZE, SIZE), colour)


def place(ground, thing, box):
    """Paste a thing into the middle of box (left, top, right, bottom) of a picture, as large as it fits. Returns the box that it really takes."""
    thing = fitted(thing, box[2] - box[0], box[3] - box[1])
    left, top = (box[0] + box[2] - thing.width) // 2, (box[1] + box[3] - thing.height) // 2
    ground.paste(thing, (left, top), thing)
    return left, top, left + thing.width, top + thing.height


def tinted(thing, colour):
    """A thing in shades of one colour (R, G, B): its own light and dark, times the colour, brightened so that even a dark thing shows it."""
    from PIL import Image

    pixels = np.asarray(thing).astype(float)
    grey = pixels[..., :3].mean(-1, keepdims=True) / 255
    inside = pixels[..., 3] > 128
    low, high = np.quantile(grey[inside], [0.02, 0.98])
    light = 0.35 + 0.65 * np.clip((grey - low) / max(high - low, 1e-6), 0, 1)
    return Image.fromarray(np.dstack([light * np.array(colour), pixels[..., 3:]]).astype(np.uint8))


def textured(shape, texture):
    """The outline of one thing filled with the surface of another: the texture's middle part, mirrored side by side until it is large enough."""
    from PIL import Image

    pixels = np.asarray(texture)
    height, width = pixels.shape[:2]
    patch = _most_covered(pixels, max(12, min(height, width) // 3))
    tile = np.concatenate([patch, patch[:, ::-1]], 1)
    tile = np.concatenate([tile, tile[::-1]], 0)
    rows, columns = shape.height, shape.width
    times = -(-rows // tile.shape[0]), -(-columns // tile.shape[1])
    surface = np.tile(tile, (*times, 1))[:rows, :columns]
    return Image.fromarray(np.dstack([surface, np.asarray(shape)[..., 3:]]).astype(np.uint8))


def _most_covered(pixels, side):
    """The square of this side with the fewest see-through pixels, and among those the liveliest: (side, side, 3)."""
    alpha, grey, best = pixels[..., 3] > 128, pixels[..., :3].astype(float).mean(-1), None
    for top in range(0, pixels.shape[0] - side + 1, 4):
        for left in range(0, pixels.shape[1] - side + 1, 4):
            window = slice(top, top + side), slice(left, left + side)
            worth = alpha[window].mean(), grey[window].std()
            if best is None or worth > best[0]:
                best = worth, pixels[window][..., :3]
    return best[1]


def silhouette(thing):
    """The outline of a thing, filled with black."""
    from PIL import Image

    return Image.merge("RGBA", [Image.new("L", thing.size, 0)] * 3 + [thing.getchannel("A")])


def write(picture, text, top, height, ink=(0, 0, 0), label=(255, 255, 255)):
    """A copy of a picture with a text on a label across it, `height` pixels high from `top`; the letters shrink until the line fits."""
    from PIL import ImageDraw, ImageFont

    picture, size = picture.copy(), height
    draw = ImageDraw.Draw(picture)
    while size > 6 and draw.textlength(text, font=ImageFont.load_default(size)) > picture.width - 16:
        size -= 1
    font = ImageFont.load_default(size)
    wide = draw.textlength(text, font=font)
    middle = top + height / 2
    left = (picture.width - wide) / 2
    draw.rectangle((left - 6, top - 2, left + wide + 6, top + height + 2), fill=label)
    draw.text((picture.width / 2, middle), text, font=font, fill=ink, anchor="mm")
    return picture


def landscape():
    """An empty meadow: sky, a horizon at 45 % of the height, grass that grows lighter with distance."""
    from PIL import Image

    rows = np.linspace(0, 1, SIZE)[:, None]
    sky = np.array([150, 190, 235]) + rows / 0.45 * (np.array([225, 238, 250]) - np.array([150, 190, 235]))
    grass = np.array([175, 200, 140]) + (rows - 0.45) / 0.55 * (np.array([88, 140, 60]) - np.array([175, 200, 140]))
    return Image.fromarray(np.repeat(np.where(rows < 0.45, sky, grass)[:, None], SIZE, 1).astype(np.uint8))


def clouds(random, side):
    """A square ground of soft coloured spots, that no thing stands out from by brightness alone."""
    from PIL import Image

    return Image.fromarray(random.integers(90, 256, size=(8, 8, 3)).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
