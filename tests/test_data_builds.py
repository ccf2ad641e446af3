"""The embedded data: what the tables hold, what the licences cover, and that the builds give the same again."""

import io
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile

import pyarrow.parquet as pq
import pytest
from PIL import Image

from miniclip_helpers import runtime
from miniclip_helpers.errors import ChecksumError, DataError, OfflineError

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"
LICENSES = DATA / "LICENSES"
README = (DATA / "README.md").read_text(encoding="utf8")
sys.path.insert(0, str(DATA))

import build_emoji
import build_sources
import build_stamps
import build_table

BUILDS = {"emoji": build_emoji, "stamps": build_stamps}
SIDES = {"emoji": 64, "stamps": 160}


@pytest.fixture(scope="module")
def tables():
    return {name: pq.read_table(DATA / f"{name}.parquet").to_pylist() for name in BUILDS}


def column(rows, name):
    return [row[name] for row in rows]


def languages(rows):
    return {language for row in rows for language, _ in row["translations"]}


@pytest.mark.parametrize("name", BUILDS)
def test_schema_ids_and_captions(tables, name):
    rows = tables[name]
    assert pq.read_schema(DATA / f"{name}.parquet").equals(build_table.SCHEMA)
    assert len(set(column(rows, "id"))) == len(rows)
    assert all(row["captions"] and all(caption.strip() for caption in row["captions"]) for row in rows)
    assert all(
        translation.strip() and translation != row["captions"][0]
        for row in rows
        for _, translation in row["translations"]
    )


@pytest.mark.parametrize("name", BUILDS)
def test_every_picture_decodes(tables, name):
    for row in tables[name]:
        picture = Image.open(io.BytesIO(row["image"]))
        picture.load()
        assert (picture.format, picture.mode, picture.size) == ("WEBP", "RGB", (SIDES[name],) * 2), row["id"]


def test_emoji_counts(tables):
    rows = tables["emoji"]
    vendors = {
        vendor: {row["hexcode"] for row in rows if row["source"] == vendor} for vendor in ("noto", "twemoji", "fluent")
    }
    assert len(rows) == 4858
    assert {vendor: len(codes) for vendor, codes in vendors.items()} == {"noto": 1636, "twemoji": 1636, "fluent": 1586}
    assert len(set.union(*vendors.values())) == len({row["captions"][0] for row in rows}) == 1636
    assert len(languages(rows)) == 25


def test_emoji_holds_no_flag(tables):
    rows = tables["emoji"]
    assert "flags" not in column(rows, "category")
    regional, black_flag = range(0x1F1E6, 0x1F200), 0x1F3F4
    for row in rows:
        points = [int(point, 16) for point in row["hexcode"].split("-")]
        assert black_flag not in points and not any(point in regional for point in points), row["id"]


def test_stamps_counts(tables):
    rows = tables["stamps"]
    assert len(rows) == 950
    assert len(languages(rows)) == 17
    assert languages(rows) - languages(tables["emoji"]) == {"ar", "el", "tr"}, (
        "both tables use one set of language names"
    )
    assert (column(rows, "style").count("photo"), column(rows, "style").count("drawing")) == (381, 569)


@pytest.mark.parametrize(
    ("path", "style"),
    [
        ("animals/cats/tiger.png", "photo"),
        ("animals/birds/cartoon/tux.png", "drawing"),
        ("plants/toadstool.svg", "drawing"),
        ("symbols/clock.png", "drawing"),
        ("symbols/money/euro/001.png", "photo"),
        ("symbols/money/00_symbols/yen_1_yen.png", "drawing"),
        ("seasonal/easter/chick.png", "drawing"),
        ("seasonal/christmas/Mince_Pie.png", "photo"),
    ],
)
def test_style_rule(path, style):
    assert build_stamps.style(path) == style


@pytest.mark.parametrize("name", BUILDS)
def test_committed_file_is_the_one_that_the_readme_lists(name):
    (listed,) = re.findall(rf"`{name}\.parquet`.*`([0-9a-f]{{64}})`", README)
    assert runtime.sha256(DATA / f"{name}.parquet") == listed


@pytest.mark.parametrize("name", BUILDS)
def test_each_licence_has_its_text_and_stands_in_the_readme(tables, name):
    for licence in set(column(tables[name], "licence")):
        texts = [file for file in LICENSES.iterdir() if file.name.startswith(licence)]
        assert texts and all(len(file.read_text(encoding="utf8")) > 1000 for file in texts), licence
    for row in tables[name]:
        assert row["licence"] == (build_emoji.LICENCES[row["source"]] if name == "emoji" else "GPL-2.0-or-later")


