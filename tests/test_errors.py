"""The table of misuse: what a user does wrong, what is raised, and the words that must be in it.

Each row raises at construction, at `init` or at the first `update`, never later and never in silence. The words name
the argument or the path of the leaf, and what to do about it.
"""

import operator
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jo

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
GRADS = jax.tree.map(jnp.ones_like, PARAMS)
COLUMN = {"w": jnp.ones((5, 1))}
ADAM = jo.adam(1e-3)
WARMUP = jo.warmup_cosine_decay_schedule(0.0, 1.0, 10, 100)
CYCLE = {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 2, "decay_steps": 10}


def update(optimizer, grads=GRADS, params=PARAMS, state=None, **extra):
    state = optimizer.init(PARAMS if params is None else params) if state is None else state
    return optimizer.update(grads, state, params, **extra)


def made(result):
    """A value of a user's rule whose function returns just this."""

    @jo.transformation
    def rule():
        return result

    return rule()


def rule(own_update):
    return made((lambda params: (), own_update))


@jo.schedule
def number(value: jo.Scalar):
    return value  # not a function of the step


# fmt: off
CONSTRUCTION = [
    # learning rates
    (
        "string", lambda: jo.sgd("1e-3"), TypeError,
        "learning_rate must be a number or a schedule, got the string '1e-3'",
    ),
    ("none", lambda: jo.sgd(None), TypeError, "learning_rate must be a number or a schedule, got None"),
    ("negative", lambda: jo.sgd(-0.1), ValueError, "learning_rate must be at least 0 and finite, got -0.1"),
    ("nan", lambda: jo.sgd(jnp.nan), ValueError, "learning_rate must be at least 0 and finite, got nan"),
    ("inf", lambda: jo.sgd(jnp.inf), ValueError, "learning_rate must be at least 0 and finite, got inf"),
    ("bool", lambda: jo.sgd(True), TypeError, "learning_rate must be a number or a schedule, got True of type bool"),
    ("complex", lambda: jo.sgd(1j), TypeError, "learning_rate must be a number or a schedule, got 1j"),
    ("list", lambda: jo.sgd([0.1, 0.2]), TypeError, r"learning_rate must be a number or a schedule, got \[0.1, 0.2\]"),
    ("type", lambda: jo.sgd(float), TypeError, "learning_rate must be a number or a schedule, got the type float"),
    ("negative-array", lambda: jo.sgd(np.array([0.1, -1.0])), ValueError, "learning_rate must be at least 0"),
    ("complex-array", lambda: jo.sgd(jnp.array(1j)), TypeError, "learning_rate must be a number .*dtype complex64"),
    ("bool-array", lambda: jo.sgd(jnp.array(True)), TypeError, "learning_rate must be a number .*dtype bool"),
    ("too-large-for-float32", lambda: jo.sgd(1e39), ValueError, "learning_rate must be .*, which is inf in float32"),
    ("too-large-for-a-float", lambda: jo.sgd(10**400), ValueError, "learning_rate must be .* finite, got inf"),
    ("optimizer-for-a-rate", lambda: jo.sgd(ADAM), TypeError, r"learning_rate must be .* schedule, got adam\(0.001\)"),
    ("factory-for-a-rate", lambda: jo.sgd(jo.adam), TypeError, "learning_rate .*adam, which makes a transformation"),
    (
        "schedule-not-called", lambda: jo.sgd(jo.linear_schedule), TypeError,
        r"learning_rate .*call it: linear_schedule\(...\)",
    ),
    (
        "optax-schedule-not-called", lambda: jo.sgd(optax.linear_schedule), TypeError,
        r"learning_rate .*call it: linear_schedule\(...\)",
    ),
    (
        "schedule-where-a-number-is-needed", lambda: jo.rprop(WARMUP), TypeError,
        "rprop: learning_rate must be a number,",
    ),
    (
        "number-where-a-schedule-is-needed", lambda: jo.scale_by_schedule(0.1), TypeError,
        "step_size_fn must be a schedule",
    ),
    # decays and the other numbers
    ("decay-one", lambda: jo.adam(1e-3, b2=1), ValueError, r"adam: b2 must be in \[0, 1\), got 1.0"),
    ("decay-above-one", lambda: jo.sgd(0.1, momentum=1.5), ValueError, r"sgd: momentum must be in \[0, 1\), got 1.5"),
    ("decay-negative", lambda: jo.lion(0.1, b1=-0.1), ValueError, r"lion: b1 must be in \[0, 1\), got -0.1"),
    ("decay-one-in-float32", lambda: jo.adam(1e-3, b2=1 - 1e-9), ValueError, "b2 must be .*, which is 1.0 in float32"),
    ("decay-string", lambda: jo.adam(1e-3, b2="0.9"), TypeError, "adam: b2 must be a number, got the string '0.9'"),
    ("decays-in-a-tuple", lambda: jo.adam(1e-3, (0.9, 0.999)), TypeError, r"b1 must be a number, got \(0.9, 0.999\)"),
    ("eps-negative", lambda: jo.adam(1e-3, eps=-1e-8), ValueError, "adam: eps must be at least 0, got -1e-08"),
    ("clip-negative", lambda: jo.clip(-1.0), ValueError, "clip: max_delta must be at least 0, got -1.0"),
    ("clip-none", lambda: jo.clip_by_global_norm(None), TypeError, "max_norm must be a number, got None"),
    ("share-above-one", lambda: jo.lookahead(ADAM, 5, 1.5), ValueError, r"slow_step_size must be in \[0, 1\], got 1.5"),
    ("period-zero", lambda: jo.accumulate(ADAM, 0), ValueError, "accumulate: steps must be at least 1"),
    ("period-below-one", lambda: jo.lookahead(ADAM, 0.5, 0.5), ValueError, "sync_period must be at least 1"),
    ("threshold", lambda: jo.radam(0.1, threshold=3.0), ValueError, "threshold must be at least 4, got 3.0"),
    ("bounds-swapped", lambda: jo.rprop(0.1, 0.5, 1.2, 1.0, 0.1), ValueError, "min_step_size must be at most max_step"),
    ("factors-swapped", lambda: jo.rprop(0.1, 1.2, 0.5), ValueError, "eta_minus <= 1 <= eta_plus must hold"),
    # static arguments
    ("flag-string", lambda: jo.sgd(0.1, 0.9, "yes"), TypeError, "nesterov must be True or False, got the string 'yes'"),
    ("flag-number", lambda: jo.sgd(0.1, 0.9, 0.5), TypeError, "nesterov must be True or False, got 0.5"),
    ("choice", lambda: jo.amsgrad(0.1, form="adam"), ValueError, "form must be one of 'optax', 'torch', got 'adam'"),
    ("dtype-integer", lambda: jo.adam(0.1, mu_dtype="int32"), TypeError, "mu_dtype must be a floating dtype such as"),
    (
        "dtype-misspelt", lambda: jo.adam(0.1, mu_dtype="float33"), TypeError,
        "mu_dtype must be a floating dtype such as",
    ),
    # PyTorch's order of arguments puts weight decay here
    ("dtype-number", lambda: jo.adamw(0.1, 0.9, 0.999, 1e-8, 0.0, 1e-2), TypeError, "mu_dtype must be .*got 0.01"),
    ("key-string", lambda: jo.add_noise(0.1, 0.5, "a"), TypeError, "key must be a seed .*see jax.random.key"),
    ("key-floats", lambda: jo.add_noise(0.1, 0.5, jnp.ones(2)), TypeError, "key must be a seed .*dtype float32"),
    (
        "set", lambda: jo.masked(ADAM, {"w": [True, {False}]}), TypeError,
        "mask is static and must be hashable, got a set",
    ),
    # chains
    ("chain-factory", lambda: jo.chain(jo.adam), TypeError, r"the function adam; call it: adam\(...\)"),
    ("chain-optax-factory", lambda: jo.chain(optax.adam), TypeError, r"the function adam; .*call it: adam\(...\)"),
    ("chain-schedule-factory", lambda: jo.chain(jo.linear_schedule), TypeError, "which makes a schedule"),
    (
        "chain-list", lambda: jo.chain([ADAM]), TypeError,
        "transforms must be .*got a list; give the elements one by one",
    ),
    (
        "chain-generator", lambda: jo.chain(t for t in [ADAM]), TypeError,
        "got a generator; give the elements one by one",
    ),
    ("chain-nothing", lambda: jo.chain(), TypeError, r"needs at least one transformation, got none; identity\(\)"),
    ("chain-none", lambda: jo.chain(None), TypeError, "transforms must be a transformation, got None"),
    ("chain-schedule", lambda: jo.chain(WARMUP), TypeError, "transforms must be a transformation, got warmup_cosine"),
    ("inner-factory", lambda: jo.accumulate(jo.adam, 2), TypeError, r"inner must be .*call it: adam\(...\)"),
    ("inner-and-steps-swapped", lambda: jo.accumulate(2, ADAM), TypeError, "inner must be a transformation, got 2"),
    # calls
    ("unknown-keyword", lambda: jo.sgd(0.1, beta=0.9), TypeError, r"'beta'; its signature is sgd\(learning_rate, mom"),
    (
        "another-name", lambda: jo.adam(lr=1e-3), TypeError,
        "got an unexpected keyword argument 'lr'; its signature is adam\\(learning_rate",
    ),
    (
        "missing-argument", lambda: jo.adam(), TypeError,
        r"'learning_rate'; its signature is adam\(learning_rate, b1=0.9",
    ),
    ("too-many-arguments", lambda: jo.sgd(1, 0.9, True, None, 5), TypeError, "too many .*; its signature is sgd"),
    ("lifted-unknown-keyword", lambda: jo.lift(optax.sgd)(0.1, mom=0.9), TypeError, "'mom'; its signature is sgd"),
    ("lifted-string", lambda: jo.lift(optax.sgd)("0.1"), TypeError, "learning_rate must be a number, got the string"),
    ("lift-a-number", lambda: jo.lift(3), TypeError, "lift takes a factory such as optax.contrib.muon, got 3"),
    (
        "lift-a-pair", lambda: jo.lift(optax.adam(0.1)), TypeError,
        "lift takes a factory such as optax.contrib.muon, got",
    ),
    (
        "lift-static-unknown", lambda: jo.lift(optax.adam, static=["beta"]), TypeError,
        "adam has no argument 'beta'; it has learning_rate, b1",
    ),
    # values
    (
        "subclass", lambda: type("Mine", (jo.GradientTransformation,), {}), TypeError,
        "cannot be subclassed: decorate a factory with @transformation",
    ),
    ("direct", lambda: jo.GradientTransformation(None, None), TypeError, "cannot be made directly: decorate a factory"),
    ("direct-schedule", lambda: jo.Schedule(lambda t: t), TypeError, "cannot be made directly: decorate a factory"),
    (
        "assignment", lambda: setattr(jo.adam(0.1), "learning_rate", 0.2), AttributeError,
        r"adam is a value and does not change; .*replace\(optimizer, {'learning_rate': ...}\)",
    ),
    (
        "assignment-inside", lambda: operator.setitem(ADAM.arguments, "learning_rate", 0.2), TypeError,
        "does not support item assignment",
    ),
    ("decorate-a-number", lambda: jo.transformation(3), TypeError, "takes a function, got 3"),
    ("stateless-number", lambda: jo.stateless(3), TypeError, r"f must be a function f\(updates, params\), got 3"),
    # schedules
    ("zero-steps", lambda: jo.linear_schedule(1.0, 0.0, 0), ValueError, "transition_steps must be above 0"),
    ("negative-steps", lambda: jo.cosine_decay_schedule(1.0, -5), ValueError, "decay_steps must be above 0"),
    ("nan-steps", lambda: jo.exponential_decay(1.0, jnp.nan, 0.5), ValueError, "transition_steps must be above 0"),
    ("zero-rate", lambda: jo.exponential_decay(1.0, 10, 0.0), ValueError, "decay_rate must be above 0"),
    ("infinite-value", lambda: jo.constant_schedule(jnp.inf), ValueError, "value must be finite, got inf"),
    (
        "long-warmup", lambda: jo.warmup_cosine_decay_schedule(0.0, 1.0, 100, 50), ValueError,
        "warmup_steps must be less than decay_steps, which counts the warm-up in",
    ),
    (
        "no-room-to-cool-down", lambda: jo.warmup_stable_decay_schedule(1.0, 100, 60, 60), ValueError,
        r"warmup_steps \+ decay_steps = 120 must be at most total_steps = 100",
    ),
    (
        "cooldown", lambda: jo.warmup_stable_decay_schedule(1.0, 100, 10, 10, cooldown="cosine"), ValueError,
        "cooldown must be one of 'linear', '1-sqrt', 'power', got 'cosine'",
    ),
    (
        "interpolation", lambda: jo.piecewise_interpolate_schedule("cubic", 1.0, {10: 0.5}), ValueError,
        "interpolate_type must be one of 'linear', 'cosine', got 'cubic'",
    ),
    (
        "one-cycle", lambda: jo.linear_onecycle_schedule(10, 1.0, 0.9, 0.5), ValueError,
        "pct_final must be at least pct_st",
    ),
    (
        "scale-negative", lambda: jo.piecewise_constant_schedule(1.0, {10: -1.0}), ValueError,
        "_scales must be at least 0",
    ),
    (
        "scale-string", lambda: jo.piecewise_constant_schedule(1.0, {10: "x"}), TypeError,
        "_scales must be a list of rows",
    ),
    ("scale-missing", lambda: jo.piecewise_constant_schedule(1.0, [10, 20]), ValueError, "must be a list of rows"),
    ("boundaries", lambda: jo.join_schedules([WARMUP], [10]), ValueError, "1 schedules need 0 boundaries, got 1"),
    (
        "boundaries-unordered", lambda: jo.join_schedules([WARMUP] * 3, [9, 5]), ValueError,
        "boundaries must be .*in order",
    ),
    (
        "boundaries-number", lambda: jo.join_schedules([WARMUP] * 2, 5), TypeError,
        "boundaries must be a list of numbers",
    ),
    (
        "schedules-number", lambda: jo.join_schedules([0.1, 0.2], [5]), TypeError,
        "schedules must be a schedule, got 0.1",
    ),
    ("schedules-single", lambda: jo.join_schedules(WARMUP, []), TypeError, "schedules must be a list of"),
    ("cycles-none", lambda: jo.sgdr_schedule([]), ValueError, "cosine_kwargs must hold at least one cycle, got none"),
    (
        "cycle-unknown", lambda: jo.sgdr_schedule([{**CYCLE, "t": 1}]), TypeError,
        r"rows of numbers \(init_value, .*unknown t",
    ),
    (
        "cycle-missing", lambda: jo.sgdr_schedule([{"peak_value": 1.0}]), TypeError,
        "missing init_value, warmup_steps, decay",
    ),
    (
        "cycle-room", lambda: jo.sgdr_schedule([{**CYCLE, "warmup_steps": 10}]), ValueError,
        "warmup_steps must be less than",
    ),
    (
        "cycle-negative", lambda: jo.sgdr_schedule([{**CYCLE, "warmup_steps": -1}]), ValueError,
        "warmup_steps must be at le",
    ),
    (
        "cycle-columns", lambda: jo.sgdr_schedule([[0.0, 1.0, 2.0, 10.0]]), ValueError,
        r"rows of numbers \(init_value, peak",
    ),
    # routing
    ("labels-list", lambda: jo.partition([ADAM], {"w": 0}), TypeError, "transforms must be a dict of label: transform"),
    (
        "labels-nothing", lambda: jo.partition({}, {"w": "a"}), TypeError,
        "transforms must be a dict of label: transform",
    ),
    ("labels-factory", lambda: jo.partition({"a": jo.sgd}, "a"), TypeError, r"call it: sgd\(...\)"),
    ("mask-first", lambda: jo.masked({"w": True}, ADAM), TypeError, "inner must be a transformation, got {'w': True}"),
    ("regex", lambda: jo.by_path({"re:(": "a"}), ValueError, "'re:\\(' is not a regular expression: missing \\)"),
    ("patterns-list", lambda: jo.by_path(["*/b"]), TypeError, "patterns must be a dict of pattern: label"),
    ("patterns-int", lambda: jo.by_path({1: "a"}), TypeError, "patterns must be globs or 're:...', got 1"),
    # hyperparameters by name
    ("replace-unknown", lambda: jo.replace(ADAM, {"rate": 1}), ValueError, "no hyperparameter 'rate'; .*learning_rate"),
    (
        "replace-nothing-near", lambda: jo.replace(ADAM, {"zz": 1}), ValueError,
        "'zz'; there are adam.learning_rate, adam.b1",
    ),
    (
        "replace-ambiguous", lambda: jo.replace(jo.chain(ADAM, jo.sgd(0.1)), {"learning_rate": 1.0}), ValueError,
        "'learning_rate' matches adam.learning_rate, sgd.learning_rate; give a longer part",
    ),
    ("replace-range", lambda: jo.replace(ADAM, {"b1": 1.5}), ValueError, r"adam: b1 must be in \[0, 1\), got 1.5"),
    (
        "replace-together", lambda: jo.replace(jo.adam(WARMUP), {"warmup_steps": 200}), ValueError,
        "must be less than decay",
    ),
    ("replace-optax", lambda: jo.replace(optax.adam(0.1), {"b1": 0.5}), TypeError, "jaxopt_lite.lift makes Optax's"),
    ("replace-list", lambda: jo.replace(ADAM, ["b1"]), TypeError, "changes must be a dict of name: value"),
    ("read-optax", lambda: jo.hyperparameters(optax.adam(0.1)), TypeError, "jaxopt_lite.lift makes Optax's"),
    ("read-params", lambda: jo.hyperparameters(ADAM, PARAMS), ValueError, "give the state that its init or update ret"),
    ("arrays-number", lambda: jo.arrays(3), TypeError, "arrays needs a transformation or a schedule .*got 3"),
    (
        "average-none", lambda: jo.averaged_params(ADAM.init(PARAMS)), ValueError,
        r"holds 0; chain ema_params\(...\) after",
    ),
    ("table-of-a-rule", lambda: jo.routing_table(ADAM, PARAMS), ValueError, "adam routes nothing; give a partition"),
    # text
    ("parse-unknown", lambda: jo.parse("adamm(1e-3)"), ValueError, "no 'adamm'; did you mean adam or"),
    ("parse-import", lambda: jo.parse("__import__('os').system('ls')"), ValueError, "through names="),
    ("parse-attribute", lambda: jo.parse("adam(1e-3).init"), ValueError, r"no 'adam\(0.001\).init'; .* through names="),
    ("parse-globals", lambda: jo.parse("sgd(adam.__globals__)"), ValueError, "no 'adam.__globals__'"),
    (
        "parse-lambda", lambda: jo.parse("sgd(lambda t: 1)"), ValueError,
        "'lambda t: 1' in .*it is neither a call, a name",
    ),
    ("parse-f-string", lambda: jo.parse("adam(f'{1}')"), ValueError, "it is neither a call, a name"),
    ("parse-arithmetic", lambda: jo.parse("adam(2 ** 9)"), ValueError, r"'2 \*\* 9' in .*it is neither a call, a name"),
    ("parse-optax", lambda: jo.parse("optax.adam(1e-3)"), ValueError, r"write lift\(optax.adam\)\(...\)"),
    ("parse-optax-unknown", lambda: jo.parse("lift(optax.adamm)(1e-3)"), ValueError, "'optax.adamm' in .*no such name"),
    ("parse-optax-inside", lambda: jo.parse("lift(optax.adam.__call__)(1e-3)"), ValueError, "no such name"),
    ("parse-module", lambda: jo.parse("lift(os.system)('ls')"), ValueError, "no 'os.system'; .* through names="),
    ("parse-builtin", lambda: jo.parse("eval('1')"), ValueError, "no 'eval'; .* through names="),
    ("parse-factory", lambda: jo.parse("adam"), ValueError, r"makes nothing until it is called; write adam\(...\)"),
    ("parse-number", lambda: jo.parse("1e-3"), ValueError, r"it is not a call such as adamw\(1e-3\)"),
    ("parse-open", lambda: jo.parse("adam(1e-3"), ValueError, "cannot read 'adam.1e-3': .* at column"),
    ("parse-deep", lambda: jo.parse("-" * 5000 + "1"), ValueError, "nested too deeply"),
    (
        "parse-twice", lambda: jo.parse("adam(learning_rate=1, learning_rate=2)"), ValueError,
        "learning_rate is given twice",
    ),
    ("parse-no-text", lambda: jo.parse(3), TypeError, r"parse reads text such as 'adamw\(1e-3\)', got 3"),
    (
        "parse-range", lambda: jo.parse("adam(-1.0)"), ValueError,
        "learning_rate must be at least 0 and finite, got -1.0",
    ),
    (
        "parse-mask", lambda: jo.parse("adamw(1e-3, mask=mine)"), ValueError,
        "no 'mine'; .*through names=|no 'mine'; did you",
    ),
    ("parse-array", lambda: jo.parse("sgd(array([1.0], 'object'))"), ValueError, "an array is array"),
]

