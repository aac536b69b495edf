"""A task says at once what is wrong with it, and its functions say it at their first trace."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jo
from tests.train.tasks import LINEAR, STATEFUL, TRAIN, VALID, init, loss, running_mean

ROWS = np.zeros((4, 2), np.float32)

WRONG = {
    "init is no function": ({"init": 3}, TypeError, "init must be a function, got 3 .* give lambda key: params"),
    "loss is no function": ({"loss": None}, TypeError, "loss must be a function, got None"),
    "evaluate is no function": ({"evaluate": "f"}, TypeError, "evaluate must be a function, got the string 'f'"),
    "leading dimensions differ": (
        {"train": {"x": ROWS, "y": np.zeros(3)}},
        ValueError,
        r"arrays of train must have equal first dimensions, but train\['x'\] has 4, train\['y'\] has 3",
    ),
    "lists are no arrays": ({"train": {"x": [1.0, 2.0]}}, TypeError, r"train\['x'\]\[0\] must be an array \[n, ...\]"),
    "a scalar has no rows": ({"valid": jnp.float32(3)}, TypeError, r"valid must be an array \[n, ...\]"),
    "no arrays at all": ({"test": {}}, ValueError, "test holds no arrays"),
    "no rows": ({"valid": ROWS[:0]}, ValueError, r"valid holds no examples, its shape is \(0, 2\)"),
    "words": ({"train": np.array(["a", "b"])}, TypeError, "train must be an array of numbers, got dtype <U1"),
    "objects": ({"train": np.array([None, 1])}, TypeError, "train must be an array of numbers, got dtype object"),
}


@pytest.mark.parametrize("given, error, message", WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_named(given, error, message):
    with pytest.raises(error, match=message):
        jo.Task(**{"init": init, "loss": loss, **given})


def test_a_message_does_not_print_parameters():
    with pytest.raises(TypeError, match="init must be a function") as error:
        jo.Task({f"w{i}": jnp.zeros(100) for i in range(20)}, loss)
    assert len(str(error.value)) < 200


def test_a_task_prints_its_functions_and_how_many_examples_there_are():
    assert repr(jo.Task(init, loss, TRAIN, VALID)) == "Task(init=init, loss=loss, train=14 examples, valid=5 examples)"
    made = "Task(init=<lambda>, loss=running_mean, train=14 examples, stateful=True)"
    assert repr(STATEFUL) == made
    assert repr(jo.Task(init, loss, iter([ROWS]))) == "Task(init=init, loss=loss, train=an iterator)"


def test_data_go_to_the_device():
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves((LINEAR.train, LINEAR.valid)))
    assert LINEAR.rows == 14 and not LINEAR.train_is_iterator
    assert jo.Task(init, loss).rows is None


class Loader:
    def __iter__(self):
        return itertools.repeat(TRAIN)


@pytest.mark.parametrize(
    "source", [iter([ROWS]), lambda: iter([ROWS]), Loader()], ids=["iterator", "function", "loader"]
)
def test_iterators_are_left_as_they_are(source):
    task = jo.Task(init, loss, source)
    assert task.train is source and task.train_is_iterator and task.rows is None


WRONG_LOSSES = {
    "a value for each example": (
        lambda p, b, k: b["y"] * p["b"],
        ValueError,
        r"scalar, got shape \(14,\); take the mean",
    ),
    "metrics that are no dict": (lambda p, b, k: (p["b"], [1.0]), TypeError, "must be a dict of scalars, got a list"),
    "a name that is no string": (lambda p, b, k: (p["b"], {3: p["b"]}), TypeError, "but the name 3 is no string"),
    "a metric that is no scalar": (
        lambda p, b, k: (p["b"], {"y": b["y"]}),
        ValueError,
        r"'y' has shape \(14,\); take a mean",
    ),
    "a triple": (lambda p, b, k: (p["b"], {}, {}), TypeError, "loss must return a scalar, or .*, got a tuple"),
    "a dict": (lambda p, b, k: {"loss": p["b"]}, TypeError, "loss must return a scalar, or .*, got a dict"),
    "nothing": (
        lambda p, b, k: None,
        TypeError,
        r"Task: loss must return a scalar, or \(scalar, metrics\), got None; is a return missing\?",
    ),
    "a metric that is nothing": (lambda p, b, k: (p["b"], {"y": None}), TypeError, "'y' is None"),
    "a name that is taken": (
        lambda p, b, k: (p["b"], {"grad_norm": p["b"]}),
        ValueError,
        "'grad_norm', which is taken",
    ),
}


@pytest.mark.parametrize("wrong, error, message", WRONG_LOSSES.values(), ids=WRONG_LOSSES)
def test_a_loss_returns_a_scalar_and_scalar_metrics(wrong, error, message):
    with pytest.raises(error, match=message):
        jo.fit(jo.Task(init, wrong, TRAIN), jo.sgd(0.1), steps=2, batch_size=None)


WRONG_STATEFUL = {
    "nothing": (lambda p, m, b, k: None, TypeError, r"model_state\)\), got None; is a return missing\?"),
    "a scalar alone": (lambda p, m, b, k: p["b"], TypeError, r"must return \(scalar, \(metrics, model_state\)\)"),
    "metrics alone": (lambda p, m, b, k: (p["b"], {}), TypeError, r"must return \(scalar, \(metrics, model_state\)\)"),
    "another structure": (
        lambda p, m, b, k: (p["b"], ({}, {"mu": m["mean"]})),
        ValueError,
        r"a model_state like .* lacks the leaf .*\['mean'\]",
    ),
    "another shape": (
        lambda p, m, b, k: (p["b"], ({}, {"mean": m["mean"][:2]})),
        ValueError,
        r"a model_state like .*\(2,\)",
    ),
}


@pytest.mark.parametrize("wrong, error, message", WRONG_STATEFUL.values(), ids=WRONG_STATEFUL)
def test_a_stateful_loss_returns_the_model_state(wrong, error, message):
    task = jo.Task(STATEFUL.init, wrong, TRAIN, stateful=True)
    with pytest.raises(error, match=message):
        jo.fit(task, jo.sgd(0.1), steps=2, batch_size=None)


def test_a_stateful_init_returns_a_pair():
    with pytest.raises(TypeError, match=r"init must return \(params, model_state\)"):
        jo.init_state(jo.Task(init, running_mean, TRAIN, stateful=True), jo.sgd(0.1))


@pytest.mark.parametrize("where", ["valid", "test"])
@pytest.mark.parametrize(
    "wrong, error, message",
    [
        (
            lambda p, d: p["b"],
            TypeError,
            r'a dict of scalars, got an array of dtype float32 and shape \(\); return {"loss": ...}',
        ),
        (lambda p, d: None, TypeError, "evaluate must return a dict of scalars, got None; return"),
        (lambda p, d: {"hits": d["y"]}, ValueError, r"'hits' has shape \(5,\)"),
    ],
)
def test_evaluate_returns_scalars_and_is_tried_before_any_step(where, wrong, error, message):
    batches = iter([TRAIN] * 100)
    task = jo.Task(init, loss, batches, evaluate=wrong, **{where: VALID})
    with pytest.raises(error, match=message):
        jo.fit(task, jo.sgd(0.1), steps=100, eval_every=100)
    assert len(list(batches)) == 99, "one stack was taken, of one batch"


def test_init_makes_what_can_be_optimized():
    with pytest.raises(TypeError, match=r"init: params\['n'\] is an array of dtype int32"):
        jo.init_state(jo.Task(lambda key: {"n": jnp.zeros(2, jnp.int32)}, loss), jo.sgd(0.1))


class Tensor:
    """As PyTorch's: it is no NumPy array, can be gone through row by row, and can be read as an array."""

    def __init__(self, array):
        self.array = np.asarray(array)
        self.shape, self.dtype = self.array.shape, f"torch.{self.array.dtype}"

    def __len__(self):
        return len(self.array)

    def __iter__(self):
        return iter(self.array)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.array, dtype)


