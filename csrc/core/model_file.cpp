// Everything that a file says is checked before it is used: first its length, then the checksum,
// then the network by the checks of every network, then that the arrays are as long as the network
// says.
#include "core/model_file.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/files.h"
#include "core/memory.h"
#include "core/tensor.h"

namespace fusedrnn::model_file {
namespace {

static_assert(std::endian::native == std::endian::little, "files are read as they lie");

constexpr char kMagic[8] = {'f', 'u', 's', 'e', 'd', 'r', 'n', 'n'};
constexpr uint32_t kVersion = 1;
constexpr size_t kAlignment = 64;  // of every array, from the beginning of the file

enum Flag : uint32_t { kBatchFirst = 1 };

struct Header {
  char magic[8];
  uint32_t version;
  uint32_t checksum;  // of all that follows it
  uint64_t size;      // of the file
  uint8_t code, bits;
  uint16_t lanes;
  int32_t compute;
  int32_t num_runs;
  uint32_t flags;
  uint8_t reserved[24];
};
static_assert(sizeof(Header) == 64);
constexpr size_t kChecked = offsetof(Header, size);  // where the checksum begins

// CRC-32 as in zlib and PNG, four bytes at a time.
constexpr std::array<std::array<uint32_t, 256>, 4> make_crc_tables() {
  std::array<std::array<uint32_t, 256>, 4> tables{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = c & 1 ? c >> 1 ^ 0xedb88320u : c >> 1;
    tables[0][i] = c;
  }
  for (size_t t = 1; t < 4; ++t) {
    for (size_t i = 0; i < 256; ++i) {
      const uint32_t c = tables[t - 1][i];
      tables[t][i] = c >> 8 ^ tables[0][c & 255];
    }
  }
  return tables;
}

uint32_t checksum_of(const char* bytes, size_t size) {
  static constexpr auto kTables = make_crc_tables();
  uint32_t c = ~0u;
  for (; size >= 4; bytes += 4, size -= 4) {
    uint32_t word;
    std::memcpy(&word, bytes, sizeof word);
    c ^= word;
    c = kTables[3][c & 255] ^ kTables[2][c >> 8 & 255] ^ kTables[1][c >> 16 & 255] ^
        kTables[0][c >> 24];
  }
  for (; size > 0; ++bytes, --size) {
    c = c >> 8 ^ kTables[0][(c ^ static_cast<unsigned char>(*bytes)) & 255];
  }
  return ~c;
}

// --- where the arrays lie ---

size_t end_of_records(const Network& network) {
  return sizeof(Header) + network.runs.size() * sizeof(RunRecord);
}

struct Place {
  size_t offset, bytes;
};

// Calls visit(run, number within it, place, place of the scales of its rows) for every parameter;
// returns the file's size. Each array is of a size that can be named, but all of them may not be.
template <class Visit>
size_t for_arrays(const Network& network, const Visit& visit) {
  size_t end = end_of_records(network);
  const auto place = [&](size_t bytes) {
    const size_t offset = (end + kAlignment - 1) / kAlignment * kAlignment;
    if (offset < end || __builtin_add_overflow(offset, bytes, &end)) throw OutOfMemory();
    return Place{offset, bytes};
  };
  network.for_parameters([&](const Run& run, int i, int) {
    const auto rows = static_cast<size_t>(run.rows(i));
    const int64_t item = run.is_matrix(i) ? weight_bytes(run.problem) : item_size(network.dtype);
    const Place array = place(rows * static_cast<size_t>(run.columns(i) * item));
    const bool scaled = run.is_matrix(i) && network.compute == Compute::int8;
    visit(run, i, array, scaled ? place(rows * sizeof(float)) : Place{0, 0});
  });
  return end;
}

// --- writing ---

Header header_of(const Network& network, bool batch_first, size_t size) {
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kVersion;
  header.size = size;
  const DLDataType type = dtype_info(network.dtype).dlpack;
  header.code = type.code;
  header.bits = type.bits;
  header.lanes = type.lanes;
  header.compute = static_cast<int32_t>(network.compute);
  header.num_runs = static_cast<int32_t>(network.runs.size());
  header.flags = batch_first ? uint32_t{kBatchFirst} : 0;
  return header;
}

// --- reading ---

// What can be said of a file by its first bytes and its size.
void check_header(const char* name, const Header& header, uint64_t size) {
  if (size < sizeof header) {
    refuse_value(name, "a model file, at least " + std::to_string(sizeof header) + " bytes", size);
  }
  if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0) {
    refuse_value(name, "a model file of fusedrnn", "other bytes");
  }
  if (header.version != kVersion) {
    refuse_value(name, "a model file of version " + std::to_string(kVersion),
                 "version " + std::to_string(header.version));
  }
  if (header.size != size) {
    refuse_value(name, std::to_string(header.size) + " bytes, as the file says of itself", size);
  }
}

// Throws with the file's name before what is wrong.
[[noreturn]] void refuse_file(const char* name, const std::string& what) {
  throw_value_error(std::string(name) + ": " + what);
}

Network network_of(const Header& header, const char* bytes) {
  const auto size = static_cast<size_t>(header.num_runs) * sizeof(RunRecord);
  const auto records = std::as_bytes(std::span(bytes + sizeof header, size));
  const DLDataType type{header.code, header.bits, header.lanes};
  const DtypeInfo* const dtype = find_dtype(type);
  if (dtype == nullptr) {
    refuse_value("dtype", "one of " + dtype_names(), dtype_name(type));
  }
  if (header.compute == FUSEDRNN_COMPUTE_TFLOAT32) {
    refuse_value("compute", "what frozen weights have", header.compute);
  }
  return make_network(records, dtype->dtype, header.compute, FUSEDRNN_MEMORY_DEFAULT);
}

// The magnitude whose scale (kernels/quantised.h) is this one; 0 where there is none. If a number's
// is, that of the nearest number to 127 scales is: true of all 2^23 scales between two powers of 2,
// and so of all.
float top_of(float scale) {
  constexpr float kLargest = 127;
  const float top = std::min(scale * kLargest, std::numeric_limits<float>::max());
  return top / kLargest == scale ? top : 0;
}

// Numbers that are quantised to these again: a row's largest is 127 of its scale. A row of a scale
// that is no number had such a number in it.
void dequantise(const std::string& name, const int8_t* numbers, const float* scales, int64_t rows,
                int64_t columns, float* values) {
  for (int64_t row = 0; row < rows; ++row, numbers += columns, values += columns) {
    const float scale = scales[row];
    const auto refuse = [&](const std::string& what) {
      throw_value_error(name + ", row " + std::to_string(row) + ": " + what);
    };
    int largest = 0;
    for (int64_t k = 0; k < columns; ++k) largest = std::max(largest, std::abs(int{numbers[k]}));
    if (scale == 0 || std::isnan(scale)) {
      if (largest != 0) refuse("expected zeros, for its scale is " + number_text(double{scale}));
      std::fill_n(values, columns, scale);
      continue;
    }
    const float top = std::isnormal(scale) && scale > 0 ? top_of(scale) : 0;
    if (top == 0) refuse("expected a scale, got " + number_text(double{scale}));
    if (largest != 127) refuse("expected 127 as the largest, got " + std::to_string(largest));
    for (int64_t k = 0; k < columns; ++k) {
      const int q = numbers[k];
      values[k] = q == 127 ? top : q == -127 ? -top : static_cast<float>(q) * scale;
    }
  }
}

void widen(const uint16_t* numbers, int64_t count, float* values) {
  for (int64_t i = 0; i < count; ++i) {
    values[i] = std::bit_cast<float>(uint32_t{numbers[i]} << 16);
  }
}

// `bytes`: aligned to kAlignment.
std::unique_ptr<fusedrnn_frozen> parse(const char* name, const char* bytes, size_t size) {
  Header header{};
  std::memcpy(&header, bytes, std::min(size, sizeof header));
  check_header(name, header, size);
  if (header.checksum != checksum_of(bytes + kChecked, size - kChecked)) {
    refuse_file(name, "damaged: its checksum is another one");
  }
  const auto zeros = [](uint8_t byte) { return byte == 0; };
  if ((header.flags & ~uint32_t{kBatchFirst}) != 0 ||
      !std::ranges::all_of(header.reserved, zeros)) {
    refuse_file(name, "expected zeros where version 1 says nothing, got more");
  }
  const size_t most = (size - sizeof header) / sizeof(RunRecord);
  if (most == 0) {
    refuse_file(name, expected("size",
                               std::to_string(sizeof header + sizeof(RunRecord)) +
                                   " bytes or more, for one run",
                               std::to_string(size)));
  }
  if (header.num_runs < 1 || static_cast<size_t>(header.num_runs) > most) {
    refuse_file(name, expected("num_runs", "1 to " + std::to_string(most) + ", as many as fit",
                               std::to_string(header.num_runs)));
  }
  auto frozen = std::make_unique<fusedrnn_frozen>();
  const Network& network = frozen->network;
  try {
    frozen->network = network_of(header, bytes);
  } catch (const Error& error) {
    refuse_file(name, error.what());
  }
  frozen->takes_steps = is_plain_stack(network);
  frozen->batch_first = (header.flags & kBatchFirst) != 0;
  const size_t wanted = for_arrays(network, [](const Run&, int, Place, Place) {});
  if (wanted != size) {
    refuse_file(name, expected("size", std::to_string(wanted) + " bytes for its network",
                               std::to_string(size)));
  }

  FreezeCall call;
  std::vector<Block> wide;  // of the run's matrices
  for_arrays(network, [&](const Run& run, int i, Place array, Place scales) {
    const int64_t rows = run.rows(i), columns = run.columns(i);
    const char* const data = bytes + array.offset;
    Matrix& matrix = call.parameters[i];
    matrix = {const_cast<char*>(data), columns};
    if (run.is_matrix(i) &&
        (network.compute == Compute::int8 || network.compute == Compute::bfloat16)) {
      wide.emplace_back(static_cast<size_t>(rows * columns) * sizeof(float));
      auto* const values = static_cast<float*>(wide.back().data());
      matrix.data = values;
      if (network.compute == Compute::bfloat16) {
        widen(reinterpret_cast<const uint16_t*>(data), rows * columns, values);
      } else {
        const std::string parameter =
            std::string(name) + ": " + Name(run.parameter(i).name, network.named(run)).text();
        dequantise(parameter, reinterpret_cast<const int8_t*>(data),
                   reinterpret_cast<const float*>(bytes + scales.offset), rows, columns, values);
      }
    }
    if (i + 1 < run.num_parameters()) return;
    call.problem = run.problem;
    frozen->packed.push_back(cpu::freeze(call));
    call = {};
    wide.clear();
  });
  return frozen;
}

}  // namespace

