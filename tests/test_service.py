"""The web service over a model whose right answers are known: what it answers, what it refuses, what it keeps to itself."""

import asyncio
import contextlib
import hmac
import io
import json
import os
import re
import sys
import threading
import time
import types
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from PIL import Image, ImageCms, PngImagePlugin
from test_search import COLOURS, MeanColour, NamedColour

from miniclip_helpers import search, zero_shot
from miniclip_helpers.errors import ImageError, ModelError
from miniclip_helpers.images import bare_jpeg
from miniclip_helpers.index import load_index
from miniclip_helpers.model import TwoTowers
from miniclip_helpers.service import Engine, create_app
from miniclip_helpers.service.batching import Batcher, BusyError
from miniclip_helpers.service.engine import Recent, read_picture
from miniclip_helpers.service.guard import UPLOADS, Guard

MB = 2**20


class CountingColour(NamedColour):
    """Remembers the batches that it was given; a text with "slow" takes its time, one with "broken" fails the whole batch."""

    context = 30

    def __init__(self):
        super().__init__()
        self.batches = []

    def token_counts(self, texts):
        return [len(text.split()) + 2 for text in texts]

    def prepare(self, inputs):
        self.batches.append(list(inputs))
        if any("slow" in text for text in inputs):
            time.sleep(0.3)
        if any("broken" in text for text in inputs):
            raise RuntimeError("a fault with a secret in it")
        return super().prepare(inputs)


def tagged_photo(colour):
    """A JPEG with all that a telephone, or its owner, may write into one."""
    exif = Image.Exif()
    exif[0x013B], exif[0x9C9D], exif[0x010F] = "Ada Secretname", "Ada Secretname".encode("utf-16le"), "Secretphone"
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 30.0), 3: "E", 4: (2.0, 17.0, 40.0), 29: "2026:11:21"})
    out = io.BytesIO()
    Image.new("RGB", (60, 40), colour).save(out, "JPEG", exif=exif, comment=b"Secretcomment", xmp=b"<x:xmpmeta>Secretplace</x:xmpmeta>", quality=95)
    return out.getvalue()


@pytest.fixture
def made(tmp_path, private_cache):
    """(index read from its folder, model, that folder, the folder of photos)."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, colour in COLOURS.items():
        (photos / f"{name}.jpg").write_bytes(tagged_photo(colour))
    model = TwoTowers(MeanColour(), CountingColour(), name="colours", logit_scale=10).eval()
    search.index_dataset(photos, model).save(tmp_path / "photos.index")
    return load_index(tmp_path / "photos.index"), model, tmp_path / "photos.index", photos


@pytest.fixture
def engine(made):
    engine = Engine(*made[:3])
    yield engine
    engine.close()


@pytest.fixture
def client(engine):
    from fastapi.testclient import TestClient

    with TestClient(create_app(engine), base_url="http://127.0.0.1") as client:
        yield client


class Held:
    """A text tower's `prepare` that waits for `go` on texts with "held" in them."""

    def __init__(self, tower):
        self.tower, self.prepare, self.asked, self.go = tower, tower.prepare, threading.Event(), threading.Event()
        tower.prepare = self

    def __call__(self, texts):
        if any("held" in text for text in texts):
            self.asked.set()
            assert self.go.wait(20)
        return self.prepare(texts)


@pytest.fixture
def held(made):
    held = Held(made[1].text_tower)
    yield held
    held.go.set()
    held.tower.prepare = held.prepare


async def beside(held, ask, texts):
    """What `ask` finds for "held red" and for texts that are asked for while it is computed; an error in the place of what it spoilt."""
    first = asyncio.create_task(ask("held red"))
    assert await asyncio.to_thread(held.asked.wait, 20)
    others = [asyncio.create_task(ask(text)) for text in texts]
    await asyncio.sleep(0)  # each runs up to where it waits
    held.go.set()
    return await asyncio.gather(first, *others, return_exceptions=True)


def png(colour=(250, 10, 10), size=(20, 20)):
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


def refused(answer, status, words):
    """The problem has the one shape, and says what is wrong."""
    body = answer.json()
    assert answer.status_code == body["status"] == status and set(body) == {"status", "message", "request_id"}, body
    assert answer.headers["x-request-id"] == body["request_id"]
    assert re.search(words, body["message"]), body["message"]
    return True


# what it answers

def test_search_by_words_is_what_the_package_finds(client, made):
    answer = client.post("/search/text", json={"query": " the blue one ", "k": 2}).json()
    expected = search.search_text(made[0], made[1], "the blue one", 2)
    assert [(hit["name"], hit["photo"], hit["caption"]) for hit in answer["hits"]] == [(hit.name, f"/photos/{hit.name}", None) for hit in expected]
    assert [hit["score"] for hit in answer["hits"]] == pytest.approx([hit.score for hit in expected], abs=1e-6)
    assert answer["hits"][0]["name"] == "blue.jpg" and answer["note"] is None


def test_search_by_a_picture_is_what_the_package_finds(client, made):
    answer = client.post("/search/image", files={"image": ("cat.jpg", png((10, 200, 10)))}, data={"k": "3"}).json()
    expected = search.search_image(made[0], made[1], png((10, 200, 10)), 3)
    assert [hit["name"] for hit in answer["hits"]] == [hit.name for hit in expected] and expected[0].name == "green.jpg"
    assert [hit["score"] for hit in answer["hits"]] == pytest.approx([hit.score for hit in expected], abs=1e-6)
    assert len(client.post("/search/image", files={"image": png()}, data={"k": "1"}).json()["hits"]) == 1


def test_a_k_above_the_index_gives_all(client):
    assert len(client.post("/search/text", json={"query": "blue", "k": 100}).json()["hits"]) == 3
    assert len(client.post("/search/text", content=b'{"query": "blue", "k": 2.0}', headers={"content-type": "application/json"}).json()["hits"]) == 2