class OnAnotherDevice(Tensor):
    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


class Exported(Tensor):
    """An array that tells its memory by DLPack alone."""

    __array__ = None

    def __init__(self, array):
        super().__init__(array)
        del self.array

    def __getattribute__(self, name):
        if name == "__array__":
            raise AttributeError(name)
        return super().__getattribute__(name)


def tables():
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame({"a": ROWS[:, 0], "b": ROWS[:, 1]}), pandas.Series(ROWS[:, 0])


@pytest.mark.parametrize("where", ["train", "valid", "test"])
def test_arrays_of_other_libraries_are_data_and_no_iterators(where):
    frame, series = tables()
    for given, shape in [(Tensor(ROWS), (4, 2)), (frame, (4, 2)), (series, (4,)), (memoryview(ROWS).obj, (4, 2))]:
        data = getattr(jo.Task(init, loss, **{where: given}), where)
        assert isinstance(data, jax.Array) and data.shape == shape, given
        inside = getattr(jo.Task(init, loss, **{where: {"x": given, "y": ROWS}}), where)
        assert inside["x"].shape == shape and isinstance(inside["x"], jax.Array)


def test_a_tensor_trains_like_its_array():
    plain, tensors = TRAIN, {name: Tensor(rows) for name, rows in TRAIN.items()}
    results = [jo.fit(jo.Task(init, loss, train), jo.sgd(0.1), 3, 4).params for train in (plain, tensors)]
    np.testing.assert_array_equal(results[0]["w"], results[1]["w"])


