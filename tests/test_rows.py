"""Convolutions by rows and kernel gradients by patches against XLA's own."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import bsojax
from bsojax import conv
from bsojax.xla_cpu import ConvGeometry, _rows
from bsojax.xla_cpu._convolutions import plain_convolve
from bsojax.xla_cpu._gradients import gradients_by_transposition, kernel_gradient_on_cpu

sizes = st.integers(1, 3)
sides = st.tuples(st.integers(0, 2), st.integers(0, 2))


@st.composite
def problems(draw):
    height, width = draw(sizes), draw(sizes)
    padding = (draw(sides), draw(sides))
    inputs, outputs = draw(st.sampled_from([1, 2, 9, 66])), draw(st.sampled_from([1, 3, 68]))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    shape = (draw(sizes), draw(st.integers(height, 7)), draw(st.integers(width, 6)), inputs)
    image = jnp.asarray(rng.standard_normal(shape), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((height, width, inputs, outputs)), jnp.float32)
    return image, kernel, padding


@settings(max_examples=5)  # each one compiles
@given(problems())
def test_a_convolution_by_rows_is_the_convolution(problem):
    image, kernel, padding = problem
    expected = plain_convolve(image, kernel, (1, 1), padding, (1, 1))
    np.testing.assert_allclose(_rows.convolve_rows(image, kernel, padding), expected, rtol=1e-5, atol=1e-4)


@settings(max_examples=5)  # each one compiles
@given(problems())
def test_a_kernels_gradient_by_patches_or_rows_is_the_gradient(problem):
    image, kernel, padding = problem
    out = plain_convolve(image, kernel, (1, 1), padding, (1, 1))
    g = jnp.asarray(np.random.default_rng(0).standard_normal(out.shape), jnp.float32)
    _, expected = gradients_by_transposition(ConvGeometry((1, 1), padding, (1, 1), 1), image, kernel, g)
    for form in (_rows.kernel_gradient_by_patches, _rows.kernel_gradient_by_rows):
        ours = form(image, g, kernel.shape, padding)
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-4)


def test_both_are_chosen_where_one_core_would_do_it_and_the_copies_are_small():
    batch = (64, 14, 14, 32)
    assert _rows.is_better_by_rows(batch, (3, 3, 32, 64))
    assert not _rows.is_better_by_rows((64, 14, 14, 128), (3, 3, 128, 128))  # all cores as it is
    assert not _rows.is_better_by_rows((128, 32, 32, 64), (3, 3, 64, 128))  # 192 MiB of rows
    assert not _rows.is_better_by_rows(batch, (1, 1, 32, 64))
    assert not _rows.is_better_by_rows((4, 8, 8, 16), (3, 3, 16, 32))


@pytest.mark.parametrize(
    ("image_shape", "kernel_shape", "form"),
    [
        ((64, 28, 28, 1), (3, 3, 1, 32), "kernel_gradient_by_patches"),
        ((64, 14, 14, 32), (3, 3, 32, 64), "kernel_gradient_by_rows"),
        ((64, 28, 28, 1), (3, 3, 1, 128), None),  # all cores as it is
        ((4, 8, 8, 1), (3, 3, 1, 32), None),
        ((128, 32, 32, 64), (3, 3, 64, 64), None),  # too large to copy
    ],
)
def test_which_form_of_the_kernels_gradient_is_chosen(image_shape, kernel_shape, form, monkeypatch):
    chosen = []
    for name in ("kernel_gradient_by_patches", "kernel_gradient_by_rows"):
        monkeypatch.setattr(_rows, name, lambda *_, name=name: chosen.append(name) or 0)
    image, g = (jax.ShapeDtypeStruct((*image_shape[:3], size), jnp.float32) for size in kernel_shape[2:])
    found = _rows.kernel_gradient(image, g, kernel_shape, ((1, 1), (1, 1)))
    assert chosen == ([] if form is None else [form])
    assert (found is None) == (form is None)


def test_a_small_convolution_and_its_inputs_gradient_are_compiled_without_a_two_dimensional_one():
    image, kernel = jnp.ones((64, 14, 14, 32)), jnp.ones((3, 3, 32, 64))

    def loss(image):
        return jnp.sum(conv(image, kernel))

    text = jax.jit(jax.value_and_grad(loss)).lower(image).compile().as_text()
    assert "dim_labels=b0f_0io->b0f" in text
    assert "b01f" not in text


def of_kernel(image, g, shape, padding):
    return kernel_gradient_on_cpu(ConvGeometry((1, 1), padding, (1, 1), 1), image, shape, g)


@pytest.mark.parametrize(
    ("form", "inputs", "outputs"),
    [
        (_rows.kernel_gradient_by_rows, 16, 32),
        (_rows.kernel_gradient_by_patches, 2, 32),
        (of_kernel, 128, 128),
        (lambda image, g, shape, padding: _rows.convolve_rows(image, jnp.ones(shape), padding), 16, 32),
        (lambda image, g, shape, padding: _rows.convolve_rows(image, jnp.ones(shape), padding), 32, 16),
    ],
    ids=["gradient by rows", "gradient by patches", "gradient by convolution", "gathering rows", "adding rows"],
)
def test_over_the_devices_of_a_mesh_no_activations_are_gathered(form, inputs, outputs):
    split = NamedSharding(bsojax.data_mesh(), P("batch"))
    image, g = (jax.ShapeDtypeStruct((32, 8, 8, size), jnp.float32, sharding=split) for size in (inputs, outputs))
    program = jax.jit(lambda image, g: form(image, g, (3, 3, inputs, outputs), ((1, 1), (1, 1)))).lower(image, g)
    text = program.compile().as_text()
    assert not re.findall(r"all-gather|all-to-all|collective-permute", text)
    gradients = (_rows.kernel_gradient_by_rows, _rows.kernel_gradient_by_patches, of_kernel)
    assert ("all-reduce" in text) == (form in gradients)
