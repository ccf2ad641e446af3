"""Every way by which a picture comes into the package, for `fuzzing.py`: a model that knows mean colours alone stands behind all of them."""

import contextlib
import io
import pathlib
import shutil

import numpy as np
from fuzzing import MEMORY_MB, forget_memory, memory_mb
from fuzzing_pictures import pillow_alone
from PIL import Image
from test_search import MeanColour, NamedColour

from miniclip_helpers import embedding, images, search
from miniclip_helpers.datasets import ImageTextDataset, load_dataset, shards
from miniclip_helpers.errors import DataError, ImageError, MiniclipError
from miniclip_helpers.index import build_index
from miniclip_helpers.model import TwoTowers
from miniclip_helpers.service import Engine, create_app

HEADS = ("folder", "encode folder")  # stop at the heads that are broken, before anything is decoded
FRAMES = (images.Preprocess(32), images.Preprocess(32, mode="squash"))


def settled(data):
    """Whether Pillow gives one picture however often it is asked. libtiff leaves what it cannot decode as the memory was, which is here filled with one thing and then another.

    Of a damaged fax it does so in every case: where its memory comes from decides, and two readings that agree prove nothing.
    """
    with contextlib.suppress(Exception), Image.open(io.BytesIO(data)) as picture:
        if str(picture.info.get("compression")).startswith(("group", "tiff_ccitt")):
            return False
    found = []
    for value in (0, 255):
        Image.core.clear_cache()
        for mode in ("L", "1", "RGB"):
            filled = [Image.new(mode, (side, side), value if mode != "RGB" else (value,) * 3) for side in (4, 16, 64, 256, 1024)]
            del filled
        found.append(pillow_alone(data))
    return np.array_equal(*found)


class SmallColour(MeanColour):
    """The mean colour of a small copy: 100 megapixels as numbers would take more memory than what is tested."""

    def prepare(self, inputs):
        return super().prepare([picture.resize((8, 8), Image.Resampling.BOX, reducing_gap=1) for picture in inputs])


