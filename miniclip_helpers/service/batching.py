"""What several callers ask for at the same time, computed together."""

import asyncio


class BusyError(Exception):
    """More is waiting than can be answered in good time."""


class Batcher:
    """Await `batcher(item)` for the row that `compute(items)` gives it. What comes while one batch is computed waits for the next one.

    compute: a list of different items to as many rows; it runs in `pool`. most: items per batch. room: how many may wait; beyond it `BusyError`.
    A lone caller never waits for others. When a batch fails, its items are tried one by one: a bad one spoils none beside it.
    """

    def __init__(self, compute, pool, most=32, room=512):
        self.compute, self.pool, self.most, self.room = compute, pool, most, room
        self.sizes = lambda size: None  # told the size of each batch
        self._waiting, self._task = [], None

    def __len__(self):
        return len(self._waiting)

    async def __call__(self, item):
        if len(self._waiting) >= self.room:
            raise BusyError(f"{self.room} questions are waiting; try again in some seconds")
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return await future

    async def _work(self):
        while self._waiting:
            batch, self._waiting = self._waiting[: self.most], self._waiting[self.most :]
            batch = [(item, future) for item, future in batch if not future.done()]  # who was cancelled meanwhile wants no answer
            items = list(dict.fromkeys(item for item, _ in batch))
            if items:
                self.sizes(len(items))
                found = await self._compute(items)
                for item, future in batch:
                    _tell(future, found[item])

    async def _compute(self, items):
        """{item: row, or the exception that it raised}."""
        try:
            rows = await asyncio.get_running_loop().run_in_executor(self.pool, self.compute, items)
            return dict(zip(items, rows, strict=True))
        except Exception as error:
            if len(items) == 1:
                return {items[0]: error}
        return {item: (await self._compute([item]))[item] for item in items}


def _tell(future, found):
    if future.done():
        return
    if isinstance(found, Exception):
        future.set_exception(found)
    else:
        future.set_result(found)
