"""From words to padded ids and back: a word tokenizer built here, and CLIP's own byte-pair encoding."""

import collections
import heapq
import re
import unicodedata

import torch

from .errors import ModelError, UsageError

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


def checked_ids(ids, size):
    """Ids as ints. A `UsageError` for one that the vocabulary does not have."""
    ids = [int(number) for number in ids]
    strange = next((number for number in ids if not 0 <= number < size), None)
    if strange is not None:
        raise UsageError(f"expected ids from 0 to {size - 1}, found {strange}; decode with the tokenizer that made them")
    return ids


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
        return " ".join(table[number] for number in checked_ids(ids, self.size) if number != PAD)

    def to_dict(self):
        return {"kind": "words", "vocabulary": self.vocabulary, "length": self.length}

    @classmethod
    def from_dict(cls, state):
        return cls(state["vocabulary"], state["length"])


# CLIP's own cut into words: the two marks, English endings, runs of letters, single digits, runs of anything else that is no blank.
WORD_PATTERN = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
LONG_WORD, MOST_KNOWN = 200, 2**16  # letters of a word whose pieces are remembered, and how many such words
CLIP_MERGES = 48894  # of the 262,144 lines in its file: with 512 signs and two marks they fill 49,408 ids


def byte_signs():
    """A visible sign for each of the 256 bytes, in CLIP's order: printable ones stand for themselves, the rest follow from 256 on."""
    printable = [byte for byte in range(256) if chr(byte).isprintable() and byte != 32]
    rest = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + place) for place, byte in enumerate(rest)}


def merge_pair(pieces, pair):
    """The pieces of a word with each `pair` of neighbours joined, from the left.

    >>> merge_pair(["l", "o", "l", "o</w>"], ("l", "o"))
    ['lo', 'l', 'o</w>']
    """
    out, place = [], 0
    while place < len(pieces):
        if place + 1 < len(pieces) and (pieces[place], pieces[place + 1]) == pair:
            out.append(pieces[place] + pieces[place + 1])
            place += 2
        else:
            out.append(pieces[place])
            place += 1
    return out


def merge_all(pieces, rank):
    """The pieces of a word, joined pair by pair in the order of `rank`, {pair: number}: what `merge_pair` gives again and again, at n log n and not n * n steps.

    >>> merge_all(["l", "o", "l", "o</w>"], {("l", "o"): 0, ("lo", "l"): 1})
    ['lol', 'o</w>']
    """
    pieces, left, right = list(pieces), list(range(-1, len(pieces) - 1)), [*range(1, len(pieces)), -1]
    waiting = [(rank[pair], place) for place, pair in enumerate(zip(pieces, pieces[1:])) if pair in rank]
    heapq.heapify(waiting)
    while waiting:
        number, born = waiting[0][0], []
        while waiting and waiting[0][0] == number:  # all of one pair, from the left, before any pair that they give birth to
            place = heapq.heappop(waiting)[1]
            after = right[place]
            if pieces[place] is None or after < 0 or rank.get((pieces[place], pieces[after])) != number:
                continue  # one of the two is part of another piece by now
            pieces[place], pieces[after], right[place] = pieces[place] + pieces[after], None, right[after]
            if right[place] >= 0:
                left[right[place]] = place
            born += [place for place in (left[place], place) if place >= 0]
        for place in born:
            if pieces[place] is not None and right[place] >= 0 and (pair := (pieces[place], pieces[right[place]])) in rank:
                heapq.heappush(waiting, (rank[pair], place))
    return [piece for piece in pieces if piece is not None]


