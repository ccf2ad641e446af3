"""An index and its model behind asynchronous questions: vectors remembered, texts encoded in batches, one thread for each kind of work."""

import asyncio
import collections
import contextlib
import io
import pathlib
import warnings
from concurrent.futures import ThreadPoolExecutor

import torch
from PIL import Image
from torch.nn import functional as F

from .. import images, runtime, search, zero_shot
from ..errors import ImageError, MiniclipError
from ..model import lengths
from .batching import Batcher

REMEMBERED = 4096  # query vectors of 512 numbers: 8 MB
MOST_PIXELS = 40_000_000  # laying transparency over white takes 16 bytes a pixel. JPEGs in one scan may have what `images` allows; progressive ones are held whole while decoded
MOST_WORK = 2e9  # scans of a JPEG times its pixels, each scan goes over all of them: a second. A camera's has at most a dozen scans
NARROW = 50  # one side by the other: models scale the shorter side up to theirs, and the longer one with it
KINDS = "expected JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"
AT_ONCE = 16  # sentences of one zero-shot question per batch, so that searches come between


class Recent:
    """The values used last, by key: at most `most` of them. Counts hits and misses."""

    def __init__(self, most):
        self.most, self.hits, self.misses, self._held = most, 0, 0, collections.OrderedDict()

    def __len__(self):
        return len(self._held)

    def get(self, key):
        """The value, or None."""
        if key not in self._held:
            self.misses += 1
            return None
        self.hits += 1
        self._held.move_to_end(key)
        return self._held[key]

    def put(self, key, value):
        self._held[key] = value
        self._held.move_to_end(key)
        while len(self._held) > self.most:
            self._held.popitem(last=False)


