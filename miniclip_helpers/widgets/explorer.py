"""Queries one by one, with what was found: where a retrieval model is right, and how it is wrong."""

import textwrap

import numpy as np

from .. import metrics, plots, retrieval
from ..errors import UsageError
from .panel import DPI, Panel, stem, wide

SHOWN = 5
LABELS = {"image_to_text": "picture finds text", "text_to_image": "text finds picture"}


def _plain(text, width):
    """A caption of at most `width` letters, in one line."""
    return textwrap.shorten(text, width, placeholder=" …")


def answers_picture(dataset, direction, query, answers, rank, candidates):
    """One query and its best answers, the right ones marked in green; a right one that is not among them is shown too: PNG bytes.

    dataset: where pictures and captions lie. direction: "image_to_text" (query: a row) or "text_to_image" (query: a caption's number).
    answers: list of `retrieval.Answer`, best first. rank: of the first right one, of so many candidates.
    """
    draw = _texts_found if direction == "image_to_text" else _pictures_found
    return plots.quick_png(draw(dataset, query, answers, rank, f"right answer: number {rank} of {candidates}"), DPI)


def _texts_found(dataset, row, answers, rank, line):
    figure, (left, right) = plots.new_figure(1, 2, height=2.6, width_ratios=(1, 2.6))
    left.imshow(np.asarray(dataset.image(row)))
    left.set_title(_plain(stem(dataset.names[row]), 24), fontsize=9)
    captions, step = dataset.all_captions, 1 / (len(answers) + 1)
    rows = [(f"{'✓' if a.right else '   '} {a.score:.2f}  {_plain(captions[a.candidate], 60)}", a.right) for a in answers]
    if not any(right_one for _, right_one in rows):
        rows.append((_plain("✓ its own: " + " | ".join(dataset.captions[row]), 68), True))
    for place, (said, right_one) in enumerate(rows):
        right.text(0, 1 - step * (place + 0.5), said, fontsize=9.5, va="center", color=plots.PALETTE["green" if right_one else "black"],
                   fontweight="bold" if right_one else "normal", transform=right.transAxes)
    right.set_title(line, fontsize=9.5, loc="left")
    for axes in (left, right):
        axes.set_axis_off()
    return figure


def _pictures_found(dataset, caption, answers, rank, line):
    wanted = int(dataset.owner[caption])
    shown = [(a.candidate, f"{a.score:.2f}", a.right) for a in answers] + ([] if any(a.right for a in answers) else [(wanted, f"number {rank}", True)])
    figure, panels = plots.new_figure(1, len(shown), height=2.2, squeeze=False)
    for axes, (row, title, right_one) in zip(panels[0], shown, strict=True):
        axes.imshow(np.asarray(dataset.image(row)))
        axes.set_title(f"{'✓ ' if right_one else ''}{title}", fontsize=9.5, color=plots.PALETTE["green" if right_one else "black"],
                       fontweight="bold" if right_one else "normal")
        axes.set(xticks=[], yticks=[])
        for side in axes.spines.values():
            side.set(visible=right_one, color=plots.PALETTE["green"], linewidth=3)
    figure.suptitle(f"“{_plain(dataset.all_captions[caption], 70)}”   {line}", fontsize=10)
    return figure


def retrieval_explorer(model_or_matrix, dataset, direction="text_to_image", which="worst"):
    """Step through the queries of an evaluation: choose the direction and a kind of outcome, see the best five answers, the right ones marked.

    model_or_matrix: a model, or its similarity (n_images, n_captions) as `retrieval.similarity` or `retrieval.cosines` gives it. which: one of `retrieval.WHICH`.
    """
    import ipywidgets

    matrix = metrics.as_scores(retrieval.cosines(model_or_matrix, dataset) if hasattr(model_or_matrix, "encode_text") else model_or_matrix)
    owner = np.asarray(dataset.owner)
    if matrix.shape != (len(dataset), len(owner)):
        raise UsageError(f"expected a matrix of {len(dataset)} pictures and {len(owner)} captions, found {matrix.shape}")
    ranks = metrics.ranks(matrix, owner)
    controls = {
        "direction": wide(ipywidgets.Dropdown, options=[(LABELS[key], key) for key in reversed(metrics.DIRECTIONS)], value=direction, description="Direction"),
        "which": wide(ipywidgets.Dropdown, options=retrieval.WHICH, value=which, description="Show"),
        "step": wide(ipywidgets.IntSlider, value=1, min=1, max=max(1, len(retrieval.select(ranks[direction], which))), description="Query", continuous_update=False),
    }

    def chosen():
        return retrieval.select(ranks[controls["direction"].value], controls["which"].value)

    def begin_anew(change):
        controls["step"].value, controls["step"].max = 1, max(1, len(chosen()))

    def draw():
        queries, way = chosen(), controls["direction"].value
        if not len(queries):
            raise UsageError(f"no query here is {controls['which'].value!r}: choose another kind")
        query, rank = int(queries[controls["step"].value - 1]), ranks[way]
        candidates = matrix.shape[way == "image_to_text"]
        every = retrieval.answers(matrix, owner, way, query, candidates)
        found = every[:SHOWN]
        asked = stem(dataset.names[query]) if way == "image_to_text" else dataset.all_captions[query]
        best = next(answer.score for answer in every if answer.right)
        sentence = f"{controls['step'].value} of {len(queries)}: {asked}: right answer at {rank[query]} of {candidates}, score {best:.2f}; first answer {found[0].score:.2f}"
        return answers_picture(dataset, way, query, found, rank[query], candidates), sentence

    return Panel("retrieval explorer", f"A query and its best {SHOWN} answers, the right one marked in green.", controls, draw,
                 before={"direction": begin_anew, "which": begin_anew})
