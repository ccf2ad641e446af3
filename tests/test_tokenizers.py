"""The word tokenizer by hand; byte-pair encoding against openai-clip, open_clip, transformers and a naive loop."""

import collections
import csv
import json

import open_clip
import pytest
import torch
from conftest import SHARED
from standin import save_hub_clip

from miniclip_helpers import datasets
from miniclip_helpers.errors import UsageError
from miniclip_helpers.tokenizers import BytePairTokenizer, ClipTokenizer, WordTokenizer, byte_signs, learn_merges, merge_pair, pad, words

CAPTIONS = ["A red dog.", "a dog on the beach", "two dogs, one ball"]
FLICKR8K = SHARED / "flickr8k" / "captions.txt"
ODD = [
    "", " ", "\n\t ", "a", "A", "!", "!!!!", "a   b\n\tc", "  edges  ", "3.14 and 2024", "x_y-z/w", "100%",
    "it's DON'T they'll we've I'd I'm you're cat's cats' 's 't 'tis rock'n'roll", "“quoted” ‘single’ — dash … dots", "I’m fine",
    "&amp; &lt;b&gt; &quot;x&quot; &amp;amp; &nbsp; &#39; &eacute;", "<b> &amp; &amp;amp; &amp;amp;amp; &amp;lt;", "naïve café déjà vu", "cafe\u0301 (in two signs)", "ß ẞ İstanbul ı ΣΟΦΟΣ",
    "🐶 dog 👩‍🚀 👍🏽 🏳️‍🌈", "ｆｕｌｌ ｗｉｄｔｈ", "ﬁne ﬂag", "हिन्दी में कुत्ता", "日本語の犬", "한국어", "العربية", "עברית", "ไทย",
    "a\x00b", "\u200bzero width", "\ufeffmark", "soft\xadhyphen", "non\xa0breaking", "cafÃ© broken", "<|endoftext|> x <|startoftext|>", "word " * 200, "x" * 300,
]


def testwords():
    assert words("A dog's ball, on the Beach!") == ["a", "dog's", "ball", "on", "the", "beach"]
    assert words("Ein Süßer Hund 犬 と 3") == ["ein", "süßer", "hund", "犬", "と", "3"]


def test_vocabulary_is_ranked_by_frequency_then_alphabet():
    tokenizer = WordTokenizer.fit(CAPTIONS, max_words=3)
    assert tokenizer.vocabulary == ["a", "dog", "ball"] and tokenizer.size == 5


def test_ids_padding_unknown_and_back():
    tokenizer = WordTokenizer.fit(CAPTIONS, max_words=3)
    ids = tokenizer(["a green dog", "ball"])
    assert ids.tolist() == [[2, 1, 3], [4, 0, 0]]
    assert tokenizer.decode(ids[0]) == "a <unk> dog" and tokenizer.decode(ids[1]) == "ball"
    assert tokenizer([""]).tolist() == [[0]]


def test_length_cuts_and_state_comes_back():
    tokenizer = WordTokenizer.fit(CAPTIONS, length=2)
    assert tokenizer(CAPTIONS).shape == (3, 2)
    again = WordTokenizer.from_dict(tokenizer.to_dict())
    assert torch.equal(again(CAPTIONS), tokenizer(CAPTIONS))
    with pytest.raises(UsageError):
        WordTokenizer([], length=0)


def test_pad_by_hand():
    assert pad([[5], [6, 7]]).tolist() == [[5, 0], [6, 7]]


@pytest.fixture(scope="module")
def clip_tokenizer():
    return BytePairTokenizer.clip()


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """CLIP's tokenizer as openai-clip and as transformers write it."""
    import warnings

    from transformers import CLIPTokenizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        from clip.simple_tokenizer import SimpleTokenizer

    return SimpleTokenizer(), CLIPTokenizer.from_pretrained(save_hub_clip(tmp_path_factory.mktemp("hub") / "clip"))


def embedded_captions():
    """1,400 captions, 1,000 of them different: emoji and stamps, in English and in all 25 languages that they hold."""
    emoji, stamps = datasets.load_dataset("emoji"), datasets.load_dataset("stamps")
    found = [caption for row in emoji.captions[::11] for caption in row] + stamps.all_captions[::4]
    for row, table in enumerate([*emoji.columns["translations"][::45], *stamps.columns["translations"][::45]]):
        languages = sorted(table)
        found += [table[languages[(row + step) % len(languages)]] for step in (0, 5, 10, 15, 20)] if languages else []
    return found


