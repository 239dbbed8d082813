import threading
import time
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.core.parallel import ordered_map


@settings(max_examples=40)
@given(
    delays=st.lists(st.sampled_from([0.0, 0.0005, 0.002]), max_size=12),
    threads=st.integers(1, 4),
)
def test_results_come_in_the_order_of_the_items(delays, threads):
    def work(item):
        number, delay = item
        time.sleep(delay)
        return 10 * number

    found = list(ordered_map(work, enumerate(delays), threads))
    assert found == [10 * i for i in range(len(delays))]


def test_a_slow_first_item_is_still_yielded_first():
    gate = threading.Event()

    def work(item):
        if item == 0:
            assert gate.wait(10)
        else:
            gate.set()
        return item

    assert list(ordered_map(work, range(5), 2)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_as_many_run_at_once_as_there_are_threads(threads):
    # The barrier opens only when all threads wait at the same time.
    barrier = threading.Barrier(threads, timeout=10)
    lock, running, most = threading.Lock(), 0, 0

    def work(item):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        barrier.wait()
        with lock:
            running -= 1
        return item

    assert list(ordered_map(work, range(4 * threads), threads)) == list(range(4 * threads))
    assert most == threads


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_at_most_twice_as_many_items_as_threads_are_taken_ahead(threads):
    drawn = 0

    def items():
        nonlocal drawn
        for number in count():
            drawn += 1
            yield number

    results = ordered_map(lambda x: x, items(), threads)
    ahead = []
    for taken in range(1, 21):
        assert next(results) == taken - 1
        ahead.append(drawn - taken)
    results.close()
    assert max(ahead) == 2 * threads


def test_the_callers_thread_iterates_over_the_items():
    """An open HDF5 file, for example, can yield items without being shared between threads."""
    names = set()

    def items():
        for number in range(6):
            names.add(threading.current_thread().name)
            yield number

    assert len(list(ordered_map(lambda x: x, items(), 2))) == 6
    assert names == {threading.current_thread().name}


def test_an_exception_is_raised_when_its_item_is_due():
    def work(item):
        if item == 3:
            raise ValueError("item 3 is bad")
        time.sleep(0.002)
        return item

    found = []
    with pytest.raises(ValueError, match="item 3 is bad"):
        for result in ordered_map(work, range(100), 2):
            found.append(result)
    assert found == [0, 1, 2]


def test_no_new_call_starts_after_an_exception():
    begun = []

    def work(item):
        begun.append(item)
        if item == 0:
            raise ValueError("the first is bad")
        time.sleep(0.01)

    with pytest.raises(ValueError, match="the first is bad"):
        list(ordered_map(work, range(1000), 2))
    after = len(begun)
    time.sleep(0.03)
    assert len(begun) == after <= 4


def test_closing_early_cancels_pending_calls_and_waits_for_running_ones():
    begun, finished = [], []

    def work(item):
        begun.append(item)
        time.sleep(0.03)
        finished.append(item)
        return item

    results = ordered_map(work, range(1000), 2)
    assert next(results) == 0
    results.close()
    assert sorted(begun) == sorted(finished)
    # Two calls run and two wait; a free thread may start the waiting ones before the close.
    assert len(begun) <= 4
    time.sleep(0.05)
    assert sorted(begun) == sorted(finished)
    assert not any(t.name.startswith("ThreadPoolExecutor") for t in threading.enumerate())


def test_an_exception_from_the_items_themselves_is_not_lost():
    def items():
        yield 1
        raise OSError("the file ends here")

    with pytest.raises(OSError, match="the file ends here"):
        list(ordered_map(lambda x: x, items(), 2))


def test_no_items_give_no_results():
    assert list(ordered_map(lambda x: x, [], 2)) == []


@pytest.mark.parametrize("threads", [0, -1])
def test_zero_or_negative_threads_are_refused(threads):
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        list(ordered_map(lambda x: x, [1], threads))
