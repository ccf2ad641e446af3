"""The parsers of strangers' bytes, one function each, for atheris (coverage-guided): an error of ours or a result; anything else that is raised is a finding.

    python tests/fuzzing_targets.py heads -runs=10000 -seed=1
"""

import contextlib
import functools
import io
import json
import os
import pathlib
import shutil
import sys
import tempfile

TESTS = pathlib.Path(__file__).resolve().parent
TARGETS = {}


@functools.cache
def folder():
    """Where files of a case lie."""
    return pathlib.Path(tempfile.mkdtemp(prefix="miniclip-atheris-"))


def target(call):
    TARGETS[call.__name__] = call
    return call


@contextlib.contextmanager
def ours():
    from miniclip_helpers.errors import MiniclipError

    with contextlib.suppress(MiniclipError):
        yield


@target
def heads(data):
    """Pictures: the head, and then the whole."""
    from miniclip_helpers import images

    with ours(), images.reading_head(io.BytesIO(data)) as head:
        assert head.width * head.height <= images.MAX_PIXELS
        if head.width * head.height < 4_000_000:
            assert images.open_image(data).mode == "RGB"


def _table(data, suffix):
    from miniclip_helpers.datasets.readers import reader_of

    (file := folder() / f"t{suffix}").write_bytes(data)
    problems = []
    with ours():
        for entry in reader_of(file)(file, problems):
            assert isinstance(entry.image, str) and entry.captions and all(caption.strip() for caption in entry.captions)


@target
def tables(data):
    """Readers of captions; the first byte chooses which."""
    if data:
        _table(data[1:], (".json", ".jsonl", ".csv", ".tsv", ".txt")[data[0] % 5])


@target
def decode(data):
    """Ids back to text."""
    from miniclip_helpers.tokenizers import BytePairTokenizer, WordTokenizer

    heads = globals().setdefault("_tokenizers", (BytePairTokenizer.clip(), WordTokenizer(["a", "dog"])))
    ids = [int.from_bytes(data[at : at + 2], "little", signed=True) for at in range(0, len(data), 2)]
    for tokenizer in heads:
        with ours():
            assert isinstance(tokenizer.decode(ids), str)
    text = data.decode("utf8", "surrogateescape")
    for tokenizer in heads:
        assert all(0 <= number < tokenizer.size for number in tokenizer.encode(text))


@target
def tars(data):
    """Tar shards: as a dataset, and as a stream."""
    from miniclip_helpers.datasets import shards, tars

    (file := folder() / "t.tar").write_bytes(data)
    with ours():
        tars.load_tars(file, skip_problems=True)
    with ours():
        list(shards.read_shards([file], buffer=0, skip_problems=True))


@target
def weights(data):
    """The head of a file of weights, which is no program either."""
    from miniclip_helpers.encoders.tensors import read_tensors

    for suffix in (".safetensors", ".pt"):
        (file := folder() / f"w{suffix}").write_bytes(data)
        with ours():
            assert all(isinstance(name, str) for name in read_tensors(file))


@target
def bodies(data):
    """The service: any body at any of its doors; the first byte chooses which. Never a 500."""
    from fuzzing_texts import _service

    door, kind = (("/search/text", "application/json"), ("/search/image", "multipart/form-data; boundary=x"), ("/zero-shot", "multipart/form-data; boundary=x"))[(data[0] if data else 0) % 3]
    answer = _service().post(door, content=data[1:], headers={"content-type": kind})
    assert answer.status_code < 500, answer.text
    json.loads(answer.text)


def seeds(name, corpus):
    """Write files to begin with."""
    from fuzzing_pictures import whole_pictures
    from fuzzing_texts import _png

    picture = _png(1)
    if name == "heads":
        found = [data for _, data in whole_pictures().values() if len(data) < 4000]
    elif name == "tables":
        found = [b'\0[{"file_name": "a.png", "captions": ["x"]}]', b'\1{"image": "a", "text": "x"}\n', b'\2image,caption\na.png,"x, ""y"""\n', b"\3file_name\tcaption\na\tb\n", b"\4a.png#0\tx\n"]
    elif name == "tars":
        import tarfile
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for member, content in (("a.png", picture), ("a.json", b'{"captions": ["x"]}'), ("é" * 60 + ".txt", b"x")):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        found = [buffer.getvalue()]
    elif name == "weights":
        import torch
        from safetensors.torch import save
        found = [save({"a": torch.ones(2, 3), "b": torch.zeros(1)})]
    elif name == "bodies":
        part = b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
        found = [b'\0{"query": "red", "k": 2}', b"\1" + part % (b"image", b'; filename="a.png"', picture) + b"--x--\r\n",
                 b"\2" + part % (b"image", b'; filename="a.png"', picture) + part % (b"labels", b"", b"red") + part % (b"labels", b"", b"blue") + b"--x--\r\n"]
    else:
        found = [bytes(range(256)), "a dog 猫".encode()]
    for number, data in enumerate(found):
        (corpus / str(number)).write_bytes(data)


def main():
    import atheris

    sys.path[:0] = [str(TESTS), str(TESTS.parent)]
    name = sys.argv.pop(1)
    import warnings

    warnings.simplefilter("ignore")
    with atheris.instrument_imports(include=["miniclip_helpers.images", "miniclip_helpers.datasets", "miniclip_helpers.tokenizers", "tarfile", "PIL", "multipart"]):
        from miniclip_helpers import datasets, images, tokenizers  # noqa: F401
        TARGETS[name](b"\0")
    (corpus := folder() / "corpus").mkdir()
    seeds(name, corpus)
    atheris.Setup([*sys.argv, str(corpus)], TARGETS[name])
    atheris.Fuzz()


def tidily():
    """`main` in a process of its own, which atheris ends without a farewell; then its files go. Returns its exit code."""
    made, child = folder(), os.fork()
    if not child:
        sys.exit(main())
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        shutil.rmtree(made, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(tidily())
