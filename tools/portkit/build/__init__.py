"""From the pinned source to a wheel: toolchain, stages, what a wheel must hold."""
