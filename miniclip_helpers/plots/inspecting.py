"""What a saved figure looks like, read off its files: size, ink, background, the smallest letters."""

import re

import numpy as np

PAGE = 600  # pixels: the width of the narrow column of a blog
INK = 250  # the grey value below which a pixel counts as ink


def look_at_png(path):
    """{"size": (width, height) in pixels, "ink": share of pixels that are not white, "background": the median grey value along the border, "texts": {keyword: text}}."""
    from PIL import Image

    with Image.open(path) as picture:
        grey, texts = np.asarray(picture.convert("RGB").convert("L")), dict(picture.text)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    return {"size": grey.shape[::-1], "ink": float((grey < INK).mean()), "background": float(np.median(border)), "texts": texts}


def look_at_svg(path):
    """{"title", "desc": what an SVG of ours says of itself, "letters": the height in pixels of its smallest letters, shown `PAGE` pixels wide; None where it has none}.

    Raises `ValueError` where it is no whole SVG.
    """
    from xml.etree import ElementTree

    svg = path.read_text(encoding="utf8")
    try:
        root = ElementTree.fromstring(svg)
        width = float(root.get("viewBox", "").split()[2])
    except (ElementTree.ParseError, IndexError) as error:
        raise ValueError(f"not a whole SVG: {error}") from error
    scales = [float(scale) for scale in re.findall(r"scale\((0?\.\d+) -\1\)", svg)]  # matplotlib draws letters 100 points high and scales them down; pictures keep a scale of 1
    said = {part: root.findtext(f"{{http://www.w3.org/2000/svg}}{part}") for part in ("title", "desc")}
    return said | {"letters": min(scales) * 100 * PAGE / width if scales else None}
