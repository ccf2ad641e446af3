"""Search over the 950 stamps: as a command, where imports are most of it, and in a running notebook."""

import subprocess
import sys

import pytest

from miniclip_helpers import search
from miniclip_helpers.datasets import load_dataset
from miniclip_helpers.pretrained import load_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The model, the dataset, the index and the folder it was saved to."""
    folder, model, stamps = tmp_path_factory.mktemp("bench") / "stamps.index", load_model("mini"), load_dataset("stamps")
    index = search.index_dataset(stamps, model)
    index.save(folder)
    return model, index, folder


def test_a_warm_search_as_a_command(benchmark, saved):
    command = [sys.executable, "-m", "miniclip_helpers.cli", "search", str(saved[2]), "a red fruit"]
    benchmark.pedantic(lambda: subprocess.run(command, check=True, capture_output=True), rounds=3, warmup_rounds=1)


def test_a_search_in_a_notebook(benchmark, saved):
    model, index, _ = saved
    queries = iter(f"a red fruit number {number}" for number in range(10**6))  # each new to the cache, as in use
    benchmark.pedantic(lambda: search.search_text(index, model, next(queries)), rounds=30, warmup_rounds=3)