class Doors:
    """folder: an empty folder to work in. `alone` takes one file, `together` a group of them; both give findings, (column, line) each."""

    def __init__(self, folder):
        from fastapi.testclient import TestClient

        self.folder = pathlib.Path(folder)
        self.model = TwoTowers(SmallColour(), NamedColour(), name="colours", logit_scale=10).eval()
        about = embedding.about_model(self.model, "colours") | {"holds": "pictures"}
        self.index = build_index(np.eye(3, dtype=np.float32), ["red", "green", "blue"], "flat", about)
        self.client = TestClient(create_app(Engine(self.index, self.model)), base_url="http://127.0.0.1", raise_server_exceptions=False)

    def alone(self, name, suffix, data):
        """("right results", "errors of ours" or None, its number of pixels or 0 if it cannot be read, findings) of one file: opened from a path and from bytes, scaled, asked for, uploaded."""
        file = self.folder / f"picture{suffix}"
        file.write_bytes(data)
        held, found = forget_memory(), []
        try:
            picture, error = images.open_image(file), None
            for frame in FRAMES:
                assert frame.pixels(picture).shape == (32, 32, 3)
            images.bare_jpeg(picture, 64)
        except ImageError as told:
            picture, error = None, str(told)
            if str(file) not in error:
                found.append(("other findings", f"{name}: the error does not name the file: {error[:200]}"))
        except Exception as wrong:
            return None, 0, [("crashes", f"{name}: {type(wrong).__name__}: {str(wrong)[:200]}")]
        if held and (peak := memory_mb() - held) > MEMORY_MB:
            found.append(("over memory", f"{name}: {peak:.0f} MB"))
        found += self.agrees(name, data, picture, error) + self.asks(name, file, data, error)
        return (None if found else "right results" if error is None else "errors of ours"), 0 if error is not None else picture.width * picture.height, found

    def agrees(self, name, data, picture, error):
        """Whether our picture is Pillow's, and our error has a reason in Pillow's own."""
        if picture is not None and picture.width * picture.height > 8_000_000:  # NumPy's copies would take gigabytes; `pillow_alone` is asked about smaller ones
            return []
        theirs = pillow_alone(data)
        if isinstance(theirs, str):
            return [] if picture is None else [("other findings", f"{name}: a picture of {picture.size}, where Pillow says: {theirs[:200]}")]
        if picture is None:
            return [("other findings", f"{name}: Pillow reads it, and we say: {error[:200]}")]
        if theirs.shape[:2] != picture.size[::-1] or picture.mode != "RGB":
            return [("other findings", f"{name}: {picture.size} {picture.mode}, and Pillow has {theirs.shape}")]
        apart = float(np.abs(np.asarray(picture, np.float32) - theirs).max())
        if apart <= 2 or not settled(data):
            return []
        return [("other findings", f"{name}: up to {apart} of 255 from what Pillow reads")]

    def asks(self, name, file, data, error):
        """The file as a query of a search, and as an upload."""
        found = []
        try:
            hits = search.search_image(self.index, self.model, str(file), 3)
            if error is not None or len(hits) != 3:
                found.append(("drops", f"{name}: {len(hits)} answers to a picture that cannot be read"))
        except ImageError:
            if error is None:
                found.append(("other findings", f"{name}: a search refuses what open_image reads"))
        answer = self.client.post("/search/image", files={"image": (file.name, data)})
        body = answer.json()
        if answer.status_code not in (200, 422) or (answer.status_code == 200) != ("hits" in body) or answer.status_code == 200 and error is not None:
            found.append(("crashes" if answer.status_code >= 500 else "other findings", f"{name}: the service answers {answer.status_code}, {str(body)[:200]}"))
        return found

    def together(self, name, group):
        """A group, [(case, suffix, bytes, whether it can be read)], as a folder, an index, shards of vectors, a parquet table and a tar: each picture in it or named."""
        place, found = self.folder / "group", []
        (place / "photos").mkdir(parents=True)
        files = {f"{case:07d}{suffix}": data for case, suffix, data, _ in group}
        good = {f"{case:07d}{suffix}" for case, suffix, _, good in group if good}
        for file, data in files.items():
            (place / "photos" / file).write_bytes(data)
        whole = ImageTextDataset("whole", list(files), [["a caption"]] * len(files), [place / "photos" / file for file in files])
        inside = ImageTextDataset("inside", list(files), [["a caption"]] * len(files), list(files.values()))

        def check(door, call):
            try:
                seen, named = call()
            except MiniclipError as error:
                seen, named = (), getattr(error, "problems", [])
            except Exception as error:
                return found.append(("crashes", f"{name}, {door}: {type(error).__name__}: {str(error)[:200]}"))
            rows = {file: (file, f", row {row}:", f", {row - 1:06d}") for row, file in enumerate(files, 1)}  # tables name rows, tars keys
            named = [file for file in files if any(word in line for line in named for word in rows[file])]
            lost, twice, wrong = set(files) - set(seen) - set(named), set(seen) & set(named), set(seen) - good if seen else set(named) - (set(files) - good)
            if seen and lost:
                found.append(("drops", f"{name}, {door}: {sorted(lost)[:5]} are neither there nor named"))
            if twice or wrong or not seen and door not in HEADS and set(named) != set(files) - good:
                found.append(("other findings", f"{name}, {door}: both {sorted(twice)[:3]}, against open_image {sorted(wrong or set(named) ^ (set(files) - good))[:3]}"))
            return None

        odd = group[0][0] // len(group) % 2 == 1  # each second group with skip_problems, the others without
        check("folder", lambda: self.listed(place / "photos", False))
        check("folder, skip_problems", lambda: self.listed(place / "photos", True))
        check("index", lambda: (search.index_dataset(whole, self.model).names, []))
        check("index, skip_problems", lambda: self.indexed(place / "photos"))
        self.as_tables(inside, place)
        for kind, data in (("folder", place / "photos"), ("bytes", inside), ("parquet", place / "table.parquet"), ("tar", place / "table.tar")):
            check(f"encode {kind}" + ", skip_problems" * odd, lambda data=data, kind=kind: self.encoded(data, place / f"out {kind}", odd))
        for kind in ("parquet", "tar"):
            check(f"{kind}, skip_problems", lambda kind=kind: self.listed(place / f"table.{kind}", True))
        check("stream, skip_problems", lambda: self.streamed(place / "table.tar"))
        shutil.rmtree(place)
        return found

    def listed(self, path, skip):
        dataset = load_dataset(path, skip_problems=skip)
        problems = list(dataset.problems)
        if not skip:  # the heads are whole; what lies behind is told by `image`
            readable = []
            for row, name in enumerate(dataset.names):
                try:
                    dataset.image(row)
                    readable.append(name)
                except ImageError as error:
                    problems.append(f"{name}: {error}")
            return readable, problems
        return dataset.names, problems

    def indexed(self, path):
        dataset = load_dataset(path, skip_problems=True)
        return search.index_dataset(dataset, self.model).names, dataset.problems

    def encoded(self, data, out, skip):
        try:
            done = embedding.encode_corpus(data, out, self.model, rows=20, skip_problems=skip)
        except DataError as error:
            if skip:
                raise
            raise DataError("told", error.problems) from error
        return [name for file in embedding.shard_files(out) for name in embedding.read_vectors(file)[0]], done["left_out"]

    def streamed(self, tar):
        stream = shards.read_shards(tar, buffer=0, skip_problems=True)
        return [sample.name for sample in stream], stream.problems

    def as_tables(self, dataset, place):
        """The same bytes in a parquet table and in a tar, written by pyarrow and tarfile."""
        import io
        import json
        import tarfile

        import pyarrow
        import pyarrow.parquet

        cells = [dataset.file_bytes(row) for row in range(len(dataset))]
        pyarrow.parquet.write_table(pyarrow.table({"id": dataset.names, "image": pyarrow.array(cells, pyarrow.binary()), "captions": [["a caption"]] * len(cells)}), place / "table.parquet")
        with tarfile.open(place / "table.tar", "w") as tar:
            for row, (name, data) in enumerate(zip(dataset.names, cells)):
                for member, content in ((f"{row:06d}.{name.rpartition('.')[2]}", data), (f"{row:06d}.json", json.dumps({"name": name, "captions": ["a caption"]}).encode())):
                    info = tarfile.TarInfo(member)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
