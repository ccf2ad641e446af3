"""The bank of answers and its report; the written questions: that they stand where they say, mark fairly, and say what the notebooks measured."""

import json
import math
import re

import nbformat
import pytest
from conftest import ROOT

from miniclip_helpers import checks, cli, metrics, runtime
from miniclip_helpers.coursework import bank, written
from miniclip_helpers.errors import MiniclipError, UsageError

BANK = bank.load_bank()


def right_cosine(a, b):
    return a @ b / ((a @ a) * (b @ b)) ** 0.5


SMALL = {"00.cosine": {"right": [right_cosine], "wrong": [("dot product", lambda a, b: a @ b), ("one per place", lambda a, b: a * b / ((a @ a) * (b @ b)) ** 0.5)]}}


@pytest.fixture
def small(monkeypatch):
    """A bank for one exercise, which is the only one."""
    only = {"00.cosine": checks.exercise("00.cosine")}
    monkeypatch.setattr(bank.checks, "exercises", lambda notebook=None: only)

    def take(answers):
        monkeypatch.setattr(bank, "load_bank", lambda: answers)

    take(SMALL)
    return take


def test_the_bank_is_as_large_as_promised():
    assert BANK.keys() == checks.exercises().keys() and len(BANK) >= 36
    assert sum(len(answers["right"]) for answers in BANK.values()) >= 72
    assert sum(len({words for words, _ in answers["wrong"]}) for answers in BANK.values()) >= 4 * 36


@pytest.mark.parametrize("name", sorted(BANK))
def test_different_mistakes_get_different_hints(name):
    """The words of one mistake stand in no hint that another gets, under any seed; and no hint is empty."""
    told = {}
    for words, answer in BANK[name]["wrong"]:
        told.setdefault((words,) if isinstance(words, str) else words, set()).update(verdict.message for verdict in bank.verdicts(name, answer))
    for words in told:
        assert all(words)
        for others, messages in told.items():
            shared = [message for message in messages if others != words and any(word in message for word in words)]
            assert not shared, f"{words} stand in the hint for {others}: {shared[0]}"


# The mistakes that home-made CLIPs and the published projects make: where each is refused. An id without words is a written question.
MISTAKES = {
    "no normalisation": ("01.logits", "rows are not normalised: long"),
    "normalised over the wrong axis": ("01.l2_normalise", "wrong axis"),
    "softmax over the batch axis only": ("01.clip_loss", "batch of pictures only"),
    "one direction only": ("01.clip_loss", "One direction only"),
    "sum over the two directions in place of the mean": ("01.clip_loss", "not 2 log N"),
    "exp forgotten": ("01.logits", "exp is missing: log"),
    "exp twice": ("01.logits", "exp was applied twice"),
    "the scale not clamped": ("04.logit_scale", "not clamped"),
    "the diagonal target when captions repeat": ("01.multi_positive_target", "calls a second picture"),
    "the diagonal loss when captions repeat": ("04.multi_positive_loss", "diagonal loss"),
    "the target not normalised": ("01.multi_positive_target", "rows add up to more than 1"),
    "a column per caption, looked up among pictures": ("06.scorer", "scorer of project 002"),
    "the first caption only": ("07.recall", "threw the others away"),
    "ranks from 0": ("07.ranks", "count from 0"),
    "ties counted as wins": ("07.ranks", "counted as wins"),
    "argsort upwards": ("00.best_five", "sorts upwards, so its last five"),
    "the best labels, worst first": ("02.top_k", "worst first"),
    "a split by caption": ("03.split_by_image", "split by caption"),
    "a split without a seed": ("03.split_by_image", "The same seed gave another split"),
    "the vocabulary built on the test's captions": ("03.w_words",),
    "a baseline that compares captions with captions": ("03.w_words",),
    "pooling at the first token": ("05.last_token_pooling", "first token"),
    "pooling at padding": ("05.last_token_pooling", "This is the last position"),
    "colours changed after normalising": ("03.prepare", "colour was changed after normalising"),
    "log-sum-exp in pieces without the maximum": ("10.logsumexp", "exp of 89"),
    "a gather without gradients": ("10.gather", "gather without gradients"),
    "an interval over captions": ("07.interval", "numbers of *pictures*"),
    "untouched weights never scored": ("06.gate", "never calls `score`"),
    "a gate that is content with more": ("06.gate", "Too good"),
    "a shallow copy of the best state": ("06.keep_best", "another name"),
    "a p95 that is the percentile of a constant": ("08.latency", "mean, twice"),
    "an index said to lose nothing, and to be quicker": ("08.w_offer",),
    "a temperature copied from another model": ("02.w_percent",),
    "a wish for a cosine of 0.9": ("06.w_nine",),
    "an ensemble of one prompt": ("02.prompt_ensemble", "Only the first template"),
    "ranks within a batch": ("07.w_rulers",),
    "training pictures among the candidates": ("07.w_which",),
    "stopped by a score within a batch": ("07.w_which",),
    "a part of the weights left out": ("06.wise_ft", "Weights are missing"),
    "one text encoded again for each picture": ("02.w_once",),
    "two prompts that split the softmax": ("01.w_sure",),
    "an accuracy without an interval": ("02.accuracy_interval", "1.96 standard errors"),
    "one direction of retrieval only": ("07.recall", "Two are asked for"),
    "measured on what was trained on": ("05.w_shop",),
    "a number below chance": ("05.w_patients",),
    "a loss at log N": ("01.w_log_n",),
    "accumulation taken for a large batch": ("10.w_sixteen",),
    "a gradient that is lost on the way": ("01.clip_loss", "gradient is lost"),
}


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_the_mistakes_that_were_promised_are_there(mistake):
    name, *words = MISTAKES[mistake]
    if not words:
        assert name in written.questions()
    else:
        assert words[0] in {known for known, _ in BANK[name]["wrong"]}, sorted(str(known) for known, _ in BANK[name]["wrong"])


