"""The model that a `Plan` asks for: towers with their options, their vocabulary, heads."""

import inspect

from ..encoders import IMAGE_ENCODERS, TEXT_ENCODERS, load_encoder
from ..errors import UsageError
from ..model import TwoTowers, build_head
from ..tokenizers import WordTokenizer
from .plan import DIM

WORDS = 5000


def options_for(tower, **wanted):
    """Those of the wanted options that are set and that the tower's class knows."""
    known = inspect.signature(tower).parameters
    return {name: value for name, value in wanted.items() if value is not None and name in known}


def image_tower(plan):
    """The image tower; without a name three networks side by side as long as they stay locked, else `mini`'s. What stays locked looks twice at a picture."""
    name, recipe = plan.names[0], plan.recipe
    still = not plan.unlocked and plan.pretrained is not False
    name = name or ("efficientnet-lite-trio" if still else "efficientnet-lite0")
    options = {"mode": "both" if still and plan.size is None and recipe is None else None}
    options |= (recipe.image_options if recipe else {}) | {"size": plan.size or (recipe.size if recipe else None), "pretrained": plan.pretrained}
    return load_encoder(name, **options_for(IMAGE_ENCODERS[name], **options))


def needs_words(name, plan):
    """Whether a text tower's vocabulary comes from the training captions."""
    if name in ("bag-of-words", "bilstm", "transformer"):
        return True
    if name != "gpt2" or plan.pretrained:
        return False
    return plan.pretrained is False or not TEXT_ENCODERS[name].at_hand()


def text_tower(plan, captions):
    """The text tower; without a name `mini`'s. captions: of the training images, what a vocabulary is learned from."""
    name, recipe = plan.names[1] or "minilm", plan.recipe
    words = WordTokenizer.fit(captions, recipe.vocabulary if recipe else WORDS).vocabulary if needs_words(name, plan) else None
    if words is not None and not words:
        raise UsageError(f"the training captions hold no words, and {name} starts from a vocabulary; give captions with words")
    cls = TEXT_ENCODERS[name]
    return load_encoder(name, **options_for(cls, **(recipe.text_options if recipe else {}), vocabulary=words, pretrained=plan.pretrained))


def head(kind, width, dim, dropout):
    """A head of this kind between a tower and the shared space."""
    return build_head(kind, {"width": width, "dim": dim} | ({"dropout": dropout} if kind == "mlp" else {}))


def build_model(plan, image, text):
    """Both towers, unlocked where asked for, and heads that start from zero."""
    recipe, dim = plan.recipe, plan.dim or (plan.recipe.dim if plan.recipe else DIM)
    kinds, dropout = (recipe.image_head, recipe.text_head) if recipe else ("linear", "linear"), recipe.dropout if recipe else 0.0
    return TwoTowers(image, text, *(head(kind, tower.width, dim, dropout) for kind, tower in zip(kinds, (image, text))))
