"""Lay parameters out over two devices, and print each leaf of a state that has lost its parameter's sharding."""

import contextlib

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxopt_lite as jo
from tests.contract.table import TRANSFORMATIONS


def lost(tree, params):
    """Paths of the leaves of a parameter's shape without its sharding."""
    shardings = {p.shape: p.sharding for p in jax.tree.leaves(params)}
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    specs = lambda sharding: [axis for axis in getattr(sharding, "spec", ()) if axis is not None]
    return [
        jax.tree_util.keystr(path)
        for path, leaf in leaves
        if leaf.shape in shardings and specs(leaf.sharding) != specs(shardings[leaf.shape])
    ]


def main():
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((2,), ("data",), axis_types=(kind,))
        on = lambda *axes, mesh=mesh: NamedSharding(mesh, PartitionSpec(*axes))
        params = {"w": jax.device_put(jnp.ones((6, 4)), on("data", None)), "b": jax.device_put(jnp.ones(8), on("data"))}
        grads = jax.tree.map(lambda p: 0.1 * p, params)
        explicit = kind == AxisType.Explicit
        with jax.set_mesh(mesh) if explicit else contextlib.nullcontext():
            for name, optimizer in TRANSFORMATIONS.items():
                if name.startswith("stack_leaves"):  # its stacks have shapes of their own
                    continue
                for dtype in ("float32", "bfloat16"):
                    p, g = (jax.tree.map(lambda x: x.astype(dtype), tree) for tree in (params, grads))  # noqa: B023
                    state = optimizer.init(p)
                    found = [f"init {path}" for path in lost(state, p)]
                    if explicit:  # shardings are part of a type there, so nothing needs to run

                        def steps(p, g, state, optimizer=optimizer):
                            def step(carry, _):
                                updates, state = optimizer.update(g, carry[1], carry[0])
                                return (jo.apply_updates(carry[0], updates), state), None

                            return jax.lax.scan(step, (p, state), length=2)[0]

                        found += [f"scan {path}" for path in lost(jax.eval_shape(steps, p, g, state), p)]
                    else:
                        updates, state = optimizer.update(g, state, p)
                        found += [f"update {path}" for path in lost((jo.apply_updates(p, updates), state), p)]
                    for what in found:
                        print(f"{kind} {name} {dtype} {what}")
            trained = jo.fit(jo.Task(lambda key: params, square), jo.adam(0.1), 2)  # noqa: B023
            for path in lost((trained.params, trained.state.opt_state), params):
                print(f"{kind} fit {path}")


def square(params, batch, key):
    return sum(jnp.sum(p**2) for p in jax.tree.leaves(params))


if __name__ == "__main__":
    main()
