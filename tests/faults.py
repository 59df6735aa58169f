"""What tests of faults have in common: a small run, its damage, and the report that docs/RELIABILITY.md is made of."""

import dataclasses
import json
import os
from pathlib import Path

import jax
import numpy as np

from experiments.config import Config, Session

REPORT = "BSOJAX_FAULT_REPORT"
"""The environment variable with the file into which what was tried is written, a line of JSON a test."""

SMALL = Config(
    "digits",
    network="mlp",
    channels=(24, 24),
    num_steps=2,
    epochs=2,
    evaluations=2,
    train_examples=320,
    control=False,
    session=Session(devices=1, max_skipped=3, keep=100, checkpoint_minutes=0.0),
)
"""Twenty batches with four evaluations, saved after every chunk, here every batch."""


def report(fault, what, tried, survived, lost=0):
    """Notes how often a fault was tried and survived, and the most batches that had to be trained on again."""
    if path := os.environ.get(REPORT):
        line = {"fault": fault, "what": what, "tried": tried, "survived": survived, "lost": lost}
        with Path(path).open("a") as lines:
            lines.write(json.dumps(line) + "\n")


def without_times(records):
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


def assert_same_bits(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_array_equal(a, b)


def changed(config, **settings):
    """A config with other settings, those of its session among them."""
    session = {field.name: settings.pop(field.name) for field in dataclasses.fields(Session) if field.name in settings}
    return dataclasses.replace(config, session=dataclasses.replace(config.session, **session), **settings)
