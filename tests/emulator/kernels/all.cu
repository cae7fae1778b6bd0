// Every test kernel, for nvcc: what the emulator runs is what a device would.
#include "cuda/device/launch.h"
#include "kernels/barriers.h"
#include "kernels/cluster.h"
#include "kernels/exchange.h"
#include "kernels/mma.h"
#include "kernels/plain.h"
#include "kernels/shared.h"
#include "kernels/steps.h"

namespace fusedrnn::cuda::kernels {

// Instantiates the templates.
void launch_templates(float* f, double* r, uint32_t* u, device::Bf16* b, device::Half* h) {
  const device::LaunchShape shape;
  device::launch(reverse<float>, shape, nullptr, f, f);
  device::launch(functions<float>, shape, nullptr, f, f);
  device::launch(functions<double>, shape, nullptr, r, r);
  device::launch(message<Order::right>, shape, nullptr, f, u, f);
  device::launch(reads_neighbour<true>, shape, nullptr, f);
  device::launch(copies<true>, shape, nullptr, f, f, 1);
  device::launch(product_16<device::Bf16>, shape, nullptr, b, b, f);
  device::launch(product_16<device::Half>, shape, nullptr, h, h, f);
}

}  // namespace fusedrnn::cuda::kernels
