"""The photo search: by words, by a picture, by an answer; what a notebook shows and what `miniclip app` opens as a page."""

import functools
import os
import pathlib
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from .. import datasets, images, plots, search
from ..errors import MiniclipError
from .finding import NothingFoundError, captions_of, card, escaped, folders_of, nearest, noun, question_vector, thumbnail, told
from .panel import COLOURS, DPI, Panel, stem
from .search_box import search_picture

STYLE = pathlib.Path(__file__).with_name("photos.css")
SIZES = (12, 24, 48, 96)  # answers shown at a time
REMEMBERED = 50  # questions to go back to
KEPT = 500  # thumbnails, of some 15 KB each
MOST = 480  # in all: further ones are better reached by a narrower question
SCORES = [("any", -1.0), *((f"{step / 20:.2f}", step / 20) for step in range(1, 20))]


@dataclass(frozen=True)
class Question:
    """What was asked. words: of the field, "" for pictures. said: the question as HTML. but: the photo that was asked with. notes: what the package warned of."""

    words: str
    said: str
    vector: object
    but: str | None = None
    notes: tuple = ()


def photo_search(index, model, dataset=None, query="a red fruit", k=5):
    """Search photos, or captions, by words, by a picture of your own, or by one of the answers. A `PhotoSearch`.

    dataset: where the pictures are taken from; by default where the index says that they lie. query: the first question, None for none yet.
    """
    return PhotoSearch(index, model, dataset, query, k)


