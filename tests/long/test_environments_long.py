"""Other machines in full: each harm alone, an environment of its own in an odd folder, little memory, and Colab's set of packages installed in earnest."""

import hashlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import pytest
from conftest import ROOT
from environments import COLAB, bare, checkout, miniclip, powerless, setup_command, unwritable
from test_checks_wheel import uv

# What Colab had at the end of 2025, as far as our dependencies go.
PREINSTALLED = """pandas==2.2.2 pillow==11.3.0 matplotlib==3.10.0 scipy==1.16.3 scikit-learn==1.6.1 pyarrow==18.1.0 transformers==4.57.1 tokenizers==0.22.1 datasets==4.0.0
 timm==1.0.22 accelerate==1.11.0 peft==0.17.1 ipykernel==6.17.1 ipython==7.34.0 ipywidgets==7.7.1 requests==2.32.4 fastapi==0.118.3 setuptools==75.2.0 scikit-image==0.25.2
 tqdm==4.67.1 pyyaml==6.0.3 safetensors==0.6.2 pip""".split()
SECOND_CELL = "from miniclip_helpers import checks, datasets, embedding, metrics, plots, pretrained, search, series, widgets; print(len(datasets.load_dataset('stamps')))"
NO_INDEX = re.compile(r"fetch|connect|dns|network|timed out|No matching distribution", re.IGNORECASE)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with unwritable(tmp_path_factory.mktemp("machine") / "home") as folder:
        yield folder


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    done = miniclip("index", "stamps", "--limit", 20, "--out", folder / "stamps.index", HOME=folder)
    assert done.returncode == 0, done.stderr.decode()
    return folder / "stamps.index"


HARMS = {
    "a home that cannot be written": {},
    "a home that is not there": {"HOME": "/proc/nowhere"},
    "no home": {"HOME": None},
    "no fonts": {"FONTCONFIG_PATH": "/nonexistent", "FONTCONFIG_FILE": "/nonexistent/fonts.conf"},
    "the locale C": {"LC_ALL": "C"},
    "an ASCII Python": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "an odd zone": {"TZ": "Antarctica/Troll"},
    "a zone that is none": {"TZ": "Nowhere/At_All"},
    "20 columns": {"COLUMNS": "20"},
    "hash seed": {"PYTHONHASHSEED": "1"},
    "spawned processes": {"PYTHONMULTIPROCESSING": "spawn"},
}


@pytest.mark.parametrize("harm", HARMS)
def test_each_harm_alone(harm, home, index, tmp_path):
    """A question is answered and drawn."""
    done = miniclip("search", index, "a red fruit, très rouge", "--figure", tmp_path / "drawn.png", before=powerless(), cwd=tmp_path, **{"HOME": home} | HARMS[harm])
    said, told = done.stdout.decode("utf8"), done.stderr.decode("utf8", "replace")
    assert done.returncode == 0 and "Traceback" not in told, told
    assert said.strip() and (tmp_path / "drawn.png").stat().st_size > 10_000


def test_a_run_is_trained_beside_a_home_that_cannot_be_written(home, tmp_path):
    done = miniclip("train", "--data", "photos8", "--out", tmp_path / "run", "--epochs", 1, before=powerless(), cwd=tmp_path, HOME=home)
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "run" / "config.json").exists() and not list(home.iterdir())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ulimit -v holds on Linux alone")
@pytest.mark.parametrize("kilobytes", [600_000, 1_500_000, 3_000_000])
def test_little_memory_is_said(kilobytes, index):
    done = miniclip("search", index, "red", before=["sh", "-c", f'ulimit -v {kilobytes}; exec "$@"', "sh"], HOME=index.parent)
    told = done.stderr.decode("utf8", "replace")
    ended = done.returncode == -signal.SIGABRT and "bad_alloc" in told  # a library's own code in C++, which no Python can catch
    assert done.returncode == 0 or "Traceback" not in told and (done.returncode == 1 and "not enough memory" in told or ended), told


def test_a_checkout_that_cannot_be_written(home, tmp_path):
    """The first notebook runs out of it; where build/ cannot be made the command says which place is closed."""
    closed = checkout(tmp_path / "checkout")
    subprocess.run(["chmod", "-R", "a-w", closed], check=True)
    try:
        options = {"before": powerless(), "cwd": tmp_path, "HOME": home, "PYTHONPATH": closed, "seconds": 900}
        done = miniclip("run", "00", "--profile", "smoke", MINICLIP_BUILD=tmp_path / "build", **options)
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
        done = miniclip("run", "00", "--profile", "smoke", **options)
        assert done.returncode == 1 and "build" in done.stderr.decode() and "Traceback" not in done.stderr.decode(), done.stderr.decode()
    finally:
        subprocess.run(["chmod", "-R", "u+w", closed], check=True)


def test_tests_in_a_browser_without_one():
    """All are skipped, and each says what is missing."""
    tools = {name: value for name, value in os.environ.items() if not name.startswith("MINICLIP_BROWSER")}
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "tests/browser/test_widgets_in_a_browser.py"], cwd=ROOT, env=tools | {"PATH": "/nonexistent"},
                          capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0 and not re.search("passed|failed", done.stdout) and "MINICLIP_BROWSER" in done.stdout, done.stdout[-2000:]


