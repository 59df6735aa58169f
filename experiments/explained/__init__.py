"""The computations behind docs/explanation, their pictures, and the figures that those pages quote."""
