#include "call.h"

#include <stdexcept>
#include <string_view>
#include <utility>

#include "cells.h"
#include "cells/dropout.h"
#include "emulator.h"

extern "C" const fusedrnn::CudaPlugin* fusedrnn_cuda_plugin();

namespace backend_test {

using namespace fusedrnn;

const CudaPlugin& plugin() { return *fusedrnn_cuda_plugin(); }

// --- arrays ---

DeviceArray::DeviceArray(const Array& host, Order order)
    : shape_(host.shape), type_(host.type), item_(host.type.bits / 8) {
  const size_t rank = shape_.size();
  n_ = shape_[rank - 1];
  if (rank > 1) rows_ = shape_[rank - 2];
  if (rank > 2) steps_ = shape_[rank - 3];
  b_stride_ = n_;
  t_stride_ = rows_ * n_;
  int64_t elements = steps_ * rows_ * n_;
  if (order == Order::padded && rank > 1) {
    b_stride_ = n_ + 3;
    t_stride_ = rows_ * b_stride_ + 5;
    elements = steps_ * t_stride_;
  } else if (order == Order::batch_first && rank > 2) {
    b_stride_ = steps_ * n_;
    t_stride_ = n_;
  } else if (order == Order::backwards && rank > 1) {
    b_stride_ = -b_stride_;
    t_stride_ = -t_stride_;
    first_ = static_cast<size_t>((steps_ * rows_ - 1) * n_ * item_);
  }
  bytes_ = static_cast<size_t>(elements * item_);
  memory_ = emulator_allocate(bytes_);
  if (memory_ == nullptr) throw std::runtime_error("emulator_allocate");
  write(host);
}

void DeviceArray::write(const Array& host) {
  std::vector<unsigned char> image(bytes_, 0xff);
  for_rows([&](size_t at_host, size_t at_device, size_t bytes) {
    std::memcpy(image.data() + at_device, host.bytes.data() + at_host, bytes);
  });
  emulator_copy_to_device(memory_, image.data(), bytes_);
}

DeviceArray::~DeviceArray() { emulator_release(memory_); }

template <class Copy>
void DeviceArray::for_rows(const Copy& copy) const {
  for (int64_t t = 0; t < steps_; ++t) {
    for (int64_t b = 0; b < rows_; ++b) {
      const int64_t device = static_cast<int64_t>(first_) + (t * t_stride_ + b * b_stride_) * item_;
      copy(static_cast<size_t>((t * rows_ + b) * n_ * item_), static_cast<size_t>(device),
           static_cast<size_t>(n_ * item_));
    }
  }
}

Array DeviceArray::read() const {
  Array host(shape_, type_);
  std::vector<unsigned char> image(bytes_);
  if (emulator_copy_from_device(image.data(), memory_, bytes_) != 0) {
    throw std::runtime_error(emulator_last_error());
  }
  for_rows([&](size_t at_host, size_t at_device, size_t bytes) {
    std::memcpy(host.bytes.data() + at_host, image.data() + at_device, bytes);
  });
  return host;
}

// --- calls ---

namespace {

Dtype dtype_of(DLDataType type) {
  if (type.code == kDLBfloat) return Dtype::bfloat16;
  return type.bits == 16 ? Dtype::float16 : type.bits == 32 ? Dtype::float32 : Dtype::float64;
}

Array filled(const std::vector<int64_t>& shape, DLDataType type, double value) {
  Array array(shape, type);
  if (std::isnan(value)) return array;
  for (size_t i = 0; i < array.bytes.size(); i += type.bits / 8) {
    const auto one = static_cast<float>(value);
    if (type.bits == 64) {
      std::memcpy(array.bytes.data() + i, &value, sizeof value);
    } else if (type.bits == 32) {
      std::memcpy(array.bytes.data() + i, &one, sizeof one);
    } else {
      const uint16_t bits = value == 0 ? 0 : type.code == kDLBfloat ? 0x3f80 : 0x3c00;
      std::memcpy(array.bytes.data() + i, &bits, sizeof bits);
    }
  }
  return array;
}

}  // namespace

Call::Call(const Case& one, const Options& options) : case_(one), options_(options) {
  const int number = cell_named(one.cell);
  const CellTable& cell = kCells[number];
  const cells::Parameter& first = cell.parameters[0];
  const Array& x = one.arguments.at("x");
  Problem& p = forward_.problem;
  p.cell = number;
  p.dtype = dtype_of(x.type);
  p.reverse = one.reverse != 0;
  p.compute = one.compute != 0 ? Compute::bfloat16 : options.compute;
  p.T = x.shape[0];
  p.B = x.shape[1];
  p.I = x.shape[2];
  p.H = one.arguments.at(first.name).shape[0] / first.rows.times;
  p.P = one.results.at("y").shape[2];
  if (const auto w_hh = one.arguments.find("w_hh"); w_hh != one.arguments.end()) {
    p.heads = p.P / w_hh->second.shape.back();
  }
  p.num_constants = static_cast<int>(cell.constants.size());
  for (size_t i = 0; i < cell.constants.size(); ++i) p.constants[i] = cell.constants[i].usual;
  p.noise.zoneout[0] = one.rates[1];
  p.noise.zoneout[1] = one.rates[2];
  p.noise.candidate = one.rates[3];
  p.noise.state = one.rates[4];
  p.noise.training = one.is_noisy();
  p.noise.seed = one.seed;
  for (const auto& [name, values] : one.arguments) {
    if (name == "lengths" || name == "resets") {
      add_mask(name, values);
    } else {
      inputs_[name] = std::make_unique<DeviceArray>(values, options.order);
    }
  }
  for (const auto& [name, values] : one.results) {
    const bool ones = name == "dx" && options.accumulate_dx;
    outputs_[name] =
        std::make_unique<DeviceArray>(filled(values.shape, x.type, ones ? 1 : NAN), options.order);
  }
  while (recurrent_weights_ + 1 < cell.parameters.size() &&
         cell.parameters[recurrent_weights_].name != std::string_view("w_hh")) {
    ++recurrent_weights_;
  }
  if (one.rates[0] != 0) {
    dropped_weights_ = std::make_unique<DeviceArray>(one.arguments.at("w_hh"), options.order);
  }
  set_addresses();
}

Call::~Call() { free_reserve(); }

void Call::add_mask(const std::string& name, const Array& values) {
  Array& host = host_masks_.emplace(name, values).first->second;
  DLTensor& tensor = masks_[name] = host.tensor();
  if (options_.host_masks) return;
  inputs_[name] = std::make_unique<DeviceArray>(values, Order::dense);
  tensor.data = inputs_.at(name)->data();
  tensor.device = {kDLCUDA, options_.device};
}

const DLTensor* Call::find_mask(const std::string& name) const {
  const auto found = masks_.find(name);
  return found == masks_.end() ? nullptr : &found->second;
}

// Of all arrays that the case has.
void Call::set_addresses() {
  const auto find = [](const auto& arrays, const std::string& name) {
    const auto found = arrays.find(name);
    return found == arrays.end() ? nullptr : found->second.get();
  };
  const auto sequence = [&](const auto& arrays, const std::string& name) {
    const DeviceArray* const array = find(arrays, name);
    return array != nullptr ? array->sequence() : Sequence{};
  };
  const auto matrix = [&](const auto& arrays, const std::string& name) {
    const DeviceArray* const array = find(arrays, name);
    return array != nullptr ? array->matrix() : Matrix{};
  };
  const CellTable& cell = kCells[cell_named(case_.cell)];
  backward_.problem = forward_.problem;
  forward_.x = backward_.x = sequence(inputs_, "x");
  for (size_t i = 0; i < cell.parameters.size(); ++i) {
    const std::string name = cell.parameters[i].name;
    forward_.parameters[i] = backward_.parameters[i] = matrix(inputs_, name);
    backward_.dparameters[i] = matrix(outputs_, "d" + name);
  }
  for (size_t s = 0; s < cell.states.size(); ++s) {
    const std::string name = cell.states[s].name;
    forward_.state_0[s] = matrix(inputs_, name + "0");
    forward_.state_n[s] = matrix(outputs_, name + "_n");
    backward_.dstate_n[s] = matrix(inputs_, "d" + name + "_n");
    backward_.dstate_0[s] = matrix(outputs_, "d" + name + "0");
  }
  forward_.y = sequence(outputs_, "y");
  backward_.dy = sequence(inputs_, "dy");
  backward_.dx = sequence(outputs_, "dx");
  backward_.accumulate_dx = options_.accumulate_dx;
  call_masks_ = {find_mask("lengths"), nullptr, find_mask("resets"), false};
}

void Call::move(const std::string& name, const Array& values) {
  auto& array = (inputs_.contains(name) ? inputs_ : outputs_).at(name);
  left_.push_back(std::move(array));
  array = std::make_unique<DeviceArray>(values, options_.order);
  set_addresses();
}

fusedrnn_status Call::drop_weights(const Matrix& from, const Matrix& to) const {
  if (dropped_weights_ == nullptr) return FUSEDRNN_OK;
  const std::vector<int64_t>& shape = case_.arguments.at("w_hh").shape;
  DropCall call;
  call.dtype = forward_.problem.dtype;
  call.T = 1;
  call.B = shape[0];
  call.n = shape[1];
  call.from = {from.data, 0, from.stride};
  call.to = {to.data, 0, to.stride};
  call.row = cells::row_of_mask(cells::Mask::weights, 0);
  call.rate = case_.rates[0];
  call.seed = case_.seed;
  const CudaPlace place{options_.device, options_.stream, options_.allocator};
  return plugin().drop(&call, &place);
}

fusedrnn_status Call::drop_weights(Matrix* parameters) const {
  if (dropped_weights_ == nullptr) return FUSEDRNN_OK;
  parameters[recurrent_weights_] = dropped_weights_->matrix();
  return drop_weights(inputs_.at("w_hh")->matrix(), dropped_weights_->matrix());
}

fusedrnn_status Call::infer() {
  const CudaPlace place{options_.device, options_.stream, options_.allocator};
  forward_.reserve = nullptr;
  const fusedrnn_status status = drop_weights(forward_.parameters);
  if (status != FUSEDRNN_OK) return status;
  return plugin().forward(&forward_, &call_masks_, &place);
}

// As core's: the reserve is kept memory.
fusedrnn_status Call::forward() {
  free_reserve();
  const CudaPlace place{options_.device, options_.stream, options_.allocator};
  size_t bytes = 0;
  fusedrnn_status status = plugin().reserve_bytes(&forward_.problem, &bytes);
  if (status == FUSEDRNN_OK) status = plugin().keep(bytes, &place, &kept_, &forward_.reserve);
  if (status != FUSEDRNN_OK) return status;
  backward_.reserve = forward_.reserve;
  status = drop_weights(forward_.parameters);
  if (status == FUSEDRNN_OK) status = plugin().forward(&forward_, &call_masks_, &place);
  if (status == FUSEDRNN_OK) status = plugin().leave(kept_, &place);
  if (status != FUSEDRNN_OK) free_reserve();
  return status;
}

fusedrnn_status Call::backward(void* stream) {
  const CudaPlace place{options_.device, stream, options_.allocator};
  fusedrnn_status status = plugin().enter(kept_, &place);
  if (status == FUSEDRNN_OK) status = drop_weights(backward_.parameters);
  if (status == FUSEDRNN_OK) status = plugin().backward(&backward_, &call_masks_, &place);
  const Matrix& gradient = backward_.dparameters[recurrent_weights_];
  if (status == FUSEDRNN_OK) status = drop_weights(gradient, gradient);
  if (status == FUSEDRNN_OK) status = plugin().leave(kept_, &place);
  return status;
}

void Call::free_reserve() {
  if (kept_ != nullptr) plugin().free_kept(kept_);
  kept_ = nullptr;
}

void Call::write(const Case& other) {
  for (const auto& [name, array] : inputs_) array->write(other.arguments.at(name));
  for (auto& [name, array] : host_masks_) array.bytes = other.arguments.at(name).bytes;
  for (auto& [name, tensor] : masks_) {
    if (options_.host_masks) tensor.data = host_masks_.at(name).bytes.data();
  }
}

Arrays Call::outputs() const {
  Arrays arrays;
  for (const auto& [name, array] : outputs_) arrays.emplace(name, array->read());
  return arrays;
}

void require(fusedrnn_status status, const Case& one) {
  if (status == FUSEDRNN_OK) return;
  throw std::runtime_error(one.name + ": " + plugin().last_error());
}

}  // namespace backend_test
