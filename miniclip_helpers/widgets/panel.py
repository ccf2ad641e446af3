"""What every widget is made of: a `Panel`, a still picture and under it the controls; readable labels; sliders that anyone can use."""

import asyncio
import html
import threading

from .. import plots
from ..errors import MiniclipError

DPI, COLOURS = 96, 256
REST, LONGEST = 0.04, 0.2  # seconds without a change before a picture is drawn; after so many it is drawn all the same, while a slider moves on
# Where the keyboard is must be seen; a mistake must be read on a light page and a dark one.
STYLE = """<style>
.miniclip-panel :is(button, input, select, textarea, .noUi-handle, .widget-readout):focus-visible { outline: 3px solid #b26a00 !important; outline-offset: 1px; }
.miniclip-panel .miniclip-value > label { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.miniclip-panel .miniclip-status { height: auto; max-width: 720px; }
.miniclip-panel .miniclip-status .widget-html-content { line-height: 1.4; overflow-wrap: anywhere; }
.miniclip-panel [role=alert] { display: block; padding: 6px 10px; border-left: 4px solid #b4400a; background: #fdf1ea; color: #8f3205; }
.miniclip-panel > :is(.widget-upload, .widget-button, .widget-toggle-button) { margin-left: 120px; }
.miniclip-panel .noUi-handle { background: #0072b2 !important; border-color: #0072b2 !important; }
</style>"""


class Panel:
    """A widget with its still picture. Show it by naming it at the end of a cell.

    picture: the still one, light. image: the live one (`.value` holds PNG bytes). status: a line that says the answer, or the error, in
    words. controls: the ipywidgets by name, so that tests and notebooks can set their values. over: what lies over the live picture.
    """

    def __init__(self, label, alt, controls, draw, hidden=True, over=None, before=None, rest=REST):
        """draw: function of no arguments that reads the controls and gives (PNG bytes, sentence). over: an ipywidget to lay over the picture, of its size.

        before: {name of a control: function of its change, done before the picture is drawn}. rest: seconds without a change before it is; 0: at once, each time.
        """
        import ipywidgets

        self.label, self.controls, self._draw, self._rest = label, controls, draw, rest
        self._timer, self._first, self._lock = None, 0.0, threading.Lock()
        png, sentence = draw()
        png = plots.few_colours(png, COLOURS)
        self.picture = plots.Picture(png, alt)
        own_size = ipywidgets.Layout(max_width="100%", align_self="flex-start", display="none" if hidden else None)  # a box would stretch it
        self.image = ipywidgets.Image(value=png, format="png", layout=own_size)  # a tooltip would break it: ipywidgets' view asks for a description
        self.status = ipywidgets.HTML(html.escape(sentence)).add_class("miniclip-status")
        style = ipywidgets.HTML(STYLE, layout={"display": "none"})
        rows = [with_number(control) for control in controls.values()]
        self.widget = ipywidgets.VBox([style, *rows, self.status, self.image if over is None else _laid_over(self.image, over)]).add_class("miniclip-panel")
        for name, control in controls.items():
            control.observe(self._changed((before or {}).get(name)), "value")

    def _changed(self, act):
        """What is done at a change of a control: `act`, then the picture; where the first fails, it is said and nothing is drawn."""

        def changed(change):
            if act is None or self._try(act, change):
                self.refresh()

        return changed

    def refresh(self, change=None):
        """Draw anew: once for many changes in a row, and the last one counts. Where nothing runs that could wait, as in a script, at once."""
        try:
            loop = asyncio.get_running_loop() if self._rest else None
        except RuntimeError:
            loop = None
        if loop is None:
            self._try(self._redraw)
            return
        now = loop.time()
        if self._timer is None:
            self._first = now
        else:
            self._timer.cancel()
        self._timer = loop.call_at(max(now, min(now + self._rest, self._first + LONGEST)), self._rested)

    def _rested(self):
        self._timer = None
        self._try(self._redraw)

    def _redraw(self):
        with self._lock:  # JupyterLab answers widgets in a thread of their own, beside a cell that runs
            png, sentence = self._draw()
            self.image.value = png
        self.image.layout.display = None
        self.status.value = html.escape(sentence)

    def _try(self, act, *args):
        """Do `act(*args)`; what fails is said in the panel. Whether it went well."""
        try:
            act(*args)
        except MiniclipError as error:
            self._say(str(error))
        except Exception as error:  # a callback has no cell to print a traceback in
            self._say(f"this did not work ({type(error).__name__}): {error}")
        else:
            return True
        return False

    def _say(self, problem):
        self.status.value = f"<b role='alert'>{html.escape(problem)}</b>"

    def _ipython_display_(self):
        from IPython.display import display

        live = self.widget._repr_mimebundle_()
        if self.picture is not None:
            display(self.picture)
        display({**live, "text/plain": f"[{self.label}: run the cell to use it]"}, raw=True)


def _laid_over(image, over):
    """Both in the one cell of a grid, which is as large as the picture."""
    import ipywidgets

    image.layout.grid_area = over.layout.grid_area = "1 / 1 / 2 / 2"
    over.layout.overflow = "hidden"
    ipywidgets.jslink((image.layout, "display"), (over.layout, "display"))
    return ipywidgets.GridBox([image, over], layout={"grid_template_columns": "fit-content(100%)"})


def wide(widget, **options):
    """An ipywidget with a readable label, answering when the value is settled."""
    options.setdefault("tooltip", options.get("description"))  # without one its label's is "null"
    return widget(style={"description_width": "110px"}, layout={"width": "min(100%, 560px)"}, **options)


def with_number(control):
    """A slider beside a field that holds its value, for the keyboard and for screen readers: ipywidgets can give a name to a field, not to a slider. Others as they are."""
    import ipywidgets

    fields = {ipywidgets.IntSlider: ipywidgets.BoundedIntText, ipywidgets.FloatLogSlider: ipywidgets.FloatText, ipywidgets.SelectionSlider: ipywidgets.Dropdown}
    if type(control) not in fields:
        return control
    same = {name: getattr(control, name) for name in ("min", "max", "options") if fields[type(control)].class_traits().get(name)}
    field = fields[type(control)](value=_rounded(control.value), description=control.description, layout={"width": "88px"}, **same).add_class("miniclip-value")
    control.readout = False

    def follow(change=None):
        for name in {"max"} & same.keys():
            setattr(field, name, getattr(control, name))
        field.value = _rounded(control.value)

    def lead(change):
        if change["new"] != _rounded(control.value):
            control.value = change["new"]
            follow()  # the slider may have taken the nearest that it has

    control.observe(follow, ["value", *({"max"} & same.keys())])
    field.observe(lead, "value")
    return ipywidgets.HBox([control, field])


def _rounded(value):
    """As a field shows it: three digits are enough."""
    return float(f"{value:.3g}") if isinstance(value, float) else value


def stem(name):
    """A file's name without folders and ending."""
    return str(name).rsplit("/", 1)[-1].rsplit(".", 1)[0]