TREES = [
    # params
    (
        "integer", lambda: ADAM.init({"w": jnp.ones(2, int)}), TypeError,
        r"params\['w'\] is an array of dtype int32; only",
    ),
    (
        "booleans", lambda: ADAM.init({"w": jnp.ones(2, bool)}), TypeError,
        r"params\['w'\] is an array of dtype bool; only flo",
    ),
    (
        "python-int", lambda: ADAM.init([3]), TypeError,
        r"params\[0\] is 3 of type int; only floating .*keep other leaves out",
    ),
    (
        "function", lambda: ADAM.init({"f": jnp.tanh}), TypeError,
        r"params\['f'\] is the function 'tanh'; .*keep other leave",
    ),
    (
        "text", lambda: ADAM.init({"f": "relu"}), TypeError,
        r"params\['f'\] is the string 'relu'; .*keep other leaves out",
    ),
    (
        "key", lambda: ADAM.init({"k": jax.random.key(0)}), TypeError,
        r"params\['k'\] is an array of dtype key<fry>; only",
    ),
    ("deep", lambda: ADAM.init({"a": [{"b": jnp.ones(2, int)}]}), TypeError, r"params\['a'\]\[0\]\['b'\] is"),
    # grads against params
    (
        "leaf-missing", lambda: update(ADAM, {"b": GRADS["b"]}), ValueError,
        r"grads lacks the leaf params\['w'\]; .*mirror",
    ),
    ("leaf-extra", lambda: update(ADAM, {**GRADS, "c": 1.0}), ValueError, r"grads has the leaf grads\['c'\], .*mirror"),
    (
        "leaf-renamed", lambda: update(ADAM, {"w": GRADS["w"], "bias": GRADS["b"]}), ValueError,
        r"grads lacks the leaf params\['b'\] \(and has grads\['bias'\]\); grads must mirror",
    ),
    ("grads-none", lambda: update(ADAM, None), ValueError, r"grads lacks the leaf params\['b'\]; grads must mirror"),
    ("grads-in-a-list", lambda: update(ADAM, list(GRADS.values())), ValueError, r"lacks .*params\['b'\] .*grads\[0\]"),
    (
        "value-and-grad", lambda: update(ADAM, (1.0, GRADS)), ValueError,
        r"not unpacked: grads\[1\] has the structure of",
    ),
    (
        "broadcast", lambda: update(jo.sgd(0.1), {"w": jnp.ones(5)}, COLUMN), ValueError,
        r"grads\['w'\] has shape \(5,\), params\['w'\] has shape \(5, 1\); .*nothing is broadcast",
    ),
    (
        "scalar-grads", lambda: update(jo.sgd(0.1), {"w": 1.0}, COLUMN), ValueError,
        r"grads\['w'\] has shape \(\), params",
    ),
    (
        "grads-integer", lambda: update(ADAM, {**GRADS, "b": jnp.ones(3, int)}), TypeError,
        r"grads\['b'\] .*int32; .*cast",
    ),
    ("grads-bool", lambda: update(ADAM, {**GRADS, "b": jnp.ones(3, bool)}), TypeError, r"grads\['b'\] .*bool; .*cast"),
    (
        "grads-float0", lambda: update(ADAM, {**GRADS, "b": np.zeros(3, jax.dtypes.float0)}), TypeError,
        r"grads\['b'\] is a gradient with respect to an integer leaf",
    ),
    (
        "complex-grads", lambda: update(ADAM, {**GRADS, "b": 1j * GRADS["b"]}), TypeError,
        r"take jnp.real of grads\['b'\]",
    ),
    (
        "complex-params", lambda: update(ADAM, params={**PARAMS, "b": 1j * PARAMS["b"]}), TypeError,
        r"take jnp.real of params\['b'\]",
    ),
    # arguments in the wrong place
    (
        "grads-and-state-swapped", lambda: ADAM.update(ADAM.init(PARAMS), GRADS, PARAMS), TypeError,
        r"grads\[0\].count .*grads and state look swapped: call update\(grads, state, params\)",
    ),
    (
        "state-and-params-swapped", lambda: ADAM.update(GRADS, PARAMS, ADAM.init(PARAMS)), ValueError,
        r"params\[0\].count .*state and params look swapped: call update\(grads, state, params\)",
    ),
    (
        "params-missing", lambda: update(jo.adamw(0.1), params=None), ValueError,
        r"needs params, .*call update\(grads, st",
    ),
    (
        "params-missing-lars", lambda: update(jo.lars(0.1), params=None), ValueError,
        r"needs params, .*call update\(grads",
    ),
    (
        "params-missing-ema", lambda: update(jo.ema_params(0.9), params=None), ValueError,
        "ema_params needs params, got None",
    ),
    (
        "params-missing-l1", lambda: update(jo.proximal_l1(0.1, 0.1), params=None), ValueError,
        "proximal_l1 needs params",
    ),
    (
        "params-missing-agc", lambda: update(jo.adaptive_grad_clip(0.1), params=None), ValueError,
        "clip needs params, got",
    ),
    (
        "params-missing-lookahead", lambda: update(jo.lookahead(jo.sgd(0.1), 5, 0.5), params=None), ValueError,
        "lookahead needs params, got None; call update",
    ),
    (
        "value-missing", lambda: update(rule(lambda updates, state, params=None, *, value: (updates, state))),
        ValueError, r"rule needs value, got None; call update\(grads, state, params, value=...\)",
    ),
    (
        "lifted-value-missing", lambda: update(jo.chain(jo.lift(optax.scale_by_polyak)())), ValueError,
        r"needs value, got None; call update\(grads, state, params, value=...\)",
    ),
    # states
    (
        "state-of-another", lambda: update(jo.sgd(0.1), state=ADAM.init(PARAMS)), ValueError,
        r"state\[0\].count, .*make it",
    ),
    (
        "state-of-none", lambda: update(ADAM, state=jo.sgd(0.1).init(PARAMS)), ValueError,
        r"init\(params\)\[0\].count; make",
    ),
    (
        "state-of-optax", lambda: update(ADAM, state=optax.rmsprop(0.1).init(PARAMS)), ValueError,
        r"count.*; make it with st",
    ),
    (
        "state-empty", lambda: update(ADAM, state=()), ValueError,
        "the state is not one of this optimizer .*make it with",
    ),
    (
        "state-of-no-params", lambda: update(ADAM, state=ADAM.init(None)), ValueError,
        r"init\(params\)\[0\].mu\['b'\]; make",
    ),
    (
        "state-not-unpacked", lambda: update(ADAM, state=update(ADAM)), ValueError,
        "is not one of this optimizer .*make it",
    ),
    (
        "state-of-other-shapes", lambda: update(ADAM, state=ADAM.init({**PARAMS, "w": jnp.ones((3, 2))})), ValueError,
        r"state\[0\].mu\['w'\] has shape \(3, 2\), .* has \(2, 3\); .*or the shapes of params change",
    ),
    (
        "state-in-floats",
        lambda: update(ADAM, state=jax.tree.map(lambda x: x.astype(jnp.bfloat16), ADAM.init(PARAMS))), ValueError,
        r"state\[0\].count is bfloat16, init\(params\)\[0\].count is int32; make it with",
    ),
    (
        "state-of-real-params", lambda: update(ADAM, jax.tree.map(lambda g: 1j * g, GRADS), None, ADAM.init(PARAMS)),
        ValueError, r"state\[0\].mu\['b'\] is float32, init\(params\)\[0\].mu\['b'\] is complex64",
    ),
    # batches of optimizers
    (
        "rates", lambda: update(jo.sgd(jnp.array([0.1, 0.2]))), ValueError,
        r"learning_rate has shape \(2,\) .*under jax.vmap",
    ),
    (
        "rates-that-fit", lambda: update(jo.sgd(jnp.full(3, 0.1))), ValueError,
        r"learning_rate has shape \(3,\) .*jax.vmap",
    ),
    (
        "rates-at-init", lambda: jo.adam(jnp.ones(2)).init(PARAMS), ValueError,
        r"learning_rate has shape \(2,\) .*jax.vmap",
    ),
    (
        "decays", lambda: update(jo.adam(0.1, b1=jnp.zeros(3))), ValueError,
        r"adam: b1 has shape \(3,\) .*under jax.vmap",
    ),
    (
        "steps", lambda: jo.linear_schedule(1.0, 0.0, jnp.ones(2))(3), ValueError,
        r"transition_steps has shape .*jax.vmap",
    ),
    (
        "lifted-rates", lambda: update(jo.lift(optax.sgd)(jnp.ones(2))), ValueError,
        r"learning_rate has shape .*jax.vmap",
    ),
    # functions that are not schedules
    (
        "schedule-vector", lambda: update(jo.sgd(lambda t: jnp.ones(3))), TypeError,
        r"one number a step, got .*shape \(3,\)",
    ),
    ("schedule-none", lambda: update(jo.sgd(lambda t: None)), TypeError, "must return one number a step, got None"),
    ("schedule-string", lambda: update(jo.sgd(lambda t: "0.1")), TypeError, "one number a step, got the string '0.1'"),
    ("schedule-complex", lambda: update(jo.sgd(lambda t: 1j * t)), TypeError, "one number a step, got .*complex64"),
    ("schedule-number", lambda: update(jo.sgd(number(1.0))), TypeError, "number must return a function of the step"),
    # masks and labels
    (
        "mask-string", lambda: jo.masked(ADAM, "w").init(PARAMS), TypeError,
        r"mask\['b'\] must be True or False, .*by_path",
    ),
    ("mask-ints", lambda: jo.adamw(0.1, mask={"w": 1, "b": 0}).init(PARAMS), TypeError, r"mask\['b'\] must be True or"),
    (
        "mask-array", lambda: jo.freeze({"w": np.ones((2, 3), bool), "b": True}).init(PARAMS), TypeError,
        r"mask\['w'\] must",
    ),
    (
        "mask-short", lambda: jo.masked(ADAM, {"w": True}).init(PARAMS), ValueError,
        r"nothing for params\['b'\]; give one for",
    ),
    (
        "mask-none", lambda: jo.masked(ADAM, lambda p: None).init(PARAMS), ValueError,
        r"nothing for params\['b'\]; give one",
    ),
    (
        "mask-names", lambda: jo.masked(ADAM, ["w"]).init(PARAMS), ValueError,
        r"no leaf or branch for mask\[0\]; give one for",
    ),
    (
        "mask-labels", lambda: jo.masked(ADAM, jo.by_path({"w": "a"}, "b")).init(PARAMS), TypeError,
        r"mask\['b'\] must be True",
    ),
    (
        "label-unknown", lambda: jo.partition({"a": ADAM}, {"w": "a", "b": "c"}).init(PARAMS), ValueError,
        r"params\['b'\] has the label 'c', which has no transformation; there are 'a'",
    ),
    (
        "label-int", lambda: jo.partition({0: ADAM, "a": ADAM}, {"w": 1, "b": 0}).init(PARAMS), ValueError,
        r"params\['w'\] has the label 1, which has no transformation; there are 0, 'a'",
    ),
    (
        "label-list", lambda: jo.partition({"a": ADAM}, {"w": ["a"], "b": "a"}).init(PARAMS), ValueError,
        r"params\['w'\] has the label \['a'\], which",
    ),
    (
        "mask-list", lambda: jo.masked(ADAM, {"w": [True], "b": True}).init(PARAMS), TypeError,
        r"mask\['w'\] must be True or False, got \[True\]",
    ),
    (
        "label-array", lambda: jo.partition({"a": ADAM}, {"w": 1.0, "b": "a"}).init(PARAMS), ValueError,
        r"params\['w'\] has",
    ),
    (
        "label-missing", lambda: jo.partition({"a": ADAM}, {"w": "a"}).init(PARAMS), ValueError,
        r"nothing for params\['b'\]",
    ),
    (
        "glob-without-leaf", lambda: jo.by_path({"*/kernel": "a"}, "b")(PARAMS), ValueError,
        "matches no leaf; paths are b, w",
    ),
    (
        "leaf-without-glob", lambda: jo.by_path({"w": "a"})(PARAMS), ValueError,
        "matches the leaf 'b'; add one, or give def",
    ),
    (
        "one-path-for-two", lambda: jo.by_path({"a/b": 1}, 0)({"a/b": 1.0, "a": {"b": 2.0}}), ValueError,
        r"leaves params\['a'\]\['b'\] and params\['a/b'\] have one path, 'a/b', .*without '/', or a tree of labels",
    ),
    # apply_updates
    (
        "apply-short", lambda: jo.apply_updates(PARAMS, {"w": GRADS["w"]}), ValueError,
        r"updates lacks the leaf params\['b'",
    ),
    (
        "apply-none", lambda: jo.apply_updates(PARAMS, None), ValueError,
        r"updates lacks the leaf params\['b'\]; updates must",
    ),
    (
        "apply-broadcast", lambda: jo.apply_updates(COLUMN, {"w": jnp.ones(5)}), ValueError,
        r"updates\['w'\] has shape \(5,\)",
    ),
    (
        "apply-pair", lambda: jo.apply_updates(PARAMS, update(ADAM)), TypeError,
        r"not unpacked: updates\[0\] has the struc",
    ),
    (
        "apply-to-int", lambda: jo.apply_updates({"n": jnp.ones(2, int)}, {"n": jnp.ones(2)}), TypeError,
        r"params\['n'\] is an",
    ),
    ("apply-complex", lambda: jo.apply_updates({"w": 1.0}, {"w": 1j}), TypeError, r"take jnp.real of updates\['w'\]"),
    # a rule whose author returns nonsense
    ("rule-none", lambda: update(made(None)), TypeError, r"rule must return a pair \(init, update\), .*returned None"),
    (
        "rule-triple", lambda: update(made((None, None, None))), TypeError,
        r"rule must return a pair \(init, update\), or a ch",
    ),
    ("rule-of-two-rules", lambda: update(made((ADAM, ADAM))), TypeError, r"or a chain\(...\), it returned \(adam"),
    ("rule-factory", lambda: update(made(jo.adam)), TypeError, r"rule must return a pair \(init, update\), or a chain"),
    (
        "update-of-two", lambda: update(rule(lambda u, s: (u, s))), TypeError,
        r"must take \(updates, state, params=None, \*",
    ),
    (
        "update-alone-in-a-chain", lambda: update(jo.chain(rule(lambda u, s, p=None: u), jo.sgd(0.1))), TypeError,
        r"rule: update must return a pair \(updates, state\)",
    ),
    (
        "updates-alone", lambda: update(rule(lambda u, s, p=None: u)), TypeError,
        r"must return a pair \(updates, state\)",
    ),
    (
        "updates-triple", lambda: update(rule(lambda u, s, p=None: (u, s, p))), TypeError,
        "update must return a pair .*3 things",
    ),
    (
        "updates-swapped", lambda: update(rule(lambda u, s, p=None: (s, u))), ValueError,
        r"lacks the leaf grads\['b'\]; fix",
    ),
    (
        "updates-summed", lambda: update(rule(lambda u, s, p=None: (jax.tree.map(jnp.sum, u), s))), ValueError,
        r"returned updates\['b'\] has shape \(\), grads\['b'\] has \(3,\); fix the `update`",
    ),
    (
        "updates-complex", lambda: update(rule(lambda u, s, p=None: (jax.tree.map(lambda g: 1j * g, u), s))),
        ValueError, r"returned updates\['b'\] is complex64, grads\['b'\] is float32; fix the `update`",
    ),
    (
        "state-grown", lambda: update(rule(lambda u, s, p=None: (u, (s, 1.0)))), ValueError,
        r"returned state\[1\], .*; fix",
    ),
]
# fmt: on


