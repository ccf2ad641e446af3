"""Named results of a notebook: printed with the range they must fall in, and recorded for build/results.json."""

import functools
import json
import os
import pathlib

from .. import runtime
from ..errors import MiniclipError, UsageError


@functools.cache
def load_profiles():
    """notebooks/profiles.yaml as a dict: {notebook: {profile: {"parameters": {...}}, "results": {name: [low, high]}}}."""
    import yaml

    return yaml.safe_load((runtime.notebooks_dir() / "profiles.yaml").read_text(encoding="utf8"))


def expected_range(name, notebook=None, profile="offline"):
    """(low, high) of a result in a profile, or None where none is promised. Without a notebook all are searched."""
    for stem, entry in load_profiles().items():
        if notebook in (None, stem):
            ranges = entry.get("results", {}) if profile == "offline" else (entry.get(profile) or {}).get("results", {})
            if name in ranges:
                low, high = ranges[name]
                return float(low), float(high)
    return None


def result(name, value):
    """Print a result of this notebook with the range it must fall in, and record it. Returns the value.

    The number depends on the processor in its last digits, the range does not: tests compare the range. Under `miniclip run`
    a value outside fails the notebook at its end; in Jupyter it is only said.
    """
    value = float(value)
    notebook, profile = os.environ.get("MINICLIP_NOTEBOOK"), os.environ.get("MINICLIP_PROFILE", "offline")
    span = expected_range(name, notebook, profile)
    if span is None:
        print(f"{name} = {value:.4g}")
    else:
        verdict = "inside" if span[0] <= value <= span[1] else "OUTSIDE"
        print(f"{name} = {value:.4g} ({verdict} {span[0]:g} to {span[1]:g})")
    if os.environ.get("MINICLIP_RESULTS"):
        with open(os.environ["MINICLIP_RESULTS"], "a", encoding="utf8") as file:
            file.write(json.dumps({"name": name, "value": value}) + "\n")
    return value


def collect(file, notebook, profile):
    """The recorded results of a run, {name: value}, and what is wrong with them: outside their range, promised and missing."""
    lines = pathlib.Path(file).read_text(encoding="utf8").splitlines() if pathlib.Path(file).exists() else []
    found = {record["name"]: record["value"] for record in map(json.loads, lines)}
    problems = []
    for name, value in found.items():
        span = expected_range(name, notebook, profile)
        if span and not span[0] <= value <= span[1]:
            problems.append(f"{name} = {value:.4g} lies outside {span[0]:g} to {span[1]:g}")
    entry = load_profiles().get(notebook, {})
    promised = entry.get("results", {}) if profile == "offline" else (entry.get(profile) or {}).get("results", {})
    problems += [f"{name} is promised in profiles.yaml and was not measured" for name in promised if name not in found]
    return found, problems


def parameters(notebook, profile):
    """The parameters that a profile injects into a notebook; the offline profile is what the notebook itself holds, so nothing."""
    if profile == "offline":
        return {}
    entry = load_profiles().get(notebook)
    if entry is None:
        raise MiniclipError(f"notebooks/profiles.yaml has no entry for {notebook}")
    if profile not in entry:
        raise UsageError(f"{notebook} has no profile {profile!r}; known: offline, {', '.join(key for key in entry if key not in ('offline', 'results'))}")
    return dict((entry[profile] or {}).get("parameters", {}))
