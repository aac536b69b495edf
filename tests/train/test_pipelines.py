"""Batches made on the host: stacks, epochs, positions, and the thread that makes them ahead."""

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite.train.pipeline import Pipeline, Position, saved
from jaxopt_lite.train.prefetch import Ahead
from jaxopt_lite.train.stacks import Stacks
from tests.train.tasks import assert_same

TASK = lambda train: jo.Task(lambda key: {"w": jnp.ones(2)}, followed, train)
SETTINGS = {"batch_size": None, "eval_every": 7}


def followed(params, batch, key):
    """Its gradient depends on the order of the batches, and `seen` tells which they were."""
    return jnp.mean((params["w"] * batch["x"].mean() - 1) ** 2), {"seen": batch["x"].mean()}


def batch_of(i):
    return {"x": np.full((3, 2), i, np.float32)}


def seen(batches, number):
    return [int(batch["x"][0, 0]) for _, batch in zip(range(number), batches, strict=False)]


# Stacks --------------------------------------------------------------------------------------------------------------


def gathered(stacks, *wanted):
    """The batches of stacks, and how many each held."""
    found, numbers = [], []
    for most in wanted:
        stack, number, _ = stacks.take(most)
        found += jax.tree.leaves(stack)[0][:number].reshape(number, -1)[:, 0].tolist() if number else []
        numbers.append(number)
    return found, numbers


def test_stacks_have_one_shape_and_the_first_ones_are_short():
    stacks = Stacks((batch_of(i) for i in range(13)), 4)
    assert gathered(stacks, 9, 9, 9, 9, 3, 9, 9) == (list(range(13)), [1, 1, 2, 4, 3, 2, 0])
    stack, number, more = Stacks(iter([batch_of(5)] * 9), 4).take(9)
    assert (number, more) == (1, True) and stack["x"].shape == (4, 3, 2)
    assert stack["x"][:, 0, 0].tolist() == [5, 0, 0, 0]


def test_stacks_hold_some_mebibytes_and_divide_a_point_evenly():
    sizes = {(4, 100): 100, (4, 256): 256, (4, 300): 150, (2**20, 100): 8, (2**22, 10): 2, (2**30, 3): 1}
    for (values, every), size in sizes.items():
        one = np.broadcast_to(np.float32(1), (values,))
        stacks = Stacks(iter([]), every)
        stacks._check([one], None)
        assert stacks._size == size, (values, every)


def test_batches_have_equal_shapes_and_dtypes():
    for other, message in [
        (np.zeros((3, 2)), r"equal shapes, got \(3, 2\) and \(4, 2\).*drop_last"),
        (np.zeros((4, 2), int), "equal dtypes, got float32 and int32$"),
    ]:
        stacks = Stacks(iter([np.zeros((4, 2)), other]), 1)
        stacks.take(1)
        with pytest.raises(ValueError, match=message):
            stacks.take(1)


def test_an_iterator_may_fill_the_same_memory_again():
    def batches(dtype, kind):
        buffer, same = np.zeros((4, 2), dtype), {}
        for i in range(6):
            buffer[:] = i
            same["x"] = np.full((4, 2), i, np.float32) if kind == "one dict" else buffer
            yield same if kind == "one dict" else {"x": buffer[:]}

    for dtype, kind in [(np.float32, "one array"), (np.float32, "one dict"), (np.float64, "64-bit")]:
        stacks = Stacks(batches(dtype, kind), 4)
        assert gathered(stacks, 4, 4, 4, 4) == ([0, 1, 2, 3, 4, 5], [1, 1, 2, 2]), (dtype, kind)


@pytest.mark.parametrize("source", [range(5), ["a", "b"], [1.0, 2.0], [[0.5, 1], [1, 2]]], ids=str)
def test_examples_one_by_one_are_no_batches(source):
    with pytest.raises(TypeError, match=r"must yield batches, pytrees of arrays \[batch, ...\], got"):
        Stacks(iter(source), 4).take(2)


def test_batches_hold_numbers():
    for words in (np.array(["a", "b"]), ["a", "b"]):
        with pytest.raises(TypeError, match="yields must be an array of numbers, got dtype <U1"):
            Stacks(iter([{"x": np.zeros(2), "word": words}]), 4).take(1)


def test_batches_of_other_libraries_are_converted():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    stack, *_ = Stacks(iter([frame + 1]), 4).take(2)
    assert stack[0].tolist() == [[2, 4], [3, 5]]