void save(const fusedrnn_frozen& frozen, const std::string& path) {
  const Network& network = frozen.network;
  const size_t size = for_arrays(network, [](const Run&, int, Place, Place) {});
  const Block block(size);
  char* const bytes = static_cast<char*>(block.data());
  std::memset(bytes, 0, size);
  Header header = header_of(network, frozen.batch_first, size);
  for (const Run& run : network.runs) {
    const RunRecord record = record_of(run);
    std::memcpy(bytes + sizeof header + static_cast<size_t>(network.number_of(run)) * sizeof record,
                &record, sizeof record);
  }
  cpu::UnpackCall call;
  for_arrays(network, [&](const Run& run, int i, Place array, Place scales) {
    call.parameters[i] = bytes + array.offset;
    call.scales[i] = scales.bytes == 0 ? nullptr : reinterpret_cast<float*>(bytes + scales.offset);
    if (i + 1 < run.num_parameters()) return;
    cpu::unpack(*frozen.packed[static_cast<size_t>(network.number_of(run))], call);
    call = {};
  });
  std::memcpy(bytes, &header, sizeof header);
  header.checksum = checksum_of(bytes + kChecked, size - kChecked);
  std::memcpy(bytes, &header, sizeof header);
  write_file(path, bytes, size);
}

std::unique_ptr<fusedrnn_frozen> read(const char* name, const void* bytes, size_t size) {
  if (reinterpret_cast<uintptr_t>(bytes) % kAlignment == 0) {
    return parse(name, static_cast<const char*>(bytes), size);
  }
  const Block block(size);
  std::memcpy(block.data(), bytes, size);
  return parse(name, static_cast<const char*>(block.data()), size);
}

std::unique_ptr<fusedrnn_frozen> load(const std::string& path) {
  FileReader file(path);
  Header header{};
  const size_t first = file.read(&header, sizeof header);
  check_header(path.c_str(), header, file.size());  // before there is memory for it
  const Block block(file.size());
  char* const bytes = static_cast<char*>(block.data());
  std::memcpy(bytes, &header, first);
  const size_t size = first + file.read(bytes + first, file.size() - first);
  return parse(path.c_str(), bytes, size);
}

}  // namespace fusedrnn::model_file
