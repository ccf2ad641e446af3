"""A box to type in, and the pictures that answer."""

from .. import plots, search
from .panel import DPI, Panel, stem, wide


def search_picture(pictures, names, scores):
    """The pictures found, best first, each with its name and score over it: PNG bytes."""
    titles = [f"{stem(name)}  {score:.2f}" for name, score in zip(names, scores, strict=True)]
    return plots.quick_png(plots.image_grid(list(pictures), titles, columns=5), DPI)


def search_box(model, index, dataset, query="a red fruit", k=5):
    """A box to type in: the pictures of `dataset` nearest to the words.

    index: an `Index` of the dataset's pictures, or their embeddings (N, D), unit rows.
    """
    import ipywidgets

    if not hasattr(index, "search"):
        from ..index import build_index

        index = build_index(index, dataset.names)
    controls = {
        "query": wide(ipywidgets.Text, value=query, description="Search for", placeholder="words, then Enter", continuous_update=False),
        "k": wide(ipywidgets.IntSlider, value=k, min=1, max=min(15, len(index)), description="Pictures", continuous_update=False),
    }

    def draw():
        hits = search.search_text(index, model, controls["query"].value, controls["k"].value)
        pictures = [dataset.image(dataset.row(hit.name)) for hit in hits]
        png = search_picture(pictures, [hit.name for hit in hits], [hit.score for hit in hits])
        return png, "Found, best first: " + ", ".join(f"{stem(hit.name)} ({hit.score:.2f})" for hit in hits)

    return Panel("search box", f"The {k} pictures found for {query!r}, best first.", controls, draw)
