"""The model: encode both sides, project, normalise; one temperature. The loss is not in here."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from ..errors import UsageError
from . import lengths
from .heads import Identity

MAX_LOGIT_SCALE = 100.0  # Radford et al. 2021, section 2.5: clipped, to keep training stable
INITIAL_LOGIT_SCALE = 1 / 0.07  # the same section
BATCH = 64


class TwoTowers(nn.Module):
    """Two towers, two heads, and the logit scale as a parameter in its logarithm.

    image_tower, text_tower: `encoders.Tower`. image_head, text_head: `heads.Head`, by default the identity. logit_scale: above 0 and finite, else a `UsageError`; above
    100 it counts as 100, without a gradient there: training keeps it just below.
    """

    def __init__(self, image_tower, text_tower, image_head=None, text_head=None, logit_scale=INITIAL_LOGIT_SCALE, name="model"):
        super().__init__()
        if not 0 < logit_scale < math.inf:
            raise UsageError(f"expected a logit scale, 1 / temperature, above 0 and finite, found {logit_scale}")
        self.name = name
        self.image_tower, self.text_tower = image_tower, text_tower
        self.image_head, self.text_head = image_head or Identity(), text_head or Identity()
        self.log_logit_scale = nn.Parameter(torch.tensor(math.log(logit_scale)))

    @property
    def logit_scale(self):
        """1 / temperature: exponentiated, and at most 100. A scalar tensor with its gradient."""
        return self.log_logit_scale.exp().clamp(max=MAX_LOGIT_SCALE)

    def project_images(self, features):
        """image_features (B, width) to image_embeddings (B, D), unit rows. The one place where images are normalised."""
        return F.normalize(self.image_head(features), dim=-1)

    def project_texts(self, features):
        """text_features (B, width) to text_embeddings (B, D), unit rows. The one place where texts are normalised."""
        return F.normalize(self.text_head(features), dim=-1)

    def forward(self, image_batch, text_batch):
        """Prepared batches to (image_embeddings (B, D), text_embeddings (B, D), logit_scale), unit rows, with gradients.

        A `UsageError` for a batch of one in training, where a batch normalisation has nothing to compare it with.
        """
        try:
            return self.project_images(self.image_tower(image_batch)), self.project_texts(self.text_tower(text_batch)), self.logit_scale
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UsageError("expected a batch of two pairs or more, as batch normalisation needs in training; take a larger batch, or call .eval() first") from error

    def encode_image(self, images):
        """Pictures (list of PIL) to (N, D) unit rows, without gradients."""
        return self._encode(images, self.image_tower, self.project_images, "pictures", 8)

    def encode_text(self, texts):
        """Texts (list of str) to (M, D) unit rows, without gradients. Longer ones than the tower reads are cut, with a `LongTextWarning`."""
        if isinstance(texts, str):
            raise UsageError(f"expected a list of texts, found one string; write [{texts[:30]!r}]")
        texts = list(texts)
        lengths.tell_long(self.text_tower, texts)
        return self._encode(texts, self.text_tower, self.project_texts, "texts", BATCH)

    def _encode(self, inputs, tower, project, what, batch):
        inputs = list(inputs)
        if not inputs:
            raise UsageError(f"expected at least one of {what}, found none")
        was_training = self.training
        self.eval()
        with torch.no_grad():
            rows = [project(tower.encode(inputs[start : start + batch])) for start in range(0, len(inputs), batch)]
        self.train(was_training)
        return torch.cat(rows)