@pytest.fixture(scope="module")
def captions():
    found = embedded_captions()
    assert len(set(found)) >= 1000 and sum(not text.isascii() for text in found) >= 200
    return found


def test_clip_equals_both_libraries_on_a_thousand_captions(clip_tokenizer, theirs, captions):
    openai, hub = theirs
    for text in captions:
        assert clip_tokenizer.encode(text) == openai.encode(text), text
    plain = BytePairTokenizer.clip(clean=False)
    rows = hub(captions)["input_ids"]
    for text, row in zip(captions, rows, strict=True):
        assert [49406, *plain.encode(text), 49407] == row, text
    same = [clip_tokenizer.encode(text) == plain.encode(text) for text in captions]
    assert sum(same) > 0.9 * len(captions)  # the two libraries part on curly quotes and the like, and so do ours


@pytest.mark.skipif(not FLICKR8K.is_file(), reason=f"the captions of Flickr8k are not there: {FLICKR8K}")
def test_clip_equals_both_libraries_on_flickr8k(clip_tokenizer, theirs):
    openai, hub = theirs
    with FLICKR8K.open(encoding="utf8", newline="") as file:
        texts = [row["caption"] for row in csv.DictReader(file)][:3500]
    assert len(texts) >= 1000
    for text, row in zip(texts, hub(texts)["input_ids"], strict=True):
        assert clip_tokenizer.encode(text) == openai.encode(text) == row[1:-1], text


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_clip_equals_both_libraries_on_odd_texts(clip_tokenizer, theirs, text):
    openai, hub = theirs
    assert clip_tokenizer.encode(text) == openai.encode(text)
    if "ΣΟΦΟΣ" not in text:  # transformers writes a sigma at a word's end as within it
        assert BytePairTokenizer.clip(clean=False).encode(text) == hub(text)["input_ids"][1:-1]


def test_rows_equal_open_clip_and_openai_clip(clip_tokenizer):
    import clip

    texts = CAPTIONS + ODD
    ours = clip_tokenizer(texts)
    assert ours.shape == (len(texts), 77) and ours.dtype == torch.long
    assert torch.equal(ours, clip.tokenize(texts, truncate=True).long())
    same = [row for row, text in enumerate(texts) if "<|" not in text]  # open_clip's marks are written otherwise; their ids are the same
    assert torch.equal(ours[same], open_clip.get_tokenizer("ViT-B-32")([texts[row] for row in same]))
    assert torch.equal(ClipTokenizer()(CAPTIONS[1]), ours[1:2])


def test_decoding(clip_tokenizer):
    row = clip_tokenizer(["A dog's naïve   café, 犬 🐶!"])[0]
    assert clip_tokenizer.decode(row) == "a dog 's naïve café , 犬 🐶!"
    assert clip_tokenizer.decode(clip_tokenizer([""])[0]) == "" and clip_tokenizer.decode([]) == ""


def test_another_thread_may_empty_what_is_known_at_any_moment(clip_tokenizer):
    class Emptied(dict):
        def __contains__(self, word):
            return [super().__contains__(word), self.leave()][0]

        def get(self, word):
            return [super().get(word), self.leave()][0]

        def leave(self):
            tokenizer._known = {}

    tokenizer = BytePairTokenizer.clip()
    tokenizer._known = Emptied(dalmatians=["left", "to", "right</w>"])
    assert tokenizer.tokens("dalmatians") == ["left", "to", "right</w>"]
    assert tokenizer.tokens("dalmatians") == clip_tokenizer.tokens("dalmatians")


def test_too_long_is_cut_or_refused(clip_tokenizer):
    row = clip_tokenizer(["dog " * 76])[0]
    assert row[-1] == 49407 and row[-2] == clip_tokenizer.encode("dog")[0]
    strict = BytePairTokenizer.clip(truncate=False)
    assert torch.equal(strict(["dog " * 75]), clip_tokenizer(["dog " * 75]))
    with pytest.raises(UsageError, match="76 pieces, and 75 fit"):
        strict(["dog " * 76])
    with pytest.raises(UsageError, match="at least 3"):
        BytePairTokenizer([], length=2)


def test_merge_pair_by_hand():
    assert merge_pair(list("aaa"), ("a", "a")) == ["aa", "a"] and merge_pair(list("aaaa"), ("a", "a")) == ["aa", "aa"]
    assert merge_pair(["a"], ("a", "b")) == ["a"] and merge_pair([], ("a", "b")) == [] and merge_pair(list("ba"), ("a", "b")) == ["b", "a"]


