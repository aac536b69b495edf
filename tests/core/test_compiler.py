"""Options of the compiler: those that it does not know are left out, and programs compile with the others."""

import jax
import jax.numpy as jnp
import pytest

from jaxopt_lite.core import compiler


def test_unknown_options_are_left_out():
    assert compiler._on_cpu(xla_no_such_option=True) == {}
    assert not compiler._is_known("xla_no_such_option", True)
    if jax.default_backend() == "cpu":
        assert compiler._on_cpu(xla_backend_optimization_level=0) == {"xla_backend_optimization_level": 0}
    else:
        assert compiler._on_cpu(xla_backend_optimization_level=0) == {}


@pytest.mark.parametrize(
    "options", (compiler.quickly(), compiler.many_scalars(True), compiler.many_scalars(False), compiler.many_lanes())
)
def test_programs_compile_with_them(options):
    assert jax.jit(lambda x: 2 * x, compiler_options=options)(jnp.ones(2)).tolist() == [2, 2]
