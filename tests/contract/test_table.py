"""The table is complete: every public factory has a row, and every argument is tried away from its default."""

import inspect

import numpy as np

import jaxopt_lite as jo
from tests.contract.table import FED, RECIPES, VALUES
from tests.each import for_each

FACTORIES = {
    name: f
    for name in jo.__all__
    if hasattr(f := getattr(jo, name), "spec")
    and f.spec.makes not in (jo.Distribution, jo.Space, jo.Sampler, jo.Policy)  # tests/sweeps has contracts of its own
}


def test_every_public_factory_has_a_row():
    rows = {value.factory for value in (VALUES | FED).values()}
    missing = [name for name, factory in FACTORIES.items() if factory not in rows]
    assert not missing, f"add rows for {missing} to tests/contract/table.py"


def test_every_recipe_is_a_recipe():
    """A recipe's hyperparameters are its arguments, and its chain can be asked for."""
    for name, recipe in RECIPES.items():
        assert name == "lifted" or recipe.inner is not None


@for_each(FACTORIES)
def test_every_argument_is_tried_away_from_its_default(name):
    spec = FACTORIES[name].spec
    rows = [value.arguments for value in (VALUES | FED).values() if value.factory is FACTORIES[name]]
    for argument, parameter in spec.parameters.items():
        if parameter.default is inspect.Parameter.empty:
            continue
        default = spec.normalise(argument, parameter.default)
        assert any(_differs(row[argument], default) for row in rows), f"{name}: {argument} is always {default!r}"


def _differs(given, default) -> bool:
    if type(given) is not type(default):
        return True
    return not np.array_equal(given, default) if isinstance(given, np.ndarray) else given != default