class PhotoSearch(Panel):
    """The search as a widget. controls: "query", "search" (its button), "upload", "folder", "within" (words in names and captions), "least" (the lowest
    score), "k" (answers at a time), "back", "more". hits: the answers shown. cards: one for each, with .like, the button that asks for more like it."""

    def __init__(self, index, model, dataset=None, query="a red fruit", k=5):
        import ipywidgets

        search.check_model(index, model)
        self.label, self.index, self.model, self.dataset = "photo search", index, model, dataset
        self.hits, self.cards, self.asked, self.before, self._shown = [], [], None, [], k
        self._thumbnail = functools.lru_cache(KEPT)(lambda name, version: thumbnail(self._open(name)))
        self.captions, notes = _captions(index, dataset)
        self.controls = _controls(index, query or "", k, folders_of(index.names))
        self.status = ipywidgets.HTML().add_class("miniclip-status")
        self.grid = ipywidgets.Box().add_class("mc-captions" if search.holds_captions(index) else "mc-grid")
        self.widget = self._laid_out()
        self._tell(f"{len(index):,} {noun(index, len(index))}. Type what to look for, or search by a picture of yours.",
                   "Answers come best first, each with its score: the nearer to 1, the closer.", *notes, kind="mc-empty")
        self.picture = None
        if query is not None:
            self._ask_words(query)
            self.picture = self._still(query)
            self.grid.layout.display = "none"  # the still picture shows them already
        self._wire()

    # --- questions ---

    def ask(self, asked, words, said, but=None):
        """Ask anew: words (str), a picture's bytes, or ("like", name). What was asked before can be gone back to."""
        vector, notes = told(lambda: question_vector(self.index, self.model, asked))
        if self.asked and not words == self.asked.words != "":
            self.before = [*self.before[-REMEMBERED:], self.asked]
        self._take(Question(words, said, vector, but, tuple(notes)))

    def _ask_words(self, words):
        self.ask(words, words.strip(), f"for “{escaped(words.strip())}”")

    def _ask_picture(self, file):
        content = bytes(file["content"])
        picture = images.open_image(content)
        self.ask(content, "", f'like <img class="mc-asked" src="{thumbnail(picture)}" alt=""> your picture <b>{escaped(file["name"])}</b>')

    def _ask_like(self, name):
        address, _ = self._picture(name)
        picture = f'<img class="mc-asked" src="{address}" alt=""> ' if address else ""
        self.ask(("like", name), "", f'like {picture}<b title="{escaped(name)}">{escaped(stem(name))}</b>', name)
        self.controls["back"].focus()  # where the new answers begin

    def _go_back(self):
        if self.before:
            *self.before, asked = self.before
            self._take(asked)

    def _take(self, asked):
        self.asked = asked
        self.controls["query"].value = asked.words  # its observer asks nothing that is asked already
        self._shown = self.controls["k"].value
        self._answer()

    # --- answers ---

    def _answer(self, kept=0):
        """Look the question up and show the answers; the first `kept` stand there already."""
        if self.asked is None:
            return
        filters = {name: self.controls[name].value for name in ("least", "within", "folder")}
        try:
            found = nearest(self.index, self.asked.vector, self._shown + 1, **filters, captions=self.captions, but=self.asked.but)
        except NothingFoundError as error:
            self._show([], 0)
            self._tell(escaped(error), kind="mc-empty")
            return
        self._show(found[: self._shown], kept)
        self.controls["more"].layout.display = None if len(found) > self._shown < MOST else "none"
        count = f"{len(self.hits):,} of {len(self.index):,} {noun(self.index, len(self.index))}"
        self._tell(f"{count} {self.asked.said}, best first", *self.asked.notes, *self._lost())

    def _show(self, hits, kept):
        self.hits = hits
        self.controls["back"].layout.display = None if self.before else "none"
        self.controls["more"].layout.display = "none"
        while len(self.cards) < len(hits):
            self.cards.append(Card(functools.partial(self._try, self._ask_like)))
        fresh = hits[kept:]
        for place, hit, parts in zip(range(kept, len(hits)), fresh, self._all_parts([hit.name for hit in fresh])):
            self.cards[place].show(card(place + 1, hit, *parts), hit.name)  # each as soon as it is there
        if len(self.grid.children) != len(hits):
            self.grid.children = [one.widget for one in self.cards[: len(hits)]]
        self.grid.layout.display = None

    def _all_parts(self, names):
        """`_parts` of each name in turn, several at once: decoding a camera's picture takes longer than all the rest. The first alone, as it may have to open a dataset."""
        from PIL import Image

        yield from map(self._parts, names[:1])
        # Each picture that is opened sets this filter, too, and sets back what it found; in threads that may be another's. The outermost puts all in order.
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning), ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            yield from pool.map(self._parts, names[1:])

    def _parts(self, name):
        """What a card shows of a photo or caption: (thumbnail's address, captions, problem)."""
        address, problem = self._picture(name)
        if search.holds_captions(self.index):
            return address, [search.text_of(self.index, name) or ""], None
        return address, self.captions.get(name, []), problem

    def _picture(self, name):
        """(thumbnail's address, None) or ("", the error that says why there is none)."""
        try:
            return self._thumbnail(name, self._version(name)), None
        except MiniclipError as error:
            return "", error

    def _version(self, name):
        """What changes when the picture does, so that its thumbnail may be kept; something new each time where nobody knows."""
        root = self.index.about.get("root")
        if self.dataset is not None or root is None:
            return None if self.dataset is None else object()
        try:
            return datasets.find_picture(pathlib.Path(root), self._photo(name)).stat().st_mtime_ns
        except OSError:
            return object()

    def _photo(self, name):
        """The name of the photo that a caption belongs to; a photo's own."""
        return name.rpartition("#")[0] if search.holds_captions(self.index) else name

    def _open(self, name):
        if self.dataset is None:
            return search.picture_of(self.index, name)
        return self.dataset.image(self.dataset.row(self._photo(name)))

    def _lost(self):
        """Where the whole folder is gone, one sentence about that."""
        root = self.index.about.get("root")
        if self.dataset is None and root and not pathlib.Path(root).exists():
            return [f"the folder of these photos, '{root}', is not there any more; if it moved, build the index again: miniclip index"]
        return []

    def _still(self, query):
        """What GitHub and paper show: the first answers, drawn."""
        if search.holds_captions(self.index):
            png = plots.to_png(search.draw(self.index, self.hits, query), DPI)
        else:
            png = plots.few_colours(search_picture([self._open(hit.name) for hit in self.hits], [hit.name for hit in self.hits], [hit.score for hit in self.hits]), COLOURS)
        return plots.Picture(plots.few_colours(png, COLOURS), f"The {len(self.hits)} {noun(self.index, len(self.hits))} found for {query!r}, best first.")

    # --- wiring ---

    def _tell(self, said, *notes, kind=""):
        """said: HTML. notes: text."""
        self.status.value = f'<p role="status" class="{kind}">{said}</p>' + "".join(f'<p class="mc-note">{escaped(note)}</p>' for note in notes)

    def _wire(self):
        act, controls = self._try, self.controls
        controls["query"].observe(lambda change: change["new"].strip() != self.asked_words and act(self._ask_words, change["new"]), "value")
        controls["upload"].observe(lambda change: change["new"] and act(self._upload, change["new"][0]), "value")
        for name in ("folder", "within", "least", "k"):
            controls[name].observe(lambda change: act(self._refilter), "value")
        controls["search"].on_click(lambda button: act(self._ask_words, controls["query"].value))
        controls["back"].on_click(lambda button: act(self._go_back))
        controls["more"].on_click(lambda button: act(self._more))

    @property
    def asked_words(self):
        """The words that were asked last; "" for a picture, None before the first question."""
        return self.asked.words if self.asked else None

    def _upload(self, file):
        self.controls["upload"].value = ()  # so that the same file can be chosen again
        self._ask_picture(file)

    def _refilter(self):
        self._shown = self.controls["k"].value
        self._answer()

    def _more(self):
        kept, self._shown = self._shown, min(MOST, self._shown + self.controls["k"].value)
        self._answer(kept)

    def _laid_out(self):
        import ipywidgets

        controls = self.controls
        rows = [ipywidgets.Box([controls[name] for name in names]).add_class(kind) for kind, names in
                (("mc-question", ("query", "search", "upload")), ("mc-filters", ("folder", "within", "least", "k")))]
        style = ipywidgets.HTML(f"<style>{STYLE.read_text(encoding='utf8')}</style>", layout={"display": "none"})
        said = ipywidgets.Box([controls["back"], self.status]).add_class("mc-said-row")
        return ipywidgets.VBox([style, *rows, said, self.grid, controls["more"]]).add_class("miniclip-photos")


