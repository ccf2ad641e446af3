"""One submission in a kernel: run its slice cell by cell, stop what goes over a limit, and after a crash go on without the cell that crashed.

`python -m miniclip_helpers.coursework.running` is the worker: an order per line of JSON in, an answer per line out, until the input ends.
"""

import asyncio
import json
import re
import sys
import time

from .. import runtime
from ..errors import MiniclipError
from .limits import Limits
from .outputs import error, plain, recorder, veiled

GRACE = 3  # seconds between an interrupt and the kill
HIDDEN = "### BEGIN HIDDEN TESTS"
CHANGED = "the checker itself was changed: it accepts a wrong answer. Something in this notebook alters the checks, or the machinery that runs cells."
# In the place of the answer, for the hidden test once more: it calls the answer, so that whatever that does to the checker is done, and returns what is wrong.
WRONG = """def _wrong(*inputs, **named):
    try:
        {answer}(*inputs, **named)
    except BaseException:
        pass
    return 0.0
"""
TEACHING = 4  # unchanged cells of the series get this many times the seconds: their length is not the learner's fault


class Stopped(Exception):
    """A cell went over a limit; the text says which. `dead`: the kernel is gone."""

    def __init__(self, message, dead):
        super().__init__(message)
        self.dead = dead


class Job:
    """The steps of one submission: {"cell", "role", "source", "needs"}; role "teaching", "own", "exercise" or "check"."""

    def __init__(self, order, nursery):
        import nbformat

        self._order, self._nursery = order, nursery
        self._limits = Limits(**order["limits"])
        self.notebook = nbformat.read(order["notebook"], as_version=4)
        self._recorder = recorder(self.notebook, self._limits.output_kb)
        self._results = {}  # cell -> what became of it
        self._kernel = None
        self.walls = []

    async def run(self):
        """What became of each step, {cell: {"role", "state", "message", "seconds"}}; the outputs go into `self.notebook`.

        A `MiniclipError` where no kernel starts, which is nobody's answer's fault.
        """
        waiting, stoppers = list(self._order["steps"]), set()
        self._end = time.monotonic() + self._limits.patience(whole=True)
        while waiting:
            if time.monotonic() > self._end:
                for step in waiting:
                    await self._step(step, stoppers)
                break
            try:
                await self._fresh()
                await self._replay(waiting, stoppers)
                while waiting:
                    step = waiting.pop(0)
                    await self._step(step, stoppers)
            except Stopped as stop:
                if not stop.dead:
                    raise
            finally:
                self._drop()
        self._veil()
        return self._results

    async def _fresh(self):
        from .kernels import Kernel

        self._kernel = Kernel(self._nursery, self._limits, self._order.get("files"), self._order["scratch"])
        await self._kernel.ready()
        self.walls = self._kernel.walls
        self._recorder.kc = self._kernel.client
        self._recorder.reset_execution_trackers()

    def _drop(self):
        if self._kernel:
            self._kernel.close()
            self._kernel = None

    async def _replay(self, waiting, stoppers):
        """Before the first step nothing; after a crash what the rest needs of what has run, without what stopped a kernel, and while there is time."""
        needed = {cell for step in waiting for cell in step["needs"]}
        for step in self._order["steps"]:
            if time.monotonic() > self._end:
                return
            done = self._results.get(step["cell"])
            if done and step["role"] != "check" and step["cell"] not in stoppers and (step["cell"] in needed or step["role"] == "own"):
                outputs = self.notebook.cells[step["cell"]].get("outputs")
                try:
                    await self._execute(step)
                except Stopped as stop:
                    stoppers.add(step["cell"])
                    if stop.dead:
                        raise
                finally:
                    self.notebook.cells[step["cell"]].outputs = outputs

    async def _step(self, step, stoppers):
        """Run one step and settle it. `Stopped` where the kernel is gone."""
        broken = [cell for cell in step["needs"] if cell in stoppers]
        if step["role"] == "check" and broken and step.get("exercise") in broken:
            return self._settle(step, "stopped", self._results[step["exercise"]]["message"] or "its own cell stopped the kernel")
        if time.monotonic() > self._end:
            return self._settle(step, "stopped", f"there was no time left for this cell: the submission took {self._limits.patience(whole=True):.0f} s")
        start = time.monotonic()
        try:
            state, message = await self._execute(step)
            if state == "ok" and step["role"] == "check" and await self._accepts_anything(step):
                state, message = "error", f"AssertionError: {CHANGED}"
        except Stopped as stop:
            stoppers.add(step["cell"])
            self._settle(step, "stopped", str(stop), time.monotonic() - start)
            if stop.dead:
                raise
        else:
            self._settle(step, state, message, time.monotonic() - start)

    async def _accepts_anything(self, step):
        """Whether the hidden test of a check that passed also passes a wrong answer, or now says of itself that it was changed.

        Seen from outside the kernel: what an answer or a cell did to the judge beside it holds for the wrong answer, too.
        """
        before, found, test = step["source"].partition(HIDDEN)
        call = re.search(r'(\.assess\("[^"]+", )(\w+)', test)
        if not call:
            return False
        cell = self.notebook.cells[step["cell"]]
        outputs = cell.outputs
        test = test.replace(call.group(), f"{call.group(1)}_wrong", 1)
        try:
            state, message = await self._execute(step | {"source": WRONG.format(answer=call.group(2)) + found + test})
        finally:
            cell.outputs = outputs
        return state == "ok" or "the checker itself was changed" in message

    def _veil(self):
        """Take the hidden seeds out of whatever came back: an answer can print the cell that tests it."""
        sources = [step["source"] for step in self._order["steps"] if step["role"] == "check"]
        seeds = {seed for source in sources for found in re.findall(r"seeds=\[([\d, ]*)\]", source) for seed in re.findall(r"\d{4,}", found)}
        if not seeds:
            return
        hidden = re.compile("|".join(sorted(seeds)))
        for cell in self.notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = [veiled(output, hidden) for output in cell.outputs]
        self._results = veiled(self._results, hidden)

    def _settle(self, step, state, message="", seconds=0.0):
        cell = self.notebook.cells[step["cell"]]
        self._results[step["cell"]] = {"role": step["role"], "state": state, "message": message, "seconds": round(seconds, 2)}
        if state == "stopped":
            kept = [output for output in cell.get("outputs", []) if output.output_type != "error"]
            cell.outputs = [*kept, error("Stopped", message)]
        elif step["role"] == "check":
            cell.outputs = plain(cell.outputs, state, message)

    async def _execute(self, step):
        """("ok", "") or ("error", what was raised). `Stopped` where a limit was passed or the kernel died."""
        from nbclient.exceptions import DeadKernelError

        cell, index = self.notebook.cells[step["cell"]], step["cell"]
        kept, cell.source = cell.source, step["source"]
        self._recorder.flood = self._recorder.errors = 0
        reply = {}
        self._recorder.on_cell_executed = lambda cell, cell_index, execute_reply: reply.update(execute_reply["content"])
        task = asyncio.ensure_future(self._recorder.async_execute_cell(cell, index))
        task.add_done_callback(lambda task: task.cancelled() or task.exception())  # looked at, so that nothing is printed of it
        try:
            message = await self._watch(task, self._limits.seconds * (TEACHING if step["role"] == "teaching" else 1))
            if message:
                raise Stopped(message, not self._kernel.alive())
            await task
        except DeadKernelError:
            raise Stopped(f"this cell {self._kernel.ended()}", True) from None
        finally:
            cell.source = kept
            cell.pop("execution_count", None)
            cell.execution_count = None
        if reply.get("status") == "ok":  # a learner can silence an error's output, the reply is harder to forge
            return "ok", ""
        return "error", f"{reply.get('ename', 'Error')}: {reply.get('evalue', '')}"[:2000]

    async def _watch(self, task, seconds):
        """Wait for a cell; "" when it ended by itself, else which limit it passed, after it was interrupted or its kernel killed."""
        start, computed, pause, looks = time.monotonic(), self._kernel.computed(), 0.005, 0
        while not task.done():
            await asyncio.wait([task], timeout=pause)
            pause, looks = min(pause * 1.5, 0.1), looks + 1
            if task.done() or looks % 5:
                continue
            if not self._kernel.alive():
                task.cancel()
                return f"this cell {self._kernel.ended()}"
            took, wall = self._kernel.computed() - computed, time.monotonic() - start
            message = self._kernel.excess()
            if message:
                self._kernel.kill()
                await self._left(task, 0)
                return f"this cell {message}"
            if took > seconds:
                message = f"this cell computed for more than {seconds:g} s: a loop that never ends?"
            elif wall > seconds and took < wall / 20 or wall > self._limits.patience() * seconds / self._limits.seconds:
                message = f"this cell did not end within {wall:.0f} s: does it wait for something?"
            elif self._recorder.flood > 200 * 1024 * self._limits.output_kb:
                message = "this cell printed without end"
            if message:
                self._kernel.interrupt()
                await self._left(task, GRACE)
                return message
        message = self._kernel.excess() if self._kernel.alive() else ""  # what a quick cell leaves behind is not the next one's fault
        if message:
            self._kernel.kill()
            return f"this cell {message}"
        return ""

    async def _left(self, task, seconds):
        """Give an interrupted cell some seconds, then kill its kernel."""
        if seconds:
            await asyncio.wait([task], timeout=seconds)
        if not task.done() or seconds == 0:
            self._kernel.kill()
            task.cancel()
        await asyncio.wait([task], timeout=5)


async def _serve(nursery, answers):
    import nbformat

    for line in sys.stdin:
        order = json.loads(line)
        try:
            job = Job(order, nursery)
            results = await job.run()
            with runtime.writing(order["executed"]) as path:
                nbformat.write(job.notebook, path)
            answer = {"results": results, "walls": job.walls}
        except MiniclipError as error:
            answer = {"failed": str(error)}
        except Exception as error:  # whatever one submission does, the next is graded
            answer = {"failed": f"{type(error).__name__}: {error}"[:500]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main():
    from .kernels import Nursery
    from .sandbox import die_with_parent

    die_with_parent()
    nursery = Nursery()
    sys.stdout, answers = sys.stderr, sys.stdout  # what a library prints is no answer
    try:
        asyncio.run(_serve(nursery, answers))
    finally:
        nursery.close()


if __name__ == "__main__":
    main()
