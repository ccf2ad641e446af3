"""The folder that Sphinx reads: notebooks and documents where they lie in the repository, so that their links hold, and the pages that only the site has."""

import html
import inspect
import json
import pathlib
import posixpath
import re
import shutil
import struct

from sphinx.errors import ExtensionError

from . import reference

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md", "data/MODEL_CARD.md", "notebooks/README.md", "tests/README.md", "tests/benchmarks/README.md"]
MARK = ".laid_out"  # a folder that holds this file was written here, and may be emptied


def lay_out(folder, root=ROOT):
    """Write everything that the site is made of into `folder`, anew: one that is absent, empty or laid out before. Any other is an ExtensionError."""
    folder = pathlib.Path(folder)
    empty(folder)
    stems = series(root)
    for name in [*DOCUMENTS, *linked(root), *(f"notebooks/{stem}.ipynb" for stem in stems)]:
        copy(root / name, folder / name)
    for name in DOCUMENTS:  # the list of figures has a page that shows them
        text = (folder / name).read_text(encoding="utf8")
        (folder / name).write_text(re.sub(r"\]\(((?:\.\./)*)figures/index\.md\b", r"](\1figures.md", text), encoding="utf8")
    for path in sorted(path for path in (root / "figures").rglob("[0-9]*") if path.suffix in (".png", ".svg", ".json")):
        copy(path, folder / "extra" / path.relative_to(root))
    figures = read_figures(root)
    questions = table_column(root / "notebooks" / "README.md", 1)
    pages = {"index.md": home(stems, questions, table_column(root / "README.md", 1), figures, root), "figures.md": figure_page(stems, figures, root),
             "commands.md": reference.commands(), **reference.modules(root)}
    for name, text in pages.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf8")


def empty(folder):
    """Make an empty folder, marked as ours. Sphinx says which, and whoever calls it by hand may have named a folder of their own: that is left as it is."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise ExtensionError(f"the pages of the site are laid out in the source folder, which is emptied before, and {folder} holds other files. Nothing was changed. "
                             "Run `make site`, or name a folder that is empty")
    if folder.is_dir():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARK).touch()


def series(root):
    """The notebooks that README.md lists, in its order: no copy or draft that lies beside them."""
    return list(table_column(root / "README.md", 1))


def linked(root):
    """The files that documents link to and that are no pages, such as LICENSE."""
    found = set()
    for name in DOCUMENTS:
        targets = re.findall(r"\]\((?![a-z]+:|#)([^)#\s]+)", (root / name).read_text(encoding="utf8"))
        found |= {posixpath.normpath(posixpath.join(posixpath.dirname(name), target)) for target in targets}
    return sorted(name for name in found if not name.endswith((".md", ".ipynb")) and (root / name).is_file())


def copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)  # with its time, so that Sphinx sees what has not changed


def read_figures(root):
    """figures/index.md as {name: {"notebook", "cell", "timed", "caption", "alt"}}, in the order in which the notebooks draw them."""
    from miniclip_helpers.plots import saving

    found = saving.read_index(root / "figures")
    order = {}
    for stem in series(root):
        cells = json.loads((root / "notebooks" / f"{stem}.ipynb").read_text(encoding="utf8"))["cells"]
        order |= {(stem, cell.get("id")): (stem, place) for place, cell in enumerate(cells)}
    return dict(sorted(found.items(), key=lambda item: order.get((item[1]["notebook"], item[1]["cell"]), (item[0], 0))))


def table_column(path, column):
    """{stem: cell} of the first table whose rows begin with a link to a notebook."""
    rows = (re.split(r"(?<!\\)\|", line)[1:-1] for line in path.read_text(encoding="utf8").splitlines() if re.match(r"\| \[\d\d ", line))
    return {re.search(r"(\d\d_\w+)\.ipynb", row[0])[1]: row[column].strip() for row in rows}


def title(stem, root):
    """A notebook's heading, "00 · Start here"."""
    first = json.loads((root / "notebooks" / f"{stem}.ipynb").read_text(encoding="utf8"))["cells"][0]
    return re.match(r"# (.+)", "".join(first["source"]))[1].strip()


def picture(name, alt, root, up=""):
    """An <img> of figures/NAME.png, at half its pixels because it is drawn for screens of twice the resolution."""
    width, height = struct.unpack(">II", (root / "figures" / f"{name}.png").read_bytes()[16:24])
    return (f'<img src="{up}figures/{name}.png" alt="{html.escape(alt)}" width="{width // 2}" height="{height // 2}" loading="lazy" decoding="async">')


