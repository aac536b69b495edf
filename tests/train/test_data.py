"""The order of examples is a pure function of (key, step)."""

import jax
import numpy as np
import pytest

import jaxopt_lite as jo
from jaxopt_lite.train.data import stacks

KEY = jax.random.key(0)


def test_an_epoch_is_a_permutation_without_its_remainder():
    epochs = jo.batch_order(KEY, rows=14, batch_size=4, first_step=0, steps=30).reshape(10, 12)
    assert all(len(set(epoch)) == 12 for epoch in epochs.tolist())
    assert epochs.dtype == np.int32 and epochs.min() == 0 and epochs.max() == 13
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 10


@pytest.mark.parametrize("rows", [1, 2, 14, 2000])
def test_an_epoch_is_the_permutation_of_its_own_key(rows):
    found = jo.batch_order(KEY, rows, rows, 0, 3)
    wanted = [jax.random.permutation(jax.random.fold_in(KEY, epoch), rows) for epoch in range(3)]
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("rows, batch_size", [(14, 4), (14, 14), (14, 1), (40_000, 7_000)])
def test_a_range_of_steps_is_a_slice_of_the_whole(rows, batch_size):
    whole = jo.batch_order(KEY, rows, batch_size, 0, 23)
    for first, steps in [(0, 1), (3, 0), (2, 11), (13, 10)]:
        np.testing.assert_array_equal(jo.batch_order(KEY, rows, batch_size, first, steps), whole[first : first + steps])


def test_the_order_goes_on_where_a_block_of_epochs_ends():
    late = jo.batch_order(KEY, 14, 14, 99_990, 20)
    wanted = [jax.random.permutation(jax.random.fold_in(KEY, epoch), 14) for epoch in (99_990, 100_009)]
    np.testing.assert_array_equal(late[[0, -1]], wanted)


def test_keys_of_any_kind_give_orders_of_their_own():
    keys = [KEY, jax.random.key(1), jax.random.key(0, impl="rbg")]
    orders = [jo.batch_order(key, 14, 14, 0, 1)[0].tolist() for key in keys]
    assert len(set(map(tuple, orders))) == 3 and all(sorted(order) == list(range(14)) for order in orders)


@pytest.mark.parametrize("batch_size", [0, 15])
def test_no_batch_of_that_size(batch_size):
    with pytest.raises(ValueError, match=f"batch_size must lie between 1 and the 14 examples, got {batch_size}"):
        jo.batch_order(KEY, 14, batch_size, 0, 1)


@pytest.mark.parametrize("first, steps", [(-1, 2), (0, -1), (2**31 - 2, 2), (10**12, 1)])
def test_steps_are_counted_from_zero_in_32_bits(first, steps):
    with pytest.raises(ValueError, match=rf"batch_order: steps must lie in .*, got {steps} from {first} on"):
        jo.batch_order(KEY, 14, 4, first, steps)


def test_an_iterator_is_taken_in_stacks_of_one_shape():
    take = stacks(({"x": np.full(2, i)} for i in range(6)), 4)
    assert take(10)[1] == 4
    stack, number = take(1)
    assert number == 1 and stack["x"].shape == (4, 2) and stack["x"][0].tolist() == [4, 4]
    assert take(3)[1] == 1 and take(3) == (None, 0)


def test_batches_of_an_iterator_have_equal_shapes():
    take = stacks(iter([np.zeros((4, 2)), np.zeros((3, 2))]), 1)
    take(1)
    with pytest.raises(ValueError, match=r"equal shapes, got \(3, 2\) and \(4, 2\).*drop_last"):
        take(1)


@pytest.mark.parametrize("made", [{"x": np.zeros((4, 2))}, np.zeros((4, 2)), 3, None, "data.npz", range(3)])
def test_a_function_returns_an_iterator(made):
    with pytest.raises(TypeError, match="train must return an iterator of batches"):
        stacks(lambda: made, 4)


@pytest.mark.parametrize("kind", ["one array", "one dict", "a view", "64-bit"])
def test_an_iterator_may_fill_the_same_memory_again(kind):
    def batches():
        buffer, same = np.zeros((4, 2), np.float64 if kind == "64-bit" else np.float32), {}
        for i in range(6):
            if kind == "one dict":
                same["x"] = np.full((4, 2), i, np.float32)
                yield same
            else:
                buffer[:] = i
                yield {"x": buffer[:] if kind == "a view" else buffer}

    take, found = stacks(batches(), 4), []
    for wanted in (4, 2):
        stack, number = take(wanted)
        found += stack["x"][:number, 0, 0].tolist()
    assert found == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("source", [range(5), ["a", "b"], [1.0, 2.0], [[0.5, 1], [1, 2]]], ids=str)
def test_examples_one_by_one_are_no_batches(source):
    with pytest.raises(TypeError, match=r"must yield batches, pytrees of arrays \[batch, ...\], got"):
        stacks(iter(source), 4)(2)


def test_batches_hold_numbers():
    with pytest.raises(TypeError, match="yields must be an array of numbers, got dtype <U1"):
        stacks(iter([{"x": np.zeros(2), "word": np.array(["a", "b"])}]), 4)(1)


def test_batches_of_other_libraries_are_converted():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    stack, _ = stacks(iter([frame, frame + 1]), 4)(2)
    assert stack[1].tolist() == [[2, 4], [3, 5]]
