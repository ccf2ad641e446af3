"""What the page's notebook does: open the index and its model, and show the widget, or say what is in the way."""

import html
import json
import os
import pathlib

from .. import runtime
from ..errors import MiniclipError, UsageError

PLACE = "MINICLIP_APP"  # the variable that names the folder in which command and page leave word for each other
AT_A_TIME = 24
PROBLEM = """<div role="alert" style="max-width: 640px; padding: 18px 22px; border-left: 5px solid #b4400a; border-radius: 8px; background: #fdf1ea; color: #8f3205;
font: 16px/1.5 system-ui, sans-serif; white-space: pre-line; overflow-wrap: anywhere"><b>The photo search cannot be opened.</b>\n{}</div>"""


def open_page(search):
    """What the page shows: `search(index, model, query=None, k=24)`, or a message that says why that cannot be. It leaves word for the command that waits.

    search: `widgets.photo_search`. Index and model are those of `miniclip app INDEX`.
    """
    from IPython.display import HTML

    try:
        shown = search(*open_asked(), query=None, k=AT_A_TIME)
        leave_word(problem=None)
    except MiniclipError as error:
        leave_word(problem=str(error), exit_code=error.exit_code)
        return HTML(PROBLEM.format(html.escape(str(error))))
    except Exception as error:  # or the command would wait for ever
        leave_word(problem=f"the page cannot be made ({type(error).__name__}: {error})", exit_code=MiniclipError.exit_code)
        raise
    return shown


def open_asked():
    """The index and the model that `miniclip app` was asked for. The model's weights are read, so that the first question waits no longer than others."""
    from PIL import Image

    from .. import search
    from ..index import load_index

    if PLACE not in os.environ:
        raise UsageError("this page belongs to a command; open it with: miniclip app INDEX")
    asked = json.loads((pathlib.Path(os.environ[PLACE]) / "asked.json").read_text(encoding="utf8"))
    os.chdir(asked["folder"])  # names of models may be paths
    index = load_index(asked["index"])
    model = search.model_of(index, asked["model"])
    model.encode_text(["warm"])
    model.encode_image([Image.new("RGB", (64, 64))])
    return index, model


def leave_word(**word):
    """Tell the command that the page is ready, or what is wrong. Nobody may be listening any more."""
    place = pathlib.Path(os.environ.get(PLACE, ""), "told.json")
    if PLACE in os.environ and place.parent.is_dir():
        with runtime.writing(place) as path:
            path.write_text(json.dumps(word), encoding="utf8")