class Engine:
    """index: an `Index`. model: the one that made it, else `ModelError`. folder: where the index was read from, for `state`. remember: how many vectors."""

    def __init__(self, index, model, folder=None, remember=REMEMBERED):
        search.check_model(index, model)
        self.index, self.model, self.folder = index, model.eval(), folder
        self.recent = Recent(remember)
        self._tower, self._pictures, self._lookups = (ThreadPoolExecutor(1, thread_name_prefix=name) for name in ("tower", "pictures", "lookups"))
        self.texts = Batcher(self._encode_texts, self._tower)

    def warm(self):
        """Read weights and data now, in the threads that use them, so that the first question waits no longer than the others."""
        self._tower.submit(self._encode_texts, ["warm"]).result()
        self._tower.submit(self._encode_picture, Image.new("RGB", (64, 64))).result()
        if len(self.index):
            with contextlib.suppress(MiniclipError):  # a photo that is gone is told to whoever asks for it
                self._pictures.submit(self._as_jpeg, self.index.names[0], 64).result()

    def close(self):
        """Stop the threads; what they are at is finished."""
        for pool in (self._tower, self._pictures, self._lookups):
            pool.shutdown(cancel_futures=True)

    def state(self):
        """What is served, without paths."""
        made = self.index.about.get("model", "")
        return {"status": "ok", "holds": self.index.about.get("holds", "pictures"), "count": len(self.index),
                "model": pathlib.Path(made).name if pathlib.Path(made).exists() else made,
                "index_on_disk": self.folder is None or (pathlib.Path(self.folder) / "index.json").is_file()}

    async def _in(self, pool, call, *arguments):
        return await asyncio.get_running_loop().run_in_executor(pool, call, *arguments)

    async def text_vector(self, text):
        """(vector (D,), note): the unit vector of one text, and what there is to say of it, else None."""
        found = self.recent.get(("text", text))
        if found is None:
            found = await self.texts(text)
            self.recent.put(("text", text), found)
        return found

    def _encode_texts(self, texts):
        """Not through `embedding`'s cache: what people search for is not written to a disk."""
        tower = self.model.text_tower
        cut = dict(lengths.long_texts(tower, texts))
        with torch.no_grad():
            vectors = self.model.project_texts(tower.encode(texts))
        notes = [f"the text has {cut[row]} tokens; {tower.name} reads the first {tower.context}" if row in cut else None for row in range(len(texts))]
        return [(vector.clone(), note) for vector, note in zip(vectors, notes)]  # a view would keep the whole batch in the cache

    async def picture_vector(self, data):
        """The unit vector (D,) of a picture file's bytes. `ImageError` for what is no picture, damaged or too large."""
        key = ("picture", await self._in(self._lookups, runtime.digest, data))  # 20 MB would hold up all others for a while
        vector = self.recent.get(key)
        if vector is None:
            picture = await self._in(self._pictures, read_picture, data)  # in one thread: at most one large picture is in memory
            vector = await self._in(self._tower, self._encode_picture, picture)
            self.recent.put(key, vector)
        return vector

    def _encode_picture(self, picture):
        with torch.no_grad():
            return self.model.project_images(self.model.image_tower.encode([picture]))[0]

    async def nearest(self, vector, k):
        """The k names nearest to a vector (D,), best first: [`Hit`]."""
        scores, names = await self._in(self._lookups, self.index.search, vector[None].numpy(), k)
        return [search.Hit(name, float(score)) for name, score in zip(names[0], scores[0])]

    async def label_probabilities(self, data, labels, templates, temperature=None):
        """([(label, probability)] best first, note) of a picture's bytes. `UsageError` for labels or templates that cannot work."""
        rows = zero_shot.class_texts(labels, templates)
        scale, vector = zero_shot.scale_of(self.model, temperature), await self.picture_vector(data)
        texts, found = [text for row in rows for text in row], []
        for start in range(0, len(texts), AT_ONCE):
            found += await asyncio.gather(*[self.text_vector(text) for text in texts[start : start + AT_ONCE]])
        sentences = torch.stack([one for one, _ in found]).unflatten(0, (len(rows), -1))  # (C, T, D)
        classes = F.normalize(sentences.mean(1), dim=-1)
        shares = zero_shot.class_probabilities(vector[None], classes, scale)
        return zero_shot.top_labels(shares, labels, len(rows))[0], next((note for _, note in found if note), None)

    async def photo(self, name, side):
        """The picture behind a name of the index as JPEG bytes, at most `side` pixels wide and high. `KeyError` for a name that is not there."""
        if name not in self.index:
            raise KeyError(name)
        return await self._in(self._pictures, self._as_jpeg, name, side)

    def _as_jpeg(self, name, side):
        return images.bare_jpeg(search.picture_of(self.index, name), side)


def read_picture(data):
    """Bytes to PIL RGB, upright, as `images.open_image`. `ImageError` for formats that browsers do not send, and for what would take too much memory or time."""
    if data:
        try:
            with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
                with images.open_head(io.BytesIO(data)) as head:
                    check_work(data, head)
        except ImageError:
            raise
        except Image.DecompressionBombError:
            pass  # above any limit: open_image says so
        except Exception as error:  # decoders raise many kinds on broken heads
            raise ImageError(f"the picture is damaged, or in no known format; {KINDS}") from error
    return images.open_image(data)


def check_work(data, head):
    """`ImageError` for a picture that would hold up all others. data: its bytes. head: of `images.open_head`."""
    (width, height), kind = head.size, head.format
    if kind == "PPM":  # bare pixels, or numbers in words that Python reads one by one: no browser knows it
        raise ImageError(f"the picture is a PPM; {KINDS}")
    if max(width, height) > NARROW * min(width, height):
        raise ImageError(f"the picture has {width} x {height} pixels: too narrow to see anything in; cut out a part of it")
    jpeg = kind in ("JPEG", "MPO")
    if width * height > MOST_PIXELS and (head.info.get("progressive") or not jpeg):
        better = "a baseline JPEG" if jpeg else "a JPEG"
        raise ImageError(f"the picture has {width} x {height} pixels, more than the {MOST_PIXELS // 10**6} million allowed; make it smaller, or {better}")
    if jpeg and data.count(b"\xff\xda") * width * height > MOST_WORK:  # a scan begins so, and nothing else does
        raise ImageError("the picture is a JPEG of very many scans; open and save it anew")
