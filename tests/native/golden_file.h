// What golden.py wrote: problems and their results.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "fusedrnn/fusedrnn.h"

namespace golden {

static_assert(std::endian::native == std::endian::little, "as golden.py writes");

class Reader {
 public:
  explicit Reader(const char* path) : file_(path, std::ios::binary) {
    file_.exceptions(std::ios::badbit | std::ios::failbit | std::ios::eofbit);
  }
  int64_t number() { return value<int64_t>(); }
  double real() { return value<double>(); }
  std::string text() {
    std::string value(static_cast<size_t>(number()), '\0');
    bytes(value.data(), value.size());
    return value;
  }
  void bytes(void* to, size_t count) {
    file_.read(static_cast<char*>(to), static_cast<std::streamsize>(count));
  }

 private:
  template <class T>
  T value() {
    T read{};
    bytes(&read, sizeof read);
    return read;
  }

  std::ifstream file_;
};

// A dense array that owns its values.
struct Array {
  std::vector<int64_t> shape;
  DLDataType type;
  std::vector<unsigned char> bytes;

  Array(std::vector<int64_t> dimensions, DLDataType element)
      : shape(std::move(dimensions)), type(element) {
    // All ones: NaN, as long as nobody writes.
    bytes.assign(static_cast<size_t>(count()) * element.bits / 8, 0xff);
  }
  int64_t count() const {
    int64_t product = 1;
    for (const int64_t size : shape) product *= size;
    return product;
  }
  double operator[](int64_t i) const {
    if (type.code == kDLBfloat) return std::bit_cast<float>(uint32_t{at<uint16_t>(i)} << 16);
    if (type.bits == 16) return half(at<uint16_t>(i));
    return type.bits == 32 ? at<float>(i) : at<double>(i);
  }
  DLTensor tensor() {
    DLTensor t{};
    t.data = bytes.data();
    t.device = {kDLCPU, 0};
    t.ndim = static_cast<int32_t>(shape.size());
    t.dtype = type;
    t.shape = shape.data();
    return t;
  }

 private:
  template <class T>
  T at(int64_t i) const {
    T value;
    std::memcpy(&value, bytes.data() + static_cast<size_t>(i) * sizeof value, sizeof value);
    return value;
  }
  static double half(uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
    const double magnitude = exponent == 31  ? NAN  // or infinity, as wrong here
                             : exponent == 0 ? std::ldexp(fraction, -24)
                                             : std::ldexp(1024 + fraction, exponent - 25);
    return (bits & 0x8000) != 0 ? -magnitude : magnitude;
  }
};

using Arrays = std::map<std::string, Array>;

struct Case {
  std::string name;
  double bound;
  std::string cell;
  int32_t reverse, compute;
  uint64_t seed;    // of the noise
  double rates[5];  // in the order of a fusedrnn_run
  Arrays arguments, results;

  bool is_noisy() const { return seed != 0; }
};

inline DLDataType type_of(const std::string& name) {
  if (name == "float32") return {kDLFloat, 32, 1};
  if (name == "float64") return {kDLFloat, 64, 1};
  if (name == "bfloat16") return {kDLBfloat, 16, 1};
  if (name == "float16") return {kDLFloat, 16, 1};
  if (name == "int64") return {kDLInt, 64, 1};
  if (name == "bool") return {kDLBool, 8, 1};
  throw std::runtime_error("golden.py: unknown type " + name);
}

inline Arrays read_arrays(Reader& reader) {
  Arrays arrays;
  for (int64_t left = reader.number(); left > 0; --left) {
    const std::string name = reader.text(), type = reader.text();
    std::vector<int64_t> shape(static_cast<size_t>(reader.number()));
    for (int64_t& size : shape) size = reader.number();
    Array array(shape, type_of(type));
    reader.bytes(array.bytes.data(), array.bytes.size());
    arrays.emplace(name, std::move(array));
  }
  return arrays;
}

inline Case read_case(Reader& reader) {
  Case one{};
  one.name = reader.text();
  one.bound = reader.real();
  one.cell = reader.text();
  one.reverse = static_cast<int32_t>(reader.number());
  one.compute = static_cast<int32_t>(reader.number());
  one.seed = static_cast<uint64_t>(reader.number());
  for (double& rate : one.rates) rate = reader.real();
  one.arguments = read_arrays(reader);
  one.results = read_arrays(reader);
  return one;
}

// By norm, as everywhere; NaN where the call left or made one.
inline double relative_error(const Array& got, const Array& expected) {
  double difference = 0, norm = 0;
  for (int64_t i = 0; i < expected.count(); ++i) {
    difference += (got[i] - expected[i]) * (got[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  return std::sqrt(difference) / (norm > 0 ? std::sqrt(norm) : 1);
}

}  // namespace golden