@pytest.mark.skipif(not shutil.which("make"), reason="make is not on this machine")
def test_a_checkout_in_an_odd_folder(tmp_path):
    """An environment of its own, by uv: its entry points (a #! line takes neither spaces nor 200 letters), make, a notebook, the site, a course built and graded."""
    place = checkout(tmp_path / "Mes élèves 日本" / ("deep" * 25) / ("deeper" * 15) / "n°7")
    # No locale, but not LC_ALL=C: under that Python 3.11 itself reads the path of an editable package as ASCII, and does not start.
    tools = {"PATH": f"{pathlib.Path(uv()).parent}{os.pathsep}{os.environ['PATH']}", "HOME": os.environ.get("HOME"), "UV_PYTHON": sys.base_prefix + "/bin/python3"}
    tools |= {name: value for name, value in os.environ.items() if name.startswith(("SSL_CERT", "UV_"))}  # how this machine reaches an index

    def run(*command, seconds=1800):
        done = subprocess.run(list(map(str, command)), cwd=place, env=bare(**tools), stdin=subprocess.DEVNULL, capture_output=True, text=True, encoding="utf8", timeout=seconds, check=False)
        assert done.returncode == 0, (command, (done.stdout + done.stderr)[-3000:])
        return done.stdout

    if subprocess.run([uv(), "sync", "--quiet"], cwd=place, env=bare(**tools), capture_output=True, check=False, timeout=1800).returncode:
        pytest.skip("uv cannot make an environment here: no index of packages can be reached")
    (place / ".venv" / ".ready").touch()
    assert "miniclip" in run(place / ".venv" / "bin" / "miniclip", "--version")
    run("make", "run", "ARGS=00 --profile smoke")
    assert (place / "build" / "smoke" / "results.json").exists()
    run("make", "site")
    assert (place / "build" / "site" / "index.html").exists()
    run("make", "test", "ARGS=-k test_runtime")
    miniclip_ = place / ".venv" / "bin" / "miniclip"
    run(miniclip_, "coursework", "build", "--out", "le cours")
    handed = place / "le cours" / "submitted" / "élève 1"
    handed.mkdir(parents=True)
    source = next((place / "le cours" / "release").rglob("00_*.ipynb"))
    shutil.copy(source, handed / source.name)
    run(miniclip_, "coursework", "grade", "le cours/submitted", "--out", "le cours")


def test_what_colab_keeps_can_be_kept(tmp_path):
    """There is a set of versions for Python 3.12 with the torch, torchvision and numpy that Colab has: resolved, not installed."""
    (tmp_path / "keep.txt").write_text(COLAB.replace("+cu126", ""))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    done = subprocess.run([uv(), "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version", "3.12", "-c", "keep.txt", "pyproject.toml"], cwd=tmp_path, capture_output=True,
                          text=True, timeout=900, check=False)
    if done.returncode and NO_INDEX.search(done.stderr):
        pytest.skip("no index of packages can be reached")
    assert done.returncode == 0, done.stderr[-2000:]
    found = dict(line.split("==") for line in re.findall(r"^[\w.-]+==[\w.]+", done.stdout, re.MULTILINE))
    assert (found["torch"], found["torchvision"], found["numpy"]) == ("2.9.0", "0.24.0", "2.0.2")


def digests(site):
    """{file: sha256} of torch, torchvision and numpy, their lists of files and their metadata among them; compiled Python aside."""
    return {file.relative_to(site).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for name in ("torch", "torchvision", "numpy")
            for folder in (site / name, *site.glob(f"{name}-*.dist-info")) for file in folder.rglob("*") if file.is_file() and file.suffix != ".pyc"}


def label(site, name, version):
    """Give an installed package the local label that Colab's builds carry, so that its version is no index's."""
    plain, labelled = site / f"{name}-{version.split('+')[0]}.dist-info", site / f"{name}-{version}.dist-info"
    plain.rename(labelled)
    for file, old, new in (("METADATA", r"^Version: .*$", f"Version: {version}"), ("RECORD", rf"^{re.escape(plain.name)}/", f"{labelled.name}/")):
        text = (labelled / file).read_text(encoding="utf8")
        (labelled / file).unlink()  # uv links files from its cache: they must not be written into
        (labelled / file).write_text(re.sub(old, new, text, count=0 if file == "RECORD" else 1, flags=re.MULTILINE), encoding="utf8")


def test_colab_keeps_torch_and_numpy_to_the_byte(tmp_path):
    """Python 3.12 with Colab's packages, then the setup cell's own command, a wheel of this tree in the place of the address."""
    python = os.environ.get("MINICLIP_PYTHON312") or subprocess.run([uv(), "python", "find", "--no-project", "3.12"], capture_output=True, text=True, check=False).stdout.strip()
    if not python:
        pytest.skip("there is no Python 3.12: MINICLIP_PYTHON312 names one")
    place = tmp_path / "colab"
    kept = [line.split("+")[0] for line in COLAB.split()]
    for command in ([uv(), "venv", "--quiet", "--seed", "--python", python, place], [uv(), "pip", "install", "--quiet", "--python", place / "bin" / "python", *kept, *PREINSTALLED],
                    [uv(), "build", "--quiet", "--wheel", "-o", tmp_path / "wheel", ROOT]):
        done = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, check=False, timeout=1800)
        if done.returncode and NO_INDEX.search(done.stderr):
            pytest.skip("no index of packages can be reached, or it lacks what Colab had")
        assert done.returncode == 0, done.stderr[-2000:]
    site, (wheel,) = place / "lib" / "python3.12" / "site-packages", (tmp_path / "wheel").glob("*.whl")
    for line in COLAB.split():
        name, version = line.split("==")
        if "+" in version:
            label(site, name, version)
    before = digests(site)
    command = re.sub(r"git\+https://\S+", str(wheel), setup_command())
    environment = os.environ | {"PATH": f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}", "MINICLIP_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=3000)
    assert done.returncode == 0, done.stderr[-3000:]
    assert digests(site) == before and len(before) > 5000
    done = subprocess.run([place / "bin" / "python", "-c", SECOND_CELL], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0 and done.stdout.strip() == "950", done.stderr[-2000:]
    done = subprocess.run([place / "bin" / "python", "-m", "pip", "check"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
