"""Odd texts, seeded, through whatever reads and writes texts: tokenizers, every format of captions, searches, labels, figures, the service."""

import functools
import io
import json
import pathlib
import random
import shutil
import unicodedata
import warnings

import numpy as np
from PIL import Image

SHORT = 1200  # characters that a text has at most, but for a few long ones
PIECES = ("\u202e\u202d\u2066\u2069\u200f\u061c", "שלום עולם", "مرحبا بالعالم", "नमस्ते", "猫と犬", "👩‍👩‍👧‍👦🏳️‍🌈🇩🇪👍🏽", "\ufeff", "\r\n", "\r", "\n", "\x85", "\u2028", "\u2029", "\x0b\x0c\x1c\x1d\x1e\x1f",
          "\0", "\x7f", '"', '""', "'", "''", "\t", ",", ";", "|", "=1+1", "+cmd", "-2", "@SUM(A1)", "a\u0301\u0308", "ﬁ ﬂ", "İıſß", "ΣΟΦΟΣ", "Ã©â€™", "&amp;amp;", "&#0;", "&#x110000;",
          "<script>alert(1)</script>", "<|startoftext|>", "<|endoftext|>", "$x^$", "\\frac{", "{}", "%s", "\\", "/", "#0", "# 1", ".jpg", "a.png#0", "http://a.b/c.jpg", "null", "NaN", "'s 're'LL", "١٢٣", "½²",
          "\U0010fffd", "\ue000", "\U000e0041", "\u200b\u2060\u00ad", "é", "e\u0301", "a dog on the beach", "Two red birds!", "  ", "\u3000\u00a0", "x" * 40)
PLANES = [(plane * 0x10000, plane * 0x10000 + 0xFFFF) for plane in range(17)]


def _letter(rng):
    while True:
        low, high = rng.choice((PLANES[0], PLANES[0], PLANES[1], rng.choice(PLANES)))
        sign = rng.randint(low, high)
        if not 0xD800 <= sign <= 0xDFFF:
            return chr(sign)


def odd_text(seed, case, halves=False):
    """Text number `case` of a seed: it has a letter that is no blank. halves: with lone surrogates, as JSON and file names can bring them."""
    rng = random.Random(f"{seed}/text/{case}")
    parts = []
    for _ in range(rng.randint(1, 8)):
        kind = rng.random()
        if kind < 0.5:
            parts.append(rng.choice(PIECES))
        elif kind < 0.8:
            parts.append("".join(_letter(rng) for _ in range(rng.randint(1, 12))))
        elif kind < 0.85:
            parts.append("Z" + "".join(chr(rng.randint(0x300, 0x36F)) for _ in range(rng.choice((3, 60, 400)))))
        else:
            parts.append(rng.choice(("a", "cat", "7", ".", " ")) * rng.choice((1, 2, 30)))
    if halves:
        parts.insert(rng.randrange(len(parts) + 1), rng.choice(("\ud800", "\udfff", "\udce9", "\udc00\ud800")))
    text = rng.choice(("", "", " ")).join(parts)[:SHORT]
    return text if text.strip() else text + "a"


def long_texts():
    """A megabyte each: one word, many words, one sign of many bytes, brackets, marks, line ends."""
    rng = random.Random(7)
    return ["a" * 2**20, "dog " * 2**18, "".join(rng.choice("abcdefgh") for _ in range(2**20)), "👍" * 2**18, "(" * 2**20, "e" + "\u0301" * 2**19, "\r\n" * 2**19 + "x", "&lt;" * 2**18]


@functools.cache
def tokenizers():
    """(ours mended, ours plain, openai-clip's)."""
    from miniclip_helpers.tokenizers import BytePairTokenizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from clip.simple_tokenizer import SimpleTokenizer
    return BytePairTokenizer.clip(), BytePairTokenizer.clip(clean=False), SimpleTokenizer()