class BytePairTokenizer:
    """Byte-pair encoding as CLIP does it: any text of any language becomes pieces, and no piece is ever unknown.

    merges: pairs of pieces, in the order learned. length: ids in a row, the two marks included. truncate: what is done with a longer
    caption: True cuts it and keeps the end mark, False raises a `UsageError`. clean: mend broken characters and HTML entities first, as
    openai-clip and open_clip do; False leaves them, as transformers does. Padding is id 0 as in openai-clip, which is the piece "!" too:
    look for the end mark, never for zeros. Sources: Sennrich and co-authors 2016 (BPE), Radford and co-authors 2019 (on bytes).
    """

    def __init__(self, merges, length=77, truncate=True, clean=True):
        if length < 3:
            raise UsageError(f"length must be at least 3 (start, one piece, end), found {length}")
        self.merges, self.length, self.truncate, self.clean = [tuple(pair) for pair in merges], length, truncate, clean
        self._signs = byte_signs()
        signs = list(self._signs.values())
        self.vocabulary = [*signs, *(sign + WORD_END for sign in signs), *map("".join, self.merges), START, END]
        self.ids = {piece: number for number, piece in enumerate(self.vocabulary)}
        self._rank = {pair: number for number, pair in enumerate(self.merges)}
        self._known = {START: [START], END: [END]}  # words met so far, cut
        self.named = None

    @classmethod
    def clip(cls, **options):
        """CLIP's own vocabulary, 49,408 ids, out of the file that the openai-clip package holds. options: as in `BytePairTokenizer`."""
        import gzip
        import importlib.util
        import pathlib

        package = importlib.util.find_spec("clip")  # found, not imported: the import takes seconds
        file = pathlib.Path(package.origin).parent / "bpe_simple_vocab_16e6.txt.gz" if package else None
        if file is None or not file.is_file():
            raise ModelError("CLIP's vocabulary comes with the package openai-clip, which is not there; install it (pip install openai-clip)")
        lines = gzip.decompress(file.read_bytes()).decode("utf8").split("\n")
        found = cls([line.split() for line in lines[1 : 1 + CLIP_MERGES]], **options)
        found.named = "clip"
        return found

    @classmethod
    def train(cls, captions, merges=1000, **options):
        """Learn up to `merges` merges from training captions: again and again the most frequent pair of neighbours becomes one piece.

        Ties go to the pair that comes first in the alphabet. It stops early when no pair stands twice.
        """
        bare = cls([], **options)
        count = collections.Counter(word for caption in captions for word in bare.words(caption))
        found = learn_merges({tuple(bare._start(word)): times for word, times in count.items() if word not in (START, END)}, merges)
        return cls(found, **options)

    @property
    def size(self):
        """Number of ids: the rows of an embedding table."""
        return len(self.vocabulary)

    def words(self, text):
        """The words of a text as CLIP parts them, mended and in lower case; they are cut into pieces one by one."""
        import regex

        if self.clean:
            import html

            import ftfy

            text = html.unescape(html.unescape(ftfy.fix_text(text)))
        else:
            text = unicodedata.normalize("NFC", text)
        return regex.findall(WORD_PATTERN, regex.sub(r"\s+", " ", text).lower(), regex.IGNORECASE)

    def _start(self, word):
        """A word as signs of its bytes, the last with the mark of a word's end. Half letters (lone surrogates), which have no bytes, become "?"."""
        signs = [self._signs[byte] for byte in word.encode("utf8", "replace")]
        return [*signs[:-1], signs[-1] + WORD_END]

    def _cut(self, word):
        """The pieces of a word: of all pairs of neighbours the one learned first is joined, until no pair is known."""
        if pieces := self._known.get(word):  # asked once: another thread may put a new dict in its place
            return pieces
        pieces = merge_all(self._start(word), self._rank)
        if len(word) <= LONG_WORD:
            if len(self._known) >= MOST_KNOWN:  # a service meets new words for ever
                self._known = {START: [START], END: [END]}
            self._known[word] = pieces
        return pieces

    def tokens(self, text):
        """The pieces of a text, as strings; "</w>" marks the end of a word.

        >>> BytePairTokenizer.clip().tokens("Dalmatians!")
        ['dal', 'mati', 'ans</w>', '!</w>']
        """
        return [piece for word in self.words(text) for piece in self._cut(word)]

    def encode(self, text):
        """The ids of a text, neither marks nor padding nor cut."""
        return [self.ids[piece] for piece in self.tokens(text)]

    def __call__(self, texts):
        """Captions (list of str) to (B, length) long: start, pieces, end, zeros. A single str counts as a list of one."""
        out = torch.zeros(len([texts] if isinstance(texts, str) else texts), self.length, dtype=torch.long)
        for row, text in zip(out, [texts] if isinstance(texts, str) else texts, strict=True):
            found = self.encode(text)
            if len(found) > self.length - 2 and not self.truncate:
                raise UsageError(f"the caption {text[:60]!r}... has {len(found)} pieces, and {self.length - 2} fit beside the two marks; shorten it, or "
                                 "ask for truncate=True, which cuts its end off")
            found = [self.size - 2, *found[: self.length - 2], self.size - 1]
            row[: len(found)] = torch.tensor(found)
        return out

    def decode(self, ids):
        """A row of ids back to text, up to its end mark; the start mark is left out. Case, and the blanks between words, do not come back."""
        ids = checked_ids(ids, self.size)
        ids = ids[: ids.index(self.size - 1)] if self.size - 1 in ids else ids
        text = "".join(self.vocabulary[number] for number in ids if number != self.size - 2)
        back = {sign: byte for byte, sign in self._signs.items()}
        return " ".join(bytes(back[sign] for sign in word).decode("utf8", "replace") for word in text.split(WORD_END)).strip()

    def to_dict(self):
        merges = self.named or [list(pair) for pair in self.merges]  # CLIP's own by name: a megabyte less in each run
        return {"kind": "bpe", "merges": merges, "length": self.length, "truncate": self.truncate, "clean": self.clean}

    @classmethod
    def from_dict(cls, state):
        options = {key: state[key] for key in ("length", "truncate", "clean")}
        return cls.clip(**options) if state["merges"] == "clip" else cls(state["merges"], **options)


def learn_merges(words, merges):
    """The `merges` most frequent pairs, one after the other. words: {tuple of pieces: times}. Returns a list of pairs.

    After each merge only the words that held the pair are counted again.
    """
    words = [(list(pieces), times) for pieces, times in words.items()]
    count, where = collections.Counter(), collections.defaultdict(set)
    for number, (pieces, times) in enumerate(words):
        for pair in zip(pieces, pieces[1:]):
            count[pair] += times
            where[pair].add(number)
    found = []
    while len(found) < merges and count:
        most = max(count.values())
        if most < 2:
            break
        best = min(pair for pair, times in count.items() if times == most)
        for number in where.pop(best):
            pieces, times = words[number]
            for pair in zip(pieces, pieces[1:]):
                count[pair] -= times
            words[number] = (pieces := merge_pair(pieces, best), times)
            for pair in zip(pieces, pieces[1:]):
                count[pair] += times
                where[pair].add(number)
        found.append(best)
        count = +count if len(found) % 100 == 0 else count  # pairs that are gone
        count.pop(best, None)
    return found


ClipTokenizer = BytePairTokenizer.clip  # the tokenizer as CLIP's towers want it: (B, 77) long, longer captions cut