def home(stems, questions, learned, figures, root):
    """The first page: what this is, and a card for each notebook."""
    first = {figure["notebook"]: name for name, figure in reversed(figures.items())}
    cards = "\n".join(card(stem, questions[stem], learned[stem], first.get(stem), figures, root) for stem in stems)
    trees = {"The series": [f"notebooks/{stem}" for stem in stems], "Around it": ["figures", "notebooks/README", "data/MODEL_CARD", "data/README", "tests/benchmarks/README"],
             "Reference": ["commands", "package"], "The project": ["README", "CONTRIBUTING", "tests/README", "CHANGELOG"]}
    about = {"notebooks/README": "Course and glossary", "README": "Install and use", "data/README": "The data", "tests/README": "The tests",
             "tests/benchmarks/README": "What was measured"}
    toc = "\n\n".join(tree(caption, [f"{about[page]} <{page}>" if page in about else page for page in pages]) for caption, pages in trees.items())
    return inspect.cleandoc(HOME).format(drawing=picture("00_pipeline", figures["00_pipeline"]["alt"], root), cards=cards, n=len(stems), figures=len(figures), toc=toc)


def tree(caption, pages):
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```"])


def card(stem, question, learned, name, figures, root):
    image = picture(name, figures[name]["alt"], root) if name else ""
    return (f'::::{{container}} card\n```{{raw}} html\n<a class="cover" href="notebooks/{stem}.html" tabindex="-1" aria-hidden="true">{image}</a>\n```\n'
            f"[{title(stem, root)}](notebooks/{stem}.ipynb)\n\n{question}\n\n{learned[:1].upper() + learned[1:]}.\n::::")


HOME = """
    # MiniCLIP

    ::::{{container}} lead
    **Learn CLIP by building it.** CLIP is the model that knows what a picture and a sentence have in common. These {n} notebooks build one, piece by piece: on real pictures, with
    real pretrained towers, on two processor cores, without a network.
    ::::

    ```{{raw}} html
    <p class="buttons"><a class="first" href="notebooks/00_start_here.html">Start here</a> <a href="README.html">Install</a> <a href="figures.html">All figures</a>
    <a href="notebooks/README.html#for-instructors">Teach with it</a> <a href="package.html">Reference</a></p>
    <a href="notebooks/00_start_here.html#cell-00-32">{drawing}</a>
    ```

    The whole of CLIP in one drawing: two towers, unit vectors, a matrix of cosines, and three ways to read it. The last cell of the first notebook draws it, with the model's own
    numbers.

    ## The series

    Each notebook runs by itself, offline, in minutes, and has exercises that check themselves and say which mistake an answer looks like.

    :::::{{container}} cards
    {cards}
    :::::

    ## Around it

    - [All {figures} figures](figures.md), with caption, source and the numbers behind each
    - [Course and glossary](notebooks/README.md): the exercises, three syllabuses, every term in a line
    - [The model `mini`](data/MODEL_CARD.md) and [the data](data/README.md) that the series runs on, and [what was measured](tests/benchmarks/README.md)
    - [Commands](commands.md) and [the package](package.rst), for your own photos and your own code

    {toc}
"""


def figure_page(stems, figures, root):
    """Every figure with its caption, its description, the cell that draws it and its files."""
    parts = ["# Figures", "Each is drawn by one cell of the series, and `miniclip figures` draws all of them again. They may be used anywhere under CC BY 4.0. "
             "A *timed* figure shows seconds, which differ from run to run."]
    for stem in stems:
        of_it = {name: figure for name, figure in figures.items() if figure["notebook"] == stem}
        if of_it:
            parts.append(f"## {title(stem, root)}")
        parts += [figure_entry(name, figure, root) for name, figure in of_it.items()]
    return "\n\n".join(parts) + "\n"


def figure_entry(name, figure, root):
    stem, cell = figure["notebook"], figure["cell"]
    files = {"PNG": f"figures/{name}.png", "SVG": f"figures/{name}.svg", "numbers (JSON)": f"figures/data/{name}.json"}
    links = " · ".join(f'<a href="{path}">{what}</a>' for what, path in files.items() if (root / path).exists())
    timed = " · timed" if figure["timed"] else ""
    return (f"### {name}\n\n```{{raw}} html\n<a href=\"figures/{name}.png\">{picture(name, figure['alt'], root)}</a>\n```\n\n{figure['caption']}\n\n"
            f":::{{container}} about\n*What it shows:* {figure['alt']}\n:::\n\n"
            f'```{{raw}} html\n<p class="about">Drawn by <a href="notebooks/{stem}.html#cell-{cell}">{stem}, cell {cell}</a>{timed} · {links}</p>\n```')


def setup(app):
    lay_out(app.srcdir)
    app.config.html_extra_path = [str(app.srcdir / "extra")]  # goes into the site as it is
    return {"parallel_read_safe": True, "parallel_write_safe": True}
