// A CUDA library that computes nothing, for tests of the side that calls it: it writes down what it
// is given, takes memory as a real one would and fills results with constants. Its "device memory"
// is the host's.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "core/cuda_plugin.h"

namespace fusedrnn {

struct CudaKept {
  size_t bytes;
  void* stream;
  fusedrnn_allocator allocator;
  bool has_allocator;
  void* memory;
};

namespace {

constexpr size_t kScratch = 512, kReserve = 1024;

std::string journal;  // calls, a line each
std::string error;
long outstanding = 0;  // blocks of allocate() that have not been released

template <class... Values>
void note(const char* format, Values... values) {
  char line[512];
  std::snprintf(line, sizeof line, format, values...);
  journal += std::string(line) + "\n";
}

long setting(const char* name, long usual) {
  const char* text = std::getenv(name);
  return text == nullptr ? usual : std::atol(text);
}

fusedrnn_status fail(fusedrnn_status status, const char* text) {
  error = text;
  return status;
}

long number(const void* address) { return static_cast<long>(reinterpret_cast<intptr_t>(address)); }

void fill(const Sequence& s, int64_t T, int64_t B, int64_t n, float value) {
  if (s.data == nullptr) return;
  for (int64_t t = 0; t < T; ++t) {
    for (int64_t b = 0; b < B; ++b) {
      std::fill_n(static_cast<float*>(s.data) + t * s.t_stride + b * s.b_stride, n, value);
    }
  }
}

void fill(const Matrix& m, int64_t rows, int64_t n, float value) {
  fill({m.data, m.stride, 0}, rows, 1, n, value);
}

const char* where(const DLTensor* t) {
  if (t == nullptr) return "none";
  return t->device.device_type == kDLCUDA ? "device" : "host";
}

void* take(const fusedrnn_allocator* allocator, size_t bytes, void* stream) {
  constexpr size_t kAlignment = 256;
  if (allocator != nullptr) return allocator->allocate(allocator->context, bytes, stream);
  return std::aligned_alloc(kAlignment, (bytes / kAlignment + 1) * kAlignment);
}

void give(const fusedrnn_allocator* allocator, void* memory, size_t bytes, void* stream) {
  if (allocator == nullptr) {
    std::free(memory);
  } else {
    allocator->release(allocator->context, memory, bytes, stream);
  }
}

int32_t device_count(char* why, size_t size) {
  const long count = setting("FAKE_CUDA_DEVICES", 2);
  if (count == 0) std::snprintf(why, size, "there is no CUDA driver here");
  return static_cast<int32_t>(count);
}

fusedrnn_status describe_device(int32_t device, CudaDevice* description) {
  if (device == setting("FAKE_CUDA_LOST", -1)) return fail(FUSEDRNN_UNAVAILABLE, "it is lost");
  std::snprintf(description->name, sizeof description->name, "Fake %d", static_cast<int>(device));
  description->capability = device == 1 ? 52 : 90;
  description->memory = int64_t{3} << 29;
  description->unusable[0] = '\0';
  if (device == 1) {
    std::snprintf(description->unusable, sizeof description->unusable, "it is too old");
  }
  return FUSEDRNN_OK;
}

fusedrnn_status reserve_bytes(const Problem* problem, size_t* bytes) {
  *bytes = problem->T == 0 || problem->B == 0 ? 0 : kReserve;
  return FUSEDRNN_OK;
}

// What a call needs while it runs.
fusedrnn_status use_scratch(const CudaPlace& place) {
  void* const scratch = take(place.allocator, kScratch, place.stream);
  if (scratch == nullptr) return fail(FUSEDRNN_OUT_OF_MEMORY, "out of memory on the device");
  give(place.allocator, scratch, kScratch, place.stream);
  return FUSEDRNN_OK;
}

fusedrnn_status forward(const ForwardCall* call, const CudaMasks* masks, const CudaPlace* place) {
  const Problem& p = call->problem;
  note(
      "forward cell=%d dtype=%d compute=%d shape=%ld,%ld,%ld,%ld device=%d stream=%ld allocator=%d "
      "lengths=%s resets=%s flags=%d reserve=%d",
      p.cell, static_cast<int>(p.dtype), static_cast<int>(p.compute), static_cast<long>(p.T),
      static_cast<long>(p.B), static_cast<long>(p.I), static_cast<long>(p.H),
      static_cast<int>(place->device), number(place->stream), place->allocator != nullptr,
      where(masks->lengths), where(masks->resets), call->flags != nullptr,
      call->reserve != nullptr);
  const fusedrnn_status status = use_scratch(*place);
  if (status != FUSEDRNN_OK) return status;
  fill(call->y, p.T, p.B, p.H, 1);
  fill(call->state_n[0], p.B, p.H, 2);
  fill(call->state_n[1], p.B, p.H, 3);
  // It is written to, as far as it goes.
  if (call->reserve != nullptr) std::memset(call->reserve, 0x5a, kReserve);
  return FUSEDRNN_OK;
}

fusedrnn_status backward(const BackwardCall* call, const CudaMasks* masks, const CudaPlace* place) {
  const Problem& p = call->problem;
  note("backward device=%d stream=%ld allocator=%d lengths=%d resets=%d dy=%d accumulate=%d",
       static_cast<int>(place->device), number(place->stream), place->allocator != nullptr,
       masks->lengths != nullptr, masks->resets != nullptr, call->dy.data != nullptr,
       call->accumulate_dx);
  const fusedrnn_status status = use_scratch(*place);
  if (status != FUSEDRNN_OK) return status;
  // Of the vanilla cells, which the tests use: w_ih, w_hh, b_ih, b_hh.
  fill(call->dx, p.T, p.B, p.I, 4);
  fill(call->dparameters[0], p.H, p.I, 5);
  fill(call->dparameters[1], p.H, p.H, 6);
  fill(call->dparameters[2], 1, p.H, 7);
  fill(call->dparameters[3], 1, p.H, 8);
  fill(call->dstate_0[0], p.B, p.H, 9);
  return FUSEDRNN_OK;
}

fusedrnn_status drop(const DropCall* call, const CudaPlace* place) {
  note("drop row=%ld shape=%ld,%ld,%ld rate=%g seed=%lu device=%d stream=%ld",
       static_cast<long>(call->row), static_cast<long>(call->T), static_cast<long>(call->B),
       static_cast<long>(call->n), call->rate, static_cast<unsigned long>(call->seed),
       static_cast<int>(place->device), number(place->stream));
  return FUSEDRNN_OK;
}

fusedrnn_status keep(size_t bytes, const CudaPlace* place, CudaKept** kept, void** memory) {
  note("keep device=%d bytes=%ld stream=%ld allocator=%d", static_cast<int>(place->device),
       static_cast<long>(bytes), number(place->stream), place->allocator != nullptr);
  *memory = take(place->allocator, bytes, place->stream);
  if (*memory == nullptr) return fail(FUSEDRNN_OUT_OF_MEMORY, "out of memory on the device");
  *kept = new CudaKept{bytes, place->stream, {}, place->allocator != nullptr, *memory};
  if (place->allocator != nullptr) (*kept)->allocator = *place->allocator;
  return FUSEDRNN_OK;
}

fusedrnn_status enter(CudaKept* kept, const CudaPlace* place) {
  note("enter stream=%ld kept_on=%ld", number(place->stream), number(kept->stream));
  return FUSEDRNN_OK;
}

fusedrnn_status leave(CudaKept* kept, const CudaPlace* place) {
  note("leave stream=%ld kept_on=%ld", number(place->stream), number(kept->stream));
  return FUSEDRNN_OK;
}

void free_kept(CudaKept* kept) {
  note("free_kept");
  give(kept->has_allocator ? &kept->allocator : nullptr, kept->memory, kept->bytes, kept->stream);
  delete kept;
}

const char* last_error() { return error.c_str(); }
const char* description() { return "a library that computes nothing"; }

fusedrnn_status allocate(int32_t device, size_t bytes, void* stream, void** memory) {
  note("allocate device=%d bytes=%ld stream=%ld", static_cast<int>(device),
       static_cast<long>(bytes), number(stream));
  *memory = std::malloc(bytes);
  if (*memory == nullptr) return fail(FUSEDRNN_OUT_OF_MEMORY, "out of memory on the device");
  ++outstanding;
  return FUSEDRNN_OK;
}

void release(int32_t, void* memory, void*) {
  std::free(memory);
  --outstanding;
}

fusedrnn_status order(int32_t device, void* earlier, void* later) {
  note("order device=%d %ld before %ld", static_cast<int>(device), number(earlier), number(later));
  return FUSEDRNN_OK;
}

fusedrnn_status device_of(const void*, int32_t* device) {
  *device = static_cast<int32_t>(setting("FAKE_CUDA_DEVICE_OF", 0));
  return FUSEDRNN_OK;
}

int64_t plain_products() { return setting("FAKE_CUDA_PLAIN_PRODUCTS", 0); }

}  // namespace
}  // namespace fusedrnn

extern "C" {

__attribute__((visibility("default"))) const fusedrnn::CudaPlugin* fusedrnn_cuda_plugin() {
  using namespace fusedrnn;
  static const CudaPlugin plugin = {
      static_cast<int32_t>(setting("FAKE_CUDA_VERSION", kCudaPluginVersion)),
      device_count,
      describe_device,
      reserve_bytes,
      forward,
      backward,
      nullptr,  // gates
      drop,
      last_error,
      description,
      keep,
      enter,
      leave,
      free_kept,
      allocate,
      release,
      order,
      nullptr,  // read
      device_of,
      plain_products,
  };
  return &plugin;
}

// What has been noted since the last time.
__attribute__((visibility("default"))) const char* fake_cuda_journal() {
  static std::string taken;
  taken.swap(fusedrnn::journal);
  fusedrnn::journal.clear();
  return taken.c_str();
}

__attribute__((visibility("default"))) long fake_cuda_outstanding() {
  return fusedrnn::outstanding;
}

}  // extern "C"
