"""Orbax as checkpoints need it: one kind of checkpointer, and a reason in one line for any failure."""

import gc
import logging
import sys
from collections.abc import Callable
from typing import Any

import orbax.checkpoint as ocp


def checkpointer() -> ocp.Checkpointer:
    """Returns what reads and writes a checkpoint: arrays under "state", and JSON under "about"."""
    items = {"state": ocp.StandardCheckpointHandler(), "about": ocp.JsonCheckpointHandler()}
    return ocp.Checkpointer(ocp.CompositeCheckpointHandler(**items))


def attempted(action: Callable[[], Any]) -> tuple[Any, str]:
    """Returns the result of an Orbax action, or the reason for its failure: its errors have no common class.

    Suppresses what Orbax logs about an error that it also raises, and what Python says about its unfinished tasks.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_news)  # stays: a thread or task may fail after the one that was raised
    hook, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
    result, reason = None, ""
    try:
        try:
            result = action()
        except Exception as error:
            reason = _reason(error)
        if reason:
            gc.collect()  # unfinished tasks are noticed when they are collected
    finally:
        sys.unraisablehook = hook
    return result, reason


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a log record is not about a failed Orbax thread or task whose error was raised elsewhere."""
    text = record.getMessage()
    return "exception was never retrieved" not in text and "_SignalingThread.run() raised an exception" not in text


def _reason(error: BaseException) -> str:
    """Returns the first line of an error's cause: what Orbax says itself is long, and the same for all."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
