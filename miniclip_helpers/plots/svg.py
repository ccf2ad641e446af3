"""A figure as SVG: the same bytes each time, and as few of them as show the same."""

import base64
import contextlib
import io
import re

from .style import STYLE

DPI = 150  # of pictures that have more pixels than are shown
DECIMALS = 2  # of points, of which 518 are the width of a page: less than a screen shows at ten times the size


def to_svg(figure, caption="", alt=""):
    """The figure as SVG, with the caption as its title and `alt` as its description. The same figure gives the same bytes: no date, no version, ids from a fixed salt.

    Letters are outlines, so that they look the same where the font is missing; each word also stands as a comment before its outlines, for
    whoever searches the file. Pictures go in with their own pixels where these are fewer than are shown: a browser smooths photos, and keeps the cells of a matrix sharp.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE), _own_pixels(figure):
        figure.savefig(buffer, format="svg", dpi=DPI, metadata={"Date": None, "Creator": None, "Title": caption, "Description": alt})
    text = _lighter(buffer.getvalue()).replace("<svg ", '<svg role="img" ', 1)
    escaped = alt.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("</title>", f"</title>\n <desc>{escaped}</desc>", 1)


@contextlib.contextmanager
def _own_pixels(figure):
    """While it is open, matplotlib writes small pictures as they are, and does not blow them up first."""
    from matplotlib.image import AxesImage

    figure.draw_without_rendering()  # only then is it known how large each is shown
    before = []
    for number, image in enumerate(figure.findobj(AxesImage)):
        box, (rows, columns) = image.get_window_extent(), image.get_array().shape[:2]
        if rows * columns <= box.width * box.height * (DPI / figure.dpi) ** 2:
            before.append((image, image.get_interpolation(), image.get_gid()))
            image.set_interpolation("none")
            if image.get_array().ndim == 3:
                image.set_gid(f"picture_{number}")
    try:
        yield
    finally:
        for image, interpolation, gid in before:
            image.set_interpolation(interpolation)
            image.set_gid(gid)


def _lighter(text):
    """The same drawing in fewer bytes: pictures packed again, coordinates without the digits that nobody sees."""
    text = re.sub(r'(<image [^>]*id="picture_\d+"[^>]*) style="image-rendering:[^"]*"', r"\1", text)  # matplotlib asks for hard pixels, which is right for a matrix alone
    text = re.sub(r'(?<=data:image/png;base64,)[^"]+', lambda found: _packed(found[0]), text)
    return re.sub(r' (?:d|x|y)="[^"]*"|translate\([^)]*\)', lambda found: re.sub(r"-?\d+\.\d{3,}", _rounded, found[0]), text)


def _rounded(found):
    return f"{float(found[0]):.{DECIMALS}f}".rstrip("0").rstrip(".")


def _packed(encoded):
    """A PNG in base64, without the channel of transparency where nothing is transparent."""
    from PIL import Image

    picture = Image.open(io.BytesIO(base64.b64decode(encoded)))
    if picture.mode == "RGBA" and picture.getchannel("A").getextrema() == (255, 255):
        picture = picture.convert("RGB")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