def test_lists_of_numbers_in_a_dict_are_arrays():
    rows = {"x": [[1.0, 2.0], [3.0, 4.0]], "y": [0, 1], "parts": [np.zeros(2), np.ones(2)]}
    stack, *_ = Stacks(iter([rows]), 1).take(1)
    assert stack["x"].dtype == jnp.float32 and stack["x"].shape == (1, 2, 2)
    assert stack["y"].dtype == jnp.int32 and len(stack["parts"]) == 2
    with pytest.raises(ValueError, match="lists of unequal lengths in 'x'; pad them"):
        Stacks(iter([{"x": [[1.0], [2.0, 3.0]]}]), 1).take(1)


# Epochs --------------------------------------------------------------------------------------------------------------


class Loader:
    """As PyTorch's: each iteration is an epoch, whose order is drawn from a generator that all share."""

    def __init__(self, batches=5, seed=0):
        self.batches, self.rng = batches, np.random.default_rng(seed)

    def __iter__(self):
        return (batch_of(i) for i in self.rng.permutation(self.batches))


class BySampler(Loader):
    """Its order is that of the epoch that its sampler was told."""

    @property
    def sampler(self):
        return self

    def set_epoch(self, epoch):
        self.rng = np.random.default_rng(10 * epoch + 1)


class Stateful:
    """An iterator with a state, as Grain's."""

    def __init__(self, kind=dict):
        self.at, self.kind = 0, kind

    def __iter__(self):
        return self

    def __next__(self):
        self.at += 1
        return batch_of(self.at * 7 % 11)

    def get_state(self):
        return {"at": self.at} if self.kind is dict else str(self.at).encode()

    def set_state(self, state):
        self.at = state["at"] if self.kind is dict else int(state)


class StatefulLoader(Loader):
    """As torchdata's: the state is the loader's, and holds for the iterator that it makes next."""

    def __init__(self, seed=0):
        super().__init__(5, seed)
        self.next, self.state = None, None

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.next = state

    def __iter__(self):
        state, self.next = self.next, None
        begun = self.rng.bit_generator.state if state is None else state["rng"]
        self.rng.bit_generator.state = begun
        order, first = self.rng.permutation(self.batches), 0 if state is None else state["at"]
        for at in range(first, self.batches):
            self.state = {"at": at + 1, "rng": begun}
            yield batch_of(order[at])


def test_the_epochs_of_a_loader_follow_one_another():
    for loader in (Loader, BySampler):
        rng, whole = loader(), []
        for epoch in range(3):
            if loader is BySampler:
                rng.set_epoch(epoch)
            whole += seen(rng, 5)
        made = loader()
        assert seen(Pipeline(made), 15) == whole and len(set(map(str, (whole[:5], whole[5:10], whole[10:])))) == 3
        again = loader()
        assert seen(Pipeline(lambda again=again: again), 15) == whole
    assert seen(Pipeline(iter(Loader())), 15) == seen(Loader(), 5), "an iterator is one epoch"
    assert seen(Pipeline(Loader(0)), 3) == [], "an epoch without batches is the last one"


# Positions -----------------------------------------------------------------------------------------------------------

SOURCES = {
    "a loader": Loader,
    "a loader that is told the epoch": BySampler,
    "a loader with a state": StatefulLoader,
    "an iterator with a state": Stateful,
    "a state in bytes": lambda: Stateful(bytes),
    "a function": lambda: lambda: (batch_of(i) for i in range(40)),
    "a generator": lambda: (batch_of(i) for i in range(40)),
}


def test_a_pipeline_is_brought_to_its_position():
    for name, source in SOURCES.items():
        whole = seen(Pipeline(source()), 20)
        for taken in (0, 3, 5, 12):
            first = Pipeline(source())
            assert seen(first, taken) == whole[:taken]
            position = saved(first.position())
            assert seen(Pipeline(source(), taken, position), 20 - taken) == whole[taken:], (name, taken)
    told = BySampler()
    counted = []
    told.__class__ = type(
        "Counting", (BySampler,), {"__iter__": lambda self: map(counted.append, Loader.__iter__(self))}
    )
    Pipeline(told, 1002, Position(200, 2, None, None))
    assert len(counted) == 2, "earlier epochs are not read"


def test_what_cannot_be_brought_to_its_position_is_refused():
    begun = (batch_of(i) for i in range(40))
    next(begun)
    with pytest.raises(ValueError, match=r"a generator that has yielded batches already, so the 3 .*give a function"):
        Pipeline(begun, 3)
    with pytest.warns(UserWarning, match="first 3 batches of train, .*list_iterator.*are left out.*give a function"):
        Pipeline(iter([batch_of(0)] * 9), 3)
    with pytest.raises(ValueError, match="saved by its get_state, and what is given now has no such methods"):
        Pipeline(Loader(), 3, Position(0, 3, "get_state", {"at": 3}))
    with pytest.raises(
        TypeError, match=r"the state of train\['at'\]\[1\] is .*object.* which a checkpoint cannot hold"
    ):
        saved(Position(0, 3, "get_state", {"at": [1, object()]}))


