"""The word tokenizer by hand; CLIP's against open_clip's independent implementation."""

import open_clip
import pytest
import torch

from miniclip_helpers.errors import UsageError
from miniclip_helpers.tokenizers import ClipTokenizer, WordTokenizer, pad, words

CAPTIONS = ["A red dog.", "a dog on the beach", "two dogs, one ball"]


def test_words():
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


def test_clip_tokenizer_equals_open_clip():
    texts = CAPTIONS + ["naïve café — 100% “quoted” text", "word " * 200, ""]
    ours, theirs = ClipTokenizer()(texts), open_clip.get_tokenizer("ViT-B-32")(texts)
    assert ours.shape == (6, 77) and torch.equal(ours, theirs)
    assert ClipTokenizer().decode(ours[1]) == "a dog on the beach"
