"""Texts longer than a text tower's context: found, and told; every tower cuts them."""

import warnings


class LongTextWarning(UserWarning):
    """Some texts are longer than the text tower reads; what is beyond has no effect."""


def long_texts(tower, texts):
    """[(position, tokens)] of the texts with more tokens than `tower.context`, start and end tokens included.

    A tower that says nothing of a context (no `context`, no `token_counts`) is not asked. Only texts that could be too long are counted:
    a token is seldom less than a byte, and never less than half of one.
    """
    context = getattr(tower, "context", None)
    if not context or not hasattr(tower, "token_counts"):
        return []
    maybe = [position for position, text in enumerate(texts) if 2 * len(text.encode("utf8", "surrogatepass")) > context - 2]
    counts = tower.token_counts([texts[position] for position in maybe]) if maybe else []
    return [(position, count) for position, count in zip(maybe, counts, strict=True) if count > context]


def tell(tower, cut, stacklevel=3):
    """A `LongTextWarning` about `cut`, (text, tokens) pairs; nothing when it is empty."""
    if cut:
        text, tokens = max(cut, key=lambda pair: pair[1])
        what = "1 text is" if len(cut) == 1 else f"{len(cut)} texts are"
        warnings.warn(f"{what} longer than the {tower.context} tokens that {tower.name} reads, and cut there; the longest has {tokens}: "
                      f"'{text[:40]}{'...' if len(text) > 40 else ''}'. What stands beyond has no effect: put what matters first.",
                      LongTextWarning, stacklevel=stacklevel)


def tell_long(tower, texts):
    """Warn about those of `texts` that `tower` will cut."""
    texts = list(texts)
    tell(tower, [(texts[position], tokens) for position, tokens in long_texts(tower, texts)], stacklevel=4)