def test_what_is_neither_array_nor_batches_is_refused_with_what_to_do():
    frame, _ = tables()
    for given, message in [
        (
            OnAnotherDevice(ROWS),
            r"got a OnAnotherDevice that NumPy cannot read \(can't convert cuda:0.*give NumPy arrays",
        ),
        (frame.assign(name=["a", "b", "c", "d"]), "of numbers, got dtype object from a DataFrame; give its columns"),
        (Exported(ROWS), "that NumPy cannot read"),
        ("data.npz", "must be an array .*, got the string 'data.npz'"),
        (range(4), "must be an array"),
        ({1.0, 2.0}, "must be an array"),
        (np.array(["2020-01-01"], "M8[D]"), "of numbers, got dtype datetime64"),
        (np.array([1], "m8[D]"), "of numbers, got dtype timedelta64"),
        (np.zeros(3, [("x", "f4")]), "of numbers, got dtype"),
        *[(ROWS.astype(np.longdouble), "of numbers, got dtype float")] * (np.finfo(np.longdouble).bits > 64),
    ]:
        with pytest.raises(TypeError, match=message):
            jo.Task(init, loss, train=given)


def test_numbers_that_would_change_are_refused_with_what_to_do():
    nanoseconds = np.array([0, 1_700_000_000 * 10**9])
    for given, message in [
        (nanoseconds, r"holds 1700000000000000000, which int32 cannot; make the numbers smaller, .* jax_enable_x64"),
        (-nanoseconds, "holds -1700000000000000000, which int32 cannot"),
        (np.array([2**32], np.uint64), "holds 4294967296, which uint32 cannot"),
        (np.ma.masked_equal(ROWS, ROWS[0, 0]), "has masked elements, which arrays of JAX cannot have; fill them"),
    ]:
        for data in (given, {"x": given}):
            with pytest.raises(ValueError, match=f"^Task: train.* {message}"):
                jo.Task(init, loss, train=data)
        with pytest.raises(ValueError, match=f"^Task: what an iterator given as train yields {message}"):
            jo.fit(jo.Task(init, loss, train=iter([given])), jo.sgd(0.1))
    with pytest.raises(ValueError, match="holds 1099511627776, which int32 cannot"):
        jo.fit(jo.Task(init, loss, train=iter([{"x": ROWS, "time": 2**40}])), jo.sgd(0.1))
    with jax.enable_x64(True):
        assert jo.Task(init, loss, train=nanoseconds).train[1] == nanoseconds[1]
    assert jo.Task(init, loss, train=np.array([2**31 - 1, -(2**31)])).train.tolist() == [2**31 - 1, -(2**31)]


def test_bytes_in_the_other_order_are_the_same_numbers():
    task = jo.Task(init, loss, train=ROWS.astype(ROWS.dtype.newbyteorder()))
    np.testing.assert_array_equal(task.train, ROWS)


def test_a_tree_that_can_be_called_is_data():
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Rows:
        x: jax.Array

        def __call__(self):
            return iter([])

    task = jo.Task(init, loss, Rows(jnp.asarray(ROWS)))
    assert task.rows == 4 and not task.train_is_iterator
    assert jo.Task(init, loss, jax.tree_util.Partial(lambda x: iter([x]), ROWS)).train_is_iterator


class Shared(Tensor):
    def __array__(self, dtype=None, copy=None):
        return self.array


def test_data_changed_afterwards_are_not_seen():
    for shape in [(4, 2), (50_000, 8)] * 10:  # JAX reads large arrays later, or never; so not each time is it too late
        rows = np.zeros(shape, np.float32)
        for given in (rows, Shared(rows), {"x": rows}):
            rows[:] = 0
            task = jo.Task(init, loss, given, given, given)
            rows[:] = 7
            assert not any(np.any(leaf) for leaf in jax.tree.leaves((task.train, task.valid, task.test)))


def test_arrays_on_the_device_are_not_copied():
    rows = jnp.asarray(ROWS)
    assert jo.Task(init, loss, rows).train.unsafe_buffer_pointer() == rows.unsafe_buffer_pointer()