def test_the_paper_s_example():
    """Sennrich and co-authors' dictionary: low 5, lower 2, newest 6, widest 3. Counted by hand: es 9, est 9, lo 7, then ew, ne and we 6 each."""
    said = {"low": 5, "lower": 2, "newest": 6, "widest": 3}
    found = learn_merges({(*word[:-1], word[-1] + "</w>"): times for word, times in said.items()}, 4)
    assert found == [("e", "s"), ("es", "t</w>"), ("l", "o"), ("e", "w")]


def naive_merges(counts, merges):
    """The definition: count everything anew for each merge."""
    counts, found = {tuple(pieces): times for pieces, times in counts.items()}, []
    for _ in range(merges):
        pairs = collections.Counter()
        for pieces, times in counts.items():
            for pair in zip(pieces, pieces[1:]):
                pairs[pair] += times
        pairs = {pair: times for pair, times in pairs.items() if times >= 2}
        if not pairs:
            break
        best = sorted(pairs, key=lambda pair: (-pairs[pair], pair))[0]
        found.append(best)
        new = collections.Counter()
        for pieces, times in counts.items():
            joined = " ".join(pieces).split(" ")
            place = 0
            while place < len(joined) - 1:
                if (joined[place], joined[place + 1]) == best:
                    joined[place : place + 2] = ["".join(best)]
                place += 1
            new[tuple(joined)] += times
        counts = dict(new)
    return found


def test_learned_merges_equal_a_naive_loop():
    texts = datasets.load_dataset("stamps").all_captions[:200]
    counts = collections.Counter(word for text in texts for word in BytePairTokenizer([]).words(text))
    start = {tuple([*word[:-1], word[-1] + "</w>"]): times for word, times in counts.items() if word.isascii()}
    assert learn_merges(start, 150) == naive_merges(start, 150)
    assert learn_merges({("a", "b</w>"): 1}, 5) == [] and learn_merges({}, 5) == []


def test_a_trained_tokenizer():
    texts = datasets.load_dataset("stamps").all_captions
    tokenizer = BytePairTokenizer.train(texts, merges=300, length=40)
    assert tokenizer.size == 512 + 300 + 2 and tokenizer(texts).shape == (950, 40)
    assert tokenizer.tokens("A penguin.")[0] == "a</w>" and tokenizer.tokens("A penguin.")[-1] == ".</w>"
    assert all(tokenizer.decode(tokenizer([text])[0]) == tokenizer.decode(tokenizer.encode(text)) for text in texts[:50])
    assert tokenizer.decode(tokenizer(["犬 🐶 never seen"])[0]) == "犬 🐶 never seen"
    more = BytePairTokenizer.train(texts, merges=600)
    assert more.merges[:300] == tokenizer.merges
    assert sum(map(len, map(more.encode, texts))) < sum(map(len, map(tokenizer.encode, texts)))


@pytest.mark.parametrize("make", [lambda: BytePairTokenizer.clip(truncate=False), lambda: BytePairTokenizer.train(CAPTIONS, merges=5, length=9, clean=False)])
def test_state_comes_back_through_json(make):
    tokenizer = make()
    state = json.loads(json.dumps(tokenizer.to_dict()))
    again = BytePairTokenizer.from_dict(state)
    assert torch.equal(again(CAPTIONS), tokenizer(CAPTIONS)) and again.to_dict() == tokenizer.to_dict() and len(json.dumps(state)) < 500
    assert (again.truncate, again.clean, again.length) == (tokenizer.truncate, tokenizer.clean, tokenizer.length)


def test_a_tokenizer_is_trained_as_it_is_used():
    """The options hold for the captions it learns from, too: mended, `&amp;` is one sign; left alone, five."""
    captions = ["salt &amp; pepper", "salt &amp; vinegar", "salt &amp; oil"]
    mended, raw = (BytePairTokenizer.train(captions, merges=30, clean=clean, length=6) for clean in (True, False))
    assert "amp</w>" in raw.vocabulary and "amp</w>" not in mended.vocabulary
    assert (mended.clean, raw.clean, mended.length) == (True, False, 6) and mended(["salt " * 9]).shape == (1, 6)


def test_byte_signs_are_gpt2s():
    from clip.simple_tokenizer import bytes_to_unicode

    assert list(byte_signs().items()) == list(bytes_to_unicode().items())
