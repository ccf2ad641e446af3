"""Make a handed-in notebook whole: marks, tests and questions as they were given out, deleted cells back, of several copies one."""

import collections
import copy
import html
import itertools
import re

from ..runtime import without_halves

_LOOSE = r"[\s\\]*"  # what a browser or markdown overlooks within the name of a scheme
_SCRIPT = re.compile("(" + "|".join(_LOOSE.join(word) for word in ("javascript", "vbscript")) + rf"|data(?={_LOOSE}:{_LOOSE}(?:text|image/svg)))(?={_LOOSE}:)", re.IGNORECASE)
_CHECK = re.compile(r"""checks\.check\(\s*["']([^"']+)["']""")


def clean(book):
    """A notebook's cells built anew from type, text, id, marks and attached pictures alone: no outputs, nothing that would not be valid."""
    from nbformat import v4

    made, seen = v4.new_notebook(metadata={}), collections.Counter()
    for cell in book.get("cells", []):
        source = cell.get("source", "")
        source = "".join(map(str, source)) if isinstance(source, list) else str(source)
        make = {"code": v4.new_code_cell, "markdown": v4.new_markdown_cell}.get(cell.get("cell_type"), v4.new_raw_cell)
        fresh = make(without_halves(source.replace("\r\n", "\n")))
        name = cell.get("id")
        if isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
            seen[name] += 1
            fresh.id = name if seen[name] == 1 else f"{name[:55]}-copy{seen[name]}"
        metadata = cell.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        if isinstance(metadata.get("nbgrader"), dict):
            fresh.metadata["nbgrader"] = copy.deepcopy(metadata["nbgrader"])
        if isinstance(metadata.get("tags"), list):
            fresh.metadata["tags"] = list(dict.fromkeys(tag for tag in metadata["tags"] if isinstance(tag, str) and re.fullmatch(r"[\w.:-]+", tag, re.ASCII)))
        if fresh.cell_type == "markdown" and isinstance(cell.get("attachments"), dict):
            pictures = {without_halves(str(name)): {kind: text for kind, text in kinds.items() if _picture(kind, text)}
                        for name, kinds in cell["attachments"].items() if isinstance(kinds, dict)}
            fresh.attachments = {name: kinds for name, kinds in pictures.items() if kinds}  # drawings in a written answer
        made.cells.append(fresh)
    return made


def _picture(kind, text):
    return re.fullmatch(r"image/[a-z.+-]{1,20}", str(kind)) and isinstance(text, str) and re.fullmatch(r"[A-Za-z0-9+/=\s]*", text)


def harmless(text):
    """A learner's markdown without HTML and links of their own that would run in the browser of who marks it: a space parts what makes them so.

    An entity in the place of "<" would be shown as such within code and formulas; a space can be read in both.
    """
    plain = text
    for _ in range(3):  # entities of entities
        plain = html.unescape(plain)
    text = plain if len(_SCRIPT.findall(plain)) > len(_SCRIPT.findall(text)) else text
    return re.sub(r"<(?=[A-Za-z/!?])", "< ", _SCRIPT.sub(r"\1 ", text))


def _renders(cell):
    """Whether nbconvert can show a markdown cell: if not, nobody gets a page."""
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    try:
        MarkdownWithMath(renderer=IPythonRenderer(escape=False, attachments=cell.get("attachments", {}))).render(cell.source)
        return True
    except Exception:  # of nbconvert, of mistune, of Python
        return cell.cell_type != "markdown"


def same(one, other):
    """Whether two texts are alike up to spaces at line ends and empty lines at the end."""
    return [line.rstrip() for line in one.rstrip().splitlines()] == [line.rstrip() for line in other.rstrip().splitlines()]


def repair(submitted, release, source):
    """(the repaired notebook, places of copies that do not run, findings: one line each) of a `clean` submission.

    release: what students got. source: the instructor's version, whose tests are put in. `submitted` is used up.
    """
    work = _Repair(submitted, release, source)
    for gid, given in work.given.items():
        mark = given.metadata.nbgrader
        if mark.get("grade") and not mark.get("solution"):
            work.test(gid)
        elif mark.get("solution") and given.cell_type == "code":
            work.exercise(gid)
        elif mark.get("solution"):
            work.written(gid)
        else:
            work.locked(gid)
    work.teaching()
    return work.finish()