@pytest.mark.parametrize("made", [{"x": np.zeros((4, 2))}, np.zeros((4, 2)), 3, None, "data.npz", range(3)])
def test_a_function_returns_an_iterator(made):
    with pytest.raises(TypeError, match="train must return an iterator of batches"):
        Pipeline(lambda: made)


@pytest.mark.parametrize("name", SOURCES)
def test_a_run_in_a_directory_resumes_at_its_batch(tmp_path, name):
    """With the thread ahead of the steps, what is saved is the position after the last batch trained on."""
    settings = {**SETTINGS, "prefetch": 3}
    whole = jo.fit(TASK(SOURCES[name]()), jo.sgd(0.01), 28, **{**SETTINGS, "prefetch": 0})
    stop = lambda point: point.step == 14
    cut = jo.fit(TASK(SOURCES[name]()), jo.sgd(0.01), 28, **settings, directory=tmp_path, callbacks=[stop])
    assert cut.status == "interrupted" and cut.steps == 14
    result = jo.fit(TASK(SOURCES[name]()), jo.sgd(0.01), 28, **settings, directory=tmp_path)
    assert_same(result.params, whole.params)
    assert_same(result.history, whole.history)


# Ahead of the steps --------------------------------------------------------------------------------------------------


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_values_are_made_ahead_and_no_more_than_asked():
    made = []

    def values():
        for i in range(9):
            made.append(i)
            yield jnp.float64(i).dtype if i else jnp.zeros(3).device

    def settle(number):
        deadline = time.monotonic() + 10
        while len(made) < number and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        return len(made)

    with jax.enable_x64(True):
        ahead = Ahead(values(), 3)
    assert settle(3) == 3
    next(ahead)
    assert settle(4) == 4
    assert next(ahead) == jnp.float64, "it is as in the thread that asked"
    assert len(list(ahead)) == 7 and len(made) == 9
    with pytest.raises(StopIteration):
        next(ahead)
    assert ahead.close() and not threads()


def test_a_fault_is_raised_in_its_turn_with_the_number_of_its_batch():
    def batches():
        yield from map(batch_of, range(9))
        raise KeyError("no such file")

    points = []
    for prefetch in (0, 2):
        with pytest.raises(KeyError, match="no such file") as error:
            jo.fit(
                TASK(batches), jo.sgd(0.01), 30, eval_every=3, prefetch=prefetch,
                callbacks=[lambda point: points.append(point.step)],
            )  # fmt: skip
        assert "was asked for its batch 9" in error.value.__notes__[0]
    assert points == [3, 6, 9] * 2 and not threads()


def test_a_run_that_ends_early_ends_the_thread_and_puts_the_iterator_back():
    mine, closed = Stateful(), []

    class Closing(Loader):
        def __iter__(self):
            try:
                while True:
                    yield batch_of(1)
            finally:
                closed.append(True)

    stop = lambda point: point.step == 14
    first = jo.fit(TASK(mine), jo.sgd(0.01), 10_000, **SETTINGS, callbacks=[stop])
    assert first.steps == mine.at == 14, "the batches made ahead are not lost"
    plain = (batch_of(i) for i in range(40))
    jo.fit(TASK(plain), jo.sgd(0.01), 10_000, **SETTINGS, callbacks=[stop])
    assert len(list(plain)) == 26, "of what cannot be put back none is taken ahead"
    jo.fit(TASK(Closing()), jo.sgd(0.01), 10_000, **SETTINGS, callbacks=[stop])
    assert closed == [True] and not threads()

    class Stuck(Stateful):
        def __next__(self):
            if self.at == 20:
                event.wait(20)
            return super().__next__()

    def leave(point):
        raise KeyboardInterrupt

    event, begun = threading.Event(), time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        jo.fit(TASK(Stuck()), jo.sgd(0.01), 100, **SETTINGS, callbacks=[leave])
    assert time.monotonic() - begun < 15, "a second Ctrl-C does not wait for a pipeline"
    event.set()
    for thread in threads():
        thread.join(10)
    assert not threads()


def test_an_abandoned_run_leaves_no_thread():
    events = jo.training(TASK(Loader()), jo.sgd(0.01), jo.Plan(10_000, None, 7), prefetch=2)
    next(events)
    assert threads()
    events.close()
    assert not threads()
