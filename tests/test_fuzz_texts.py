"""Thousands of odd texts through tokenizers, every format, searches, labels, figures and the service; round trips by hypothesis. The 100,000 are in `long/test_fuzz_long.py`."""

import json
import string

import hypothesis
import pytest
from fuzzing import COLUMNS, SEED, run_cases
from fuzzing_texts import check_formats, check_tokens, dataset_of, long_texts, odd_text
from hypothesis import strategies as st

from miniclip_helpers import datasets, search, tokenizers, zero_shot
from miniclip_helpers.datasets import ImageTextDataset, load_dataset, shards, write_dataset
from miniclip_helpers.errors import DataError, UsageError
from miniclip_helpers.runtime import strangers
from miniclip_helpers.search.indexing import read_sentences
from miniclip_helpers.tokenizers import BytePairTokenizer, WordTokenizer

SETTINGS = hypothesis.settings(max_examples=30, deadline=None, derandomize=True, database=None, suppress_health_check=list(hypothesis.HealthCheck))
TEXTS = st.text(st.characters(codec="utf8"), min_size=1, max_size=40).filter(str.strip)
ODD = TEXTS | st.integers(0, 10**6).map(lambda case: odd_text(SEED, case))
KINDS = ("json", "jsonl", "csv", "tsv", "captions.txt", "token", "parquet", "tar")


def test_thousands_of_odd_texts(tmp_path):
    counts = run_cases("texts", 2000, within=tmp_path)
    print(counts)
    assert not counts.findings, "\n".join(counts.findings[:20])
    assert {"texts, tokenizers", "texts, tar", "texts, service", "texts, half letters", "texts, figures", "texts, search"} <= set(counts)
    assert counts["texts, tokenizers"]["right results"] == counts["texts, csv"]["right results"] == 2000 and counts.total(COLUMNS[3]) == 0


def test_every_plane_is_among_them():
    seen = {ord(letter) >> 16 for case in range(3000) for letter in odd_text(SEED, case)}
    assert seen == set(range(17)) and any("\0" in odd_text(SEED, case) for case in range(3000))


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_written_is_read_again(kind, tmp_path_factory):
    """Names, captions and, where there is room, columns: of json, jsonl and parquet as they were, of csv and tsv as text."""
    names = st.lists(st.text(st.characters(codec="utf8", exclude_characters="/"), min_size=1, max_size=12), min_size=1, max_size=3, unique=True)
    values = st.none() | TEXTS

    @SETTINGS
    @hypothesis.given(names, st.data())
    def there_and_back(names, data):
        folder = tmp_path_factory.mktemp("formats")
        plain = dataset_of(["x"] * 4)
        captions = [data.draw(st.lists(ODD | st.just(" "), min_size=1, max_size=3)) for _ in names]
        column = [data.draw(values) for _ in names]
        dataset = ImageTextDataset("made up", names, captions, [plain.file_bytes(row) for row in range(len(names))], {"note": column})
        try:
            path = shards.write_shards(dataset, folder / "out") if kind == "tar" else write_dataset(dataset, folder / "out", kind)
        except UsageError:
            assert list(folder.iterdir()) == []
            hypothesis.event("refused")
            return
        back = load_dataset(path)
        strict = [[caption.strip() for caption in row if caption.strip()] for row in captions]
        assert back.names == names and [[caption.strip() for caption in row if caption.strip()] for row in back.captions] == strict and back.problems == []
        if kind in ("json", "jsonl", "parquet"):
            assert back.columns == {"note": column}
        if kind in ("csv", "tsv"):
            assert [value or None for value in back.columns.get("note", column)] == [value and value.lstrip(" ") or None for value in column] or any(v and v != v.strip() for v in column)

    there_and_back()


@SETTINGS
@hypothesis.given(st.lists(st.tuples(st.sampled_from("abc"), st.lists(ODD, min_size=1, max_size=3)), min_size=1, max_size=5))
def test_captions_written_by_hand_do_not_change_when_written_again(rows):
    captions = {f"{name}.png": said for name, said in rows}
    once = datasets.captions.caption_rows(captions)
    again = {}
    for row in once:
        again.setdefault(row["file_name"], []).append(row["caption"])
    assert datasets.captions.caption_rows(again) == once == datasets.captions.caption_rows(dict(reversed(captions.items())))


