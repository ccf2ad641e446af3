"""The site: built once with the network cut, then read page by page."""

import ast
import functools
import html.parser
import importlib
import json
import os
import pathlib
import re
import subprocess
import sys
import urllib.parse

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
STEMS = [path.stem for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))]
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src", "embed": "src", "object": "data", "link": "href"}


class Page(html.parser.HTMLParser):
    """What a page holds: ids, links, pictures, what it loads, its text, and tags that do not fit each other."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.images, self.loads, self.words, self.faults, self.open, self.tags = set(), [], [], [], [], [], [], []
        self.feed(path.read_text(encoding="utf8"))
        self.faults += [f"<{tag}> is never closed" for tag in self.open]

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append((tag, given, tuple(self.open)))
        self.ids |= {given["id"]} if given.get("id") else set()
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag == "img":
            self.images.append(given)
        if tag in LOADING and given.get(LOADING[tag]):
            self.loads.append(given[LOADING[tag]])
        self.loads += re.findall(r"url\(([^)]+)\)", given.get("style") or "") + [part.split()[0] for part in (given.get("srcset") or "").split(",") if part.strip()]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.faults.append(f"line {self.getpos()[0]}: </{tag}> closes another tag")

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.words.append((data, tuple(self.open)))

    def text(self, without=()):
        return "".join(data for data, inside in self.words if not set(without) & set(inside))


@functools.cache
def read(path):
    return Page(path)


@pytest.fixture(scope="module")
def pages(site):
    return {path.relative_to(site).as_posix(): read(path) for path in sorted(site.rglob("*.html"))}


@functools.cache
def notebook(stem):
    return json.loads((ROOT / "notebooks" / f"{stem}.ipynb").read_text(encoding="utf8"))["cells"]


def prose(stem):
    return "\n".join("".join(cell["source"]) for cell in notebook(stem) if cell["cell_type"] == "markdown")


def test_all_that_a_reader_looks_for_is_there(pages):
    asked = [f"notebooks/{stem}.html" for stem in STEMS]
    assert len(asked) == 12
    for name in [*asked, "figures.html", "package.html", "commands.html", "notebooks/README.html", "data/MODEL_CARD.html", "data/README.html", "CONTRIBUTING.html", "search.html"]:
        assert name in pages["index.html"].links or name == "search.html", name
        assert name in pages, name
    for stem in STEMS:  # the first page says what each is about
        question = re.search(rf"{stem}\.ipynb\) \| ([^|]+) \|", (ROOT / "notebooks" / "README.md").read_text(encoding="utf8"))[1].strip()
        assert question in pages["index.html"].text()


def test_notebooks_follow_each_other(pages):
    for here, onward in zip(STEMS, STEMS[1:]):
        relations = {given.get("rel"): given["href"] for tag, given, _ in pages[f"notebooks/{here}.html"].tags if tag == "link"}
        assert relations["next"] == f"{onward}.html"
        assert {given.get("rel"): given["href"] for tag, given, _ in pages[f"notebooks/{onward}.html"].tags if tag == "link"}["prev"] == f"{here}.html"


def test_every_link_leads_somewhere(pages, site):
    broken = []
    for name, page in pages.items():
        for link in page.links + [load for load in page.loads if "://" not in load]:
            address, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", address):
                continue
            target = (site / name).parent / urllib.parse.unquote(address.partition("?")[0]) if address else site / name
            if not target.is_file():
                broken.append(f"{name}: {link}")
            elif anchor and target.suffix == ".html" and urllib.parse.unquote(anchor) not in read(target.resolve()).ids:
                broken.append(f"{name}: {link}, an anchor that is not there")
    assert not broken, broken[:20]


def test_every_picture_says_what_it_shows(pages):
    for name, page in pages.items():
        for image in page.images:
            assert len(image.get("alt") or "") > 10, (name, image)
            assert not image["alt"].endswith((".png", ".svg")), (name, image)


def test_nothing_outside_is_loaded(pages, site):
    for name, page in pages.items():
        assert not [load for load in page.loads if re.match(r"\s*['\"]?(https?:)?//", load)], name
    for path in site.rglob("*.css"):
        css = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf8"), flags=re.DOTALL)
        assert not re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//[^)]*", css), path
    for path in site.rglob("*.js"):
        assert not re.findall(r"(?:import|fetch|src ?=)\s*\(?['\"`]https?://[^'\"`]*", path.read_text(encoding="utf8")), path


def test_tags_fit_each_other(pages):
    assert not {name: page.faults[:3] for name, page in pages.items() if page.faults}


@pytest.mark.parametrize("stem", STEMS)
def test_a_notebook_is_whole(pages, stem):
    page = pages[f"notebooks/{stem}.html"]
    text = " ".join(page.text().split())
    assert {f"cell-{cell['id']}" for cell in notebook(stem) if cell["cell_type"] == "code"} <= page.ids
    for cell in notebook(stem):
        for output in cell.get("outputs", []):
            if output["output_type"] == "stream":
                assert " ".join("".join(output["text"]).split()) in text, cell["id"]
    answers = [inside for tag, _, inside in page.tags if tag == "details"]
    assert len(answers) == prose(stem).count("<details>") + 1  # and the installation on Colab
    assert not [tag for tag, _, inside in page.tags if tag in ("h1", "h2", "h3", "section") and "details" in inside]
    assert [tag for tag, _, inside in page.tags if tag == "p" and "details" in inside]  # Markdown, not a string


@pytest.mark.parametrize("stem", STEMS)
def test_no_dead_widget_is_shown(pages, stem, site):
    text = (site / "notebooks" / f"{stem}.html").read_text(encoding="utf8")
    assert "jupyter.widget" not in text and "run the cell to use it" not in text
    stills = sum("image/png" in output.get("data", {}) for cell in notebook(stem) for output in cell.get("outputs", []))
    assert len(pages[f"notebooks/{stem}.html"].images) == stills > 2


def test_formulas_are_drawn_by_the_browser(pages):
    asked = 0
    for stem in STEMS:
        text = re.sub(r"```.*?```|`[^`\n]*`", "", prose(stem), flags=re.DOTALL)
        formulas = re.findall(r"\$\$.+?\$\$|(?<![\\$])\$[^$\n]+\$", text, re.DOTALL)
        drawn = [tag for tag, _, _ in pages[f"notebooks/{stem}.html"].tags if tag == "math"]
        assert len(drawn) == len(formulas), stem
        asked += len(formulas)
        left = pages[f"notebooks/{stem}.html"].text(without=("pre", "code"))
        assert not re.findall(r"\\(?:frac|sum|log|text|cos|ell)\b|\$\$", left), stem
    assert asked > 45


def test_figures_are_sharp_and_have_their_files(pages, site):
    listed = re.findall(r"^\| \[(\w+)\]", (ROOT / "figures" / "index.md").read_text(encoding="utf8"), re.MULTILINE)
    assert len(listed) > 40
    sources = {image["src"] for stem in STEMS for image in pages[f"notebooks/{stem}.html"].images}
    for name in listed:
        assert f"../figures/{name}.png" in sources, f"{name}: its alternative text in figures/index.md is not the notebook's; miniclip run {name[:2]} --update"
        for file in (f"figures/{name}.png", f"figures/{name}.svg", f"figures/data/{name}.json"):
            assert (file in pages["figures.html"].links) == (ROOT / file).exists(), file
            assert not (ROOT / file).exists() or (site / file).read_bytes() == (ROOT / file).read_bytes(), file


def public_names():
    """(module, name) of what the package makes public, read from the sources: __all__, or else the functions and classes of a file that no underscore hides."""
    for path in sorted((ROOT / "miniclip_helpers").glob("[a-z]*")):
        source = path / "__init__.py" if path.is_dir() else path
        if path.name == "cli" or source.suffix != ".py" or not source.is_file():
            continue
        tree = ast.parse(source.read_text(encoding="utf8")).body
        listed = [ast.literal_eval(node.value) for node in tree if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"]
        found = listed[0] if listed else [node.name for node in tree if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_"]
        yield from ((path.stem, name) for name in found)


def test_every_public_name_is_in_the_reference(pages):
    names = list(public_names())
    assert len(names) > 200 and {("losses", "clip_loss"), ("metrics", "retrieval_metrics"), ("index", "build_index"), ("errors", "UsageError")} <= set(names)
    for module, name in names:
        full = f"miniclip_helpers.{module}.{name}"
        assert full in pages[f"api/{module}.html"].ids, full
        assert f"api/{module}.html#{full}" in pages["package.html"].links, full


def test_the_reference_says_what_the_docstring_says(pages):
    text = " ".join(pages["api/losses.html"].text().split())
    assert "Symmetric cross-entropy over the B x B matrix (InfoNCE both ways), the mean of the two directions." in text
    assert "image_embeddings, text_embeddings: (B, D), unit rows." in text
    assert "integer, or return 0" not in text  # what Python says about every int
    assert "measured no slower than larger blocks" in text  # the comment beside a constant
    for name in pages:
        if name.startswith("api/"):
            assert not re.search(r"``|:py:|\\\*", pages[name].text(without=("pre",))), name


def test_every_command_is_on_its_page(pages):
    from miniclip_helpers import cli

    for action in cli.build_parser()._actions:
        for name in action.choices or {} if action.dest == "command" else {}:
            assert f"miniclip-{name}" in pages["commands.html"].ids and f"usage: miniclip {name}" in pages["commands.html"].text()


def test_the_search_knows_the_words(site):
    text = (site / "searchindex.js").read_text(encoding="utf8")
    index = json.loads(text[text.index("(") + 1 : text.rindex(")")])

    def where(word):
        found = [index[part].get(word, []) for part in ("terms", "titleterms")]
        return {index["docnames"][place] for places in found for place in ([places] if isinstance(places, int) else places)}

    assert {"notebooks/01_from_words_to_clip", "notebooks/06_fine_tune_pretrained"} <= where("temperatur")
    assert "notebooks/08_index_and_search" in where("hnsw") and "notebooks/09_probe_the_limits" in where("negat")
    assert "api/losses" in where("infonc") and "notebooks/README" in where("glossari") | where("trustworthi")
    assert any("clip_loss" in str(entry) for entry in index["objects"].values())


def tells(text, place):
    """Whether the text names this path, or one below it. A checkout in /app is not told by miniclip_helpers/app, by /application or by an address."""
    return bool(re.search(rf"(?:(?<=file://)|(?<![\w./~-])){re.escape(place)}(?!\.?[\w-])", text))


def test_no_page_tells_where_it_was_made(site):
    pages = [*site.rglob("*.html"), *site.rglob("*.js")]
    assert len(pages) > 20
    for path in pages:
        assert not tells(path.read_text(encoding="utf8"), str(ROOT)), path


def test_a_short_path_is_not_mistaken():
    for told in ("made in /app.", 'src="/app/figures/a.png"', "file:///app/index.html", "<code>/app</code>", "PATH=/bin:/app:/usr"):
        assert tells(told, "/app"), told
    for other in ("miniclip_helpers/app/page.py", "/application", "/app-2", "/app.js", "../app/", "~/app", "https://app.example", "https://example.org/app", "/srv/app"):
        assert not tells(other, "/app"), other
    assert not tells("https://github.com/miniclip/miniclip", "/miniclip")


@pytest.fixture
def parts(monkeypatch):
    """The modules beside conf.py."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    yield lambda name: importlib.import_module(f"pages.{name}")
    for name in [name for name in sys.modules if name.partition(".")[0] == "pages"]:
        del sys.modules[name]


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    """As in `sphinx-build notebooks out`, where the sources are a folder that somebody needs."""
    pytest.importorskip("sphinx")
    (tmp_path / "mine" / "deeper").mkdir(parents=True)
    kept = [tmp_path / "mine" / "index.md", tmp_path / "mine" / "deeper" / "work.ipynb"]
    for path in kept:
        path.write_text("precious", encoding="utf8")
    command = [sys.executable, "-m", "sphinx", "-q", "-c", str(ROOT / "docs"), str(tmp_path / "mine"), str(tmp_path / "out")]
    (tmp_path / "reports").mkdir()  # Sphinx leaves one of its end
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "reports")}, capture_output=True, text=True)
    assert done.returncode and "ExtensionError" in done.stderr and "make site" in done.stderr, done.stderr
    assert sorted(path for path in (tmp_path / "mine").rglob("*") if path.is_file()) == sorted(kept) and {path.read_text(encoding="utf8") for path in kept} == {"precious"}


