"""What strangers wrote (captions, names of files, labels, albums, models, students) is text wherever it is shown: no live node in a page, no script in an SVG, nothing that steers a terminal."""

import html.parser
import json
import re
import xml.etree.ElementTree

import numpy as np
import pytest
from conftest import picture
from markdown_it import MarkdownIt

from miniclip_helpers import cli, plots, runtime, search, widgets
from miniclip_helpers.app import page
from miniclip_helpers.checks import core
from miniclip_helpers.index import build_index
from miniclip_helpers.widgets import finding, matrix

HOSTILE = ["<script>evil()</script>", "<img src=x onerror=evil()>", '"><svg onload=evil()>', "' onmouseover='evil()", "</span></figure><iframe src=//evil.example>", "<a href='javascript:evil()'>x</a>",
           "&lt;script&gt;evil()&lt;/script&gt;", "<!--", "]]><script>evil()</script>", "<style>@import '//evil.example'</style>", "{{7*7}}${7*7}<%= 7*7 %>", "[x](javascript:evil())", "![x](//evil.example/x.png)",
           "$\\href{javascript:evil()}{x}$", "\\input{/etc/passwd}", "\x1b]0;evil\x07\x1b[2J", "a\u202egnp.exe", "a\nb", "=cmd|'/C evil'!A0", "\ud800", "\0", "<math><mtext></p><script>evil()"]


class Nodes(html.parser.HTMLParser):
    """Every tag with its attributes, as a parser sees them."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, tuple(sorted(name for name, _ in attributes))))
        for name, value in attributes:
            assert not name.startswith("on"), f"a handler: {name}={value}"
            assert name not in ("href", "src") or (value or "").startswith(("data:image/", "#")) or not value, f"an address: {value}"

    handle_startendtag = handle_starttag


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_cards_cells_notes_and_pages_have_the_same_nodes_whatever_they_say(text):
    """Compared with the same thing said of a harmless text: not a tag and not an attribute more."""
    def drawn(said):
        name = said.replace("/", "_") + ".png"
        yield finding.card(1, search.Hit(name, 0.5), "data:image/jpeg;base64,AAAA", [said])
        yield finding.card(1, search.Hit(name, 0.5), "", [said], problem=ValueError(said))
        yield core.note(finding.escaped("a"), runtime.plain(said), "#333", runtime.plain(said)).replace("<br>", "")
        yield matrix.hover_grid((0, 0, 1, 1), matrix.cell_texts(np.eye(2), [runtime.plain(said), "b"], [runtime.plain(said), "d"], 0.07))
        yield page.PROBLEM.format(finding.escaped(said))

    for hostile, harmless in zip(drawn(text), drawn("harmless"), strict=True):
        assert Nodes(hostile).found == Nodes(harmless).found
        assert "\u202e" not in hostile and "\x1b" not in hostile and "\0" not in hostile


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_panel_says_text(text):
    said = text.encode("utf8", "replace").decode()
    panel = widgets.Panel("a panel", said, {}, lambda: (plots.quick_png(plots.new_figure()[0], 20), said))
    assert {tag for tag, _ in Nodes(panel.status.value).found} <= {"b"}


def nodes_of(svg):
    """The elements of an SVG by a parser of XML, comments apart, how many of each; and the values of attributes that name something outside."""
    tree = xml.etree.ElementTree.fromstring(svg)
    outside = [value for node in tree.iter() for name, value in node.attrib.items() if name.endswith("href") and not value.startswith(("#", "data:image/png"))]
    return {node.tag.rpartition("}")[2] for node in tree.iter()}, outside, [name for node in tree.iter() for name in node.attrib if name.lower().startswith("on")]


@pytest.mark.parametrize("text", [text for text in HOSTILE if text.isprintable() or text == "a\nb"], ids=repr)
def test_a_saved_figure_holds_no_script(text):
    figure, axes = plots.new_figure()
    axes.set_title(text, parse_math=False)
    axes.plot([0, 1], label=text.replace("$", ""))
    axes.text(0, 0, text, parse_math=False)
    tags, outside, handlers = nodes_of(plots.to_svg(figure, caption=text, alt=text))
    assert not tags & {"script", "foreignObject", "iframe", "a", "animate", "set", "handler"} and outside == [] and handlers == []


def test_the_index_of_figures_is_a_table_whatever_a_caption_says(tmp_path):
    rows = {f"99_{number}": {"notebook": "", "cell": "", "timed": False, "caption": text.encode("utf8", "replace").decode(), "alt": text.encode("utf8", "replace").decode()} for number, text in enumerate(HOSTILE)}
    plots.write_index(tmp_path, rows)
    written = (tmp_path / "index.md").read_text(encoding="utf8")
    assert len(plots.read_index(tmp_path)) == len(rows)
    assert "\x1b" not in written and "\u202e" not in written
    shown = MarkdownIt("commonmark", {"html": True}).enable("table").render(written)
    assert {tag for tag, _ in Nodes(re.sub(r'href="99_\d+\.(png|svg)"', "", shown)).found} <= {"h1", "p", "table", "thead", "tbody", "tr", "th", "td", "a", "em", "code"}


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_a_command_prints_steers_no_terminal(text):
    said = runtime.plain(text)
    assert not re.search("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", said)
    assert "\n" in runtime.plain("a\nb", lines=True) and runtime.plain("naïve Ωé 猫 \u200f\t") == "naïve Ωé 猫 \u200f\t"


def test_hits_errors_and_problems_are_printed_plain(tmp_path, capsys):
    captions = {f"x.png#{number}": text.encode("utf8", "replace").decode() for number, text in enumerate(HOSTILE)}
    made = build_index(np.eye(32, dtype=np.float32)[: len(captions)], list(captions), "flat", {"holds": "captions", "captions": captions})
    cli.searching.print_hits(made, [search.Hit(name, 0.5) for name in captions])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(captions) and not any(set(line) & set("\x1b\0\x07\u202e") for line in lines)
    folder = tmp_path / "\x1b[31mevil"
    folder.mkdir()
    picture(0).save(folder / "a.png")
    (folder / "captions.json").write_text(json.dumps([{"file_name": "\x1b]0;evil\x07.png", "caption": "a"}]))
    assert cli.main(["evaluate", "--data", str(folder)]) == 1
    assert "\x1b" not in capsys.readouterr().err


def test_marks_of_a_table_are_no_formulas():
    from miniclip_helpers.coursework import scores

    for text in ("=cmd|'/C evil'!A0", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", " =1"):
        assert scores._safe(text)[0] == "'"
