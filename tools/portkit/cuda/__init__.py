"""CUDA as the tools use it: the toolkits there are, the headers a compile needs, nvcc itself."""