class _Repair:
    """The cells of a submission while they are put right; cells are told apart by identity, so that places may move."""

    def __init__(self, submitted, release, source):
        self.cells, self.release = list(submitted.cells), release
        self.given = {cell.metadata.nbgrader.grade_id: cell for cell in release.cells if "nbgrader" in cell.metadata}
        self.full = {cell.metadata.nbgrader.grade_id: cell for cell in source.cells if "nbgrader" in cell.metadata}
        self.texts = {cell.source.strip() for cell in release.cells if cell.cell_type == "code" and "nbgrader" not in cell.metadata}
        self.findings, self.extra, self.stands = [], [], {}  # stands: grade id -> the cell that counts
        ids = {cell.id: gid for gid, cell in self.given.items()}
        self.matches = {gid: [] for gid in self.given}
        self.marks = {}
        for cell in self.cells:
            mark = cell.metadata.pop("nbgrader", None) or {}
            gid = mark.get("grade_id") if isinstance(mark.get("grade_id"), str) else None
            self.marks[id(cell)] = mark
            if gid not in self.given:
                gid = ids.get(cell.id) or self._by_text(cell)
            if gid in self.given:
                self.matches[gid].append(cell)

    def _by_text(self, cell):
        called = _CHECK.match(cell.source.lstrip()) if cell.cell_type == "code" else None
        return called[1].replace(".", "-") + "-test" if called else None

    def say(self, text):
        self.findings.append(text)

    def exercise(self, gid):
        given, matches = self.given[gid], self.matches[gid]
        name = re.search(r"^def (\w+)\(", given.source, re.MULTILINE)[1]
        answered = [cell for cell in matches if not self._stub(cell, given)]
        if not answered:
            others = [cell for cell in self.cells if cell.cell_type == "code" and re.search(rf"^def {name}\(", cell.source, re.MULTILINE)
                      and not self._stub(cell, given) and cell.source.strip() not in self.texts and not any(cell is match for match in matches)]
            taken = {id(cell) for other in self.matches.values() for cell in other}
            answered = [cell for cell in others if id(cell) not in taken]
            if answered:
                self.say(f"{gid}: the answer stood in a cell of its own; it was taken from there")
        if not answered and not matches:
            self.say(f"{gid}: the exercise cell was deleted; it was put back as it was given out")
            return self._insert(gid)
        chosen = (answered or matches)[-1]
        if len(matches) > 1:
            self.say(f"{gid}: the exercise cell stood there {len(matches)} times; the last that is answered counts")
        return self._take(gid, chosen, matches)

    def _stub(self, cell, given):
        return not cell.source.strip() or same(cell.source, given.source)

    def test(self, gid):
        given, matches = self.given[gid], self.matches[gid]
        exercise = self.stands.get(gid.removesuffix("-test"))
        after = self._place(exercise) if exercise is not None else -1
        if not matches:
            self.say(f"{gid}: the test was deleted; it was put back")
            self._insert(gid, behind=exercise)
        else:
            changed = [cell for cell in matches if not any(same(cell.source, version.source) for version in (given, self.full[gid]))]
            if changed:
                self.say(f"{gid}: the test was changed; it was restored")
            if len(matches) > 1:
                self.say(f"{gid}: the test stood there {len(matches)} times; one was kept")
            self._take(gid, next((cell for cell in matches if self._place(cell) > after), matches[0]), matches)
        cell = self.stands[gid]
        cell.source = self.full[gid].source
        if self._place(cell) < after:
            self.say(f"{gid}: the test stood above the exercise; it was moved behind it")
            self._remove(cell)
            self.cells.insert(self._place(exercise) + 1, cell)

    def written(self, gid):
        given, matches = self.given[gid], self.matches[gid]
        answered = [cell for cell in matches if not self._stub(cell, given)]
        if not matches:
            self.say(f"{gid}: the cell for the answer was deleted; an empty one was put back")
            return self._insert(gid)
        if len(matches) > 1:
            self.say(f"{gid}: the answer stood there {len(matches)} times; the last that says something counts")
        return self._take(gid, (answered or matches)[-1], matches)

    def locked(self, gid):
        given, matches = self.given[gid], self.matches[gid]
        if not matches:
            return self._insert(gid)
        if not same(matches[0].source, given.source):
            self.say(f"{gid}: a cell that is not to be changed was changed; it was restored")
        self._take(gid, matches[0], matches)
        self.stands[gid].source = given.source
        return None

    def teaching(self):
        """Cells of the series that are gone come back: the answers may need what they bind."""
        texts, ids = {cell.source.strip() for cell in self.cells}, {cell.id for cell in self.cells}
        gone = [cell for cell in self.release.cells if cell.cell_type == "code" and "nbgrader" not in cell.metadata
                and cell.source.strip() not in texts and cell.id not in ids]
        for cell in gone:
            self._put(copy.deepcopy(cell), cell)
        if gone:
            self.say(f"{len(gone)} code cell{'s' * (len(gone) != 1)} of the notebook that had been deleted came back, to be run where needed")

    def _take(self, gid, chosen, matches):
        """`chosen` counts; other copies become plain cells that do not run. What its marks had become is told."""
        full, mark = self.full[gid], self.marks[id(chosen)]
        self.extra += [cell for cell in matches if cell is not chosen]
        if not mark:
            self.say(f"{gid}: nbgrader's marks were lost; they were found again")
        elif any(mark.get(key) != full.metadata.nbgrader.get(key) for key in ("grade_id", "points", "grade", "solution", "locked")):
            self.say(f"{gid}: its marks or points were changed; they were restored")
        if chosen.cell_type != full.cell_type:
            self.say(f"{gid}: it had become a {chosen.cell_type} cell; it is a {full.cell_type} cell again")
            fresh = copy.deepcopy(full)
            fresh.source, fresh.id = chosen.source, chosen.id
            self.cells[self._place(chosen)] = fresh
            chosen = fresh
        chosen.metadata["nbgrader"] = copy.deepcopy(full.metadata.nbgrader)
        self.stands[gid] = chosen

    def _insert(self, gid, behind=None):
        cell = copy.deepcopy(self.given[gid])
        cell.metadata["nbgrader"] = copy.deepcopy(self.full[gid].metadata.nbgrader)
        self.stands[gid] = cell
        if behind is not None:
            self.cells.insert(self._place(behind) + 1, cell)
        else:
            self._put(cell, self.given[gid])

    def _put(self, cell, given):
        """Insert a cell behind the nearest cell above it in the release that is there."""
        order = self.release.cells
        ids, place = {here.id: number for number, here in enumerate(self.cells)}, 0
        for above in reversed(order[: next(number for number, other in enumerate(order) if other is given)]):
            stands = self.stands.get(above.metadata.get("nbgrader", {}).get("grade_id"))
            if stands is not None or above.id in ids:
                place = 1 + (self._place(stands) if stands is not None else ids[above.id])
                break
        self.cells.insert(place, cell)

    def _place(self, cell):
        return next(place for place, other in enumerate(self.cells) if other is cell)

    def _remove(self, cell):
        del self.cells[self._place(cell)]

    def finish(self):
        from nbformat.v4 import new_notebook

        seen = set()
        for cell in self.cells:  # else nbformat would give new ones by chance, and what is unchanged would run again
            if cell.id in seen:
                cell.id = next(name for number in itertools.count(2) if (name := f"{cell.id[:50]}-{number}") not in seen)
            seen.add(cell.id)
        book = new_notebook(cells=self.cells, metadata=copy.deepcopy(self.release.metadata))
        given = {cell.source.strip() for cell in self.release.cells}
        for cell in book.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
            elif cell.source.strip() not in given:
                cell.source = harmless(cell.source)
                if not _renders(cell):
                    self.say(f"a {cell.cell_type} cell cannot be shown as it is (a picture that is not there, for instance); its text is shown as it was typed")
                    cell.source = re.sub("^", "    ", cell.source, flags=re.MULTILINE)
        extra = {id(cell) for cell in self.extra}
        return book, [place for place, cell in enumerate(book.cells) if id(cell) in extra], self.findings