def test_the_report_counts_what_it_ran(small):
    said = []
    found = bank.report(say=said.append)
    assert found["ok"] and found["faults"] == []
    item = checks.exercise("00.cosine")
    assert found["exercises"] == [{"id": "00.cosine", "title": item.title, "points": item.points, "minutes": item.minutes, "level": item.level, "right_accepted": 2, "right": 2,
                                   "wrong_rejected": 2, "wrong": 2, "hints": 2, "stub": "not attempted"}]
    questions = written.questions().values()
    assert found["totals"] == {"exercises": 1, "points": item.points, "minutes": item.minutes, "right_accepted": 2, "right": 2, "wrong_rejected": 2, "wrong": 2, "hints": 2,
                               "written": len(questions), "written_points": sum(q.points for q in questions), "written_minutes": sum(q.minutes for q in questions)}
    lines = said[0].splitlines()
    assert lines[1].split()[:7] == ["00.cosine", str(item.points), str(item.minutes), item.level, "2/2", "2/2", "2"]
    assert all(any(line.startswith(question.id) for line in lines) for question in questions)
    assert "2 of 2 right answers accepted, 2 of 2 wrong ones rejected with their own hint" in said[0] and "FAULT" not in said[0]


def test_the_report_as_json(small, tmp_path):
    said = []
    found = bank.report(as_json="-", say=said.append)
    assert json.loads(said[0]) == found
    written_down = bank.report(as_json=tmp_path / "bank.json", say=said.append)
    assert json.loads((tmp_path / "bank.json").read_text(encoding="utf8")) == written_down and said[1].startswith("exercise")


