"""What every widget is made of: a `Panel`, a still picture and under it the controls; readable labels."""

import html

from .. import plots
from ..errors import MiniclipError

DPI, COLOURS = 96, 256


class Panel:
    """A widget with its still picture. Show it by naming it at the end of a cell.

    picture: the still one. image: the live one (`.value` holds PNG bytes). status: a line that says the answer, or the error, in
    words. controls: the ipywidgets by name, so that tests and notebooks can set their values.
    """

    def __init__(self, label, alt, controls, draw, hidden=True):
        """draw: function of no arguments that reads the controls and gives (PNG bytes, sentence)."""
        import ipywidgets

        self.label, self.controls, self._draw = label, controls, draw
        png, sentence = draw()
        self.picture = plots.Picture(png, alt)
        own_size = ipywidgets.Layout(max_width="100%", align_self="flex-start", display="none" if hidden else None)  # a box would stretch it
        self.image = ipywidgets.Image(value=png, format="png", layout=own_size)
        self.status = ipywidgets.HTML(html.escape(sentence))
        self.widget = ipywidgets.VBox([*controls.values(), self.status, self.image])
        for control in controls.values():
            control.observe(self._changed, "value")

    def _changed(self, change):
        """Draw anew; what fails is said in the panel."""
        try:
            self.image.value, sentence = self._draw()
            self.image.layout.display = None
            self.status.value = html.escape(sentence)
        except MiniclipError as error:
            self._say(str(error))
        except Exception as error:  # a callback has no cell to print a traceback in
            self._say(f"this did not work ({type(error).__name__}): {error}")

    def _say(self, problem):
        self.status.value = f"<b style='color:{plots.PALETTE['red']}'>{html.escape(problem)}</b>"

    def _ipython_display_(self):
        from IPython.display import display

        live = self.widget._repr_mimebundle_()
        display(self.picture)
        display({**live, "text/plain": f"[{self.label}: run the cell to use it]"}, raw=True)


def wide(widget, **options):
    """An ipywidget with a readable label, answering when the value is settled."""
    return widget(style={"description_width": "110px"}, layout={"width": "min(100%, 560px)"}, **options)


def stem(name):
    """A file's name without folders and ending."""
    return str(name).rsplit("/", 1)[-1].rsplit(".", 1)[0]