def rows(table):
    return [pytest.param(*row[1:], id=row[0]) for row in table]


@pytest.mark.parametrize(("misuse", "error", "words"), rows(CONSTRUCTION + TREES))
def test_misuse_is_refused_in_words(misuse, error, words):
    with pytest.raises(error) as caught:
        misuse()
    assert re.search(words, str(caught.value), re.DOTALL), str(caught.value)


def test_rows_have_names_of_their_own():
    names = [row[0] for row in CONSTRUCTION + TREES]
    assert len(names) == len(set(names)) and len(names) >= 45


@pytest.mark.parametrize(("misuse", "error", "words"), rows(TREES))
def test_the_words_are_the_same_under_jit(misuse, error, words):
    with pytest.raises(error) as caught:
        jax.jit(misuse)()
    assert re.search(words, str(caught.value), re.DOTALL), str(caught.value)


def test_misuse_is_refused_again():
    # Checks run once for each combination of shapes; a failed one must not count as done.
    summing = rule(lambda u, s, p=None: (jax.tree.map(jnp.sum, u), s))
    for _ in range(2):
        with pytest.raises(ValueError, match="fix the `update`"):
            update(summing)
        with pytest.raises(ValueError, match="make it with"):
            update(ADAM, state=())


def test_an_error_leaves_nothing_behind():
    # The outermost value is known by a flag; an error must reset it, or the next value is taken for an inner one.
    def fail(*args, **kwargs):
        raise ZeroDivisionError

    for broken in (made((fail, fail)), rule(fail)):
        with pytest.raises(ZeroDivisionError):
            update(broken)
        with pytest.raises(TypeError, match="int32"):
            ADAM.init(jnp.ones(2, int))
        with pytest.raises(ValueError, match="broadcast"):
            update(ADAM, {"w": jnp.ones(5)}, COLUMN)


def test_a_changed_shape_is_checked_anew():
    optimizer = jo.sgd(0.1)
    update(optimizer)
    with pytest.raises(ValueError, match="broadcast"):
        update(optimizer, {"w": jnp.ones(5)}, COLUMN)


def test_the_rule_at_fault_may_be_inside_a_chain():
    broken = jo.chain(ADAM, rule(lambda u, s, p=None: (jax.tree.map(jnp.sum, u), s)), jo.scale(2.0))
    with pytest.raises(
        ValueError, match=r"chain: .*returned updates\['b'\] has shape .*rule in its chain that returned them"
    ):
        update(broken)


def test_masks_and_labels_may_be_prefixes():
    params = {"layer": {"w": jnp.ones(2), "b": jnp.ones(2)}, "head": jnp.ones(2)}
    optimizer = jo.chain(jo.sgd(1.0), jo.freeze({"layer": True, "head": False}))
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert not updates["layer"]["w"].any() and updates["head"].all()


def test_unknown_extra_arguments_are_ignored():
    update(jo.chain(ADAM, jo.clip(1.0)), value=1.0, nonsense="x")
