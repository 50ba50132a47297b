// next_pow_2 of csrc/core/math.hpp, called three ways: at compile time, on the host, on the device.
#include <climits>
#include <cstdint>

#include <ATen/cuda/CUDAContext.h>
#include <torch/all.h>
#include <torch/library.h>

#include "core/math.hpp"

// A constant expression too; what it is worth the cases ask at run time.
[[maybe_unused]] constexpr uint32_t at_compile_time = next_pow_2(5);

namespace {

__global__ void next_pow_2_kernel(int64_t* values, int64_t count) {
  int64_t const i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i < count) values[i] = next_pow_2(static_cast<uint32_t>(values[i]));
}

void on_device(torch::Tensor& values) {
  int64_t const count = values.numel();
  if (count == 0) return;
  next_pow_2_kernel<<<(count + 255) / 256, 256, 0, at::cuda::getCurrentCUDAStream()>>>(
      values.data_ptr<int64_t>(), count);
}

void on_host(torch::Tensor& values) {
  int64_t* data = values.data_ptr<int64_t>();
  for (int64_t i = 0; i < values.numel(); ++i) data[i] = next_pow_2(static_cast<uint32_t>(data[i]));
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(TORCH_EXTENSION_NAME, m) {
  m.def("probe_next_pow_2(Tensor! values) -> ()");
  m.impl("probe_next_pow_2", torch::kCUDA, &on_device);
  m.impl("probe_next_pow_2", torch::kCPU, &on_host);
}
