"""The similarity matrix to play with."""

import html

import torch

from .. import embedding, plots
from ..errors import UsageError
from .panel import DPI, Panel, stem, wide

SOFTMAX = ("none", "rows", "columns")
MOST = 20  # captions in one picture


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


def matrix_picture(cosines, pictures, captions, temperature=0.07, softmax="none", chosen=()):
    """The matrix of R pictures and C captions, before or after a softmax: PNG bytes. chosen: cells to frame, as `choices` gives them."""
    return _drawn(cosines, pictures, captions, temperature, softmax, chosen)[0]


def _drawn(cosines, pictures, captions, temperature, softmax, chosen):
    """(PNG bytes, where the matrix lies in it: left, top, width, height, shares)."""
    values = matrix_values(cosines, temperature, softmax)
    what = {"none": "cosine similarity", "rows": "probability\neach row adds up to 1", "columns": "probability\neach column adds up to 1"}[softmax]
    limits = (min(0.0, values.min()), values.max()) if softmax == "none" else (0.0, 1.0)
    figure = plots.similarity_matrix(values, captions, row_images=pictures, value=what, limits=limits, chosen=chosen)
    return plots.quick_png(figure, DPI), plots.extent(figure)


def owners_of(texts, captions, owner):
    """Whose each of the edited captions is: list of rows, None where nobody knows.

    captions, owner: the first ones and the row of the picture of each. A caption that still stands keeps its picture, wherever it stands
    now; another line belongs to the picture whose caption it took the place of; a line more belongs to nobody.
    """
    first = dict(zip(captions, owner, strict=True))
    replaced = [None if caption in texts else row for caption, row in zip(captions, owner, strict=True)]
    return [first.get(text, replaced[line] if line < len(replaced) else None) for line, text in enumerate(texts)]


def choices(cosines, rows, owners, softmax="none"):
    """What each picture chooses among the captions, or with "columns" each caption among the pictures: list of (row, column, is right).

    cosines: (R, C). rows: which picture each row is. owners: whose each caption is. Who has no right answer here is left out.
    """
    cosines = torch.as_tensor(cosines)
    if softmax == "columns":
        best = [(row, column) for column, row in enumerate(cosines.argmax(0).tolist()) if owners[column] in rows]
    else:
        best = [(row, column) for row, column in enumerate(cosines.argmax(1).tolist()) if rows[row] in owners]
    return [(row, column, rows[row] == owners[column]) for row, column in best]


def hover_grid(place, texts):
    """HTML to lay over a picture: each cell of the matrix says its text when the pointer rests on it.

    place: (left, top, width, height) of the matrix, shares of the picture. texts: R lists of C strings.
    """
    sides = ";".join(f"{side}:{100 * share:.2f}%" for side, share in zip(("left", "top", "width", "height"), place, strict=True))
    grid = f"grid-template-rows:repeat({len(texts)},1fr);grid-template-columns:repeat({len(texts[0])},1fr)"
    cells = "".join(f"<span title=\"{html.escape(text)}\"></span>" for row in texts for text in row)
    return f"<div aria-hidden='true' style='position:relative;width:100%;height:100%'><div style='position:absolute;display:grid;{sides};{grid}'>{cells}</div></div>"


def cell_texts(cosines, names, captions, temperature):
    """What each cell is, in words: R lists of C strings with picture, caption, cosine and both probabilities."""
    by_row, by_column = matrix_values(cosines, temperature, "rows"), matrix_values(cosines, temperature, "columns")
    return [[f"{name} | {caption}\ncosine {float(cosines[row][column]):.3f}\namong the captions {by_row[row, column]:.1%}\namong the pictures {by_column[row, column]:.1%}"
             for column, caption in enumerate(captions)] for row, name in enumerate(names)]


def similarity_explorer(model, images, captions, names=None, owner=None):
    """The matrix to play with: choose pictures, edit captions, set the temperature, take a softmax over rows or columns, mark the mistakes.

    images: list of PIL. captions: list of str. names: what to call the pictures in the list, "picture 1" and so on by default. owner: the
    row of each caption's picture, by default one each in their order, where there are as many. The pointer on a cell says its values.
    """
    import ipywidgets

    if owner is None and len(images) == len(captions):
        owner = range(len(images))
    if owner is not None and len(owner) != len(captions):
        raise UsageError(f"expected one owner per caption, found {len(owner)} owners and {len(captions)} captions")
    names = [stem(name) for name in names or [f"picture {number + 1}" for number in range(len(images))]]
    vectors = embedding.image_embeddings(model, images)  # (N, D), once
    controls = _controls(names, captions, 1 / float(torch.as_tensor(model.logit_scale).detach()), owner is not None)
    hover = ipywidgets.HTML()

    def draw():
        rows, texts = list(controls["pictures"].value), [line.strip() for line in controls["captions"].value.splitlines() if line.strip()]
        _check(rows, texts)
        cosines, softmax, temperature = vectors[rows] @ embedding.text_embeddings(model, texts).T, controls["softmax"].value, controls["temperature"].value
        found = choices(cosines, rows, owners_of(texts, captions, owner), softmax) if controls["mistakes"].value else []
        png, place = _drawn(cosines, [images[row] for row in rows], texts, temperature, softmax, found)
        hover.value = hover_grid(place, cell_texts(cosines, [names[row] for row in rows], texts, temperature))
        best = "; ".join(f"{names[row]}: {texts[column]}" for row, column in zip(rows, cosines.argmax(1).tolist(), strict=True))
        return png, f"{_count(found, softmax)}The best caption of each picture: {best}"

    return Panel("similarity explorer", f"Cosine similarity of {len(images)} pictures and {len(captions)} captions.", controls, draw, over=hover)


def _controls(names, captions, temperature, known):
    import ipywidgets

    return {
        "pictures": wide(ipywidgets.SelectMultiple, options=[(name, row) for row, name in enumerate(names)], value=tuple(range(len(names))),
                          description="Pictures", rows=min(8, len(names))),
        "captions": wide(ipywidgets.Textarea, value="\n".join(captions), description="Captions", placeholder="one a line", rows=min(8, len(captions)),
                          continuous_update=False),
        "temperature": wide(ipywidgets.FloatLogSlider, value=temperature, min=-3, max=1, step=0.02, description="Temperature", readout_format=".3g",
                             continuous_update=False),
        "softmax": wide(ipywidgets.Dropdown, options=SOFTMAX, description="Softmax over"),
        "mistakes": wide(ipywidgets.Checkbox, value=False, description="Mark mistakes", disabled=not known,
                          tooltip="red: a wrong choice; green, dashed: a right one" if known else "nobody said whose the captions are: owner="),
    }


def _check(rows, texts):
    if not rows or not texts:
        raise UsageError("choose at least one picture, and write at least one caption, one a line")
    if len(texts) > MOST:
        raise UsageError(f"at most {MOST} captions fit into the picture, found {len(texts)}")


def _count(found, softmax):
    """The mistakes in words; nothing where none were looked for."""
    wrong, who = sum(not right for *_, right in found), "captions choose a wrong picture" if softmax == "columns" else "pictures choose a wrong caption"
    return f"{wrong} of {len(found)} {who}. " if found else ""
