"""A dense layer's product, whose kernel gradient needs no memory where a few rows meet a large kernel.

There a step takes as long as the kernel, its gradient and the update go through memory. As a sum of
outer products the gradient is what XLA fuses into the update: it is never written down.
"""

from collections.abc import Callable
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

_FEW_ROWS, _LARGE = 16, 2**18  # numbers of the kernel: more than a core's own cache holds

Inputs = Float[Array, "B I"]
Kernel = Float[Array, "I O"]
Outputs = Float[Array, "B O"]


def product(inputs: Array, kernel: Array, *dimensions: Any, **options: Any) -> Array:
    """`lax.dot_general` as `nn.Dense` calls it, fast on a CPU for few rows and a large kernel."""
    few = inputs.ndim == 2 and len(inputs) <= _FEW_ROWS and kernel.size >= _LARGE
    if few and inputs.dtype == kernel.dtype == jnp.float32:
        return _outputs.bind(inputs, kernel)
    return lax.dot_general(inputs, kernel, *dimensions, **options)


# --- three maps, each linear in two arrays, whose transposes are the other two --------------------


def _of_kernel(inputs: Inputs, outputs: Outputs) -> Kernel:
    rows = zip(inputs, outputs, strict=True)
    return reduce(jnp.add, [a[:, None] * b[None, :] for a, b in rows])


def _primitive(name: str, compute: Callable[[Any, Any], Any]) -> Primitive:
    primitive = Primitive(f"dense_{name}")

    def shape(a: Any, b: Any) -> Any:
        return a.update(shape=jax.eval_shape(compute, a, b).shape)

    def batch(arrays: Any, axes: Any) -> tuple[Array, int]:
        return jax.vmap(compute, in_axes=axes)(*arrays), 0

    primitive.def_impl(jax.jit(compute))
    primitive.def_abstract_eval(shape)
    mlir.register_lowering(primitive, mlir.lower_fun(compute, multiple_results=False))
    batching.primitive_batchers[primitive] = batch
    return primitive


_outputs = _primitive("outputs", lambda inputs, kernel: inputs @ kernel)
_inputs = _primitive("inputs", lambda outputs, kernel: outputs @ kernel.T)
_kernel = _primitive("kernel", _of_kernel)

ad.defbilinear(
    _outputs,
    lambda y, x, w: _inputs.bind(y, w),
    lambda y, x, w: _kernel.bind(x, y),
)
ad.defbilinear(
    _inputs,
    lambda x, y, w: _outputs.bind(x, w),
    lambda x, y, w: _kernel.bind(x, y),
)
ad.defbilinear(
    _kernel,
    lambda w, x, y: _inputs.bind(y, w),
    lambda w, x, y: _outputs.bind(x, w),
)
