"""What the TPU's own compiler makes of a training step, without a TPU: ``make tpu``.

``libtpu`` compiles for chips that are named and not there. Nothing is run: bytes, exchanges and the program are facts
of the compiler, times are not had. A compilation is a job of its own (``jobs``), made in a process of its own
(``compile``) and written down at once, so that what was stopped goes on where it was.
"""