@pytest.fixture
def checkout(tmp_path):
    """A checkout whose notebooks/ may be written to."""
    (tmp_path / "checkout" / "notebooks").mkdir(parents=True)
    for path in [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "CITATION.cff", "data", "figures", "tests")),
                 *(path for path in (ROOT / "notebooks").iterdir() if path.suffix)]:
        (tmp_path / "checkout" / path.relative_to(ROOT)).symlink_to(path)
    return tmp_path / "checkout"


def test_pages_are_laid_out_anew_and_without_a_learners_copy(parts, checkout, tmp_path):
    pytest.importorskip("sphinx")
    layout = parts("layout")
    for stem in (STEMS[4], STEMS[4][:3] + "draft"):
        (checkout / "notebooks" / f"{stem}-Copy1.ipynb").write_bytes((ROOT / "notebooks" / f"{STEMS[4]}.ipynb").read_bytes())
    folder = tmp_path / "absent" / "pages"
    layout.lay_out(folder, checkout)
    laid_out = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert sorted(name for name in laid_out if name.endswith(".ipynb")) == [f"notebooks/{stem}.ipynb" for stem in STEMS]
    (folder / "old.md").write_text("a page of yesterday", encoding="utf8")  # would be an orphan, and so a warning
    layout.empty(folder)
    assert {path.name for path in folder.iterdir()} == {layout.MARK}


def test_docstrings_become_lists(parts):
    pytest.importorskip("sphinx")
    docstrings = parts("docstrings")

    def thing(rows, k=1):
        pass

    lines = ["The `k` nearest of *all* rows_.", "", "rows: (N, D). k: how many", "of them. Returns `Hit`s.", ">>> thing([], k=2)", "[]"]
    docstrings.render(None, "function", "thing", thing, None, lines)
    assert lines == ["The ``k`` nearest of \\*all\\* rows\\_.", "", "* **rows**: (N, D).", "* **k**: how many of them.", "* *Returns* :py:obj:`Hit`\\ s.", "",
                     ">>> thing([], k=2)", "[]", ""]


def test_a_formula_that_cannot_be_drawn_is_an_error(parts):
    pytest.importorskip("sphinx")
    formulas = parts("formulas")
    assert "<mfrac>" in formulas.to_mathml(r"\Big(\frac{a}{b}\Big)", True)
    assert "mspace" in formulas.to_mathml(r"\log 3", False) and "mspace" not in formulas.to_mathml(r"\log(3)", False)
    with pytest.raises(formulas.MathError):
        formulas.to_mathml(r"\nosuchcommand{a}", False)