def test_readme_names_each_licence_file_and_package():
    for file in LICENSES.iterdir():
        assert f"LICENSES/{file.name}" in README, file.name
    for package in (*build_emoji.PACKAGES, *build_stamps.PACKAGES):
        assert f"`{package.name}` | {package.version}" in README, package


def test_wheel_names_every_licence_of_the_data(tables):
    import tomllib

    expression = tomllib.loads((DATA.parent / "pyproject.toml").read_text(encoding="utf8"))["project"]["license"]
    named = {part.strip("() ") for part in re.split(r"\bAND\b", expression)}
    assert {licence for rows in tables.values() for licence in column(rows, "licence")} <= named


# Fetching and unpacking, on small archives made here.


def archive_of(folder, members):
    """An npm-like archive with these {path: text}, and the package that pins it."""
    package = build_sources.Package("npm", "@scope/tiny", "1.0.0", "", ("package/kept/", "package/one.json"))
    file = folder / package.archive
    with tarfile.open(file, "w:gz") as tar:
        for path, text in members.items():
            member = tarfile.TarInfo(path)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return file, build_sources.Package("npm", "@scope/tiny", "1.0.0", runtime.sha256(file), package.keep)


def test_only_the_kept_parts_are_unpacked(tmp_path):
    _, package = archive_of(tmp_path, {"package/kept/a.txt": "a", "package/one.json": "{}", "package/other.js": "x"})
    assert package.archive == "scope-tiny-1.0.0.tgz"
    with build_sources.unpacked([package], tmp_path) as folder:
        found = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert found == {"@scope/tiny/package/kept/a.txt", "@scope/tiny/package/one.json"}
    assert not folder.exists()


def test_a_tampered_archive_is_refused_before_it_is_unpacked(tmp_path):
    file, package = archive_of(tmp_path, {"package/one.json": "{}"})
    with open(file, "ab") as archive:
        archive.write(b"\0")
    message = f"expected sha256 {package.sha256}, found {runtime.sha256(file)}"
    with pytest.raises(ChecksumError, match=message), build_sources.unpacked([package], tmp_path):
        pytest.fail("the archive was unpacked")


def test_a_path_that_leaves_the_folder_is_refused(tmp_path):
    _, package = archive_of(tmp_path, {"package/kept/../../../../outside.txt": "x"})
    with pytest.raises(DataError, match="outside"), build_sources.unpacked([package], tmp_path):
        pytest.fail("the archive was unpacked")
    assert not list(tmp_path.rglob("outside.txt"))


def test_without_the_client_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(OfflineError, match=r"npm, which is not installed.*by hand"):
        build_sources.fetch(build_emoji.NOTO, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_failed_fetch_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: sys.executable)
    package = build_sources.Package(
        "npm", "tiny", "1.0.0", "0" * 64
    )  # python takes "pack" for a script that is not there
    with pytest.raises(OfflineError, match=r"'npm pack tiny@1\.0\.0.*failed"):
        build_sources.fetch(package, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_fetched_archive_with_another_sha256_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: name)

    def client(command, cwd, **options):
        (pathlib.Path(cwd) / "tiny-1.0.0.tgz").write_bytes(b"not what was pinned")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", client)
    with pytest.raises(ChecksumError):
        build_sources.fetch(build_sources.Package("npm", "tiny", "1.0.0", "0" * 64), tmp_path)
    assert not list(tmp_path.iterdir())


# The comparison behind --check must be able to fail.


def test_check_finds_each_kind_of_difference(tables):
    path, rows = DATA / "stamps.parquet", tables["stamps"]
    assert build_table.differences(rows, path) == []
    first, second, *others = rows
    picture = Image.open(io.BytesIO(first["image"])).convert("RGB")
    picture.putpixel((80, 80), (255, 0, 255))
    said = build_table.differences(
        [{**first, "image": build_table.webp(picture), "captions": ["another"]}, second, *others], path
    )
    assert [line.split(" ")[0] for line in said] == ["pixels", "captions"] and all(first["id"] in line for line in said)
    assert build_table.differences([first, *others], path) == [f"1 rows only in the file: {second['id']}"]
    assert build_table.differences([second, first, *others], path) == ["the rows stand in another order"]
    turned = {**first, "translations": [*first["translations"], ("xx", "y")]}
    assert build_table.differences([turned, second, *others], path)[0].startswith("translations differs in 1 rows")


