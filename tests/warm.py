"""The one process that tests fork others from: it has imported what is slow, which saves each of them seconds.

Python has one such server in a process, and what it imports is settled when it starts: so the imports of all who use it stand here.
"""

import functools
import multiprocessing.forkserver
import os
import pathlib
from unittest import mock

IMPORTED = ["torch", "torch._dynamo", "numpy", "PIL.Image", "faiss", "pyarrow.parquet", "safetensors.torch", "nbformat", "transformers", "timm", "yaml", "webdataset", "filelock", "pooch",
            "requests", "pandas", "miniclip_helpers.cli", "miniclip_helpers.training.run", "miniclip_helpers.datasets", "miniclip_helpers.embedding", "miniclip_helpers.index",
            "miniclip_helpers.retrieval", "miniclip_helpers.finetuning", "miniclip_helpers.series", "miniclip_helpers.coursework", "miniclip_helpers.pretrained", "miniclip_helpers.search",
            "miniclip_helpers.zero_shot", "miniclip_helpers.service"]
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # a process with threads must not be forked


def no_models(folder):
    """Settings with which no model of the hub is there: what a test finds must not hang on what its user has fetched."""
    return {"HF_HOME": str(folder), "HF_HUB_CACHE": str(folder), "TORCH_HOME": str(folder)}


@functools.cache
def server():
    """The context whose processes are forked. Its settings are its own: those of this process, and of the tests after this one, stay as they are."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    with mock.patch.dict(os.environ, THREADS | no_models(pathlib.Path(os.environ["MINICLIP_FIGURES"]) / "hub")):  # a folder that conftest takes away
        multiprocessing.forkserver.ensure_running()
    return context
