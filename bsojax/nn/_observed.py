"""Lets whoever reads a model as a graph see the functions between layers: pooling, flattening and the like."""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
Observer = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]

_OBSERVER: contextvars.ContextVar[Observer | None] = contextvars.ContextVar("bsojax_observer", default=None)


def observable(function: Callable[P, R]) -> Callable[P, R]:
    """Returns the function in a form whose calls an observer can see.

    Modules need no such wrapper: ``flax.linen.intercept_methods`` sees them.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        observer = _OBSERVER.get()
        if observer is None:
            return function(*args, **kwargs)
        with _observed_by(None):  # the observer calls the function itself
            result: R = observer(call, args, kwargs)
            return result

    return call


@contextlib.contextmanager
def _observed_by(observer: Observer | None) -> Iterator[None]:
    token = _OBSERVER.set(observer)
    try:
        yield
    finally:
        _OBSERVER.reset(token)


def observing(observer: Observer) -> contextlib.AbstractContextManager[None]:
    """A context in which ``observer(function, args, kwargs)`` is called instead of each observable function.

    Use it like ``flax.linen.intercept_methods``: the observer calls the function and returns the result to use.
    """
    return _observed_by(observer)
