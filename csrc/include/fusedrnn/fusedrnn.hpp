// fusedrnn.h for C++17: what it makes is released by itself, a failed call throws, arrays are
// pointers with a shape. Header only, and nothing but the standard library beside the C header,
// whose words for shapes, null arguments and threads hold here too; what has no name here is called
// as in C.
//
//   using namespace fusedrnn;
//   const Network network(stack("lstm", 40, 256, 2), dtype_of<float>());
//   Arrays<float> weights = Arrays<float>::of_parameters(network);
//   const Frozen frozen(network, weights);              // or Frozen::load("model.frnn")
//   Stream<float> stream(frozen, 1);
//   const float* h = stream.step(x);
#ifndef FUSEDRNN_FUSEDRNN_HPP_
#define FUSEDRNN_FUSEDRNN_HPP_

#include <complex>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "fusedrnn/fusedrnn.h"

namespace fusedrnn {
inline namespace v1 {  // the static library has names of its own in fusedrnn

// --- errors ---

// A call that failed: what() is fusedrnn_last_error(), which names the argument.
class Error : public std::runtime_error {
 public:
  Error(fusedrnn_status status, const std::string& message)
      : std::runtime_error(message), status_(status) {}
  fusedrnn_status status() const noexcept { return status_; }

 private:
  fusedrnn_status status_;
};

inline void check(fusedrnn_status status) {
  if (status != FUSEDRNN_OK) throw Error(status, fusedrnn_last_error());
}

// --- types and arrays ---

// The 16-bit types, as bits.
struct BFloat16 {
  std::uint16_t bits;
};
struct Float16 {
  std::uint16_t bits;
};

namespace detail {

template <class T>
struct Dtype;
#define FUSEDRNN_DTYPE(type, code, bits)                 \
  template <>                                            \
  struct Dtype<type> {                                   \
    static constexpr DLDataType value = {code, bits, 1}; \
  }
FUSEDRNN_DTYPE(float, kDLFloat, 32);
FUSEDRNN_DTYPE(double, kDLFloat, 64);
FUSEDRNN_DTYPE(BFloat16, kDLBfloat, 16);
FUSEDRNN_DTYPE(Float16, kDLFloat, 16);
FUSEDRNN_DTYPE(std::complex<float>, kDLComplex, 64);
FUSEDRNN_DTYPE(std::complex<double>, kDLComplex, 128);
FUSEDRNN_DTYPE(std::int32_t, kDLInt, 32);
FUSEDRNN_DTYPE(std::int64_t, kDLInt, 64);
FUSEDRNN_DTYPE(std::uint8_t, kDLUInt, 8);
FUSEDRNN_DTYPE(bool, kDLBool, 8);
#undef FUSEDRNN_DTYPE

}  // namespace detail

template <class T>
constexpr DLDataType dtype_of() {
  return detail::Dtype<T>::value;
}

// A dense row-major array of somebody else's, to be read; one without an address is what a null
// pointer is in C. Copying copies the description.
class ConstTensor {
 public:
  ConstTensor() = default;
  ConstTensor(std::nullptr_t) {}  // NOLINT: f(nullptr)
  template <class T>
  ConstTensor(const T* data, std::initializer_list<std::int64_t> shape)
      : ConstTensor(const_cast<T*>(data), dtype_of<T>(), shape.begin(), shape.size()) {}

  bool is_none() const { return !given_; }
  // Valid until this is changed or gone.
  const DLTensor* get() const { return given_ ? point() : nullptr; }

 protected:
  ConstTensor(void* data, DLDataType type, const std::int64_t* shape, std::size_t rank)
      : given_(true) {
    if (rank > kMaxRank) throw std::length_error("fusedrnn: a tensor of more than 3 axes");
    for (std::size_t i = 0; i < rank; ++i) shape_[i] = shape[i];
    tensor_.data = data;
    tensor_.device = {kDLCPU, 0};
    tensor_.ndim = static_cast<std::int32_t>(rank);
    tensor_.dtype = type;
  }
  DLTensor* point() const {
    tensor_.shape = shape_;  // after a copy that of another
    return &tensor_;
  }
  bool given_ = false;

 private:
  static constexpr std::size_t kMaxRank = 3;
  mutable std::int64_t shape_[kMaxRank] = {};
  mutable DLTensor tensor_ = {};
};

// One to be written.
class Tensor : public ConstTensor {
 public:
  Tensor() = default;
  Tensor(std::nullptr_t) {}  // NOLINT
  template <class T>
  Tensor(T* data, std::initializer_list<std::int64_t> shape)
      : ConstTensor(data, dtype_of<T>(), shape.begin(), shape.size()) {}
  Tensor(void* data, DLDataType type, const std::int64_t* shape, std::size_t rank)
      : ConstTensor(data, type, shape, rank) {}

  DLTensor* get() const { return given_ ? point() : nullptr; }
};

// What a call takes for a list of tensors; an empty one is a null address.
template <class T>
class List {
 public:
  using Pointer = decltype(std::declval<const T&>().get());

  List() = default;
  List(std::initializer_list<T> tensors) : List(std::vector<T>(tensors)) {}
  explicit List(std::vector<T> tensors) : tensors_(std::move(tensors)) {}

  std::size_t size() const { return tensors_.size(); }
  const T& operator[](std::size_t i) const { return tensors_[i]; }
  // Valid until this is changed or gone.
  Pointer const* get() const {
    pointers_.clear();
    for (const T& tensor : tensors_) pointers_.push_back(tensor.get());
    return pointers_.empty() ? nullptr : pointers_.data();
  }

 private:
  std::vector<T> tensors_;
  mutable std::vector<Pointer> pointers_;
};
using ConstTensors = List<ConstTensor>;
using Tensors = List<Tensor>;

// --- networks ---

// Runs of layers of one cell and size, in one direction or in both, as in the header's example.
// `projection_size`: of cells that have one, else 0. The name is not copied.
inline std::vector<fusedrnn_run> stack(const char* cell, std::int64_t input_size,
                                       std::int64_t hidden_size, int num_layers = 1,
                                       bool bidirectional = false,
                                       std::int64_t projection_size = 0) {
  const std::int64_t width = projection_size != 0 ? projection_size : hidden_size;
  const int directions = bidirectional ? 2 : 1;
  std::vector<fusedrnn_run> runs;
  for (int layer = 0; layer < num_layers; ++layer) {
    for (int direction = 0; direction < directions; ++direction) {
      fusedrnn_run run{};
      run.cell = cell;
      run.reverse = direction;
      run.reads = layer;
      run.writes = layer + 1;
      run.write_offset = direction * width;
      run.input_size = layer == 0 ? input_size : directions * width;
      run.hidden_size = hidden_size;
      run.projection_size = projection_size;
      runs.push_back(run);
    }
  }
  return runs;
}

class Network {
 public:
  explicit Network(const std::vector<fusedrnn_run>& runs, DLDataType type = dtype_of<float>(),
                   fusedrnn_compute compute = FUSEDRNN_COMPUTE_SAME,
                   fusedrnn_memory memory = FUSEDRNN_MEMORY_DEFAULT) {
    fusedrnn_network_args args{};
    args.size = sizeof args;
    args.runs = runs.data();
    args.num_runs = static_cast<std::int32_t>(runs.size());
    args.compute = compute;
    args.dtype = type;
    args.memory = memory;
    fusedrnn_network* made = nullptr;
    check(fusedrnn_network_create(&args, &made));
    network_.reset(made, fusedrnn_network_free);
  }
  // One that belongs to something else, which `owner` keeps.
  Network(const std::shared_ptr<const void>& owner, const fusedrnn_network* network)
      : network_(owner, const_cast<fusedrnn_network*>(network)) {}

  const fusedrnn_network* get() const { return network_.get(); }
  fusedrnn_network_info info() const {
    fusedrnn_network_info found{};
    check(fusedrnn_network_describe(get(), &found));
    return found;
  }
  fusedrnn_array_info parameter(std::int32_t index) const {
    fusedrnn_array_info found{};
    check(fusedrnn_network_parameter(get(), index, &found));
    return found;
  }
  fusedrnn_array_info state(std::int32_t index) const {
    fusedrnn_array_info found{};
    check(fusedrnn_network_state(get(), index, &found));
    return found;
  }
  std::size_t reserve_bytes(std::int64_t steps, std::int64_t batch) const {
    std::size_t bytes = 0;
    check(fusedrnn_reserve_bytes(get(), {kDLCPU, 0}, steps, batch, &bytes));
    return bytes;
  }

 private:
  std::shared_ptr<fusedrnn_network> network_;  // immutable: copies share it
};

// Memory of one's own for all parameters of a network, or all states of a batch: zeros at first.
template <class T>
class Arrays {
 public:
  static Arrays of_parameters(const Network& network) {
    Arrays arrays;
    const std::int32_t count = network.info().num_parameters;
    for (std::int32_t i = 0; i < count; ++i) {
      const fusedrnn_array_info info = network.parameter(i);
      arrays.add(info, info.shape, info.ndim);
    }
    return arrays;
  }
  static Arrays of_states(const Network& network, std::int64_t batch) {
    Arrays arrays;
    const std::int32_t count = network.info().num_states;
    for (std::int32_t i = 0; i < count; ++i) {
      const fusedrnn_array_info info = network.state(i);
      const std::int64_t shape[] = {batch, info.shape[0]};
      arrays.add(info, shape, 2);
    }
    return arrays;
  }

  std::size_t size() const { return arrays_.size(); }
  std::vector<T>& operator[](std::size_t i) { return arrays_[i].numbers; }
  const std::vector<T>& operator[](std::size_t i) const { return arrays_[i].numbers; }
  const fusedrnn_array_info& info(std::size_t i) const { return arrays_[i].info; }

  // They refer to this memory, and are valid for as long.
  Tensors tensors() {
    std::vector<Tensor> list;
    for (One& one : arrays_)
      list.emplace_back(one.numbers.data(), dtype_of<T>(), one.shape, one.rank);
    return Tensors(std::move(list));
  }
  ConstTensors tensors() const {
    std::vector<ConstTensor> list;
    for (const One& one : arrays_) {
      list.push_back(
          Tensor(const_cast<T*>(one.numbers.data()), dtype_of<T>(), one.shape, one.rank));
    }
    return ConstTensors(std::move(list));
  }

 private:
  struct One {
    fusedrnn_array_info info;
    std::vector<T> numbers;
    std::int64_t shape[2];
    std::size_t rank;
  };
  void add(const fusedrnn_array_info& info, const std::int64_t* shape, int rank) {
    One one{info, {}, {}, static_cast<std::size_t>(rank)};
    std::size_t count = 1;
    for (int i = 0; i < rank; ++i) {
      one.shape[i] = shape[i];
      count *= static_cast<std::size_t>(shape[i]);
    }
    one.numbers.resize(count);
    arrays_.push_back(std::move(one));
  }
  std::vector<One> arrays_;
};

// --- calls ---

// The arguments of a forward call that are arrays. Whatever else it takes can be set in `more`.
struct Forward {
  ConstTensor x;            // [T,B,input size]
  ConstTensors parameters;  // none with frozen weights
  ConstTensors states;
  ConstTensor lengths, mask, resets;
  ConstTensors reset_states;
  Tensor y;  // [T,B,output size]
  Tensors states_n, state_sequences;
  void* reserve = nullptr;
  std::size_t reserve_bytes = 0;
  fusedrnn_forward_args more = {};

  // Valid until this is changed or gone.
  fusedrnn_forward_args args(const fusedrnn_network* network) const {
    fusedrnn_forward_args args = more;
    args.size = sizeof args;
    args.network = network;
    args.x = x.get();
    args.parameters = parameters.get();
    args.states = states.get();
    args.lengths = lengths.get();
    args.mask = mask.get();
    args.resets = resets.get();
    args.reset_states = reset_states.get();
    args.y = y.get();
    args.states_n = states_n.get();
    args.state_sequences = state_sequences.get();
    args.reserve = reserve;
    args.reserve_bytes = reserve_bytes;
    return args;
  }
};

// The same of its backward call.
struct Backward {
  ConstTensor x;
  ConstTensors parameters;
  ConstTensor lengths, mask, resets;
  const void* reserve = nullptr;
  std::size_t reserve_bytes = 0;
  ConstTensor dy;
  ConstTensors dstates_n, dstate_sequences;
  Tensor dx;
  Tensors dparameters, dstates, dreset_states;
  Tensor flow;
  fusedrnn_backward_args more = {};

  fusedrnn_backward_args args(const fusedrnn_network* network) const {
    fusedrnn_backward_args args = more;
    args.size = sizeof args;
    args.network = network;
    args.x = x.get();
    args.parameters = parameters.get();
    args.lengths = lengths.get();
    args.mask = mask.get();
    args.resets = resets.get();
    args.reserve = reserve;
    args.reserve_bytes = reserve_bytes;
    args.dy = dy.get();
    args.dstates_n = dstates_n.get();
    args.dstate_sequences = dstate_sequences.get();
    args.dx = dx.get();
    args.dparameters = dparameters.get();
    args.dstates = dstates.get();
    args.dreset_states = dreset_states.get();
    args.flow = flow.get();
    return args;
  }
};

inline void forward(const Network& network, const Forward& call) {
  const fusedrnn_forward_args args = call.args(network.get());
  check(fusedrnn_forward(&args));
}
inline void backward(const Network& network, const Backward& call) {
  const fusedrnn_backward_args args = call.args(network.get());
  check(fusedrnn_backward(&args));
}

// Memory for what a forward call leaves, aligned as it has to be.
class Reserve {
 public:
  Reserve(const Network& network, std::int64_t steps, std::int64_t batch)
      : bytes_(network.reserve_bytes(steps, batch)),
        lines_((bytes_ + sizeof(Line) - 1) / sizeof(Line)) {}
  void* data() { return lines_.data(); }
  const void* data() const { return lines_.data(); }
  std::size_t bytes() const { return bytes_; }

 private:
  struct alignas(16) Line {
    unsigned char bytes[16];
  };
  std::size_t bytes_;
  std::vector<Line> lines_;
};

// --- frozen weights ---

class Frozen {
 public:
  Frozen(const Network& network, const ConstTensors& parameters) {
    fusedrnn_frozen* made = nullptr;
    check(fusedrnn_freeze(network.get(), parameters.get(), &made));
    frozen_.reset(made, fusedrnn_frozen_free);
  }
  template <class T>
  Frozen(const Network& network, const Arrays<T>& parameters)
      : Frozen(network, parameters.tensors()) {}

  static Frozen load(const std::string& path) {
    fusedrnn_frozen* made = nullptr;
    check(fusedrnn_frozen_load(path.c_str(), &made));
    return Frozen(made);
  }
  static Frozen read(const void* bytes, std::size_t size) {
    fusedrnn_frozen* made = nullptr;
    check(fusedrnn_frozen_read(bytes, size, &made));
    return Frozen(made);
  }
  void save(const std::string& path) const { check(fusedrnn_frozen_save(get(), path.c_str())); }

  const fusedrnn_frozen* get() const { return frozen_.get(); }
  Network network() const { return {frozen_, fusedrnn_frozen_network(get())}; }
  void forward(const Forward& call) const {
    const fusedrnn_forward_args args = call.args(nullptr);
    check(fusedrnn_frozen_forward(get(), &args));
  }

 private:
  explicit Frozen(fusedrnn_frozen* made) : frozen_(made, fusedrnn_frozen_free) {}
  std::shared_ptr<fusedrnn_frozen> frozen_;  // immutable: copies share it
};

// Steps of one batch, from zero states on, by one thread at a time. T: the weights' type. Once it
// is made, nothing is allocated.
template <class T>
class Stream {
 public:
  Stream(const Frozen& frozen, std::int64_t batch)
      : frozen_(frozen), batch_(batch), states_(Arrays<T>::of_states(frozen.network(), batch)) {
    const DLDataType type = frozen.network().info().dtype, wanted = dtype_of<T>();
    if (type.code != wanted.code || type.bits != wanted.bits) {
      throw Error(FUSEDRNN_INVALID_TYPE, "Stream: expected the type of the frozen network");
    }
    const std::size_t bytes = fusedrnn_frozen_workspace(frozen.get(), batch);
    if (bytes == 0) throw Error(FUSEDRNN_INVALID_VALUE, fusedrnn_last_error());
    workspace_.resize(bytes + kAlignment);
    const auto address = reinterpret_cast<std::uintptr_t>(workspace_.data());
    aligned_ = workspace_.data() + (kAlignment - address % kAlignment) % kAlignment;
    for (std::size_t i = 0; i < states_.size(); ++i) {
      next_.push_back(states_[i].data());
      if (states_.info(i).name[0] == 'h' && states_.info(i).name[1] == '\0') output_ = i;
    }
    prev_.assign(next_.begin(), next_.end());
  }
  Stream(Stream&&) noexcept = default;
  Stream& operator=(Stream&&) noexcept = default;

  // x [batch,input size]; the result is h of the last layer, [batch,output size], until the next.
  const T* step(const T* x) {
    check(fusedrnn_frozen_step(frozen_.get(), batch_, x, prev_.data(), next_.data(), aligned_));
    return states_[output_].data();
  }
  void reset() {
    for (std::size_t i = 0; i < states_.size(); ++i) states_[i].assign(states_[i].size(), T{});
  }
  Arrays<T>& states() { return states_; }

 private:
  static constexpr std::size_t kAlignment = 64;
  Frozen frozen_;
  std::int64_t batch_;
  Arrays<T> states_;
  std::vector<unsigned char> workspace_;
  unsigned char* aligned_ = nullptr;
  std::vector<const void*> prev_;
  std::vector<void*> next_;
  std::size_t output_ = 0;
};

}  // namespace v1
}  // namespace fusedrnn

#endif  // FUSEDRNN_FUSEDRNN_HPP_
