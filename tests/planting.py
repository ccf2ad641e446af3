"""Run a notebook with a fault in the package (tests/planted/sitecustomize.py), and say which named results left their range."""

import importlib.util
import json
import os
import subprocess
import sys

import ending
import yaml
from conftest import ROOT

PLANTED = ROOT / "tests" / "planted"


def _faults():
    """The names of the faults, out of a module that is not imported by its own name: Python has a `sitecustomize` of its own."""
    spec = importlib.util.spec_from_file_location("planted_faults", PLANTED / "sitecustomize.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return tuple(module.FAULTS)


FAULTS = _faults()


def profiles():
    """notebooks/profiles.yaml, read without the package."""
    return yaml.safe_load((ROOT / "notebooks" / "profiles.yaml").read_text(encoding="utf8"))


def run_with(fault, name, folder, stop=False, timeout=1800):
    """{"code", "outside": {result: value}, "values", "said"} of the notebook `name`, run by `miniclip run` with a fault planted ("none" for none).

    stop: end it at the first result that leaves its range. folder: where build and figures go; the feature cache is the user's, as faults alter
    no features.
    """
    environment = os.environ | {"PLANTED_FAULT": fault, "PLANTED_STOP": str(int(stop)), "PYTHONPATH": str(PLANTED), "MINICLIP_BUILD": str(folder),
                                "MINICLIP_PROGRESS": "0", "MINICLIP_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "miniclip_helpers.cli", "run", name]
    done = ending.run(command, timeout, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    records = folder / "offline" / f"{name}.results.jsonl"
    lines = records.read_text(encoding="utf8").splitlines() if records.exists() else []
    values = {record["name"]: record["value"] for record in map(json.loads, lines)}
    spans = profiles()[name]["results"]
    outside = {key: value for key, value in values.items() if key in spans and not spans[key][0] <= value <= spans[key][1]}
    return {"code": done.returncode, "outside": outside, "values": values, "said": (done.stdout + done.stderr)[-3000:]}
