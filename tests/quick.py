"""`jax.jit` for tests: most of their time would go into compiling what then runs for a millisecond."""

import functools

import jax

# Without the optimizations of machine code compiling takes about half the time, and small programs run as fast.
_UNOPTIMIZED = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}


def _has_option(name: str, value) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options={name: value})()
    except jax.errors.JaxRuntimeError:  # another version of XLA
        return False
    return True


quick_jit = functools.partial(
    jax.jit, compiler_options={name: value for name, value in _UNOPTIMIZED.items() if _has_option(name, value)}
)
