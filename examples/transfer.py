"""Transfer: a network of eight classes gets a readout for ten; what it had learned stays, and may be frozen."""

from sklearn.datasets import load_digits

T, BATCH = 4, 32
x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")
