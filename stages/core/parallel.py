"""Apply a function to many items on several cores, with bounded memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ordered_map(function: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Yield `function(item)` of each item, in the order of the items.

    Threads are enough, since decoding, resizing and tensor operations release Python's global
    interpreter lock. At most `2 * threads` results are pending, so memory does not grow with the
    number of items. For tensor operations call `torch.set_num_threads(1)` first, so that each
    thread uses one core. The caller's thread iterates over `items`. Closing the iterator early
    cancels the calls that have not started.

    Raises
    ------
    Exception
        An exception of `function`, raised when the result of its item is due.
    """
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                if len(pending) == 2 * threads:
                    yield pending.popleft().result()
                pending.append(pool.submit(function, item))
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
