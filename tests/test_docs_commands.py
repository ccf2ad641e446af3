"""Every command line of the documents and of `--help` is typed, in the order in which it stands there, in a scratch copy of the checkout.

Here those that take seconds; `tests/long/test_docs_long.py` types all of them, each by bash. What is not typed at all is named in NOT_TYPED with the reason and with the test
that proves it instead.
"""

import json
import pathlib
import re
import shlex
import shutil
import sys

import pytest
from commands_in_docs import Line, Typist, all_lines, answered, bare, blocks_without_commands, in_blocks, in_code_spans, is_free
from conftest import ROOT

# Typed nowhere: the reason, and what proves the line in its place.
NOT_TYPED = {
    "miniclip run": ("the whole series takes a quarter of an hour", "tests/test_notebooks.py::test_committed_outputs_come_again"),
    "miniclip run --jobs 2": ("the whole series takes a quarter of an hour", "tests/test_notebooks.py::test_committed_outputs_come_again"),
    "miniclip run --profile smoke": ("each notebook's smoke run is a test", "tests/test_notebooks.py::test_smoke"),
    "miniclip run 04 --update": ("takes minutes; the same is typed for notebook 00, as `miniclip run NN --update`", "tests/test_series.py::test_an_update_keeps_the_results_beside_the_outputs_and_a_failure_or_another_run_does_not"),
    "miniclip run --update": ("the whole series takes a quarter of an hour", "tests/test_series.py::test_an_update_keeps_the_results_beside_the_outputs_and_a_failure_or_another_run_does_not"),
    "miniclip figures": ("runs the whole series; `make figures` is typed with ARGS for one notebook", "tests/test_figures.py::test_drawing_tells_what_became_of_each_figure"),
    "miniclip figures --check": ("runs the whole series", "tests/test_figures.py::test_what_was_committed_passes"),
    "miniclip figures 04": ("takes minutes; `make figures` is typed with ARGS for notebook 00", "tests/test_figures.py::test_drawing_tells_what_became_of_each_figure"),
    "miniclip figures 04 --check": ("takes minutes", "tests/test_figures.py::test_a_check_without_a_folder_runs_the_notebooks"),
    "miniclip figures 01 02 --check": ("takes a minute", "tests/test_figures.py::test_a_check_without_a_folder_runs_the_notebooks"),
    "miniclip figures --check --exact --drawn build/offline/figures": ("wants a whole run before it", "tests/test_figures.py::test_small_moves_are_forgiven_and_told_but_not_where_bytes_are_asked_for"),
    "miniclip train --preset 000|001|004": ("a choice of three; 001 is typed", "tests/test_training_presets.py"),
    "miniclip index shards/": ("a part of a sentence; the line with --out is typed", "tests/test_corpus.py::test_the_index_equals_the_one_made_directly"),
    "make test": ("would run itself; typed with ARGS that only collect", "tests/test_project.py::test_ci_runs_the_same_steps_everywhere"),
    'ARGS="-k losses" make test': ("would collect everything once more", "tests/test_project.py::test_ci_runs_the_same_steps_everywhere"),
    "make test-long": ("would run itself", "tests/test_project.py::test_makefile_has_the_documented_targets_and_help_names_them"),
    "make test-oldest": ("fetches an environment of its own", "tests/test_environments.py::test_every_dependency_has_an_oldest_version"),
    "PYTHON=3.13 make test-python": ("fetches an environment of its own", "tests/test_environments.py::test_the_pythons_that_are_promised_are_tested"),
    "python tests/fuzzing.py pictures 10000": ("takes half an hour", "tests/test_fuzz_images.py::test_a_thousand_damaged_pictures"),
    "python tests/mutants.py --seed 2 --number 80": ("takes an hour", "tests/test_mutants.py::test_twelve_planted_faults_are_noticed"),
    "python tests/fuzzing.py texts 100000": ("takes half an hour", "tests/test_fuzz_texts.py::test_thousands_of_odd_texts"),
    ".ci/run": ("brings system packages, and runs all tests", "tests/test_project.py::test_ci_runs_the_same_steps_everywhere"),
    "uv sync": ("fetches packages", "tests/test_project.py::test_ci_runs_the_same_steps_everywhere"),
    "rm -rf .venv": ("takes the environment away; `make run` after it fetches another", "tests/test_project.py::test_make_alone_prints_help"),
    "apt-get install python3-venv": ("changes the machine; .ci/run does it on a fresh one", "tests/test_project.py::test_ci_runs_the_same_steps_everywhere"),
    "docker build -t miniclip .": ("fetches its base from a registry", "tests/test_dockerfile.py::test_what_is_copied_is_there_and_all_that_the_wheel_needs"),
    "conda env create -f environment.yml": ("needs conda and a network", "tests/test_project.py::test_environment_yml_is_in_step_with_pyproject"),
    "conda activate miniclip": ("needs conda", "tests/test_project.py::test_environment_yml_is_in_step_with_pyproject"),
    "accelerate launch --multi_gpu --num_processes 2 -m miniclip_helpers.cli train --data photos/ --preset 001 --out runs/two": ("needs two cards", "tests/test_train_processes.py::test_a_launcher_starts_miniclip_train"),
    "accelerate launch --multi_gpu --num_processes 2 -m miniclip_helpers.cli train --data photos/ --preset 001 --out runs/two-cards": ("needs two cards", "tests/test_train_processes.py::test_a_launcher_starts_miniclip_train"),
    "nbgrader release_assignment 01_from_words_to_clip": ("needs the exchange of a JupyterHub", "tests/test_coursework_grade.py::test_nbgraders_own_gradebook_has_the_same_points"),
    "nbgrader collect 01_from_words_to_clip": ("needs the exchange of a JupyterHub", "tests/test_coursework_grade.py::test_nbgraders_own_gradebook_has_the_same_points"),
    "nbgrader release_feedback 01_from_words_to_clip": ("needs the exchange of a JupyterHub", "tests/test_coursework_grade.py::test_nbgraders_own_gradebook_has_the_same_points"),
    "python data/build_emoji.py --check": ("fetches 300 MB of sources", "tests/test_data_builds.py::test_rebuild_gives_the_same_table"),
    "python data/build_stamps.py --check": ("fetches 300 MB of sources", "tests/test_data_builds.py::test_rebuild_gives_the_same_table"),
    "python data/build_emoji.py": ("fetches 300 MB of sources", "tests/test_data_builds.py::test_rebuild_gives_the_same_table"),
}