def naive_pieces(tokenizer, text):
    """What `encode(text)` must be for a tokenizer that mends nothing: by the rule of CLIP's paper, signs and merges, written out anew."""
    import regex

    text = regex.sub(r"\s+", " ", unicodedata.normalize("NFC", text)).lower()
    words = regex.findall(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", text, regex.IGNORECASE)
    openai = tokenizers()[2]
    return [openai.encoder[piece] for word in words for piece in openai.bpe("".join(openai.byte_encoder[byte] for byte in word.encode())).split(" ")]


def check_tokens(texts):
    """Findings: where ours differ from openai-clip's own code, mended and not, and where decoding does not give the words back."""
    ours, plain, openai = tokenizers()
    for number, text in texts:
        theirs = openai.encode(text)
        if ours.encode(text) != theirs:
            yield f"text {number}: openai-clip has other pieces: {text[:80]!r}"
        if plain.encode(text) != naive_pieces(plain, text):
            yield f"text {number}: the rule gives other pieces: {text[:80]!r}"
        row = ours([text])[0]
        if row.tolist() != (row := [49406, *theirs[:75], 49407]) + [0] * (77 - len(row)):
            yield f"text {number}: the row is not start, pieces, end, zeros: {text[:80]!r}"
        words = ours.words(text)
        if not any(word.startswith("<|") for word in words) and ours.decode(ours.encode(text)).split() != " ".join(words).split():
            yield f"text {number}: decoding gives other words: {text[:80]!r}"


def _png(seed):
    out = io.BytesIO()
    Image.new("RGB", (4, 4), (seed * 40 % 256, 9, 9)).save(out, "PNG")
    return out.getvalue()


def dataset_of(captions, pictures=4):
    """A dataset that has these captions, dealt out to a few pictures."""
    from miniclip_helpers.datasets import ImageTextDataset

    rows = [captions[row::pictures] for row in range(min(pictures, len(captions)))]
    return ImageTextDataset("odd", [f"p{row}.png" for row in range(len(rows))], rows, [_png(row) for row in range(len(rows))])


def check_formats(texts, folder):
    """Findings: (format, captions that came back, findings). Each format is written, read, and compared with what went in, without the blanks around."""
    from miniclip_helpers import datasets
    from miniclip_helpers.datasets import shards
    from miniclip_helpers.errors import MiniclipError

    place = pathlib.Path(folder) / "formats"
    for kind in ("json", "jsonl", "csv", "tsv", "captions.txt", "token", "parquet", "tar"):
        told = [(number, text) for number, text in texts if not (kind == "token" and set("\r\n") & set(text.strip()))]
        if not told:
            continue
        data = dataset_of([text for _, text in told])
        try:
            path = shards.write_shards(data, place / kind) if kind == "tar" else datasets.write_dataset(data, place / kind, kind)
            back = datasets.load_dataset(path)
        except MiniclipError as error:
            yield kind, 0, [f"format {kind}, texts {told[0][0]} to {told[-1][0]}: refused: {str(error)[:300]}"]
            continue
        plain = kind in ("parquet", "tar")
        wrong = [f"format {kind}, text {told[row + 4 * place_][0]}: {was[:60]!r} came back as {now[:60]!r}" for row in range(len(data))
                 for place_, (was, now) in enumerate(zip(data.captions[row], back.captions[row] if row < len(back) else [])) if now != (was if plain else was.strip())]
        lost = len(data.all_captions) - len(back.all_captions)
        yield kind, len(back.all_captions), wrong[:3] + ([f"format {kind}, texts {told[0][0]} to {told[-1][0]}: {lost} captions were lost"] if lost else [])
    shutil.rmtree(place, ignore_errors=True)


def check_writer(texts, folder):
    """Findings of captions.json as it is written by hand: each caption on one line, none lost."""
    from miniclip_helpers import datasets

    file = pathlib.Path(folder) / "captions.json"
    said = {f"p{number}.png": [text] for number, text in texts}
    datasets.write_captions(file, said)
    back = datasets.read_captions(file)
    return [f"caption writer, text {number}: {text[:60]!r}" for number, text in texts if back.get(f"p{number}.png") != [" ".join(text.split())]]


def check_lines(texts, folder):
    """Findings of text files with one text a line: queries, sentences to index, labels."""
    from miniclip_helpers import search

    lines = [(number, text.replace("\r", " ").replace("\n", " ").strip().strip("\ufeff")) for number, text in texts]
    lines = [(number, line.strip()) for number, line in lines if line.strip()]
    file = pathlib.Path(folder) / "lines.txt"
    file.write_bytes("\r\n".join(line for _, line in lines).encode())
    found = search.read_queries(file)
    return [] if found == [line for _, line in lines] else [f"lines, texts {texts[0][0]} to {texts[-1][0]}: {len(found)} of {len(lines)} came back, or they are others"]


@functools.cache
def _service():
    from fastapi.testclient import TestClient
    from test_search import MeanColour, NamedColour

    from miniclip_helpers import embedding
    from miniclip_helpers.index import build_index
    from miniclip_helpers.model import TwoTowers
    from miniclip_helpers.service import Engine, create_app

    model = TwoTowers(MeanColour(), NamedColour(), name="colours", logit_scale=10).eval()
    index = build_index(np.eye(3, dtype=np.float32), ["red", "green", "blue"], "flat", embedding.about_model(model, "colours") | {"holds": "pictures"})
    return TestClient(create_app(Engine(index, model)), base_url="http://127.0.0.1", raise_server_exceptions=False)


def check_service(texts):
    """Findings of the service: JSON in and out, and a label sent as a form field comes back as it was."""
    for number, text in texts:
        answer = _service().post("/search/text", content=json.dumps({"query": text}), headers={"content-type": "application/json"})
        body = answer.json()
        half = any(0xD800 <= ord(letter) <= 0xDFFF for letter in text)
        if answer.status_code != (422 if half or len(text) > 1000 else 200) or ("hits" in body) != (answer.status_code == 200):
            yield f"service, text {number}: {answer.status_code}, {str(body)[:150]} to {text[:60]!r}"


def check_labels(texts):
    """Findings of zero-shot with such labels: each label comes back, the probabilities add up to one."""
    from test_search import MeanColour, NamedColour

    from miniclip_helpers import zero_shot
    from miniclip_helpers.model import TwoTowers

    model = TwoTowers(MeanColour(), NamedColour(), name="colours", logit_scale=10).eval()
    labels = list({" ".join(text.split()).casefold(): text for _, text in texts}.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shares = zero_shot.classify(model, [Image.new("RGB", (4, 4), "red")], labels)
        said = zero_shot.top_labels(shares, labels, len(labels))[0]
    good = {label for label, _ in said} == set(labels) and abs(float(np.sum([share for _, share in said])) - 1) < 1e-3
    return [] if good else [f"labels, texts {texts[0][0]} to {texts[-1][0]}: {len(said)} of {len(labels)} labels came back"]


def check_figures(texts):
    """Findings of figures with such titles: each is a PNG."""
    from miniclip_helpers import plots
    from miniclip_helpers.plots.style import quick_png

    picture = Image.new("RGB", (8, 8), "red")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that no font here has
        titles = [text for _, text in texts]
        png = plots.to_png(plots.image_grid([picture] * len(titles), titles, title=titles[0]))
        figure, axes = plots.new_figure()
        axes.set_title(titles[-1])
        quick = quick_png(figure)
    return [] if png[:4] == quick[:4] == b"\x89PNG" else [f"figures, texts {texts[0][0]}: no PNG"]


def check_search(texts):
    """Findings of a real text tower: each text gives a unit vector, without NaN."""
    from miniclip_helpers import embedding

    vectors = embedding.text_embeddings(_mini(), [text for _, text in texts]).numpy()
    return [] if vectors.shape[0] == len(texts) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4) else [f"search, texts {texts[0][0]}: no unit vectors"]


@functools.cache
def _mini():
    from miniclip_helpers.pretrained import load_model

    return load_model("mini")


def check_group(seed, start, stop, folder):
    """[(kind, {column: times}, [(column, line)])] of texts start to stop: every check, each on as many of them as it has time for."""
    texts = [(number, odd_text(seed, number)) for number in range(start, stop)]
    halves = [(number, odd_text(seed, number, halves=True)) for number in range(start, min(stop, start + 20))]
    few, fewer = texts[:: max(1, len(texts) // 100)], texts[:8]
    yield _counted("texts, tokenizers", len(texts), lambda: list(check_tokens(texts)))
    try:
        formats = list(check_formats(texts, folder))
    except Exception as error:
        formats = []
        yield "texts, formats", {"cases": 1}, [("crashes", f"seed {seed}, texts from {start}: {type(error).__name__}: {str(error)[:300]}")]
    for kind, back, wrong in formats:
        yield f"texts, {kind}", {"cases": back + len(wrong), "right results": back if not wrong else 0}, [("drops" if "lost" in line else "other findings", f"seed {seed}, {line}") for line in wrong]
    for kind, some, check in (("caption writer", texts, lambda: check_writer(texts, folder)), ("lines", texts, lambda: check_lines(texts, folder)),
                              ("service", few + halves, lambda: list(check_service(few + halves))), ("labels", few, lambda: check_labels(few)),
                              ("figures", fewer[:4], lambda: check_figures(fewer[:4])), ("search", fewer + halves[:4], lambda: check_search(fewer + halves[:4]))):
        yield _counted(f"texts, {kind}", len(some), check)
    yield _refused(seed, halves, folder)


def _counted(kind, count, check):
    try:
        found = [("other findings", line) for line in check()]
    except Exception as error:
        found = [("crashes", f"{kind}: {type(error).__name__}: {str(error)[:300]}")]
    return kind, {"cases": count} | ({} if found else {"right results": count}), found


def _refused(seed, halves, folder):
    """Half letters cannot stand in a file: whoever writes them is told, and nothing is written; whoever reads them out of JSON is told, too."""
    from miniclip_helpers import datasets
    from miniclip_helpers.datasets import shards
    from miniclip_helpers.errors import DataError, UsageError

    found, told = [], 0
    for number, text in halves:
        for kind in ("json", "csv", "token", "parquet", "tar", "writer"):
            place = pathlib.Path(folder) / f"halves {kind}"
            try:
                if kind == "writer":
                    datasets.write_captions(place, {"a.png": [text]})
                elif kind == "tar":
                    shards.write_shards(dataset_of([text]), place)
                else:
                    datasets.write_dataset(dataset_of([text]), place, kind)
                found.append(("other findings", f"seed {seed}, halves {number}: {kind} took {text[:40]!r}"))
            except UsageError:
                told += 1
            except Exception as error:
                found.append(("crashes", f"seed {seed}, halves {number}: {kind}: {type(error).__name__}: {str(error)[:100]}"))
            if place.exists():
                found.append(("other findings", f"seed {seed}, halves {number}: {kind} left something"))
                shutil.rmtree(place, ignore_errors=True)
        (pathlib.Path(folder) / "half.json").write_text(json.dumps([{"file_name": "a.png", "caption": text}]))
        try:
            datasets.read_captions(pathlib.Path(folder) / "half.json")
            found.append(("other findings", f"seed {seed}, halves {number}: read {text[:40]!r}"))
        except DataError:
            told += 1
    return "texts, half letters", {"cases": 7 * len(halves), "errors of ours": told}, found