@pytest.mark.parametrize("templates", [None, ["a {} thing", "something {}", "red or {}"]])
def test_zero_shot_is_what_the_package_says(client, made, templates):
    data = {"labels": ["green", "red", "blue"]} | ({"templates": templates} if templates else {})
    answer = client.post("/zero-shot", files={"image": png((250, 40, 20))}, data=data).json()
    shares = zero_shot.classify(made[1], [Image.open(io.BytesIO(png((250, 40, 20))))], data["labels"], templates or [zero_shot.TEMPLATE])
    expected = zero_shot.top_labels(shares, data["labels"], 3)[0]
    assert [row["label"] for row in answer["labels"]] == [label for label, _ in expected] and expected[0][0] == "red"
    assert [row["probability"] for row in answer["labels"]] == pytest.approx([share for _, share in expected], abs=1e-6)


def test_an_index_of_captions_answers_with_their_text(made, tmp_path, private_cache):
    from fastapi.testclient import TestClient

    (tmp_path / "said.txt").write_text("something blue\nsomething red\n", encoding="utf8")
    index = search.index_captions(tmp_path / "said.txt", made[1])
    with TestClient(create_app(Engine(index, made[1]))) as client:
        hit = client.post("/search/image", files={"image": png()}, data={"k": 1}).json()["hits"][0]
        assert hit["caption"] == "something red" and client.get("/health").json()["holds"] == "captions"
        assert refused(client.get(hit["photo"]), 410, "gone")  # a text file has no pictures


def test_a_text_that_is_too_long_is_answered_and_told(client):
    answer = client.post("/search/text", json={"query": "blue " + "word " * 60}).json()
    assert answer["hits"] and "62" not in answer["hits"] and re.search("63 tokens.*first 30", answer["note"])


def test_a_long_text_beside_a_short_one(engine, made, held):
    found = asyncio.run(beside(held, engine.text_vector, ["blue " + "word " * 60, "blue"]))
    assert [bool(note) for _, note in found] == [False, True, False] and len(made[1].text_tower.batches) == 2


def test_more_labels_than_are_encoded_at_once(client, made):
    labels = [f"{name} {number}" for number in range(15) for name in COLOURS]
    answer = client.post("/zero-shot", files={"image": png((250, 40, 20))}, data={"labels": [*labels, "long " * 15]}).json()
    assert len(answer["labels"]) == 46 and answer["labels"][0]["label"].startswith("red") and answer["note"] is None
    assert max(map(len, made[1].text_tower.batches)) <= 16
    noted = client.post("/zero-shot", files={"image": png()}, data={"labels": ["red", "w " * 45]}).json()
    assert "first 30" in noted["note"]


def test_a_large_jpeg_is_a_question_like_others(client):
    out = io.BytesIO()
    Image.new("L", (7000, 7000), 128).save(out, "JPEG", quality=20)
    assert client.post("/search/image", files={"image": out.getvalue()}).status_code == 200


def test_the_engine_is_ready_whatever_the_folder_holds(made):
    index, model, folder, photos = made
    for file in photos.iterdir():
        file.unlink()
    engine, seen = Engine(index, model.train(), folder), []
    engine.warm()
    engine._as_jpeg = lambda name, side: seen.append(name)
    engine.warm()
    assert seen == ["blue.jpg"] and not model.training and made[1].text_tower.batches == [["warm"]] * 2
    engine.close()
    with pytest.raises(RuntimeError, match="shutdown"):
        engine.warm()


def test_the_application_closes_its_engine(made):
    from fastapi.testclient import TestClient

    engine = Engine(*made[:3])
    with TestClient(create_app(engine)):
        engine.warm()
    with pytest.raises(RuntimeError, match="shutdown"):
        engine.warm()


def test_health_tells_no_paths(made, tmp_path):
    index, model = made[:2]
    index.about["model"] = str(tmp_path)  # a model of one's own is named by its folder
    engine = Engine(index, model)
    assert engine.state() == {"status": "ok", "holds": "pictures", "count": 3, "model": tmp_path.name, "index_on_disk": True}
    engine.close()


def test_another_model_is_told_at_the_start(made):
    other = TwoTowers(MeanColour(), NamedColour(), name="other", logit_scale=10)
    other.text_tower.options["other"] = True
    with pytest.raises(ModelError, match="search with the model that made it"):
        Engine(made[0], other)


# photos

def test_photos_are_served_without_what_their_files_tell(client, made):
    answer = client.get("/photos/red.jpg")
    raw = (made[3] / "red.jpg").read_bytes()
    assert b"Secretcomment" in raw and b"Secretplace" in raw and Image.open(made[3] / "red.jpg").getexif().get_ifd(0x8825)  # there is something to strip
    picture = Image.open(io.BytesIO(answer.content))
    assert answer.headers["content-type"] == "image/jpeg" and picture.size == (60, 40)
    assert not picture.getexif() and set(picture.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}, picture.info
    assert b"Secret" not in answer.content and b"Exif" not in answer.content and b"S\0e\0c\0r" not in answer.content
    assert all(abs(a - b) < 12 for a, b in zip(picture.getpixel((5, 5)), COLOURS["red"]))


def with_notes(kind):
    """A red picture's bytes in a format, with "Secret" wherever that format has room for words."""
    exif, notes, out, picture = Image.Exif(), PngImagePlugin.PngInfo(), io.BytesIO(), Image.new("RGB", (60, 40), COLOURS["red"])
    exif[0x010E], exif[0x8298] = "Secretplace", "Secretowner"
    for add in (notes.add_text, notes.add_itxt, lambda *words: notes.add_text(*words, zip=True)):
        add("Author", "Secretname")
    rich = {"PNG": {"pnginfo": notes, "exif": exif}, "WEBP": {"exif": exif, "xmp": b"<x:xmpmeta>Secret</x:xmpmeta>"}, "TIFF": {"description": "Secret", "artist": "Secretname"},
            "GIF": {"comment": b"Secret"}, "AVIF": {"exif": exif, "xmp": b"<x:xmpmeta>Secret</x:xmpmeta>"}}
    picture.save(out, kind, **rich[kind])
    return out.getvalue()