# Typed in the long form alone: half a minute each, or more.
SLOW = re.compile(
    r"make (?!$)|jupyter|torchrun|nbgrader|pytest|PARTS=|miniclip (run|app|train-mini|coursework|figures)|--preset|--processes|--method lora|ARGS=|MINICLIP_TOKEN|export mini|cd |source |"
    r"serve (photos|stamps\.index$)|--limit 500 --out|split\.json --(seed|part)|(heads --out|export) runs/mine"
)

# What must end otherwise than well, with words of what is said: here there is no network, and no repository.
ENDS = {
    "miniclip train --data photos/ --image-encoder resnet18 --text-encoder bert --pretrained --unlock --out runs/unlocked": (1, "network"),
    "miniclip fine-tune --model openai/clip-vit-base-patch32 --data photos/ --split split.json --method full --wise-ft 0.5 --out runs/clip": (1, "network"),
    "miniclip badges --from-git": (1, "git"),
}
SERVED = re.compile(r"(?:MINICLIP_TOKEN=\S+ )?miniclip serve ")
ASKED = "curl "


CURL = shutil.which("curl")


def here(line):
    return bare(line.text) not in NOT_TYPED and not SLOW.match(bare(line.text)) and not SLOW.search(bare(line.text)) and not line.text.startswith(ASKED)


LINES = [line for line in all_lines() if here(line)]
QUESTIONS = [line for line in all_lines() if line.text.startswith(ASKED)]


@pytest.fixture(scope="module")
def typist(tmp_path_factory):
    return Typist(tmp_path_factory.mktemp("reader"), forks=True)


def type_and_judge(typist, line):
    """Type a line; it must end well, or as ENDS says; a service is asked what the text asks, and stopped."""
    text = bare(line.text)
    if line.where.endswith("--help") and "coursework grade" not in text:  # an example stands for itself: what an earlier line has made is not there
        out = re.search(r"--(?:out|to) (\S+)", text)
        if out and not out[1].endswith((".index", "/")):
            shutil.rmtree(typist.copy / out[1], ignore_errors=True)
    if SERVED.match(text):
        return serve_and_judge(typist, text)
    done = typist.type(text)
    status, words = ENDS.get(text, (0, ""))
    assert done.status == status and words in done.output, f"{line}\nended with {done.status}; it printed\n{done.output[-3000:]}"
    assert "Traceback" not in done.output, done.output[-3000:]
    return done


