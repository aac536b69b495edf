"""The order of examples is a pure function of (key, step)."""

import jax
import numpy as np
import pytest

import jaxopt_lite as jo

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
