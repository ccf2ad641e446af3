"""From words to padded ids and back: a word tokenizer built here, and CLIP's own byte-pair encoding."""

import collections
import re

import torch

from .errors import UsageError

PAD, UNKNOWN = 0, 1


def words(text):
    """The lower-case words of a caption.

    >>> words("A dog's ball, on the beach!")
    ['a', "dog's", 'ball', 'on', 'the', 'beach']
    """
    return re.findall(r"\w+(?:'\w+)?", text.lower())


def pad(rows, length=None):
    """Lists of ids to a (B, L) long tensor padded with 0. L is the longest row, at most `length`, at least 1."""
    rows = [row[:length] for row in rows]
    out = torch.full((len(rows), max([1, *map(len, rows)])), PAD, dtype=torch.long)
    for number, row in enumerate(rows):
        out[number, : len(row)] = torch.tensor(row, dtype=torch.long)
    return out


class WordTokenizer:
    """One id per word, in order of frequency. Id 0 is padding, id 1 any word outside the vocabulary.

    Fit it on training captions only: a vocabulary that has seen the test captions knows which words will come.
    """

    def __init__(self, vocabulary, length=32):
        if length < 1:
            raise UsageError(f"length must be at least 1 word, found {length}")
        self.vocabulary, self.length = list(vocabulary), length
        self.ids = {word: number + 2 for number, word in enumerate(self.vocabulary)}

    @classmethod
    def fit(cls, captions, max_words=5000, length=32, min_count=1):
        """Learn the vocabulary of `captions` (list of str): the `max_words` most frequent words, ties in alphabetical order."""
        count = collections.Counter(word for caption in captions for word in words(caption))
        ranked = sorted((-times, word) for word, times in count.items() if times >= min_count)
        return cls([word for _, word in ranked[:max_words]], length)

    @property
    def size(self):
        """Number of ids, padding and unknown included: the rows of an embedding table."""
        return len(self.vocabulary) + 2

    def encode(self, text):
        """One caption to a list of at most `length` ids."""
        return [self.ids.get(word, UNKNOWN) for word in words(text)][: self.length]

    def __call__(self, texts):
        """Captions (list of str) to (B, L) long, padded with 0 on the right."""
        return pad([self.encode(text) for text in texts])

    def decode(self, ids):
        """One row of ids back to words; unknown ones become "<unk>", padding is left out."""
        table = ["", "<unk>", *self.vocabulary]
        return " ".join(table[int(number)] for number in ids if int(number) != PAD)

    def to_dict(self):
        return {"kind": "words", "vocabulary": self.vocabulary, "length": self.length}

    @classmethod
    def from_dict(cls, state):
        return cls(state["vocabulary"], state["length"])


class ClipTokenizer:
    """CLIP's byte-pair encoding, from the openai-clip package: start 49406, end 49407, padded with 0 to 77."""

    length, size = 77, 49408

    def __call__(self, texts):
        """Captions (list of str) to (B, 77) long; longer captions are cut, and keep their end token."""
        import warnings

        with warnings.catch_warnings():  # on import clip warns of pkg_resources, which no learner can mend
            warnings.simplefilter("ignore", UserWarning)
            import clip

        return clip.tokenize(list(texts), truncate=True).long()

    def decode(self, ids):
        """One row of ids back to text, without start, end and padding."""
        from clip.clip import _tokenizer

        return _tokenizer.decode([int(i) for i in ids if 0 < int(i) < 49406]).strip()
