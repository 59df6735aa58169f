"""Trees: signs, gradients, updates and states that must fit each other."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bsojax._jax import is_traced


def leaf_name(path: tuple[Any, ...]) -> str:
    """The name of a leaf in messages and metrics: its keys joined by slashes."""
    return jax.tree_util.keystr(path, simple=True, separator="/") or "(the tree itself)"


def weights_dtype(dtype: Any) -> None:
    """Refuses a dtype that does not hold -1, or through which no gradient flows."""
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"dtype: weights of +1 and -1 need a floating dtype, not {jnp.dtype(dtype)}.")


def packed(bits: Any, shape: tuple[int, ...]) -> None:
    """Refuses packed signs whose bytes do not match their shape."""
    expected = ((math.prod(shape) + 7) // 8,)
    if bits.shape != expected or bits.dtype != jnp.uint8:
        raise ValueError(
            f"packed: signs of shape {shape} take uint8{list(expected)}, not {bits.dtype}{list(bits.shape)}; was the "
            "array cut or converted?"
        )


def sign_values(signs: Any) -> None:
    """Refuses leaves that do not hold signs: a flip would negate them, whatever they are."""
    leaves = jax.tree_util.tree_leaves_with_path(signs)
    if not leaves:
        raise ValueError(
            "signs: the tree has no leaf to flip; give the model a binary layer, bsojax.BinaryDense or BinaryConv."
        )
    for path, leaf in leaves:
        if jnp.result_type(leaf) == jnp.bool_ or is_traced(leaf):
            continue
        if not np.all(np.abs(np.asarray(leaf)) == 1):
            raise ValueError(
                f"signs: leaf '{leaf_name(path)}' is {jnp.result_type(leaf)} with values other than +1 and -1, so it "
                "holds no signs. Keep binary weights boolean (bsojax.to_signs converts), and give real parameters to "
                "another optimizer (bsojax.split_optimizer, optax.masked)."
            )


def all_deployed(unknown: list[str]) -> None:
    """Refuses deployed signs that belong to no leaf of the given signs."""
    if unknown:
        raise ValueError(f"opt_state: it keeps deployed signs of {unknown}, which are not in the signs given with it.")


def deployed_in_tuples(are: bool) -> None:
    """Refuses deployed signs in a state of dicts, which does not contain their shapes."""
    if not are:
        raise ValueError(
            "opt_state: it keeps deployed signs, in dicts; was it read from a file without a state to fill? "
            "flax.serialization.from_bytes(state, ...) and Orbax with a target give back what an optimizer makes."
        )


def deployed_fit(name: str, shape: tuple[int, ...], bits: tuple[int, ...], signs: tuple[int, ...]) -> None:
    """Refuses deployed signs whose shape differs from that of the given signs."""
    if len(bits) != 1:
        raise ValueError(
            f"opt_state: the deployed signs of '{name}' have an axis of devices in front; take the state of one, "
            "jax.tree.map(lambda leaf: leaf[0], state)."
        )
    if shape != signs:
        raise ValueError(f"opt_state: its deployed signs of '{name}' are {shape}, the signs given with it {signs}.")


def evaluates_deployed(trained: bool) -> None:
    """Refuses to evaluate an NNX network at its trained signs where others are kept for evaluation."""
    if trained:
        raise ValueError(
            "model: its optimizer keeps deployed signs beside those that are trained; evaluate and save "
            "optimizer.deployed(model), and train with train=True."
        )


def some_frozen(frozen: list[bool], names: list[str], rest_is_owned: bool) -> None:
    """Refuses to freeze nothing, or to leave signs without an owner."""
    if not any(frozen):
        raise ValueError(f"frozen: no leaf of signs matches; they are {names}.")
    if not rest_is_owned and not all(frozen):
        left = [name for name, stays in zip(names, frozen, strict=True) if not stays]
        raise ValueError(f"flip: needs an optimizer for the signs that are not frozen: {left}.")


def some_taken(taken: bool, names: list[str]) -> None:
    """Refuses to transfer a network of which nothing fits."""
    if not taken:
        raise ValueError(f"into: no leaf of the trained network has the name, shape and dtype of one of its {names}.")


def needs_params(params: Any) -> None:
    """Refuses an update without the parameters, as optax transforms that need them do."""
    if params is None:
        raise ValueError("params: update needs the current parameters, as in tx.update(grads, state, params).")


def delta(name: str, kind: str, update: Any, dtype: Any) -> None:
    """Refuses an update of a sign leaf whose addition would result in anything but flips."""
    if jnp.result_type(update) != dtype:
        raise TypeError(
            f"updates: sign leaf '{name}' got a {jnp.result_type(update)} update, but needs an {kind}. Make bso or "
            "t_bso the last transform that touches this leaf (optax.scale, add_decayed_weights or ema after it break "
            "the delta), and let no other optimizer own it: see bsojax.split_optimizer. Signs that must stay belong "
            "to bsojax.freeze, not to optax.set_to_zero."
        )


def same(name: str, found: Any, expected: Any, cure: str) -> None:
    """Refuses a tree whose leaves differ from the expected ones in name, shape or dtype, and names the first."""
    _compare(name, _kinds(found), _kinds(expected), cure)


def same_shapes(name: str, tree: Any, like: Any) -> None:
    """Refuses a tree whose leaves differ in name or shape from those of another: they would be broadcast."""
    _compare(name, _shapes(tree), _shapes(like), "they must be of one tree.")


def holds(name: str, tree: Any, needed: Any, cure: str) -> None:
    """Refuses a tree that lacks leaves of another, or holds them in different shapes."""
    shapes, wanted = _shapes(tree), _shapes(needed)
    _compare(name, {leaf: shapes[leaf] for leaf in wanted if leaf in shapes}, wanted, cure)


def network(name: str, held: Mapping[str, Any], made: Mapping[str, Any], cure: str) -> None:
    """Refuses arrays by name that are not those of a model: other names, other shapes, or numbers instead of signs.

    A difference is named by the model's leaf or, failing that, by the given one. Dtypes of numbers may differ.
    """

    def kinds(leaves: Mapping[str, Any]) -> dict[str, str]:
        return {
            leaf: f"{'signs' if str(array.dtype) == 'bool' else 'numbers'}{list(array.shape)}"
            for leaf, array in leaves.items()
        }

    _compare(name, kinds(held), kinds(made), cure)


def _compare(name: str, have: Mapping[str, Any], want: Mapping[str, Any], cure: str) -> None:
    for leaf in (*want, *have):
        if have.get(leaf) != want.get(leaf):
            needs, has = want.get(leaf, "absent"), have.get(leaf, "missing")
            raise ValueError(f"{name}: leaf '{leaf}' must be {needs}, and is {has}; {cure}")


def neurons(handed: Any, at_rest: Any) -> None:
    """Refuses a state of neurons from another model or another batch, or without traces where they learn."""
    cure = "begin with bsojax.rest(model, x, train=True) for training and record, without train for evaluation."
    _compare("neurons", _kinds(handed), _kinds(at_rest), cure)


def kept_dtypes(old: Any, new: Any) -> None:
    """Refuses an optimizer state whose leaves change dtype or shape at an update: it was made from other leaves."""
    have, want = _kinds(old), _kinds(new)
    for leaf in have:
        if have[leaf] != want.get(leaf, have[leaf]):
            cure = (
                "A transform made its accumulators from boolean parameters: wrap it in bsojax.on_weights."
                if have[leaf].startswith("bool")
                else "It was made for gradients of another dtype or shape: cast them to that of the accumulators "
                "(under jax_enable_x64 those of signs may be float64), or start the optimizer anew."
            )
            raise TypeError(f"optimizer state: '{leaf}' was {have[leaf]} and becomes {want[leaf]}. {cure}")


def _kinds(tree: Any) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    kinds = {leaf_name(path): getattr(leaf, "dtype", None) or jnp.result_type(leaf) for path, leaf in leaves}
    return {leaf: f"{kinds[leaf]}{list(shape)}" for leaf, shape in _shapes(tree).items()}


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {leaf_name(path): tuple(jnp.shape(leaf)) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def collections(variables: Mapping[str, Any], known: set[str]) -> None:
    """Refuses a model with state that nothing would carry."""
    if unknown := set(variables) - known:
        raise ValueError(
            f"model: it keeps state in {sorted(unknown)}; a training run carries signs, params and batch_stats, and "
            "neurons within a sequence. Put the state in one of these collections."
        )
