"""What the TPU's own compiler makes of a training step, without a TPU: ``make tpu``.

``libtpu`` can compile for chips that are not present. Nothing is run: bytes, exchanges and the program are facts
from the compiler; there are no times. Each compilation is a separate job (``jobs``), made in its own process
(``compile``) and written at once, so that a stopped command continues where it was.
"""
