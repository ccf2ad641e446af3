"""One submission in a kernel: run its slice cell by cell, stop what goes over a limit, and after a crash go on without the cell that crashed.

`python -m miniclip_helpers.coursework.running` is the worker: an order per line of JSON in, an answer per line out, until the input ends.
"""

import asyncio
import json
import sys
import time

from .. import runtime
from ..errors import MiniclipError
from .limits import Limits

GRACE = 3  # seconds between an interrupt and the kill
KEPT = {"text/plain", "text/latex", "image/png", "image/jpeg"}  # no HTML, no JavaScript: an instructor's browser shows what is left
TEACHING = 4  # unchanged cells of the series get this many times the seconds: their length is not the learner's fault


class Stopped(Exception):
    """A cell went over a limit; the text says which. `dead`: the kernel is gone."""

    def __init__(self, message, dead):
        super().__init__(message)
        self.dead = dead


def recorder(notebook, limit_kb):
    """An nbclient for cells of `notebook` that keeps the first `limit_kb` of each cell's output, and none that a browser would run."""
    from nbclient import NotebookClient

    class Recorder(NotebookClient):
        flood = 0

        def output(self, outs, msg, display_id, cell_index):
            content = msg["content"]
            if "data" in content:
                content["data"] = {kind: value for kind, value in content["data"].items() if kind in KEPT}
            size = len(content.get("text", "")) + sum(len(str(value)) for value in content.get("data", {}).values())
            before, self.flood = self.flood, self.flood + size
            if self.flood <= limit_kb * 1024 or msg["msg_type"] == "error":
                return super().output(outs, msg, display_id, cell_index)
            if before <= limit_kb * 1024:
                msg["content"] = {"name": "stdout", "text": content.get("text", "")[:1000] + f"\n... the rest of this cell's output is left out (limit {limit_kb} kB)\n"}
                msg["msg_type"] = msg["header"]["msg_type"] = "stream"
                return super().output(outs, msg, display_id, cell_index)
            return None

        def handle_comm_msg(self, outs, msg, cell_index):
            return None

    return Recorder(notebook, allow_errors=True, coalesce_streams=True, store_widget_state=False)


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
        """Before the first step nothing; after a crash what the rest needs of what has run, without what stopped a kernel."""
        needed = {cell for step in waiting for cell in step["needs"]}
        for step in self._order["steps"]:
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
        except Stopped as stop:
            stoppers.add(step["cell"])
            self._settle(step, "stopped", str(stop), time.monotonic() - start)
            if stop.dead:
                raise
        else:
            self._settle(step, state, message, time.monotonic() - start)

    def _settle(self, step, state, message="", seconds=0.0):
        cell = self.notebook.cells[step["cell"]]
        self._results[step["cell"]] = {"role": step["role"], "state": state, "message": message, "seconds": round(seconds, 2)}
        if state == "stopped":
            kept = [output for output in cell.get("outputs", []) if output.output_type != "error"]
            cell.outputs = [*kept, _error("Stopped", message)]
        elif step["role"] == "check":
            cell.outputs = _plain(cell.outputs, state, message)

    async def _execute(self, step):
        """("ok", "") or ("error", what was raised). `Stopped` where a limit was passed or the kernel died."""
        from nbclient.exceptions import DeadKernelError

        cell, index = self.notebook.cells[step["cell"]], step["cell"]
        kept, cell.source = cell.source, step["source"]
        self._recorder.flood = 0
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
        return ""

    async def _left(self, task, seconds):
        """Give an interrupted cell some seconds, then kill its kernel."""
        if seconds:
            await asyncio.wait([task], timeout=seconds)
        if not task.done() or seconds == 0:
            self._kernel.kill()
            task.cancel()
        await asyncio.wait([task], timeout=5)


def _error(name, message):
    from nbformat.v4 import new_output

    return new_output("error", ename=name, evalue=message, traceback=[message])


def _plain(outputs, state, message):
    """The outputs of a check cell as nbgrader must read them: nothing that counts as a partial grade or, being a warning, as a failure."""
    from nbformat.v4 import new_output

    found = []
    for output in outputs:
        if output.output_type == "stream":
            found.append(new_output("stream", name="stdout", text=output.text))
        elif output.output_type in ("display_data", "execute_result"):
            found.append(new_output("display_data", data=output.data))
    name, _, text = message.partition(": ")
    return [*found, _error(name, text or name)] if state != "ok" else found


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
