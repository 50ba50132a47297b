"""Which kernels the series touches, and what a GPU said about them."""
