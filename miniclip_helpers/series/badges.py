"""The repository's address stands once, in pyproject.toml; badges and setup cells are rewritten from it."""

import json
import re
import subprocess
import tomllib

from .. import runtime
from ..errors import MiniclipError, UsageError

COLAB = "https://colab.research.google.com/github/{}/blob/main/notebooks/{}.ipynb"
PATTERNS = (
    r"(?<=colab\.research\.google\.com/github/)[\w.-]+/[\w.-]+(?=/blob/)",
    r"(?<=mybinder\.org/v2/gh/)[\w.-]+/[\w.-]+(?=/)",
    r"(?<=git\+https://github\.com/)[\w.-]+/[\w.-]+?(?=(?:\.git)?(?:[@\s\"'#)\\]|$))",
    r"(?<=git clone https://github\.com/)[\w.-]+/[\w.-]+?(?=(?:\.git)?(?:\s|$))",
)


def repository(from_git=False):
    """OWNER/NAME of the project: from pyproject.toml's Repository, or from the git remote "origin"."""
    if from_git:
        found = subprocess.run(["git", "remote", "get-url", "origin"], cwd=runtime.CHECKOUT, capture_output=True, text=True)
        address = found.stdout.strip()
        if found.returncode or not address:
            raise MiniclipError("this checkout has no git remote called origin; set Repository in pyproject.toml instead")
    else:
        address = tomllib.loads((runtime.CHECKOUT / "pyproject.toml").read_text(encoding="utf8"))["project"]["urls"]["Repository"]
    match = re.search(r"github\.com[/:]([\w.-]+/[\w.-]+?)(?:\.git)?/?$", address)
    if not match:
        raise UsageError(f"expected an address like https://github.com/OWNER/NAME, found {address!r}")
    return match.group(1)


def rewrite_badges(from_git=False):
    """Put the address into README.md, CITATION.cff and every notebook. Returns the files that changed."""
    if not runtime.in_checkout():
        raise MiniclipError("badges are rewritten in a checkout of the project, not in an installed package")
    name, changed = repository(from_git), []
    if from_git:
        pyproject = runtime.CHECKOUT / "pyproject.toml"
        changed += _replace(pyproject, lambda text: re.sub(r'(?m)^Repository = ".*"$', f'Repository = "https://github.com/{name}"', text))
    files = [runtime.CHECKOUT / "README.md", *sorted((runtime.CHECKOUT / "notebooks").glob("*.ipynb")), *sorted((runtime.CHECKOUT / "notebooks").glob("*.md"))]
    for file in files:
        changed += _replace(file, lambda text: _with_address(text, name))
    citation = runtime.CHECKOUT / "CITATION.cff"
    if citation.exists():
        changed += _replace(citation, lambda text: re.sub(r'(?m)^(repository-code|url): .*$', rf'\1: "https://github.com/{name}"', text))
    return changed


def _with_address(text, name):
    for pattern in PATTERNS:
        text = re.sub(pattern, name, text)
    return text


def _replace(file, change):
    """Rewrite a file through `change`; [its name] if that made a difference, else []."""
    old = file.read_text(encoding="utf8")
    new = change(old)
    if new == old:
        return []
    if file.suffix == ".ipynb":
        json.loads(new)  # never leave a notebook that does not parse
    with runtime.writing(file) as path:
        path.write_text(new, encoding="utf8")
    return [str(file.relative_to(runtime.CHECKOUT))]
