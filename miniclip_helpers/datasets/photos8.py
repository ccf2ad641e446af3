"""scikit-image's eight photos, out of its wheel, with the captions of CLIP's own demonstration of them in our words."""

import pathlib

from .table import ImageTextDataset

# The eight pictures of the figure in OpenAI's "Interacting with CLIP" notebook; the captions here are ours.
CAPTIONS = {
    "astronaut.png": "a portrait of an astronaut in an orange space suit",
    "camera.png": "a man taking a picture with a camera on a tripod",
    "chelsea.png": "a close-up photo of a tabby cat",
    "coffee.png": "a cup of coffee on a saucer",
    "horse.png": "a black silhouette of a horse",
    "motorcycle_left.png": "a red motorcycle standing in a garage",
    "page.png": "a page of text about segmentation",
    "rocket.jpg": "a rocket standing on a launchpad",
}


def load_photos8():
    """The dataset "photos8": eight photos, one caption each. They come inside scikit-image's wheel; nothing is fetched."""
    import skimage

    folder = pathlib.Path(skimage.__file__).parent / "data"
    return ImageTextDataset("photos8", list(CAPTIONS), [[caption] for caption in CAPTIONS.values()], [folder / name for name in CAPTIONS], root=folder)
