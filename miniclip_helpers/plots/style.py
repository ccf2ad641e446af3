"""What every figure shares: palette, size, font; how it is shown and saved."""

import io
import json
import re

from .. import runtime
from ..errors import UsageError

# Okabe and Ito 2008: eight colours that people with any kind of colour vision can tell apart.
PALETTE = {"blue": "#0072B2", "orange": "#E69F00", "green": "#009E73", "red": "#D55E00", "purple": "#CC79A7", "sky": "#56B4E9",
           "yellow": "#F0E442", "black": "#000000", "grey": "#7F7F7F"}
WIDTH = 7.2  # inches: 600 px wide pages show it without shrinking the letters
STYLE = {"font.size": 10, "font.family": "DejaVu Sans", "axes.titlesize": 11, "axes.spines.top": False, "axes.spines.right": False,
         "axes.grid": True, "grid.alpha": 0.25, "axes.axisbelow": True, "figure.dpi": 100, "savefig.dpi": 200, "legend.frameon": False,
         "svg.hashsalt": "miniclip", "figure.facecolor": "white", "axes.facecolor": "white"}
INDEX_HEAD = ("# Figures\n\nEach figure, the notebook that draws it, its caption and its alternative text.\n\n"
              "| figure | notebook | caption | alternative text |\n|---|---|---|---|\n")


def new_figure(rows=1, columns=1, height=3.2, width=WIDTH, **options):
    """A `Figure` in the series' style and its axes, as `plt.subplots` gives them, outside pyplot: nothing is shown twice or leaks."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        return figure, figure.subplots(rows, columns, **options)


def to_png(figure, dpi=100, colours=None):
    """The figure as PNG bytes. colours: at most so many, which makes the file three times smaller and keeps notebooks light."""
    import matplotlib
    from PIL import Image

    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    if colours:
        small = Image.open(buffer).convert("RGB").quantize(colours)
        small.save(buffer := io.BytesIO(), format="PNG", optimize=True)
    return buffer.getvalue()


class Picture:
    """A figure as a notebook cell shows it: one PNG, with its alternative text for readers who do not see."""

    def __init__(self, png, alt=""):
        self.png, self.alt = png, alt

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"image/png": self.png, "text/plain": f"[figure: {self.alt}]"}


def show(figure, alt="", dpi=100):
    """The figure as a `Picture` to end a cell with."""
    return Picture(to_png(figure, dpi, colours=256), alt)


def save_figure(figure, name, caption, alt, data=None, dpi=100):
    """Write figures/NAME.png (twice the screen's resolution), list it in figures/index.md, and return it for the cell to show.

    name: "NN_what", NN the notebook's number. caption: a sentence under the picture. alt: what it shows, for those who do not
    see it. data: the numbers behind it, plain JSON, written to figures/data/NAME.json. dpi: of the picture in the notebook alone;
    less keeps a sheet of photos light.
    """
    if not re.fullmatch(r"\d\d_[a-z0-9_]+", name):
        raise UsageError(f"expected a figure's name like '04_training_curves', found {name!r}")
    if not caption.strip() or not alt.strip():
        raise UsageError(f"figure {name} needs a caption and an alternative text")
    folder = runtime.figures_dir()
    with runtime.writing(folder / f"{name}.png") as path:
        path.write_bytes(to_png(figure, dpi=200))
    if data is not None:
        with runtime.writing(folder / "data" / f"{name}.json") as path:
            path.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf8")
    _list_figure(folder / "index.md", name, caption, alt)
    return show(figure, alt, dpi)


def _list_figure(index, name, caption, alt):
    lines = index.read_text(encoding="utf8").splitlines() if index.exists() else []
    rows = {line.split("|")[1].strip(): line for line in lines if line.startswith("| [")}
    escaped = [text.replace("|", "\\|").replace("\n", " ") for text in (caption, alt)]
    rows[f"[{name}]({name}.png)"] = f"| [{name}]({name}.png) | {name[:2]} | {escaped[0]} | {escaped[1]} |"
    with runtime.writing(index) as path:
        path.write_text(INDEX_HEAD + "\n".join(rows[key] for key in sorted(rows)) + "\n", encoding="utf8")


def short(text, length=34):
    """The text, cut to `length` letters."""
    return text if len(text) <= length else text[: length - 1] + "…"
