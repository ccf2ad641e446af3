"""Links lead somewhere, and the README's promises name tests that are there and run."""

import ast
import re
import subprocess
import sys

import pytest
from conftest import ROOT
from links_in_docs import DOCUMENTS, anchors, broken, inside, odd, outside


def test_all_documents_are_looked_through():
    known = set(subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.md", "notebooks/*.ipynb"], cwd=ROOT, capture_output=True, text=True).stdout.split())
    assert known - set(DOCUMENTS) <= {"data/README.md"} and len(DOCUMENTS) >= 21


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_within_the_project_lead_somewhere(document):
    assert [fault for fault in (broken(document, target) for target in inside(document)) if fault] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_addresses_outside_are_well_formed_and_of_hosts_that_we_know(document):
    assert [f"{address}: {fault}" for address in outside(document) if (fault := odd(address))] == []


def test_links_are_found_at_all():
    assert len(inside("README.md")) > 25 and len(outside("README.md")) > 12 and len(inside("figures/index.md")) > 100
    assert sum(len(outside(document)) for document in DOCUMENTS) > 60


@pytest.mark.parametrize("target", ["gone.md", "README.md#gone", "../outside.md", "notebooks/README.md#for-instructor", "notebooks/00_start_here.ipynb#no-cell", "#nowhere", "Makefile#run"])
def test_a_broken_link_is_seen(target):
    assert broken("README.md", target)


@pytest.mark.parametrize("target", ["notebooks/README.md#for-instructors", "#if-it-fails", "data/README.md", "notebooks/00_start_here.ipynb#00-07", "figures/"])
def test_a_link_that_leads_somewhere_is_none(target):
    assert broken("README.md", target) is None


@pytest.mark.parametrize("address", ["http://arxiv.org/abs/2103.00020", "https://arxiv.org/pdf/2103.00020", "https://evil.example/x", "https://github.com@evil.example/", "https://github.com//x", "https://github.com/a{b}"])
def test_an_odd_address_is_seen(address):
    assert odd(address)


def test_anchors_are_githubs():
    assert {"what-the-grader-does-and-what-it-does-not", "a-new-exercise", "for-instructors"} <= anchors("notebooks/README.md")


# --- what it promises

ROW = re.compile(r"(?m)^\| (?P<promise>[^|]+?) \| (?P<proof>.*?) \|$")
PROOF = re.compile(r"\[(?P<said>[^\]]+)\]\((?P<file>tests/[\w/]+\.py)\)")
CALLED = re.compile(r"`(?P<name>test_\w+)`")


def promises():
    """[(promise, [(file, test)])] of README's table."""
    text = (ROOT / "README.md").read_text(encoding="utf8")
    part = text[text.index("| promise | proof |") :].split("\n\n")[0].split("\n", 1)[1]
    rows = [match for match in ROW.finditer(part) if match["promise"] not in ("promise",) and not set(match["promise"]) <= set("-")]
    found = []
    for row in rows:
        file, proofs = None, []
        for word in re.finditer(f"{PROOF.pattern}|{CALLED.pattern}", row["proof"]):
            file = word["file"] or file
            if word["name"]:
                proofs.append((file, word["name"]))
        found.append((row["promise"], proofs))
    return found


PROMISES = promises()


def test_every_promise_has_a_proof():
    assert len(PROMISES) >= 25
    assert [promise for promise, proofs in PROMISES if not proofs or not all(file for file, _ in proofs)] == []
    assert len({promise for promise, _ in PROMISES}) == len(PROMISES)


@pytest.fixture(scope="module")
def collected():
    """What pytest collects of the files that the promises name: {(file, name of the test)}, and the reasons for which some are skipped anyway."""
    files = sorted({file for _, proofs in PROMISES for file, _ in proofs})
    done = subprocess.run([sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files], cwd=ROOT, capture_output=True, text=True, timeout=300)
    return {tuple(line.partition("[")[0].split("::")) for line in done.stdout.splitlines() if "::" in line}, done.stdout + done.stderr


def test_every_proof_is_a_test_that_pytest_collects(collected):
    found, said = collected
    assert [f"{file}::{name}" for _, proofs in PROMISES for file, name in proofs if (file, name) not in found] == [], said[-2000:]


WINDOWS = re.compile(r"os\.name == 'nt'|hasattr\(os, 'fork'\)|importorskip\('resource'|are others on Windows|root may write anywhere")  # what leaves out Windows, or root without setpriv, alone
SKIPPING = ("skip", "skipif", "importorskip", "xfail")


def named(tree):
    """{name: node} of what a file defines or assigns at its top."""
    found = {}
    for node in tree.body:
        names = [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else [target.id for target in node.targets if isinstance(target, ast.Name)] if isinstance(node, ast.Assign) else []
        found |= dict.fromkeys(names, node)
    return found


def skips(text, test):
    """The calls that may leave out `test` of a file: at its top, in its marks and its body, and in the fixtures and functions of the file, of conftest and of helpers that it leads to."""
    tree, known = ast.parse(text), {}
    for module in ["conftest", *(node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))]:
        file = ROOT / "tests" / f"{module}.py"
        known |= named(ast.parse(file.read_text(encoding="utf8"))) if file.exists() else {}
    known |= named(tree)
    marks = [node for node in tree.body if isinstance(node, ast.Assign) and "pytest.mark." in ast.unparse(node)]  # they count where they are used
    found = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef) and node not in marks]
    ahead, seen = [test, "pytestmark"], set()
    while ahead:
        name = ahead.pop()
        if name in seen or name not in known:
            continue
        seen.add(name)
        found.append(known[name])
        inside = list(ast.walk(known[name]))
        own = {node.id for node in inside if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        ahead += {node.id for node in inside if isinstance(node, ast.Name)} - own
        ahead += [node.arg for node in inside if isinstance(node, ast.arg)] + [node.value for node in inside if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    bare = {ast.unparse(mark) for top in found for mark in getattr(top, "decorator_list", []) if isinstance(mark, ast.Attribute) and mark.attr in SKIPPING}
    calls = {ast.unparse(node) for top in found for node in ast.walk(top) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SKIPPING}
    return sorted(call for call in bare | calls if not WINDOWS.search(call))


def test_each_promise_has_a_proof_that_linux_and_macos_never_leave_out():
    """What skips for want of a browser, a card, data of others or walls of Linux may stand beside such a proof, and not alone."""
    for promise, proofs in PROMISES:
        reasons = {name: skips((ROOT / file).read_text(encoding="utf8"), name) for file, name in proofs}
        assert not all(reasons.values()), f"{promise}: {reasons}"


@pytest.mark.parametrize("before, body", [("@pytest.mark.skipif(x, reason='')\n", "pass"), ("linux = pytest.mark.skipif(x, reason='')\n@linux\n", "pass"), ("pytestmark = pytest.mark.skipif(x, reason='')\n", "pass"),
                                          ("x = pytest.importorskip('x')\n", "pass"), ("", "pytest.skip('')"), ("@pytest.fixture\ndef a():\n    pytest.skip('')\n", "pass"), ("", "shared('x')"),
                                          ("from test_checks_wheel import uv\n", "uv()"), ("@pytest.mark.xfail\n", "pass")])
def test_what_may_leave_out_a_test_is_seen(before, body):
    assert skips(f"{before}def test_x(a):\n    {body}\n", "test_x")
    assert not skips("linux = pytest.mark.skipif(x, reason='')\n@linux\ndef test_y():\n    pytest.skip('')\n@pytest.mark.skipif(os.name == 'nt', reason='')\ndef test_x(tmp_path):\n    pass\n", "test_x")
