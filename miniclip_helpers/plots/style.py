"""What every figure shares: palette, size, font; how it is shown."""

import io

# Okabe and Ito 2008: eight colours that people with any kind of colour vision can tell apart.
PALETTE = {"blue": "#0072B2", "orange": "#E69F00", "green": "#009E73", "red": "#D55E00", "purple": "#CC79A7", "sky": "#56B4E9",
           "yellow": "#F0E442", "black": "#000000", "grey": "#7F7F7F"}
WIDTH = 7.2  # inches: 600 px wide pages show it without shrinking the letters
STYLE = {"font.size": 10, "font.family": "DejaVu Sans", "axes.titlesize": 11, "axes.spines.top": False, "axes.spines.right": False,
         "axes.grid": True, "grid.alpha": 0.25, "axes.axisbelow": True, "figure.dpi": 100, "savefig.dpi": 200,
         "svg.hashsalt": "miniclip", "figure.facecolor": "white", "axes.facecolor": "white"}


def new_figure(rows=1, columns=1, height=3.2, width=WIDTH, **options):
    """A `Figure` in the series' style and its axes, as `plt.subplots` gives them, outside pyplot: nothing is shown twice or leaks."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        return figure, figure.subplots(rows, columns, **options)


def to_png(figure, dpi=100, colours=None, about=None):
    """The figure as PNG bytes. colours: at most so many, which makes the file three times smaller and keeps notebooks light. about: texts to keep in the file, {keyword: text}."""
    import matplotlib
    from PIL import PngImagePlugin

    buffer, texts = io.BytesIO(), PngImagePlugin.PngInfo()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    for keyword, text in (about or {}).items():
        texts.add_text(keyword, text)
    return few_colours(buffer.getvalue(), colours, dpi=(dpi, dpi), pnginfo=texts)


def quick_png(figure, dpi=100):
    """The figure as PNG bytes, written in a tenth of the time of `to_png` and three times as large: for what is drawn anew at each turn of a slider.

    Its texts are strangers' captions and names: a dollar sign in them stays one and begins no formula.
    """
    import matplotlib
    from matplotlib.text import Text
    from PIL import Image

    for text in figure.findobj(Text):
        text.set_parse_math(False)
    with matplotlib.rc_context(STYLE):
        figure.set_dpi(dpi)
        figure.canvas.draw()
    buffer = io.BytesIO()
    Image.frombuffer("RGBA", figure.canvas.get_width_height(), figure.canvas.buffer_rgba(), "raw", "RGBA", 0, 1).convert("RGB").save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def few_colours(png, colours=256, **options):
    """PNG bytes again, in at most so many colours: light enough for a notebook. colours: None for all there are. options: for Pillow, such as dpi."""
    from PIL import Image

    picture, buffer = Image.open(io.BytesIO(png)).convert("RGB"), io.BytesIO()  # nothing is transparent, and a file without that channel is an eighth smaller
    picture = picture.quantize(colours) if colours else picture
    picture.save(buffer, format="PNG", optimize=True, **options)
    return buffer.getvalue()


def extent(figure, axes=0):
    """Where axes of a figure that has been drawn lie: (left, top, width, height), shares of the picture's size, from its upper left corner."""
    box = figure.axes[axes].get_position()
    return box.x0, 1 - box.y1, box.width, box.height


class Picture:
    """A figure as a notebook cell shows it: one PNG, with its alternative text for readers who do not see."""

    def __init__(self, png, alt=""):
        self.png, self.alt = png, alt

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"image/png": self.png, "text/plain": f"[figure: {self.alt}]"}


def show(figure, alt="", dpi=100):
    """The figure as a `Picture` to end a cell with."""
    return Picture(to_png(figure, dpi, colours=256), alt)


def short(text, length=34):
    """The text, cut to `length` letters."""
    return text if len(text) <= length else text[: length - 1] + "…"