def by_hand():
    """A JPEG into which segments were put that Pillow does not write: IPTC, a second XMP, a maker's own, a comment, a thumbnail; and words after its end."""
    segments = [(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x0e\x1c\x02\x50\0\tSecretown"), (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x>Secret</x>"), (0xE1, b"http://ns.adobe.com/xmp/extension/\0Secret"),
                (0xE2, b"FPXR\0Secret"), (0xEB, b"JP\0\0Secret"), (0xEE, b"Secret"), (0xFE, b"Secret"), (0xE0, b"JFXX\0\x10Secret" + tagged_photo("red"))]
    plain, out = io.BytesIO(), b""
    Image.new("RGB", (60, 40), COLOURS["red"]).save(plain, "JPEG", quality=95)
    for mark, data in segments:
        out += bytes([0xFF, mark]) + (len(data) + 2).to_bytes(2, "big") + data
    return plain.getvalue()[:20] + out + plain.getvalue()[20:] + b"Secret after the end" + tagged_photo("red")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "GIF", "AVIF", "by hand"])
def test_whatever_the_format_a_photo_is_served_bare(client, made, kind):
    Image.init()
    if kind != "by hand" and kind not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {kind}")
    data = by_hand() if kind == "by hand" else with_notes(kind)
    assert b"Secret" in data
    (made[3] / "red.jpg").write_bytes(data)
    answer = client.get("/photos/red.jpg").content
    picture = Image.open(io.BytesIO(answer))
    assert b"Secret" not in answer and picture.format == "JPEG" and picture.size == (60, 40) and set(picture.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert [segment for segment, _ in picture.applist] == ["APP0"] and answer.endswith(b"\xff\xd9") and answer.count(b"\xff\xd8\xff") == 1
    assert all(abs(a - b) < 12 for a, b in zip(picture.getpixel((5, 5)), COLOURS["red"]))


def test_colours_of_another_profile_are_converted():
    """A profile in which red and green have changed places, made of the usual one by hand."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    other = profile.replace(b"rXYZ", b"?XYZ").replace(b"gXYZ", b"rXYZ").replace(b"?XYZ", b"gXYZ")
    picture, shown = Image.new("RGB", (40, 40), (250, 20, 20)), {}
    for name, bytes_ in {"none": None, "sRGB": profile, "other": other, "broken": b"no profile", "of ink": other.replace(b"RGB ", b"CMYK")}.items():
        picture.info["icc_profile"] = bytes_
        served = Image.open(io.BytesIO(bare_jpeg(picture, 20)))
        shown[name] = served.getpixel((10, 10))
        assert "icc_profile" not in served.info and picture.size == (40, 40)
    for name, (red, green, _) in shown.items():
        assert (green > 200 > 100 > red) if name == "other" else (red > 200 > 100 > green), shown


@pytest.mark.skipif(os.name == "nt", reason="Windows has neither named pipes in folders nor links for everyone")
def test_photos_that_became_something_else(client, made):
    """A pipe would be waited for, a link may lead anywhere; what it leads to is a picture or is not served."""
    (made[3] / "secret.txt").write_text("Secret")
    for name, become in {"red.jpg": os.mkfifo, "blue.jpg": lambda file: file.symlink_to(made[3] / "secret.txt"), "green.jpg": lambda file: file.mkdir()}.items():
        (made[3] / name).unlink()
        become(made[3] / name)
        assert refused(client.get(f"/photos/{name}"), 410, "gone or damaged")
    (made[3] / "red.jpg").unlink()
    (made[3] / "red.jpg").write_bytes(tagged_photo(COLOURS["blue"]))  # another picture: the service shows what the folder holds
    assert Image.open(io.BytesIO(client.get("/photos/red.jpg").content)).getpixel((5, 5))[2] > 150


def test_a_turned_photo_is_served_upright_and_small(client, made):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    Image.new("RGB", (400, 200)).save(made[3] / "red.jpg", exif=exif)
    assert Image.open(io.BytesIO(client.get("/photos/red.jpg?side=100").content)).size == (50, 100)


@pytest.mark.parametrize("name", ["nothing.jpg", "../photos.index/index.json", "..%2Fphotos.index%2Findex.json", "%2e%2e/photos.index/index.json", "/etc/passwd", "", "red.jpg%00"])
def test_only_names_of_the_index_are_served(client, name):
    assert refused(client.get(f"/photos/{name}"), 404, "no picture of this name|nothing is here")


def test_a_deleted_photo_is_told_without_its_path(client, made):
    (made[3] / "red.jpg").unlink()
    (made[3] / "blue.jpg").write_bytes(b"no picture")
    for name in ("red.jpg", "blue.jpg"):
        answer = client.get(f"/photos/{name}")
        assert refused(answer, 410, "gone or damaged") and str(made[3]) not in answer.text
    assert client.post("/search/text", json={"query": "red"}).json()["hits"][0]["name"] == "red.jpg"


def test_an_index_deleted_while_serving_is_answered_from_memory(client, made):
    assert client.get("/health").json() == {"status": "ok", "holds": "pictures", "count": 3, "model": "colours", "index_on_disk": True}
    for file in made[2].iterdir():
        file.unlink()
    assert client.post("/search/text", json={"query": "red"}).json()["hits"][0]["name"] == "red.jpg"
    assert client.get("/health").json()["index_on_disk"] is False


# what it refuses

@pytest.mark.parametrize(("body", "words"), [
    ({"query": ""}, "query: .*at least 1 character"), ({"query": " \n\t "}, "query: .*empty"), ({"query": "x" * 1001}, "query: .*at most 1000"), ({"query": 3}, "query: .*string"),
    ({"query": None}, "query"), ({"k": 3}, "query: Field required"), ({"query": "x", "k": 0}, "k: .*greater than or equal to 1"), ({"query": "x", "k": 1_000_000}, "k: .*less than or equal to 100"),
    ({"query": "x", "k": -1}, "k"), ({"query": "x", "k": 2.5}, "k"), ({"query": "x", "k": "3"}, "k: .*integer"), ({"query": "x", "k": True}, "k: .*integer"), ({"query": "x", "k": None}, "k"),
    ({"query": "x", "top": 3}, "top: Extra"), ([], "body"), ("red", "body"), (None, "body"), ([{"query": "x"}], "body"), ({"query": ["red"]}, "query"), ({"query": "x", "\ud800": 1}, "unicode|Extra"),
])
def test_json_of_the_wrong_shape(client, body, words):
    assert refused(client.post("/search/text", content=json.dumps(body), headers={"content-type": "application/json"}), 422, words)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'{"query": "\\ud800"}', b'{"query": "x", "k": NaN}', b'{"query": "x", "k": 1e999}', b"[" * 60_000, b'{"k": ' + b"9" * 10_000 + b"}", b"\0"])
def test_bodies_that_are_no_json(client, body):
    answer = client.post("/search/text", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422) and refused(answer, answer.status_code, ".")


def test_what_was_sent_is_not_said_again_at_length(client):
    said = client.post("/search/text", json={"query": "x", **{f"{'secret' * 20}{number}": "private" for number in range(50)}}).json()["message"]
    assert said.count(";") == 4 and len(said) < 400 and "private" not in said


@pytest.mark.parametrize("side", ["15", "1025", "1e3", "x", ""])
def test_sides_that_cannot_be(client, side):
    assert refused(client.get(f"/photos/red.jpg?side={side}"), 422, "side: ")


def test_more_than_can_be_answered_is_sent_away(client, engine):
    engine.texts.room = 0
    answer = client.post("/search/text", json={"query": "red"})
    assert refused(answer, 503, "0 questions are waiting") and answer.headers["retry-after"] == "2"


def test_half_letters_are_refused(client):
    answer = client.post("/search/text", content=b'{"query": "red \\ud800"}', headers={"content-type": "application/json"})
    assert refused(answer, 422, "query: .*unicode")


def test_other_kinds_of_body_and_method(client):
    assert refused(client.post("/search/text", content='{"query": "red"}', headers={"content-type": "text/plain"}), 422, "body")  # a form of another site cannot ask
    assert refused(client.post("/search/image", content=b"x", headers={"content-type": "multipart/form-data"}), 400, "boundary|body")
    assert refused(client.get("/search/text"), 405, "Not Allowed") and refused(client.get("/nowhere"), 404, "nothing is here")
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404  # their scripts come from other sites


def test_paths_and_methods_that_are_not_there(client):
    for path in ("/", "/health/", "/photos", "/search", "/search/text/", "/HEALTH", "/favicon.ico"):
        assert refused(client.get(path, follow_redirects=False), 404, "nothing is here.*openapi.json"), path
    for method, path, allowed in (("DELETE", "/health", "GET"), ("PUT", "/search/image", "POST"), ("OPTIONS", "/zero-shot", "POST"), ("BREW", "/metrics", "GET")):
        answer = client.request(method, path)
        assert refused(answer, 405, "Not Allowed") and answer.headers["allow"] == allowed
    answer = client.post("/search/text", content='{"query": "red"}')
    assert refused(answer, 422, "with the header Content-Type: application/json")


def test_head_is_get_without_a_body(client):
    for path in ("/health", "/photos/red.jpg", "/openapi.json"):
        head, get = client.head(path), client.get(path)
        assert head.status_code == 200 and head.content == b"" and head.headers["content-length"] == get.headers["content-length"] == str(len(get.content))
    assert client.head("/search/text").status_code == 405 and client.head("/photos/nothing").status_code == 404
    assert 'miniclip_requests_total{method="HEAD",route="/photos/{name:path}",status="404"} 1.0' in client.get("/metrics").text


def test_headers_of_every_answer(client):
    answers = [client.get("/health"), client.get("/nowhere"), client.get("/photos/red.jpg"), client.post("/search/text", json={"query": "red"}), client.post("/search/text", content=b"x" * 70_000)]
    assert [answer.status_code for answer in answers] == [200, 404, 200, 200, 413]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cross-origin-resource-policy"] == "same-site"
        assert answer.headers["cache-control"] == ("private, max-age=60" if answer.headers["content-type"] == "image/jpeg" else "no-store")


def bomb(width=50_000, height=50_000):
    """A PNG of a hundred bytes whose head promises very many pixels."""
    def part(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0") + part(b"IDAT", zlib.compress(b"\0" * 1000)) + part(b"IEND", b"")


@pytest.mark.parametrize(("data", "words"), [
    (b"", "empty"), (b"dear diary", "no known format"), (bomb(), "100 million allowed"), (bomb(7000, 7000), "7000 x 7000 pixels, more than the 40 million"), (png()[:20], "damaged"), (png()[:60], "cannot be read"), (png()[:-30], "cannot be read"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "no known format"), (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no known format"),
], ids=["empty", "text", "bomb", "small bomb", "start", "head", "cut", "eps", "svg"])
@pytest.mark.parametrize("path", ["/search/image", "/zero-shot"])
def test_what_is_no_picture(client, path, data, words):
    assert refused(client.post(path, files={"image": ("cat.jpg", data, "image/jpeg")}, data={"labels": ["red", "blue"]}), 422, words)
    assert client.post("/search/image", files={"image": png()}).status_code == 200


def encoded(kind, size=(16, 16), **options):
    out = io.BytesIO()
    Image.new("RGB", size, "red").save(out, kind, **options)
    return out.getvalue()


def many_scans(count):
    """A progressive JPEG of 1000 x 1000 pixels whose last scan, of some bytes, stands there until it has `count` scans."""
    data = encoded("JPEG", (1000, 1000), progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * (count - data.count(b"\xff\xda")) + data[-2:]


def promising(side, **options):
    """A JPEG of a few bytes whose head says side x side pixels."""
    data = encoded("JPEG", **options)
    place = data.index(b"\xff\xc2" if options else b"\xff\xc0") + 5
    return data[:place] + side.to_bytes(2, "big") * 2 + data[place + 4 :]


@pytest.mark.parametrize(("data", "words"), [
    (lambda: many_scans(2_001), "very many scans; open and save it anew"), (lambda: many_scans(2_000), None), (lambda: encoded("JPEG", progressive=True), None),
    (lambda: promising(7000, progressive=True), "7000 x 7000 pixels, more than the 40 million.*a baseline JPEG"), (lambda: promising(6000, progressive=True), None), (lambda: promising(7000), None),
    (lambda: bomb(7000, 7000), "make it smaller, or a JPEG"), (lambda: encoded("PPM"), "is a PPM; expected JPEG, PNG"), (lambda: b"P3 1 1 255 0 0 0 ", "is a PPM"),
    (lambda: encoded("PNG", (1, 65_000)), "1 x 65000 pixels: too narrow.*cut out a part"), (lambda: encoded("PNG", (65_000, 1)), "65000 x 1"), (lambda: encoded("JPEG", (10, 501)), "10 x 501"),
    (lambda: encoded("PNG", (10, 500)), None), (lambda: encoded("BMP", (500, 10)), None),
], ids=["many scans", "scans", "progressive", "large progressive", "progressive below", "large", "large png", "ppm", "ppm in words", "narrow", "flat", "narrow jpeg", "less narrow", "less flat"])
def test_pictures_that_would_hold_up_all_others(monkeypatch, data, words):
    """They are refused by their heads: nothing is decoded."""
    decoded = []
    monkeypatch.setattr("miniclip_helpers.images.open_image", lambda data: decoded.append(len(data)))
    with contextlib.nullcontext() if words is None else pytest.raises(ImageError, match=words):
        read_picture(data())
    assert len(decoded) == (words is None)


@pytest.mark.parametrize(("data", "words"), [
    ({}, "labels: Field required"), ({"labels": ["red"]}, "labels: .*at least 2"), ({"labels": ["red", "red"]}, "stand twice"), ({"labels": ["red", " "]}, "labels.1: .*empty"),
    ({"labels": ["red", "x" * 101]}, "labels.1: .*at most 100"), ({"labels": [str(n) for n in range(101)]}, "labels: .*at most 100"), ({"labels": ["a", "b"], "templates": ["no place"]}, "templates with one"),
    ({"labels": [str(n) for n in range(100)], "templates": [f"{{}} {n}" for n in range(5)]}, "more than 400 sentences"),
])
def test_labels_that_cannot_work(client, data, words):
    assert refused(client.post("/zero-shot", files={"image": png()}, data=data), 422, words)


def test_an_upload_is_one_however_it_is_spelled(client):
    body = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n' + png() + b"\0" * 100_000 + b"\r\n--b--\r\n"
    assert client.post("/search/image", content=body, headers={"content-type": "Multipart/Form-Data; boundary=b"}).status_code == 200


def test_a_picture_that_is_a_word_and_no_file(client):
    assert refused(client.post("/search/image", data={"image": "cat.jpg"}), 422, "image")
    assert refused(client.post("/search/image", files={"image": png()}, data={"k": "0"}), 422, "k")


@pytest.mark.parametrize("told", [True, False], ids=["with its length", "in chunks"])
@pytest.mark.parametrize("path", ["/search/text", "/search/image"])
def test_a_body_of_50_mb(client, path, told):
    chunks = (b"x" * MB for _ in range(50))
    kind = "application/json" if path == "/search/text" else "multipart/form-data; boundary=b"
    answer = client.post(path, content=b"x" * 50 * MB if told else chunks, headers={"content-type": kind})
    assert refused(answer, 413, "64 KB" if path == "/search/text" else "20 MB")
    assert client.post("/search/text", json={"query": "red"}).status_code == 200


def guarded(app, receive, **options):
    """The status and the problem that a `Guard` around `app` sends, for an upload whose parts `receive` gives."""
    said = []

    async def send(message):
        said.append(message)

    guard = Guard(app, types.SimpleNamespace(count=lambda *_: None), **options)
    scope = {"type": "http", "method": "POST", "path": "/search/image", "headers": [(b"content-type", b"multipart/form-data; boundary=b")]}
    return guard, guard(scope, receive, send), said


def test_a_client_that_sends_too_slowly():
    async def receive():
        await asyncio.sleep(0.2)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def app(scope, receive, send):
        while True:
            await receive()

    _, call, said = guarded(app, receive, seconds=0.5)
    start = time.perf_counter()
    asyncio.run(call)
    assert said[0]["status"] == 408 and b"within 0.5 seconds" in said[1]["body"] and time.perf_counter() - start < 3


def test_a_body_without_end_is_not_read_to_its_end():
    got = []

    async def receive():
        got.append(MB)
        return {"type": "http.request", "body": b"x" * MB, "more_body": len(got) < 500}

    async def app(scope, receive, send):
        while True:
            await receive()

    _, call, said = guarded(app, receive)
    asyncio.run(call)
    assert said[0]["status"] == 413 and 21 <= len(got) <= 21 + 64


def test_no_more_uploads_at_once_than_memory_is_meant_for():
    async def receive():
        return {"type": "http.request", "body": b"x", "more_body": False}

    passed = []

    async def app(scope, receive, send):
        passed.append(scope["path"])

    guard, call, said = guarded(app, receive)
    guard.uploads = UPLOADS
    asyncio.run(call)
    assert said[0]["status"] == 503 and (b"retry-after", b"2") in said[0]["headers"] and guard.uploads == UPLOADS and not passed
    asyncio.run(guard({"type": "http", "method": "POST", "path": "/search/text", "headers": []}, receive, None))
    assert passed == ["/search/text"]


def test_strangers_keep_no_picture_out():
    """They never end sending, and are let finish for a while: they hold nothing, and are not counted."""
    passed, silence = [], types.SimpleNamespace(count=lambda *_: None)

    async def say_nothing():
        await asyncio.Event().wait()

    async def forget(message):
        pass

    async def app(scope, receive, send):
        passed.append(guard.uploads)
        if len(passed) > 1:
            await asyncio.sleep(0.01)

    def ask(*headers):
        scope = {"type": "http", "method": "POST", "path": "/search/image", "headers": [(b"content-type", b"multipart/form-data; boundary=b"), *headers]}
        return asyncio.create_task(guard(scope, say_nothing, forget))

    async def crowd():
        strangers, token = [ask() for _ in range(2 * UPLOADS)], (b"authorization", b"Bearer s3cret")
        await asyncio.sleep(0)
        assert not any(one.done() for one in strangers)
        await ask(token)
        assert passed == [1] and guard.uploads == 0
        several = [ask(token) for _ in range(UPLOADS + 3)]
        await asyncio.wait(several[:UPLOADS])
        for task in strangers + several:
            task.cancel()
        await asyncio.gather(*strangers, *several, return_exceptions=True)

    guard = Guard(app, silence, token="s3cret")
    asyncio.run(crowd())
    assert passed == [1, *range(1, UPLOADS + 1)] and guard.uploads == 0


@pytest.mark.parametrize("asks", [True, False], ids=["asks for a body", "asks for none"])
@pytest.mark.parametrize(("head", "body"), [([], b""), ([(b"content-length", b"0")], b""), ([(b"content-length", b"1")], b"x"), ([(b"transfer-encoding", b"chunked")], b"x")])
def test_a_get_ends_with_its_client(head, body, asks):
    """Where it has no body, its application need not ask for one to hear that the client is gone; where it has one, that is read as any other."""
    messages, told, ended = [{"type": "http.request", "body": body, "more_body": False}, {"type": "http.disconnect"}], [], []
    hang_up = asyncio.Event()

    async def receive():
        if len(messages) == 1:
            await hang_up.wait()
        return messages.pop(0)

    async def app(scope, receive, send):
        await asyncio.sleep(0.02)
        if asks:
            told.append((await receive())["body"])
        hang_up.set()
        if asks or not body:
            await asyncio.wait_for(asyncio.Event().wait(), 10)  # until the client is gone

    guard = Guard(app, types.SimpleNamespace(count=lambda *counted: ended.append(counted[2])))
    asyncio.run(asyncio.wait_for(guard({"type": "http", "method": "GET", "path": "/photos/x", "headers": head}, receive, None), 20))
    assert told == [body] * asks and ended == [499] and len(messages) == (2 if body and not asks else 0)


def test_a_fault_of_the_service_is_told_without_its_secrets(client, engine, caplog):
    answer = client.post("/search/text", json={"query": "broken"})
    assert refused(answer, 500, "its log says why") and "secret" not in answer.text
    assert answer.json()["request_id"] in caplog.text and "a fault with a secret in it" in caplog.text
    engine.nearest = engine.index = None  # a mistake of ours, and one that names a path
    assert refused(client.post("/search/text", json={"query": "red"}), 500, "its log says why")
    engine.text_vector = lambda text: (_ for _ in ()).throw(ModelError("the file '/users/ada/secret' is damaged"))
    answer = client.post("/search/text", json={"query": "red"})
    assert refused(answer, 500, "its log says why") and "ada" not in answer.text


# who may ask

def test_a_token_is_asked_where_there_is_one(engine):
    from fastapi.testclient import TestClient

    with TestClient(create_app(engine, token="s3cret")) as client:
        ask = lambda **headers: client.post("/search/text", json={"query": "red"}, headers=headers)  # noqa: E731
        for wrong in ({}, {"authorization": "Bearer wrong"}, {"authorization": "s3cret"}, {"authorization": "Basic s3cret"}, {"authorization": "Bearer "}, {"authorization": "Bearer s3cre\xff".encode("latin1")}):
            assert refused(ask(**wrong), 401, "Bearer TOKEN")
        assert ask(authorization="Bearer s3cret").status_code == 200 and ask(authorization="bearer s3cret").status_code == 200
        assert ask() and client.post("/search/text", json={"query": "red"}, headers=[("authorization", "Bearer wrong"), ("authorization", "Bearer s3cret")]).status_code == 401  # the first counts
        assert client.get("/health").status_code == 200
        for path in ("/metrics", "/photos/red.jpg", "/openapi.json"):
            assert client.get(path).status_code == 401


def test_tokens_are_compared_in_constant_time(engine, monkeypatch):
    from fastapi.testclient import TestClient

    compared, compare = [], hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda *pair: compared.append(pair) or compare(*pair))
    with TestClient(create_app(engine, token="s3cret")) as client:
        assert client.get("/metrics", headers={"authorization": "Bearer s3creX"}).status_code == 401
    assert compared == [(b"s3creX", b"s3cret")]


def test_a_page_of_another_site_is_no_client(engine):
    from fastapi.testclient import TestClient

    with TestClient(create_app(engine, hosts={"localhost", "127.0.0.1", "[::1]"})) as client:
        for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", ""):
            assert refused(client.get("/health", headers={"host": host}), 421, "--allow-host")
        for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000"):
            assert client.get("/health", headers={"host": host}).status_code == 200
        answer = client.options("/search/text", headers={"host": "localhost", "origin": "https://evil.example", "access-control-request-method": "POST"})
        assert answer.status_code == 405 and not [name for name in answer.headers if name.startswith("access-control")]
        assert not [name for name in client.get("/health", headers={"host": "localhost", "origin": "https://evil.example"}).headers if name.startswith("access-control")]


def test_a_page_of_another_site_may_not_make_it_work(client, engine):
    """A form that a browser sends to another site needs nobody's leave; the browser tells where it comes from. Links may lead here."""
    from fastapi.testclient import TestClient

    other = {"sec-fetch-site": "cross-site"}
    assert refused(client.post("/search/image", files={"image": png()}, headers=other | {"sec-fetch-mode": "navigate"}), 403, "another site")
    assert refused(client.get("/photos/red.jpg", headers=other | {"sec-fetch-mode": "no-cors"}), 403, "another site")
    assert client.get("/health", headers=other | {"sec-fetch-mode": "navigate"}).status_code == 200
    assert all(client.post("/search/image", files={"image": png()}, headers={"sec-fetch-site": near}).status_code == 200 for near in ("same-origin", "same-site", "none"))
    with TestClient(create_app(engine, token="s3cret")) as client:
        assert client.post("/search/image", files={"image": png()}, headers=other | {"authorization": "Bearer s3cret"}).status_code == 200


def test_the_log_holds_neither_questions_nor_tokens_nor_lines_of_others(engine, caplog):
    from fastapi.testclient import TestClient

    caplog.set_level("INFO", "miniclip.service")
    with TestClient(create_app(engine, token="s3cret")) as client:
        client.post("/search/text", json={"query": "private red"}, headers={"authorization": "Bearer s3cret", "x-request-id": b"a\x85b"})
        client.get("/photos/x%0A2026-01-01%20forged?secret=1", headers={"authorization": "Bearer wr0ng", "x-request-id": "mine"})
        client.request("B" * 5000, "/health")
    lines = caplog.text.splitlines()
    assert len(lines) == 3 and "mine GET other 401" in lines[1] and max(map(len, lines)) < 200
    assert not re.search("s3cret|wr0ng|private|forged|secret", caplog.text)


def test_request_ids(client):
    assert client.get("/health", headers={"x-request-id": "mine-1.a_b"}).headers["x-request-id"] == "mine-1.a_b"
    made = {client.get("/health", headers={"x-request-id": bad}).headers["x-request-id"] for bad in ("", "a b", "x" * 65, "a\tb")} | {client.get("/health").headers["x-request-id"]}
    assert len(made) == 5 and all(re.fullmatch("[0-9a-f]{16}", one) for one in made)


# many at once

def test_a_query_is_encoded_once(client, made):
    before = len(made[1].text_tower.batches)
    for query in ("one red", " one red ", "one red"):
        client.post("/search/text", json={"query": query})
    assert made[1].text_tower.batches[before:] == [["one red"]]
    counted = client.get("/metrics").text
    assert "miniclip_cache_hits 2.0" in counted and "miniclip_cache_misses 1.0" in counted


def test_the_cache_knows_questions_apart(client, made):
    """By what they say and not by how many answers they want; words and pictures, and pictures and pictures."""
    ask = lambda query, k: [hit["name"] for hit in client.post("/search/text", json={"query": query, "k": k}).json()["hits"]]  # noqa: E731
    look = lambda data: client.post("/search/image", files={"image": data}).json()["hits"][0]["name"]  # noqa: E731
    assert ask("red", 1) == ask("red", 3)[:1] == ["red.jpg"] and ask("blue", 1) == ["blue.jpg"] and ask("Red", 1) == ["red.jpg"]
    assert made[1].text_tower.batches == [["red"], ["blue"], ["Red"]]
    assert [look(png(colour)) for colour in ((250, 10, 10), (10, 10, 250), (250, 10, 10))] == ["red.jpg", "blue.jpg", "red.jpg"]
    counted = client.get("/metrics").text
    assert "miniclip_vectors_remembered 5.0" in counted and "miniclip_cache_hits 2.0" in counted


def test_queries_that_come_together_are_encoded_together(engine, made, held):
    found = asyncio.run(beside(held, engine.text_vector, [f"{name} {n % 5}" for n in range(10) for name in COLOURS]))
    batches = made[1].text_tower.batches
    assert batches[0] == ["held red"] and sorted(map(len, batches)) == [1, 15] and len(found) == 31
    for (vector, _), name in zip(found[1:], list(COLOURS) * 10):
        assert torch.allclose(vector, made[1].encode_text([name])[0])
        assert vector.untyped_storage().nbytes() == vector.nbytes  # a view would keep its whole batch in memory


def test_a_bad_text_spoils_none_beside_it(engine, held):
    found = asyncio.run(beside(held, engine.text_vector, ["red", "broken", "blue"]))
    assert isinstance(found[2], RuntimeError) and [len(found[place]) for place in (0, 1, 3)] == [2, 2, 2]


class Gated:
    """A `compute` that gives back what it is given, once `go` is set, and remembers it."""

    def __init__(self):
        self.seen, self.started, self.go = [], threading.Event(), threading.Event()

    def __call__(self, items):
        self.seen.append(items)
        self.started.set()
        assert self.go.wait(20)
        return items


def test_who_gave_up_is_not_computed_and_too_many_are_sent_away():
    gated = Gated()

    async def ask():
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(gated, pool, most=2, room=3)
            first = asyncio.create_task(batcher("a"))
            assert await asyncio.to_thread(gated.started.wait, 20)
            others = [asyncio.create_task(batcher(item)) for item in "bcd"]
            await asyncio.sleep(0)  # each runs up to where it waits
            with pytest.raises(BusyError):
                await batcher("e")
            others[0].cancel()
            gated.go.set()
            return await asyncio.gather(first, *others[1:])

    assert asyncio.run(ask()) == ["a", "c", "d"] and sum(gated.seen, []) == ["a", "c", "d"]


def test_who_gives_up_while_a_batch_is_computed_keeps_nobody_from_an_answer():
    gated = Gated()

    async def ask():
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(gated, pool)
            tasks = [asyncio.create_task(batcher(item)) for item in "ab"]
            assert await asyncio.to_thread(gated.started.wait, 20)
            tasks[0].cancel()
            await asyncio.sleep(0)
            gated.go.set()
            return await asyncio.wait_for(tasks[1], 10), await asyncio.wait_for(batcher("c"), 10)

    assert asyncio.run(ask()) == ("b", "c")


def test_rows_that_are_missing_are_asked_for_one_by_one():
    async def ask():
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(lambda items: items[:1], pool)
            return await asyncio.wait_for(asyncio.gather(batcher("a"), batcher("b")), 10)

    assert asyncio.run(ask()) == ["a", "b"]


def test_batches_are_bounded():
    gated = Gated()

    async def ask():
        with ThreadPoolExecutor(1) as pool:
            batcher, sizes = Batcher(gated, pool, most=2), []
            batcher.sizes = sizes.append
            first = asyncio.create_task(batcher("a"))
            assert await asyncio.to_thread(gated.started.wait, 20)
            others = [asyncio.create_task(batcher(item)) for item in "bcddef"]
            await asyncio.sleep(0)
            gated.go.set()
            return await asyncio.gather(first, *others), sizes, len(batcher)

    assert asyncio.run(ask()) == (list("abcddef"), [1, 2, 1, 2], 0) and gated.seen == [["a"], ["b", "c"], ["d"], ["e", "f"]]


def test_what_was_used_last_is_remembered():
    recent = Recent(2)
    for key in "ab":
        recent.put(key, key)
    assert recent.get("a") == "a"
    recent.put("c", "c")
    assert (recent.get("b"), recent.get("a"), recent.get("c"), len(recent)) == (None, "a", "c", 2)
    recent.put("a", "new")
    recent.put("d", "d")
    assert (recent.get("c"), recent.get("a")) == (None, "new") and (recent.hits, recent.misses) == (4, 2)


def test_metrics_of_time_and_of_what_is_held(client, engine):
    client.get("/health")
    client.post("/search/text", json={"query": "red"})
    engine.texts._waiting = [None, None]
    text = client.get("/metrics").text
    engine.texts._waiting = []
    assert 'miniclip_request_seconds_count{route="/health"} 1.0' in text and float(re.search(r'seconds_sum\{route="/health"\} (\S+)', text)[1]) > 0
    assert "miniclip_texts_waiting 2.0" in text and "miniclip_text_batch_count 1.0" in text and "miniclip_index_vectors 3.0" in text and ("process_resident_memory_bytes" in text or sys.platform != "linux")


def test_metrics_count_routes_and_not_paths(client):
    for path in ("/photos/red.jpg", "/photos/nothing", "/photos/other", "/secret1", "/secret2"):
        client.get(path)
    client.request("BREW", "/health")
    text = client.get("/metrics").text
    assert 'miniclip_requests_total{method="GET",route="/photos/{name:path}",status="404"} 2.0' in text
    assert 'route="other",status="404"} 2.0' in text and "secret" not in text and "BREW" not in text


# the contract

def test_the_openapi_has_an_example_for_each_body_and_answer(client):
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == {"/search/text", "/search/image", "/zero-shot", "/photos/{name}", "/health", "/metrics"}
    for name in ("TextQuery", "Answer", "Guess", "Health", "Problem"):
        assert schema["components"]["schemas"][name]["examples"], name
    assert client.post("/search/text", json=schema["components"]["schemas"]["TextQuery"]["examples"][0]).status_code == 200
    bodies = [schema["components"]["schemas"][name]["properties"] for name in ("Body_search_image", "Body_zero_shot")]
    assert all(field["description"] and (field.get("examples") or name == "image") for body in bodies for name, field in body.items())
    limits = [field["k"] for field in (schema["components"]["schemas"]["TextQuery"]["properties"], bodies[0])]
    assert [(limit["default"], limit["minimum"], limit["maximum"]) for limit in limits] == [(5, 1, 100)] * 2
    asked = {name: {"labels": field["examples"][0]} for name, field in bodies[1].items() if name == "labels"}
    assert client.post("/zero-shot", files={"image": png()}, data=asked["labels"]).status_code == 200


def test_the_openapi_knows_every_problem(client):
    refusals = {"/search/text": {400, 408, 422}, "/search/image": {400, 408, 422}, "/zero-shot": {400, 408, 422}, "/photos/{name}": {404, 410, 422}, "/health": set(), "/metrics": set()}
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        (operation,) = operations.values()
        answers = {int(status): answer for status, answer in operation["responses"].items()}
        assert set(answers) == {200, 401, 403, 413, 421, 500, 503} | refusals[path] and operation["summary"]
        assert all(answer["content"]["application/json"]["schema"]["$ref"].endswith("/Problem") for status, answer in answers.items() if status != 200)


def test_the_openapi_tells_of_a_token(engine, client):
    with_token = create_app(engine, token="s3cret").openapi()
    assert "components" in with_token and with_token["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    assert "securitySchemes" not in client.get("/openapi.json").json()["components"]
