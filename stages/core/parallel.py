"""One function over many items, on several cores, in bounded memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ordered(function: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Yield `function(item)` of each item, in the order of the items.

    Threads, not processes: decoding, resizing and tensor operations leave Python's lock to others.
    At most `2 * threads` results are under way, so memory does not grow with the number of items.
    For tensor operations, `torch.set_num_threads(1)` beforehand leaves each thread its own core.
    Items are drawn by the caller's thread. Closing the iterator early cancels what has not begun.

    Raises
    ------
    Exception
        What `function` raised, at the turn of its item.
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
