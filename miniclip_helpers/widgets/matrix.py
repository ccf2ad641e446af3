"""The similarity matrix to play with."""

import torch

from .. import embedding, plots
from ..errors import UsageError
from .panel import COLOURS, DPI, Panel, stem, wide

SOFTMAX = ("none", "rows", "columns")


def matrix_values(cosines, temperature, softmax="none"):
    """(R, C) cosines as they are, or as probabilities: softmax of cosines / temperature over "rows" or "columns".

    "rows": each row, a picture, adds up to 1 over the captions. "columns": each caption adds up to 1 over the pictures.
    """
    if softmax not in SOFTMAX:
        raise UsageError(f"expected softmax one of {', '.join(SOFTMAX)}, found {softmax!r}")
    if not temperature > 0:
        raise UsageError(f"expected a temperature above 0, found {temperature}")
    cosines = torch.as_tensor(cosines, dtype=torch.float64)
    return cosines.numpy() if softmax == "none" else (cosines / temperature).softmax(1 if softmax == "rows" else 0).numpy()


def matrix_picture(cosines, pictures, captions, temperature=0.07, softmax="none"):
    """The matrix of R pictures and C captions, before or after a softmax: PNG bytes."""
    values = matrix_values(cosines, temperature, softmax)
    what = {"none": "cosine similarity", "rows": "probability, each row adds up to 1", "columns": "probability, each column adds up to 1"}[softmax]
    limits = (min(0.0, values.min()), values.max()) if softmax == "none" else (0.0, 1.0)
    return plots.to_png(plots.similarity_matrix(values, captions, row_images=pictures, value=what, limits=limits), DPI, COLOURS)


def similarity_explorer(model, images, captions, names=None):
    """The matrix to play with: choose pictures, edit captions, set the temperature, take a softmax over rows or columns.

    images: list of PIL. captions: list of str. names: what to call the pictures in the list, "picture 1" and so on by default.
    """
    import ipywidgets

    names = [stem(name) for name in names or [f"picture {number + 1}" for number in range(len(images))]]
    vectors = embedding.image_embeddings(model, images)  # (N, D), once
    start = 1 / float(torch.as_tensor(model.logit_scale).detach())
    controls = {
        "pictures": wide(ipywidgets.SelectMultiple, options=[(name, row) for row, name in enumerate(names)], value=tuple(range(len(names))),
                          description="Pictures", rows=min(8, len(names))),
        "captions": wide(ipywidgets.Textarea, value="\n".join(captions), description="Captions", placeholder="one a line", rows=min(8, len(captions)),
                          continuous_update=False),
        "temperature": wide(ipywidgets.FloatLogSlider, value=start, min=-3, max=1, step=0.02, description="Temperature", readout_format=".3g",
                             continuous_update=False),
        "softmax": wide(ipywidgets.ToggleButtons, options=SOFTMAX, description="Softmax over",
                         tooltips=["the cosines", "each picture picks a caption", "each caption picks a picture"]),
    }

    def draw():
        rows, texts = list(controls["pictures"].value), [line.strip() for line in controls["captions"].value.splitlines() if line.strip()]
        if not rows or not texts:
            raise UsageError("choose at least one picture, and write at least one caption, one a line")
        if len(texts) > 20:
            raise UsageError(f"at most 20 captions fit into the picture, found {len(texts)}")
        cosines = vectors[rows] @ embedding.text_embeddings(model, texts).T
        png = matrix_picture(cosines, [images[row] for row in rows], texts, controls["temperature"].value, controls["softmax"].value)
        best = "; ".join(f"{names[row]}: {texts[column]}" for row, column in zip(rows, cosines.argmax(1).tolist(), strict=True))
        return png, f"The best caption of each picture: {best}"

    return Panel("similarity explorer", f"Cosine similarity of {len(images)} pictures and {len(captions)} captions.", controls, draw)