BROKEN = {
    "a right answer that is refused": ({"right": [lambda a, b: 0.0], "wrong": []}, "expected passed: not yet"),
    "a wrong answer that passes": ({"right": [], "wrong": [("dot product", right_cosine)]}, "expected 'dot product': passed"),
    "a wrong answer with another's hint": ({"right": [], "wrong": [("the angle", lambda a, b: a @ b)]}, "expected 'the angle': not yet. This is the dot product"),
    "a wrong answer that is no attempt": ({"right": [], "wrong": [("Replace the line", bank.stub)]}, "not attempted"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_fails_is_told_and_the_command_fails(small, case, capsys):
    answers, words = BROKEN[case]
    small({"00.cosine": answers})
    assert cli.main(["coursework", "report"]) == 1
    assert re.search(rf"^FAULT  00.cosine, seed 0, .*{re.escape(words)}", capsys.readouterr().out, re.MULTILINE)


def test_an_exercise_without_answers_and_answers_without_an_exercise_are_told(small, capsys):
    small({"99.gone": SMALL["00.cosine"]})
    assert cli.main(["coursework", "report"]) == 1
    out = capsys.readouterr().out
    assert "FAULT  00.cosine: an exercise without answers" in out and "FAULT  99.gone: no exercise, and yet answers" in out


def test_the_command_says_json_and_succeeds(small, tmp_path, capsys):
    assert cli.main(["coursework", "report", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"]
    assert cli.main(["coursework", "report", "--json", str(tmp_path / "bank.json")]) == 0
    assert json.loads((tmp_path / "bank.json").read_text(encoding="utf8"))["totals"]["exercises"] == 1


def test_an_installed_package_has_no_bank_and_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(runtime, "CHECKOUT", tmp_path)
    with pytest.raises(MiniclipError, match="tests/exercises of a checkout"):
        bank.load_bank()
    assert cli.main(["coursework", "report"]) == 1
    assert "uv run miniclip coursework report" in capsys.readouterr().err


def test_what_the_bank_needs_and_lacks_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pytest", None)
    with pytest.raises(MiniclipError, match="pytest, which is not installed; run `uv sync`"):
        bank.load_bank()


def test_a_report_leaves_the_progress_of_this_session_alone(small, monkeypatch):
    monkeypatch.setattr(checks, "_state", {})
    bank.report(say=lambda text: None)
    assert checks._state == {}


# --- the written questions

QUESTIONS = written.questions()


def notebook(number):
    return nbformat.read(next((ROOT / "notebooks").glob(f"{number}_*.ipynb")), as_version=4)


def committed(number):
    """All text of a notebook, outputs included, blanks made one."""
    found = []
    for cell in notebook(number).cells:
        found += [cell.source, *(output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.get("outputs", []))]
    return re.sub(r"\s+", " ", " ".join(found))


def test_each_notebook_has_one_and_their_ids_are_in_order():
    assert {name[:2] for name in QUESTIONS} == {name[:2] for name in checks.exercises()} and len(QUESTIONS) == len(written.QUESTIONS) >= 14
    assert [name[:2] for name in QUESTIONS] == sorted(name[:2] for name in QUESTIONS)
    assert all(re.fullmatch(r"\d\d\.w_[a-z_]+|11\.project", name) for name in QUESTIONS)
    assert list(written.questions("01")) == [name for name in QUESTIONS if name.startswith("01")]
    with pytest.raises(UsageError, match="notebook with written questions"):
        written.questions("12")


@pytest.mark.parametrize("number", sorted({name[:2] for name in QUESTIONS}))
def test_they_are_asked_behind_cells_that_are_there_and_in_order(number):
    """Behind code cells: neighbouring texts may be joined, and an id with them."""
    cells = {cell.id: (place, cell.cell_type) for place, cell in enumerate(notebook(number).cells)}
    places = [cells[question.after] for question in written.questions(number).values()]
    assert places == sorted(places) and {kind for _, kind in places} == {"code"}


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_can_be_marked(name):
    question = QUESTIONS[name]
    assert sum(points for points, _ in question.rubric) == question.points and len(question.rubric) >= 2
    assert all(len(words) > 20 for _, words in question.rubric) and len({words for _, words in question.rubric}) == len(question.rubric)
    assert 5 <= question.minutes <= (15 if name != "11.project" else 240) and len(question.answer) > 200 and question.answer not in question.text
    if "(a)" in question.text:  # a point per part, in the order of the parts, and the answer answers each
        parts = re.findall(r"\(([a-e])\)", question.text)
        assert parts == sorted(set(parts)) and [words[1] for _, words in question.rubric] == parts == re.findall(r"\(([a-e])\)", question.answer)


@pytest.mark.parametrize("rubric", [((1, "one"), (1, "two")), ((4, "too many"),), ((3, "three"), (0, "nothing"))])
def test_a_rubric_that_does_not_add_up_is_refused(rubric):
    with pytest.raises(ValueError, match="must add up to 3"):
        written.Question("00.w_x", "x", 3, 5, "00-00", "?", rubric, "!")


# What a question, its rubric or its answer quotes: words of it, and the text of the notebook that they rest on.
QUOTED = {
    "00.w_seventy": ["66 of 80 right, 95 % interval 73% to 89%", "of fish there are only eleven", "`mini` has learned from most of these stamps"],
    "01.w_sure": ["The page it takes for the cup of coffee", "a softmax cannot say *none of these*"],
    "02.w_once": ["encodes all 100 sentences *inside* the loop"],
    "02.w_percent": ["0.01, copied from CLIP 0.434 0.882", "`100.0 * image_features @ text_features.T`"],
    "03.w_unit": ["picture_reports = 0.77", "picture_delivers = 0.17"],
    "03.w_words": ["bag_of_words_honest = 0.225", "bag_of_words_leaky = 0.5", "unknown_words_honest = 0.75", "unknown_words_leaky = 0 "],
    "03.w_true": ["left_cosine = 0.98"],
    "04.w_floor": ["mean of log n over the batch", "*pet, whiskers, meow*"],
    "05.w_shop": ["0.87 %", "37.11 %", "*0.23 %*", "seen_top1_by_name = 0.92", "held_out_top1_by_name = 0.09667", "ceiling_by_line = 0.81"],
    "05.w_patients": ["top-100 6.2%", "last position 0.940 476", "a tie costs half of the tied places"],
    "06.w_too_good": ["zero-shot says 0.2160", "Not \"at least as good\", either"],
    "06.w_keep": ["+12.4 [+7, +18]", "-5.3 [-12, +0]", "+11.0 [+7, +15]", "+0.0 [-4, +4]"],
    "06.w_nine": ["(\\cos + c) / (1 + c)", "$c = 3 \\cdot 1.5^2$"],
    "07.w_rulers": ["111 images, 294 captions"],
    "07.w_which": ["Overlapping intervals do not mean \"no difference\"", "training pictures among the candidates (000)", "rank within a batch of 32 (000, 001)"],
    "08.w_offer": ["20 0.143 0.975 0.138 0.930"],
    "10.w_sixteen": ["accumulated_cosine_after = 0.21", "r10_accumulated_minus_whole = 0.0419", "4 instead of 3, a third more arithmetic"],
    "11.w_club": ["a person without clothes", "*the path of the folder*", "who* somebody is"],
}


# Times, which come out anew at each run: the notebook's is to be near.
TIMED = {"02.w_once": [("seconds_for_all_class_vectors =", 0.14)], "08.w_offer": [("the text tower before it", 13.6), ("2500 pictures", 0.081)]}
FACTOR = 4


@pytest.mark.parametrize("name", TIMED)
def test_a_time_that_a_question_quotes_is_near_its_notebooks(name):
    for what, value in TIMED[name]:
        found = float(re.search(re.escape(what) + r" ([0-9.]+)", committed(name[:2]))[1])
        assert value / FACTOR < found < value * FACTOR, what


@pytest.mark.parametrize("name", QUOTED)
def test_what_a_question_quotes_stands_in_its_notebook(name):
    text = committed(name[:2])
    assert [said for said in QUOTED[name] if said not in text] == []


def test_what_the_questions_have_worked_out_is_right():
    """Each number once more, from its definition."""
    text = {name: " ".join([q.text, q.answer, *(words for _, words in q.rubric)]) for name, q in QUESTIONS.items()}
    assert "{:.0%} to {:.0%}".format(*metrics.proportion_interval(70, 80)) == "78% to 93%" and "78 to 93 %" in text["00.w_seventy"]
    assert f"{math.log(64):.3f}" in text["01.w_log_n"] and f"{math.log(32):.3f}" in text["01.w_log_n"]
    assert f"{(3 * math.log(3) + 2 * math.log(2)) / 8:.3f}" == "0.585" and text["04.w_floor"].count("0.585") == 2
    assert round(80 * 0.14 * 10_000 / 3600) == 31 and "31 hours" in text["02.w_once"]
    assert 155 < 37.11 / (100 * 100 / 44_000) < 165 and "160 times" in text["05.w_shop"]
    assert f"{0.11 / 7.75:.3f}" == "0.014" and round(math.exp(100 * 0.11 / 7.75)) == 4 and "four to one" in text["06.w_nine"]
    assert "[{:.0f}, {:.0f}]".format(*(100 * end for end in metrics.proportion_interval(40, 80))) in text["07.w_which"]
    assert "[{:.0f}, {:.0f}]".format(*(100 * end for end in metrics.proportion_interval(46, 80))) in text["07.w_which"]
    assert 16 * 64**2 / 1024**2 == 1 / 16 and "1/16" in text["10.w_sixteen"]
    assert "{:.0f} to {:.0f} %".format(*(100 * end for end in metrics.proportion_interval(6, 10))) in text["11.project"]


def test_the_equal_captions_are_worth_what_the_question_says():
    """Perfect embeddings of three cats, two dogs and three others, through both losses."""
    import torch

    from miniclip_helpers import losses

    groups = torch.tensor([0, 0, 0, 1, 1, 2, 3, 4])
    perfect = torch.eye(8)[groups]
    for loss in (losses.clip_loss(perfect, perfect, 100.0), losses.multi_positive_loss(perfect, perfect, 100.0, groups)):
        assert round(loss.item(), 3) == 0.585


def test_the_three_matrices_find_the_four_faults():
    """What the rubric of 07.w_rulers says, measured with scorers that have the fault."""
    import numpy as np

    from miniclip_helpers import finetuning

    random = np.random.default_rng(0)
    owner = np.sort(np.concatenate([np.arange(111), random.integers(0, 111, 183)]))
    hits = lambda s, o=owner, ties="half": metrics.ranks(s, o, ties=ties)["text_to_image"] == 1  # noqa: E731

    def in_batches(s):
        batch, found = random.permutation(111) // 32, []
        for number in range(4):
            pick = np.flatnonzero(batch == number)
            columns = np.flatnonzero(np.isin(owner, pick))
            found.append(hits(s[np.ix_(pick, columns)], np.searchsorted(pick, owner[columns])))
        return np.concatenate(found).mean()

    scorers = {"right": lambda s: hits(s).mean(), "a": lambda s: hits(s, ties="optimistic").mean(), "b": lambda s: finetuning.broken_scorer(s, owner)["R@1"], "c": in_batches,
               "d": lambda s: (np.bincount(owner, hits(s)) > 0).mean()}
    noise = [random.normal(size=(111, 294)) for _ in range(40)]
    perfect = {name: scorer((owner == np.arange(111)[:, None]).astype(float)) for name, scorer in scorers.items()}
    zeros = {name: scorer(np.zeros((111, 294))) for name, scorer in scorers.items()}
    chance = {name: np.mean([scorer(s) for s in noise]) for name, scorer in scorers.items()}
    assert perfect["right"] == perfect["a"] == perfect["c"] == perfect["d"] == 1 and perfect["b"] < 0.03
    assert zeros["a"] == 1 and zeros["right"] == zeros["c"] == zeros["d"] == 0
    assert chance["right"] < 0.012 and 0.03 < chance["c"] < 0.042 and 0.018 < chance["d"] < 0.028


def test_the_final_project_is_marked_as_its_notebook_says():
    rows = re.findall(r"^\| ([A-Z][^|]*?) \| ([^|]+?) \| (\d+) \|$", "\n".join(cell.source for cell in notebook("11").cells if "Final project" in cell.source), re.MULTILINE)
    assert [(int(points), f"{part}: {asked}") for part, asked, points in rows] == list(QUESTIONS["11.project"].rubric) and QUESTIONS["11.project"].points == 100
