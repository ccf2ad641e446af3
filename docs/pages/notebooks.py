"""The notebooks on the site: still pictures in place of widgets, sharp figures with their captions, alternative texts, and an anchor on each cell."""

import json
import re

from docutils import nodes
from sphinx.transforms import SphinxTransform

from . import layout

WIDGET = "application/vnd.jupyter.widget-view+json"


def prepare(app, name, source):
    """On reading: a notebook without its widgets, which need a running Python, and with the installation for Colab folded away."""
    if app.env.doc2path(name).suffix != ".ipynb":
        return
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = [output for output in cell["outputs"] if WIDGET not in output.get("data", {})]
            cell["metadata"]["anchor"] = f"cell-{cell['id']}"
            if 'importlib.util.find_spec("miniclip_helpers")' in "".join(cell["source"]):
                cell["metadata"].setdefault("tags", []).append("hide-input")
    first = notebook["cells"][0]
    stem = name.rpartition("/")[2]
    first["source"] = re.sub(r"^\[!\[Open in Colab\]\([^)]*\)\]\(([^)]*)\)", rf"[Open in Colab](\1) · {{download}}`Download this notebook <{stem}.ipynb>`",
                             "".join(first["source"]), flags=re.MULTILINE)
    source[0] = json.dumps(notebook)


class Pictures(SphinxTransform):
    """Anchors on cells; on each picture the alternative text that stands beside it; and in place of a saved figure its file of twice the resolution, with the caption."""

    default_priority = 300

    def apply(self):
        if str(self.document["source"]).endswith(".ipynb"):
            for cell in self.document.findall(lambda node: isinstance(node, nodes.container) and node.get("nb_element") == "cell_code"):
                anchor = cell["cell_metadata"].get("anchor", "")
                cell["ids"].append(anchor)
                for bundle in list(cell.findall(lambda node: isinstance(node, nodes.container) and node.get("nb_element") == "mime_bundle")):
                    self.describe(bundle, anchor.removeprefix("cell-"))

    def describe(self, bundle, cell):
        images, alt = list(bundle.findall(nodes.image)), re.fullmatch(r"\[figure: (.*)\]", bundle_text(bundle), re.DOTALL)
        if not images or not alt:
            return
        stem, figures = self.env.docname.rpartition("/")[2], saved(self.app)
        name = next((name for name, one in figures.items() if (one["notebook"], one["cell"], one["alt"]) == (stem, cell, alt[1])), None)
        if name:
            bundle.parent.replace(bundle, sharp(name, figures[name]))
        for image in images:
            image["alt"] = alt[1]


def bundle_text(bundle):
    texts = [part.astext() for part in bundle.children if part.get("mime_type") == "text/plain"]
    return texts[0].strip() if texts else ""


def saved(app):
    if not hasattr(app, "miniclip_figures"):
        app.miniclip_figures = layout.read_figures(layout.ROOT)
    return app.miniclip_figures


def sharp(name, figure):
    image = layout.picture(name, figure["alt"], layout.ROOT, up="../")
    link = f'<a href="../figures/{name}.png">{image}</a>'
    return nodes.container("", nodes.raw("", link, format="html"), nodes.paragraph("", figure["caption"]), classes=["cell_output", "saved"])


class NothingFromOutside(SphinxTransform):
    """Pictures from other addresses, such as badges, become their alternative text: the site asks nobody."""

    default_priority = 310

    def apply(self):
        for image in list(self.document.findall(nodes.image)):
            if re.match(r"(https?:)?//", image["uri"]):
                image.parent.replace(image, nodes.Text(image.get("alt", "picture")))


def setup(app):
    app.connect("source-read", prepare)
    app.add_transform(Pictures)
    app.add_transform(NothingFromOutside)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