# The builds themselves, in full, from the packages.


def sources_or_skip(packages):
    """The folder of archives; skips with the reason where they are neither there nor to be fetched."""
    folder = runtime.build_dir() / "sources"
    for package in packages:
        try:
            build_sources.fetch(package, folder)
        except OfflineError as error:
            pytest.skip(str(error))
    return folder


@pytest.mark.parametrize("name", BUILDS)
def test_rebuild_gives_the_same_table(name):
    build = BUILDS[name]
    pytest.importorskip("resvg_py", reason="resvg-py draws the SVG files; it is in the dev group")
    folder = sources_or_skip(build.PACKAGES)
    path = DATA / f"{name}.parquet"
    drawn_with = pq.read_schema(path).metadata[b"drawn_with"].decode()
    if drawn_with != build_table.tools():
        pytest.skip(f"the file was drawn with {drawn_with}, here are {build_table.tools()}")
    assert build_table.differences(build.build(folder), path) == []


def test_concepts_of_a_small_package(tmp_path):
    """What the emoji build keeps and leaves out, on four emoji written by hand."""
    place = tmp_path / build_emoji.LABELS.name / "package/en"
    place.mkdir(parents=True)
    groups = [{"order": 0, "key": "smileys-emotion"}, {"order": 2, "key": "component"}, {"order": 9, "key": "flags"}]
    (place / "messages.json").write_text(json.dumps({"groups": groups, "subgroups": [{"order": 5, "key": "face"}]}))
    emoji = [
        {"hexcode": "1F600", "label": "grinning face", "tags": ["grin"], "group": 0, "subgroup": 5},
        {"hexcode": "1F3FB", "label": "light skin tone", "group": 2},
        {"hexcode": "1F1EB-1F1F7", "label": "flag: France", "group": 9},
        {"hexcode": "1F1E6", "label": "regional indicator A"},
    ]
    (place / "data.json").write_text(json.dumps(emoji))
    (kept,) = build_emoji.concepts(tmp_path)
    assert kept == {
        "hexcode": "1F600",
        "label": "grinning face",
        "tags": ["grin"],
        "category": "smileys-emotion",
        "subcategory": "face",
    }


def test_a_stamp_of_a_small_folder(tmp_path):
    """By hand: a red bar on a transparent ground is cut out, scaled to 160 pixels and put in the middle."""
    (tmp_path / "food/fruit/cartoon").mkdir(parents=True)
    picture = Image.new("RGBA", (50, 40))
    picture.paste((255, 0, 0, 255), (10, 10, 30, 20))
    picture.save(tmp_path / "food/fruit/cartoon/bar.png")
    text = tmp_path / "food/fruit/cartoon/bar.txt"
    text.write_text(
        "A bar.\nfr.utf8=Une barre.\nzh_TW.utf8=條\nxx.utf8=not one of ours\nde.utf8=A bar.\nes.utf8=\n",
        encoding="utf8",
    )
    row = build_stamps.row(tmp_path, text.with_suffix(".png"), *build_stamps.read_captions(text))
    assert (row["id"], row["captions"], row["category"], row["subcategory"]) == (
        "tuxpaint/food/fruit/cartoon/bar.png",
        ["A bar."],
        "food",
        "fruit",
    )
    assert (row["style"], row["translations"]) == ("drawing", [("fr", "Une barre."), ("zh-hant", "條")])
    drawn = build_table.pixels(row["image"]).astype(int)
    red = (drawn[..., 0] > 200) & (drawn[..., 1] < 80)
    ys, xs = red.nonzero()
    assert (xs.min(), xs.max()) == (0, 159) and abs(ys.min() - 40) <= 1 and abs(ys.max() - 119) <= 1


def test_text_in_an_svg_does_not_depend_on_the_machines_fonts():
    """Letters come from matplotlib's own font: a family that no machine has is drawn like the default one."""
    text = '<text y="30" font-size="24" font-family="{}">Ag</text>'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="40pt" height="40pt">{text}</svg>'
    pytest.importorskip("resvg_py", reason="resvg-py draws the SVG files; it is in the dev group")
    plain, odd = (
        build_table.flatten(build_table.render_svg(svg.format(family), 80))
        for family in ("DejaVu Sans", "No Such Font")
    )
    assert plain.size == (80, 80) and plain.getextrema()[0][0] < 100, "some letters were drawn"
    assert plain.tobytes() == odd.tobytes()
