"""Signs: the weights of a binary network, kept as booleans (True = +1, False = -1)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from bsojax._kinds import as_dtype, check_bool, check_callable, check_leaves, check_scalar_result, is_int
from bsojax._packing import PackedSigns, is_packed, is_sign, unpack_signs


class SignKernel(NamedTuple):
    """Packed signs as a layer sees them in training: its kernel, and where the kernel's gradient goes.

    Attributes:
      packed: the signs.
      probe: a floating array of their shape, whose values nothing reads; its gradient is that of the weights.
    """

    packed: PackedSigns
    probe: jax.Array


def same_structure(one: Any, other: Any) -> bool:
    """Whether two trees have the same structure."""
    structure: Any = jax.tree.structure(one)
    return structure == jax.tree.structure(other)


def leaf_name(path: tuple[Any, ...]) -> str:
    """The name of a leaf in messages and metrics: its keys joined by slashes."""
    return jax.tree_util.keystr(path, simple=True, separator="/") or "(the tree itself)"


def to_weights(signs: chex.ArrayTree, dtype: chex.ArrayDType = jnp.float32) -> chex.ArrayTree:
    """Returns the tree with all signs as weights of +1 and -1.

    Use it to hand signs to code that computes with numbers. Leaves that are not signs pass through untouched, so a
    mixed tree of signs and real parameters becomes one that ``jax.grad`` accepts.

    Args:
      signs: a tree of arrays; boolean leaves of any shape, and PackedSigns, are signs.
      dtype: the floating dtype of the weights.

    Raises:
      TypeError: dtype is not floating.
      ValueError: packed signs were cut or converted.
    """
    dtype = floating_dtype(dtype)
    one = jnp.ones((), dtype)

    def convert(leaf: Any) -> Any:
        leaf = unpack_signs(leaf) if is_packed(leaf) else leaf
        return jnp.where(leaf, one, -one) if is_sign(leaf) else leaf

    return jax.tree.map(convert, signs, is_leaf=is_packed)


def to_signs(weights: chex.ArrayTree) -> chex.ArrayTree:
    """Returns the signs of a tree of real weights; zero counts as positive (the paper's eq. 4).

    Use it to take over a network trained elsewhere. Boolean leaves pass through, floating leaves become boolean.

    Raises:
      TypeError: a leaf is neither boolean nor floating.
    """

    check_leaves("weights", weights)

    def convert(path: tuple[Any, ...], leaf: Any) -> jax.Array:
        leaf = jnp.asarray(leaf)
        if is_sign(leaf):
            return leaf
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(f"weights: leaf '{leaf_name(path)}' is {leaf.dtype}; it must be floating or boolean.")
        return leaf >= 0

    return jax.tree_util.tree_map_with_path(convert, weights)


def value_and_grad(
    fun: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
    dtype: chex.ArrayDType = jnp.float32,
) -> Callable[..., Any]:
    """As ``jax.value_and_grad``, where boolean leaves are differentiated as weights of +1 and -1.

    Use it wherever a loss depends on signs: ``jax.grad`` refuses booleans. ``fun`` receives the weights, and the
    gradient has the structure and shapes of the signs. Works under jit, vmap, scan and remat.

    Args:
      fun: a function of the arguments, real-valued, or with ``has_aux`` a pair ``(value, auxiliary)``.
      argnums: which positional arguments to differentiate; their leaves are boolean or floating.
      has_aux: whether ``fun`` returns a pair.
      dtype: the floating dtype in which signs are seen, and so the dtype of their gradients.

    Raises:
      TypeError: an argument is not of its kind, fun does not return what it must, or a leaf to differentiate is neither
        boolean nor floating.
      ValueError: packed signs were cut or converted.
    """
    dtype = floating_dtype(dtype)
    check_callable("fun", fun)
    check_bool("has_aux", has_aux)
    if not is_int(argnums) and not (isinstance(argnums, tuple | list) and argnums and all(map(is_int, argnums))):
        raise TypeError(f"argnums: needs an int or a tuple of ints, not {argnums!r}.")
    chosen = tuple(argnums) if isinstance(argnums, tuple | list) else (argnums,)

    def real_fun(*args: Any, **kwargs: Any) -> Any:
        result = fun(*args, **kwargs)
        _check_result(result, has_aux)
        return result

    grad_fun = jax.value_and_grad(real_fun, argnums=argnums, has_aux=has_aux)

    def value_and_grad_fun(*args: Any, **kwargs: Any) -> Any:
        if not all(-len(args) <= number < len(args) for number in chosen):
            raise ValueError(f"argnums: {argnums} is out of range for {len(args)} positional arguments.")
        views = list(args)
        for number in chosen:
            check_differentiable(args[number], name=f"argument {number}")
            views[number] = to_weights(args[number], dtype)
        return grad_fun(*views, **kwargs)

    return value_and_grad_fun


def _check_result(result: Any, has_aux: bool) -> None:
    if has_aux and not (isinstance(result, tuple) and len(result) == 2):
        raise TypeError(f"fun: with has_aux it must return a pair, not {type(result).__name__}.")
    check_scalar_result("fun", result[0] if has_aux else result, floating=True)


def check_differentiable(tree: Any, *, name: str) -> None:
    """Raises TypeError unless every leaf is signs or floating."""
    check_leaves(name, tree)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_packed):
        leaf_dtype = jnp.bool_ if is_packed(leaf) else jnp.result_type(leaf)
        if isinstance(leaf, bool):
            raise TypeError(f"{name}: leaf '{leaf_name(path)}' is a bool; make it an array (signs) or a number.")
        if leaf_dtype != jnp.bool_ and not jnp.issubdtype(leaf_dtype, jnp.inexact):
            raise TypeError(
                f"{name}: leaf '{leaf_name(path)}' is {leaf_dtype} and has no gradient; make it boolean (signs) or "
                "floating, or leave it out of argnums."
            )


def to_differentiable(tree: Any, dtype: chex.ArrayDType) -> Any:
    """Returns the tree to take gradients for: boolean signs as weights, probes in the place of PackedSigns."""
    return jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, dtype) if is_packed(leaf) else to_weights(leaf, dtype),
        tree,
        is_leaf=is_packed,
    )


def to_kernels(tree: Any, differentiable: Any) -> Any:
    """Returns what layers take: the differentiable tree, each probe together with the PackedSigns it stands for."""
    return jax.tree.map(
        lambda leaf, view: SignKernel(leaf, view) if is_packed(leaf) else view, tree, differentiable, is_leaf=is_packed
    )


def floating_dtype(dtype: chex.ArrayDType) -> np.dtype:
    """Returns dtype as a NumPy one; raises unless it is floating."""
    dtype = as_dtype("dtype", dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"dtype: weights of +1 and -1 need a floating dtype, not {dtype}.")
    return dtype
