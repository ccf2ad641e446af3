"""Commands run where no network is, and what they tried to reach.

Two counters that know nothing of each other: an audit hook in every Python that is started (`cut_off/sitecustomize.py`), and, where Linux
gives a namespace of its own, the kernel's count of packets that had no way out, which sees programs in any language. Not counted: a program
that is no Python and only looks up a name where a resolver listens on this machine (127.0.0.53 in resolv.conf); its question leaves by the loopback.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import ending

HERE = pathlib.Path(__file__).resolve().parent
COUNTED = re.compile(r"^(?:Ip6OutNoRoutes|Ip6OutDiscards)\s+(\d+)$", re.M)
LISTED = """
import importlib, json, pkgutil, sys
import miniclip_helpers
from miniclip_helpers import cli
names = [found.name for found in pkgutil.walk_packages(miniclip_helpers.__path__, "miniclip_helpers.") if not found.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
assert len(names) > 150, names
for words in json.loads(sys.argv[1]):
    code = cli.main(words)
    print("code", code, *words, flush=True)
    if code and words != ["doctor"]:  # that one finds fault with the machine
        sys.exit(f"{words} gave {code}")
"""


def namespace():
    """How a command is started where the kernel has no network but the loopback, as the beginning of a list; [] where Linux does not give one."""
    if not shutil.which("unshare") or not shutil.which("ip"):
        return []
    begin = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && "$@"; code=$?; cat /proc/net/snmp /proc/net/snmp6 > "$MINICLIP_SNMP"; exit $code', "sh"]
    tried = subprocess.run([*begin, "true"], env=os.environ | {"MINICLIP_SNMP": os.devnull}, capture_output=True)
    return begin if tried.returncode == 0 else []


def no_routes(text):
    """How many packets had no way out, as /proc/net/snmp and snmp6 count them."""
    head, row = (line.split() for line in text.splitlines() if line.startswith("Ip: "))
    return int(row[head.index("OutNoRoutes")]) + sum(int(count) for count in COUNTED.findall(text))


def cut_off(command, folder, seconds=900, **more):
    """Run a command, cut off, with a home of its own in `folder`. Returns (exit code, output, [attempts that Python made], packets without a way or None)."""
    folder = pathlib.Path(folder)
    (folder / "home").mkdir(parents=True, exist_ok=True)
    told, snmp, way = folder / "told", folder / "snmp", namespace()
    told.write_text("")
    offline = ("MINICLIP_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "DO_NOT_TRACK", "NO_ALBUMENTATIONS_UPDATE", "HF_HUB_DISABLE_TELEMETRY", "GRADIO_ANALYTICS_ENABLED")
    env = {key: value for key, value in os.environ.items() if key not in offline and not key.lower().endswith("_proxy")}
    env |= {"PYTHONPATH": f"{HERE / 'cut_off'}{os.pathsep}{HERE.parent}", "MINICLIP_TOLD": str(told), "MINICLIP_SNMP": str(snmp), "HOME": str(folder / "home"), "MINICLIP_CACHE": str(folder / "cache"),
            "MINICLIP_BUILD": str(folder / "build"), "MINICLIP_FIGURES": str(folder / "figures"), "PATH": f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"} | more
    done = ending.run([*way, *command], seconds, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    return done.returncode, done.stdout, told.read_text().splitlines(), no_routes(snmp.read_text()) if way else None


def commands_cut_off(commands, folder, **more):
    """The same for several commands of miniclip, a list of words each, in one process."""
    return cut_off([sys.executable, "-c", LISTED, json.dumps([[str(word) for word in words] for words in commands])], folder, **more)


def assert_alone(found):
    """The command did its work, and asked nobody outside."""
    code, output, attempts, packets = found
    assert code == 0, output[-3000:]
    assert attempts == [], attempts
    assert packets in (0, None), f"{packets} packets wanted to leave this machine\n{output[-1000:]}"