@SETTINGS
@hypothesis.given(st.lists(TEXTS, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_a_vocabulary_does_not_know_the_order_of_the_captions(captions, rng):
    mixed = list(captions)
    rng.shuffle(mixed)
    one, two = WordTokenizer.fit(captions), WordTokenizer.fit(mixed)
    assert one.vocabulary == two.vocabulary
    known = [word for word in tokenizers.words(captions[0])][:32]
    assert one.decode(one.encode(captions[0])).split(" ") == (known or [""])
    assert BytePairTokenizer.train(captions, 20, clean=False).merges == BytePairTokenizer.train(mixed, 20, clean=False).merges


@SETTINGS
@hypothesis.given(st.data())
def test_a_heap_joins_as_a_look_at_all_pairs_does(data):
    """On made-up merges, among them pairs whose whole another pair makes, too."""
    pieces, merges = list("ab") + ["a</w>", "b</w>"], []
    for _ in range(data.draw(st.integers(1, 8))):
        pair = data.draw(st.tuples(st.sampled_from([piece for piece in pieces if "</w>" not in piece]), st.sampled_from(pieces)))
        merges.append(pair)
        pieces.append("".join(pair))
    rank = {pair: number for number, pair in enumerate(data.draw(st.permutations(list(dict.fromkeys(merges)))))}
    word = data.draw(st.lists(st.sampled_from("ab"), min_size=1, max_size=40))
    word[-1] += "</w>"
    slow = word
    while found := [pair for pair in zip(slow, slow[1:]) if pair in rank]:
        slow = tokenizers.merge_pair(slow, min(found, key=rank.get))
    assert tokenizers.merge_all(word, rank) == slow


def test_words_above_and_below_the_heap_s_length_are_cut_alike():
    found = list(check_tokens([(0, "ab" * (tokenizers.LONG_WORD // 2 - 1)), (1, "ab" * (tokenizers.LONG_WORD // 2 + 3)), (2, "👍猫" * 200), (3, "x" * 5000)]))
    assert found == []


@pytest.mark.parametrize("number", range(8))
def test_a_megabyte_takes_steps_and_not_their_square(number, monkeypatch):
    """Counted, not timed: looks into the table of merges for a word of 50,000 signs."""
    text, looks = long_texts()[number][:50_000], 0

    class Counted(dict):
        def get(self, *key):
            nonlocal looks
            looks += 1
            return super().get(*key)

        def __contains__(self, key):
            nonlocal looks
            looks += 1
            return super().__contains__(key)

    tokenizer = BytePairTokenizer.clip(clean=False)
    monkeypatch.setattr(tokenizer, "_rank", Counted(tokenizer._rank))
    assert tokenizer([text]).shape == (1, 77)
    assert looks < 8 * len(text.encode())


def test_words_are_not_remembered_for_ever(monkeypatch):
    monkeypatch.setattr(tokenizers, "MOST_KNOWN", 50)
    tokenizer = BytePairTokenizer.clip()
    first = tokenizer.encode("a small dog")
    for number in range(200):
        tokenizer.encode("".join(string.ascii_lowercase[int(digit)] for digit in str(number)))
        assert len(tokenizer._known) <= 51
    assert tokenizer.encode("a small dog") == first


@pytest.mark.parametrize("ids", [[-1], [49408], [2**40], [0, 5, -3]])
def test_ids_that_are_none_are_told(ids):
    for tokenizer in (BytePairTokenizer.clip(), WordTokenizer(["a", "b"])):
        with pytest.raises(UsageError, match=f"from 0 to {tokenizer.size - 1}"):
            tokenizer.decode(ids)


def test_half_letters_have_no_bytes_and_become_a_question_mark():
    plain = BytePairTokenizer.clip(clean=False)
    assert plain.encode("a\ud800b") == plain.encode("a?b") and WordTokenizer.fit(["x"]).encode("\ud800") == WordTokenizer.fit(["x"]).encode("?")


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("kind", ["captions.jsonl", "captions.csv", "captions.txt", "Flickr8k.token.txt", "captions.json"])
def test_line_ends_of_every_system(ends, kind, tmp_path):
    data = dataset_of(["one", "two"], pictures=2)
    write_dataset(data, tmp_path / "out", {"captions.jsonl": "jsonl", "captions.csv": "csv", "captions.txt": "captions.txt", "Flickr8k.token.txt": "token", "captions.json": "json"}[kind])
    file = tmp_path / "out" / kind
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", ends.encode()))
    assert load_dataset(tmp_path / "out").captions == [["one"], ["two"]]


@pytest.mark.parametrize("kind", ["csv", "tsv", "captions.txt", "token"])
def test_a_caption_that_is_an_address_makes_no_table_of_addresses(kind, tmp_path):
    said = [["http://a.b/c.jpg"], ["https://a.b/\td"]]
    data = dataset_of(["x", "y"], pictures=2)
    data.captions = said
    assert load_dataset(write_dataset(data, tmp_path / "out", kind)).captions == said


def test_lines_end_where_files_say_and_not_at_signs_within_a_caption(tmp_path):
    lines = ["one\u2028line", "next\x85line", "form\x0cfeed", "unit\x1fsign"]
    (tmp_path / "q.txt").write_bytes("\r\n".join(lines).encode())
    assert search.read_queries(tmp_path / "q.txt") == lines
    assert list(read_sentences(tmp_path / "q.txt")) == [f"q.txt#{number}" for number in range(1, 5)]
    assert len(zero_shot.read_labels(tmp_path / "q.txt")) == 4


@pytest.mark.parametrize("name", ["", ".", "a/", "a\0b", "x" * 300, "é" * 130, "\ud800", "a\rb"])
def test_names_that_are_no_files_are_told_before_anything_is_written(name, tmp_path):
    dataset = dataset_of(["x"])
    dataset.names = [name]
    with pytest.raises(UsageError):
        write_dataset(dataset, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_two_names_of_one_file_are_told(tmp_path):
    for names in (["a.png", "./a.png"], ["a.png", "a.png/b.png"], ["d//a.png", "d/a.png"]):
        dataset = dataset_of(["x", "y"], pictures=2)
        dataset.names = names
        with pytest.raises(UsageError, match=r"one file|folder of others"):
            write_dataset(dataset, tmp_path / "out")


@pytest.mark.parametrize("text, words", [
    ('{"a.png": ["x"], "a.png": ["y"]}', "the key 'a.png' stands twice"), ('[{"file_name": "a.png", "caption": "x", "caption": "y"}]', "the key 'caption' stands twice"),
    ("[" * 100_000, "not valid JSON"), ('[{"file_name": "a.png", "caption": "\\ud800"}]', "half a letter"), ('[{"file_name": "\\udcff.png", "caption": "x"}]', "half a letter")])
def test_what_json_would_lose_is_told(text, words, tmp_path):
    (tmp_path / "captions.json").write_text(text)
    with pytest.raises(DataError, match=words):
        load_dataset(tmp_path)
    (tmp_path / "captions.json").unlink()
    (tmp_path / "captions.jsonl").write_text(text.removeprefix("[").removesuffix("]") if text != "[" * 100_000 else text)
    with pytest.raises(DataError, match=words if "a.png\": [" not in text else "."):
        load_dataset(tmp_path)


def test_a_key_that_stands_twice_is_found_without_comparing_all_with_all(tmp_path):
    """Each name twice, the latter in the other order: counted, no time is taken."""
    class Key(str):
        asked = 0

        def __eq__(self, other):
            Key.asked += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    pairs = [(Key(number), number) for number in range(2000)] + [(Key(1999), 0)]
    with pytest.raises(ValueError, match="the key '1999' stands twice"):
        strangers._each_once(pairs)
    assert Key.asked < 10_000


@pytest.mark.parametrize("text, halves", [("a", False), ("\x00", False), ("ü", False), ("🐶", False), ("\ud83d", True), ("a\udcff", True), ("\ud83d\udc36", True), ("\ud7ff\ue000", False), ("", False)])
def test_half_letters(text, halves):
    assert strangers.has_halves(text) is halves
    assert strangers.without_halves(text) == "".join("?" if 0xD800 <= ord(letter) < 0xE000 else letter for letter in text)


def test_a_loss_in_a_format_would_be_found(tmp_path, monkeypatch):
    """The checks above on a writer that is broken on purpose."""
    from miniclip_helpers.datasets import writing

    plain = writing._text
    monkeypatch.setattr(writing, "_text", lambda dataset, kind: plain(dataset.subset(range(len(dataset) - 1)), kind))
    found = {kind: wrong for kind, _, wrong in check_formats([(row, f"text {row}") for row in range(8)], tmp_path)}
    assert found["csv"] and found["json"] and not found["parquet"]
    monkeypatch.setattr(writing, "_text", lambda dataset, kind: plain(dataset, kind).replace("text 5", "text 6"))
    found = {kind: wrong for kind, _, wrong in check_formats([(row, f"text {row}") for row in range(8)], tmp_path)}
    assert "text 5" in found["token"][0] and not found["tar"]


def test_a_wrong_piece_would_be_found(monkeypatch):
    monkeypatch.setattr(tokenizers, "WORD_PATTERN", tokenizers.WORD_PATTERN.replace("'ve|", ""))
    assert any("openai-clip has other pieces" in line for line in check_tokens([(0, "they've"), (1, "dogs")]))


def test_the_texts_travel_as_json():
    assert all(json.loads(json.dumps(text := odd_text(SEED, case, halves=True))) == text for case in range(200))
