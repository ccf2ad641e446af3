"""Every number in prose that comes from a run is that of the committed run; changing any of its digits is seen."""

import json
import re

import pytest
from conftest import ROOT
from numbers_in_prose import DOCUMENTS, cells, elsewhere, evaluate, faults, fits, left, listed, mapping, measured, measured_in, mutants, read, uncovered, untrue

from miniclip_helpers import series


def test_all_notebooks_are_looked_through_and_no_unknown_document_is_mapped():
    assert {f"notebooks/{name}.ipynb" for name in series.notebook_names()} <= set(DOCUMENTS)
    assert {document for part in ("said", "listed") for document in mapping()[part]} <= set(DOCUMENTS)


@pytest.mark.parametrize("document", mapping()["said"])
def test_what_words_say_of_the_results_is_so(document):
    assert untrue(document) == []


def test_numbers_that_another_test_checks_name_a_test_that_is_there():
    for places in elsewhere().values():
        for test in places.values():
            file, _, name = test.partition("::")
            assert re.search(rf"^def {name}\(", (ROOT / file).read_text(encoding="utf8"), re.MULTILINE), test


def test_the_results_are_those_of_the_committed_outputs():
    """notebooks/results.json, written beside the outputs by `miniclip run --update`, against what the notebooks have printed."""
    assert list(measured()) == series.notebook_names()
    for name, row in measured().items():
        text = "\n".join("".join(output["text"]) for cell in cells(f"notebooks/{name}.ipynb") for output in cell.get("outputs", []) if output["output_type"] == "stream")
        shown = dict(re.findall(r"(?m)^(\w+) = (\S+)(?: \(inside .*\))?$", text))
        assert shown == {key: f"{value:.4g}" for key, value in row["results"].items()}, name
        assert row["status"] == "ok" and row["seconds"] > 0 and row["peak_memory_mb"] > 100


@pytest.mark.parametrize("document", mapping()["bound"])
def test_numbers_are_what_was_measured(document):
    assert faults(document) == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_number_is_left_over(document):
    """A number that is new must be bound to what measured it, or be listed as coming from no run: definition, date, arithmetic, published."""
    assert left(document) == listed(document)


@pytest.mark.parametrize("document", mapping()["bound"])
def test_any_changed_digit_of_a_measured_number_is_seen(document):
    missed = [f"{place}: {shown} as {other}" for place, shown, other, parts in mutants(document, measured_in) if not faults(document, read(document) | parts)]
    assert missed == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_any_changed_digit_of_a_listed_number_is_seen(document):
    known = listed(document)
    missed = [f"{place}: {shown} as {other}" for place, shown, other, parts in mutants(document, uncovered) if left(document, parts).get(place) == known.get(place) and place in known]
    assert missed == []


@pytest.mark.parametrize("shown, value, same", [("43.4", 43.36, True), ("43.4", 43.46, False), ("1,586", 1586, True), ("1,587", 1586, False), ("16", 15.6, True), ("16", 15.4, False), (".17", 0.166, True)])
def test_rounding_is_to_the_places_that_are_shown(shown, value, same):
    assert fits(shown, value) == same


@pytest.mark.parametrize("expression", ["__import__('os')", "no_such_result", "[1][0]", "seconds.__globals__"])
def test_an_expression_runs_nothing_else(expression):
    with pytest.raises(LookupError):
        evaluate(expression, "README.md")


def test_the_documents_numbers_do_not_come_from_another_machines_file():
    """Only the committed run counts: what lies in build/ is not looked at."""
    assert json.loads((ROOT / "notebooks" / "results.json").read_text(encoding="utf8")) == measured()
