"""The links of the documents and of the notebooks' prose: those within the project, followed here; those that lead outside, which only the long form asks."""

import functools
import json
import re
import urllib.parse

from conftest import ROOT

DOCUMENTS = [
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "notebooks/README.md", "tests/README.md", "tests/mutants.md", "tests/benchmarks/README.md", "figures/index.md"),
    *(f"data/{file.name}" for file in sorted((ROOT / "data").glob("*.md"))),
    *(f"notebooks/{file.name}" for file in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))),
]
# Who is linked to. Another host is let in by a line here, once somebody has looked at it.
HOSTS = {"arxiv.org", "colab.research.google.com", "distill.pub", "docs.astral.sh", "doi.org", "github.com", "keepachangelog.com", "mybinder.org", "nbgrader.readthedocs.io", "semver.org"}
EXAMPLES = {"http://127.0.0.1:8000", "http://..."}  # typed, or shown as what a file holds


@functools.cache
def read(document):
    """The text of a document without code, or the markdown cells of a notebook."""
    text = (ROOT / document).read_text(encoding="utf8")
    if document.endswith(".ipynb"):
        text = "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")
    return re.sub(r"(?ms)^ *```.*?^ *```", "", text)


@functools.cache
def anchors(document):
    """The anchors that GitHub gives to the headings of a document."""
    found, seen = set(), {}
    for heading in re.findall(r"(?m)^#{1,6} (.+?)\s*$", read(document)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "").lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        seen[slug] = seen.get(slug, -1) + 1
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
    return found


def inside(document):
    """The targets of links and pictures that stay within the project."""
    prose = re.sub(r"`[^`\n]+`", "", read(document))
    return [target for target in re.findall(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)", prose) if not re.match(r"[a-z]+:", target)]


def outside(document):
    """The addresses that a document names, wherever they stand."""
    found = re.findall(r"https?://[^\s)\"'`<>\]|,]+", read(document))
    return [address.rstrip(".;:") for address in found if not address.startswith(tuple(EXAMPLES)) or address in ("http://", "https://")]


def broken(document, target):
    """What is wrong with a link within the project, or None."""
    path, _, anchor = target.partition("#")
    place = (ROOT / document).parent / urllib.parse.unquote(path) if path else ROOT / document
    place = place.resolve()
    if not place.exists() or not place.is_relative_to(ROOT.resolve()):
        return f"{document}: {target} does not exist in the project"
    if anchor:
        there = place.relative_to(ROOT.resolve()).as_posix()
        known = {cell["id"] for cell in json.loads(place.read_text(encoding="utf8"))["cells"]} if there.endswith(".ipynb") else anchors(there) if there.endswith(".md") else set()
        if anchor not in known:
            return f"{document}: {target}, an anchor that is not there"
    return None


def odd(address):
    """What is wrong with an address that leads outside, or None: not https, another host, not well formed."""
    parts = urllib.parse.urlsplit(address)
    if parts.scheme != "https":
        return "not https"
    if parts.hostname not in HOSTS:
        return f"{parts.hostname} is not a host that we link to"
    if parts.netloc != parts.hostname or re.search(r"[\s{}\\^<>]|%(?![0-9A-Fa-f]{2})|//", address.removeprefix("https://")):
        return "not well formed"
    if parts.hostname == "arxiv.org" and not re.fullmatch(r"/abs/\d{4}\.\d{4,5}", parts.path):
        return "no address of a paper"
    return None
