"""Pictures for a MiniCLIP model: each is looked at in one or more views, resized by Pillow. With its tokenizer, a processor as CLIP has one."""

from PIL import Image
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.processing_utils import ProcessorMixin

from .parts_miniclip import Preprocess


class MiniCLIPImageProcessor(BaseImageProcessor):
    """views: the arguments of `Preprocess`, one dict per view. The first view is `pixel_values`, the next `pixel_values_1`, and so on."""

    model_input_names = ["pixel_values"]

    def __init__(self, views=(), **rest):
        super().__init__(**rest)
        self.views = list(views)

    def preprocess(self, images, return_tensors="pt", **_):
        """PIL images (one, or a list) to a `BatchFeature` of tensors (B, 3, S, S)."""
        images = [image.convert("RGB") for image in ([images] if isinstance(images, Image.Image) else images)]
        names = ["pixel_values", *(f"pixel_values_{number}" for number in range(1, len(self.views)))]
        return BatchFeature({name: Preprocess(**view).batch(images) for name, view in zip(names, self.views, strict=True)})

    def __call__(self, images, *positional, **options):
        return self.preprocess(images, *positional, **options)


class MiniCLIPProcessor(ProcessorMixin):
    """What `AutoProcessor` gives: texts through the tokenizer, pictures through `MiniCLIPImageProcessor`."""

    def __init__(self, image_processor=None, tokenizer=None, **_):
        super().__init__(image_processor, tokenizer)

    def __call__(self, images=None, text=None, return_tensors="pt", **options):
        """images: PIL images. text: strings; options: the tokenizer's, such as padding=True. What is None is left out."""
        read = self.tokenizer(text, return_tensors=return_tensors, **options) if text is not None else {}
        return BatchFeature(dict(read) | dict(self.image_processor(images, return_tensors=return_tensors) if images is not None else {}))
