"""Links lead somewhere, and the README's promises name tests that are there and run."""

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
    part = text[text.index("## What it promises") :].split("\n## ")[0].split("\n## ", 1)[0]
    part = part.split("\n", 1)[1]
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


def test_no_proof_is_left_out_whatever_the_machine():
    """No mark that skips or forgives it always; what skips for want of a browser, a card or data of others says so in the table's last column... and is not the only proof."""
    for promise, proofs in PROMISES:
        free = []
        for file, name in proofs:
            text = (ROOT / file).read_text(encoding="utf8")
            before = text[: text.index(f"def {name}(")].rsplit("\n\n\n", 1)[-1]
            assert not re.search(r"mark\.(skip\b|xfail)", before), (promise, name)
            free.append("skipif" not in before and "importorskip" not in before)
        assert any(free), f"{promise}: all of its proofs are skipped on some machines"