class Card:
    """One answer and its button. like: the ipywidgets button that asks for more like it."""

    def __init__(self, act):
        """act: function of the name of a photo or caption."""
        import ipywidgets

        self.act, self.name, self.like, self._before = act, None, None, None
        self.view = ipywidgets.HTML()
        self.widget = ipywidgets.VBox().add_class("mc-answer")

    def show(self, content, name):
        """content: HTML. Another name gets another button: a click says no more than which button it was, and may be on its way while the answers change."""
        import ipywidgets

        self.view.value = content
        if name == self.name:
            return
        if self._before is not None:
            self._before.close()
        self.name, self._before = name, self.like
        same = {} if self.like is None else {"layout": self.like.layout, "style": self.like.style}
        self.like = ipywidgets.Button(description="More like this", tooltip=f"more like {name}", **same).add_class("mc-like")
        self.like.on_click(lambda button: self.act(name))
        self.widget.children = [self.view, self.like]


def _captions(index, dataset):
    """(captions of the pictures, notes on what is wrong with them)."""
    try:
        return captions_of(index, dataset), []
    except MiniclipError as error:
        return {}, [str(error).splitlines()[0]]


def _controls(index, query, k, folders):
    import ipywidgets

    hidden = {"display": "none"}
    several = noun(index, 2)
    return {
        "query": ipywidgets.Text(value=query, description="Search for", placeholder="a red fruit", tooltip="words; Enter searches", continuous_update=False).add_class("mc-query"),
        "search": ipywidgets.Button(description="Search", tooltip=f"the {several} nearest to these words", button_style="primary"),
        "upload": ipywidgets.FileUpload(accept="image/*", multiple=False, description="Search by picture", icon="", tooltip=f"the {several} nearest to a picture of yours"),
        "folder": ipywidgets.Dropdown(options=[("all", ""), *((f"{folder} ({count:,})", folder) for folder, count in folders.items())], description="Folder",
                                      tooltip="answers of this folder alone", layout={} if folders else hidden),
        "within": ipywidgets.Text(description="Name or caption has", placeholder="any text", tooltip="answers with this text alone", continuous_update=False),
        "least": ipywidgets.Dropdown(options=SCORES, value=-1.0, description="Lowest score", tooltip="answers with this score at least"),
        "k": ipywidgets.Dropdown(options=sorted({k, *SIZES}), value=k, description="At a time", tooltip="answers shown at first, and with each Show more"),
        "back": ipywidgets.Button(description="Back", tooltip="to the question before", layout=hidden),
        "more": ipywidgets.Button(description="Show more", layout=hidden).add_class("mc-more"),
    }