def serve_and_judge(typist, text):
    """Start a service, ask it by the text's own lines of curl, stop it by Ctrl-C; port 8000, which others on this machine may have, gives way to a free one."""
    port = re.search(r"--port (\d+)", text)
    asked, wanted = int(port[1]) if port else 8000, int(port[1]) if port else 8000
    while not is_free(wanted):
        wanted += 1
    if wanted != asked:
        text = text.replace(f"--port {asked}", f"--port {wanted}") if port else f"{text} --port {wanted}"
    token = re.match(r"MINICLIP_TOKEN=(\S+)", text)

    def ask(match):
        given = []
        for line in QUESTIONS:
            question = line.text.replace(":8000", f":{wanted}") + (f" -H 'Authorization: Bearer {token[1]}'" if token else "")
            if CURL:
                given.append((line.text, typist.type(question, timeout=120).output))
        return given

    match, given, done = answered(typist, text, rf"http://\S+:{wanted}", ask)
    for question, answer in given:
        found = json.loads(answer)
        assert found["hits" if "search" in question else "labels"], (question, answer)
    assert done.status in (0, 130) and "Traceback" not in done.output, done.output[-2000:]
    if not CURL:
        pytest.skip("the service began and ended well, and was not asked: curl is not on this machine")
    return done


@pytest.mark.parametrize("line", LINES, ids=str)
def test_what_the_documents_tell_to_type_can_be_typed(line, typist):
    """Lines build on earlier ones, as in the documents: one that is chosen alone by -k may lack what they made."""
    type_and_judge(typist, line)


def test_what_a_line_rewrites_is_the_copy(typist):
    """And what would write into the real checkout is ended."""
    pyproject = typist.copy / "pyproject.toml"
    before = pyproject.read_text(encoding="utf8")
    pyproject.write_text(re.sub(r'(?m)^Repository = .*$', 'Repository = "https://github.com/nobody/nothing"', before), encoding="utf8")
    assert typist.type("miniclip badges").status == 0
    assert "nobody/nothing" in (typist.copy / "README.md").read_text(encoding="utf8") and "nobody/nothing" not in (ROOT / "README.md").read_text(encoding="utf8")
    pyproject.write_text(before, encoding="utf8")
    assert typist.type("miniclip badges").status == 0
    done = typist.type(f"miniclip index sentences.txt --out {shlex.quote(str(ROOT / 'build' / 'never.index'))}")
    assert done.status == 97 and "real checkout" in done.output, done.output[-2000:]


def test_every_line_is_typed_or_said_why_not():
    """A line that is new is typed from now on; one that is gone from the documents is gone from here."""
    known = {bare(line.text) for line in all_lines()}
    stale = (set(NOT_TYPED) | set(ENDS)) - known - {"make test-long", "make test-oldest", "PYTHON=3.13 make test-python"}
    assert stale == set()
    assert len(LINES) >= 25 and len(known) >= 100


@pytest.mark.parametrize("text", NOT_TYPED)
def test_what_is_not_typed_is_proven_otherwise(text):
    reason, proof = NOT_TYPED[text]
    file, _, name = proof.partition("::")
    assert len(reason) > 10 and re.search(rf"^def {name or 'test_'}", (ROOT / file).read_text(encoding="utf8"), re.MULTILINE)


def test_blocks_that_are_no_commands_are_known():
    assert [block.split()[0] for block in blocks_without_commands()] == ["submitted/ada/01_from_words_to_clip/01_from_words_to_clip.ipynb", "student"]


def test_lines_are_found_where_they_stand():
    text = "Type `make run`, or `miniclip train` it.\n```\n# a word\nmake lab   # open\nuv run miniclip doctor\n```\n| `miniclip doctor` | looks |\n| `miniclip train --data x` | trains |\n"
    assert in_blocks(text) == [["# a word", "make lab", "uv run miniclip doctor"]]
    assert in_code_spans(text) == ["make run", "miniclip doctor", "miniclip train --data x"]
    assert bare("uv run miniclip x") == "miniclip x" and str(Line("a", "b")) == "a: b"


def test_a_line_that_does_not_work_is_seen(typist):
    with pytest.raises(AssertionError, match="ended with 2"):
        type_and_judge(typist, Line("README.md", "miniclip index photos/ --outt photos.index"))
    with pytest.raises(AssertionError, match="ended with 2"):
        type_and_judge(typist, Line("README.md", "uv run miniclip evaluate --model gone --data photos/"))
    with pytest.raises(AssertionError, match="ended with 127"):
        type_and_judge(typist, Line("README.md", "miniclyp index"))


def test_uv_stands_for_this_environment(typist):
    done = typist.type("uv run --quiet --no-sync python -c 'import sys; print(sys.executable)'", cwd=typist.copy)
    assert done.status == 0 and pathlib.Path(done.output.strip()).parent == pathlib.Path(sys.executable).parent, done.output
    assert shlex.split(typist.type("uv sync && echo nothing was fetched").output) == ["nothing", "was", "fetched"]
