#include "core/network.h"

#include <algorithm>
#include <cmath>
#include <compare>
#include <cstring>
#include <iterator>
#include <limits>
#include <utility>

#include "cells/registry.h"

namespace fusedrnn {
namespace {

template <class Cell>
constexpr std::span<const char* const> gates_of() {
  // Cells with constants mark their gates, or save what goes into them.
  if constexpr (requires { Cell::kGateNames; } && cells::kConstantCount<Cell> == 0) {
    static_assert(std::size(Cell::kGateNames) <= size_t{Cell::kGates} &&
                  Cell::kGates <= Cell::kSaved);
    return Cell::kGateNames;
  } else {
    return {};
  }
}

template <class Cell>
constexpr CellTable table_of(const char* name) {
  static_assert(cells::length(Cell::kParameters) <= kMaxParameters);
  static_assert(cells::kStateCount<Cell> <= kMaxStates);
  static_assert(cells::kConstantCount<Cell> <= kMaxConstants);
  CellTable table{name,
                  Cell::kParameters,
                  Cell::kStates,
                  gates_of<Cell>(),
                  {},
                  Cell::kStages,
                  Cell::kGates,
                  Cell::kSaved,
                  cells::kNormCount<Cell>,
                  Cell::kStates[0].size == 'P',
                  cells::masks_candidate<Cell>()};
  if constexpr (cells::kConstantCount<Cell> > 0) table.constants = Cell::kConstants;
  return table;
}

#define FUSEDRNN_CELL_TABLE(name, ...) table_of<__VA_ARGS__>(name),
constexpr CellTable kCells[] = {FUSEDRNN_FOR_EACH_CELL(FUSEDRNN_CELL_TABLE)};
#undef FUSEDRNN_CELL_TABLE

// The largest buffers of any engine, rounded up: gates and gradients of all steps, packed weights.
constexpr int64_t kPad = 64, kBlocks = 8;
int64_t largest_item(Dtype dtype) { return std::max<int64_t>(sizeof(double), item_size(dtype)); }
constexpr int kMaxRuns = 1 << 20;

// In the order of fusedrnn_compute.
constexpr const char* kComputeNames[] = {"FUSEDRNN_COMPUTE_SAME", "FUSEDRNN_COMPUTE_BFLOAT16",
                                         "FUSEDRNN_COMPUTE_INT8", "FUSEDRNN_COMPUTE_TFLOAT32"};

Compute known_compute(int32_t compute, Dtype dtype) {
  if (compute < 0 || compute >= static_cast<int>(std::size(kComputeNames))) {
    refuse_value("compute", "a fusedrnn_compute", compute);
  }
  if (dtype == Dtype::bfloat16 && compute == FUSEDRNN_COMPUTE_BFLOAT16) {
    return Compute::same;  // its operands are nothing else
  }
  if (dtype != Dtype::float32 && compute != FUSEDRNN_COMPUTE_SAME) {
    refuse_value("compute",
                 "FUSEDRNN_COMPUTE_SAME with arrays of " + std::string(dtype_name(dtype)),
                 kComputeNames[compute]);
  }
  return static_cast<Compute>(compute);
}

// "1", "1 or 2", "1 to 3".
std::string range_text(int64_t first, int64_t last) {
  if (first == last) return std::to_string(first);
  return std::to_string(first) + (last == first + 1 ? " or " : " to ") + std::to_string(last);
}

// An error of one field of a run.
[[noreturn]] void throw_field(int run, const char* field, const std::string& wanted, int64_t got) {
  refuse_value({field, run}, wanted, got);
}

void set_sizes(const fusedrnn_run& given, int number, int named, Dtype dtype, Run& run) {
  Problem& p = run.problem;
  p.I = given.input_size;
  p.H = given.hidden_size;
  p.P = run.cell->projects && given.projection_size != 0 ? given.projection_size : p.H;
  if (p.I < 1) throw_field(number, "input_size", "at least 1", p.I);
  if (p.H < 1) throw_field(number, "hidden_size", "at least 1", p.H);
  if (p.P < 1) throw_field(number, "projection_size", "at least 0", p.P);
  if (given.projection_size != 0 && !run.cell->projects) {
    throw_field(number, "projection_size",
                std::string("0 (") + run.cell->name + " has no projection)", given.projection_size);
  }
  p.heads = given.heads == 0 ? 1 : given.heads;
  check_heads({"heads", number}, *run.cell, p.H, given.heads);
  const auto padded = [&](cells::Extent e) {
    return e.letter == 0 ? 1 : std::min(kMaxBytes, run.extent(e.letter)) + kPad;
  };
  for (const cells::Parameter& parameter : run.cell->parameters) {
    const auto& [name, rows, columns, optional] = parameter;
    if (std::max({p.I, p.H, p.P}) <= kMaxBytes &&
        product_within(kMaxBytes,
                       {rows.times, padded(rows), padded(columns), largest_item(dtype)})) {
      continue;
    }
    const std::string projected = run.cell->projects ? ", P = " + std::to_string(p.P) : "";
    throw_value_error(Name(name, named).text() + ": I = " + std::to_string(p.I) +
                      ", H = " + std::to_string(p.H) + projected + " are too large");
  }
}

// What was expected of a constant; "" where it is right. Numbers are rounded to the type that gates
// are computed in: what is no finite number there is none.
std::string expected_of(cells::Range range, double value, Dtype dtype) {
  const bool wide = dtype == Dtype::float64 || dtype == Dtype::dual64;
  const double most =
      wide ? std::numeric_limits<double>::max() : double{std::numeric_limits<float>::max()};
  switch (range) {
    case cells::Range::finite:
      if (std::abs(value) <= most) return "";
      return wide ? "a finite number" : "a finite number of float32";
    case cells::Range::limit:
      return value >= cells::kLeastLimit ? "" : "at least 1e-09";
    case cells::Range::activation:
      if (value >= 0 && value < cells::kActivationCount && value == std::floor(value)) return "";
      return "a fusedrnn_activation, 0 to " + std::to_string(cells::kActivationCount - 1);
    case cells::Range::flag:
      return value == 0 || value == 1 ? "" : "0 or 1";
  }
  return "";
}

void set_constants(const fusedrnn_run& given, int number, Run& run) {
  Problem& p = run.problem;
  const int count = static_cast<int>(run.cell->constants.size());
  const int wanted = given.constants == nullptr ? 0 : count;
  if (given.num_constants != wanted) {
    std::string text = std::to_string(wanted);
    if (given.constants == nullptr) {
      text += " (constants is null)";
    } else if (count == 0) {
      text += std::string(" (") + run.cell->name + " has no constants)";
    }
    throw_field(number, "num_constants", text, given.num_constants);
  }
  p.num_constants = count;
  for (int i = 0; i < count; ++i) {
    const auto& [name, range, usual] = run.cell->constants[static_cast<size_t>(i)];
    p.constants[i] = given.constants == nullptr ? usual : given.constants[i];
    const std::string what = expected_of(range, p.constants[i], p.dtype);
    if (what.empty()) continue;
    const std::string field = "constants[" + std::to_string(i) + "]";
    refuse_value({field.c_str(), number}, what + " (" + name + ")", number_text(p.constants[i]));
  }
}

void set_noise(const fusedrnn_run& given, int number, Run& run) {
  Noise& noise = run.problem.noise;
  const char* const no_w_hh = run.recurrent_weights() >= 0 ? nullptr : "matrix w_hh";
  const struct {
    const char* field;
    double rate;
    bool may_be_1;
    const char* missing;  // what the cell has not that this is the rate of; or null
    double& checked;
  } rates[] = {
      {"zoneout_h", given.zoneout_h, true, nullptr, noise.zoneout[0]},
      {"zoneout_c", given.zoneout_c, true, run.num_states() > 1 ? nullptr : "state but h",
       noise.zoneout[1]},
      {"candidate_dropout", given.candidate_dropout, false,
       run.cell->masks_candidate ? nullptr : "candidate to drop", noise.candidate},
      {"recurrent_dropout", given.recurrent_dropout, false, no_w_hh, noise.state},
      {"weight_dropout", given.weight_dropout, false, no_w_hh, run.weight_dropout},
  };
  for (const auto& [field, rate, may_be_1, missing, checked] : rates) {
    std::string wanted;
    if (missing != nullptr && rate != 0) {
      wanted = std::string("0 (") + run.cell->name + " has no " + missing + ")";
    } else if (!(rate >= 0 && (may_be_1 ? rate <= 1 : rate < 1))) {
      wanted = may_be_1 ? "at least 0 and at most 1" : "at least 0 and below 1";
    }
    if (!wanted.empty()) refuse_value({field, number}, wanted, number_text(rate));
    checked = rate + 0.0;  // 0 has no sign
  }
  for (int s = 2; s < run.num_states(); ++s) noise.zoneout[s] = noise.zoneout[1];
}

// `last`: the highest row so far.
void set_rows(const fusedrnn_run& given, int number, int last, Run& run) {
  run.read_offset = given.read_offset;
  run.write_offset = given.write_offset;
  if (given.reads < 0 || given.reads > last) {
    throw_field(number, "reads", "a row that was written before, " + range_text(0, last),
                given.reads);
  }
  // One row after the other: what has been read is complete.
  const int first = std::max({1, last, given.reads + 1});
  if (given.writes < first || given.writes > last + 1) {
    throw_field(number, "writes",
                "a row above the one that it reads, " + range_text(first, last + 1), given.writes);
  }
  run.reads = static_cast<size_t>(given.reads);
  run.writes = static_cast<size_t>(given.writes);
  for (const auto& [field, offset] :
       {std::pair{"read_offset", run.read_offset}, std::pair{"write_offset", run.write_offset}}) {
    if (offset < 0) throw_field(number, field, "at least 0", offset);
    if (offset > kMaxBytes)
      throw_field(number, field, "at most " + std::to_string(kMaxBytes), offset);
  }
}

void add_run(const fusedrnn_run& given, int named, Network& network) {
  const int number = static_cast<int>(network.runs.size());
  Run run{};
  run.cell = &known_cell(given.cell, named);
  run.problem.cell = static_cast<int>(run.cell - kCells);
  run.problem.dtype = network.dtype;
  run.problem.compute = network.compute;
  run.problem.lean = network.lean;
  run.problem.reverse = given.reverse != 0;
  set_sizes(given, number, named, network.dtype, run);
  set_constants(given, number, run);
  set_noise(given, number, run);
  set_rows(given, number, static_cast<int>(network.rows.size()) - 1, run);
  run.first_parameter = network.num_parameters;
  run.first_state = network.num_states;
  network.num_parameters += run.num_parameters();
  network.num_states += run.num_states();
  network.runs.push_back(run);

  network.rows.resize(run.writes + 1);
  int64_t& width = network.rows[run.writes].width;
  width = std::max(width, run.write_offset + run.problem.P);
  int64_t& x_width = network.rows[0].width;
  if (run.reads == 0) x_width = std::max(x_width, run.read_offset + run.problem.I);
}

// Every column of a row is written by one run. In one pass over all rows: a file may have many.
void check_tiled(const Network& network) {
  struct Slice {
    size_t row;
    int64_t begin, end;
    auto operator<=>(const Slice&) const = default;
  };
  std::vector<Slice> slices;
  slices.reserve(network.runs.size());
  for (const Run& run : network.runs) {
    slices.push_back({run.writes, run.write_offset, run.write_offset + run.problem.P});
  }
  std::ranges::sort(slices);
  size_t row = 0;
  int64_t end = 0;
  for (const Slice& slice : slices) {
    if (slice.row != row) end = 0;
    row = slice.row;
    if (slice.begin != end) {
      refuse_value("write_offset",
                   "every column of row " + std::to_string(row) +
                       " written by one run, the next at " + std::to_string(end),
                   slice.begin);
    }
    end = slice.end;
  }
}

}  // namespace

const CellTable& known_cell(const char* name, int run) {
  for (const CellTable& cell : kCells) {
    if (name != nullptr && std::string_view(name) == cell.name) return cell;
  }
  std::string names = kCells[0].name;
  for (const CellTable& cell : std::span(kCells).subspan(1)) names += std::string(", ") + cell.name;
  refuse_value({"cell", run}, "one of " + names,
               name == nullptr ? "null" : "'" + std::string(name) + "'");
}

int number_of_w_hh(const CellTable& cell) {
  for (size_t i = 0; i < cell.parameters.size(); ++i) {
    const auto& [name, rows, columns, optional] = cell.parameters[i];
    if (name == std::string_view("w_hh") && columns.letter != 0) return static_cast<int>(i);
  }
  return -1;
}

void check_heads(const Name& name, const CellTable& cell, int64_t H, int64_t heads) {
  if (heads == 0 || heads == 1) return;
  if (cell.projects || number_of_w_hh(cell) < 0) {
    const char* const why = cell.projects ? " has a projection)" : " has no matrix w_hh)";
    refuse_value(name, std::string("0 or 1 (") + cell.name + why, heads);
  }
  if (heads < 1 || H % heads != 0) {
    refuse_value(name, "a divisor of hidden_size = " + std::to_string(H), heads);
  }
}

int64_t weight_bytes(const Problem& p) {
  if (p.compute == Compute::int8) return 1;
  return p.compute == Compute::bfloat16 ? 2 : item_size(p.dtype);
}

int64_t Run::columns(int i) const {
  if (!is_matrix(i)) return 1;
  return extent(parameter(i).columns) / (i == recurrent_weights() ? problem.heads : 1);
}

Network make_network(const fusedrnn_run* runs, int count, Dtype dtype, int32_t compute,
                     int32_t memory) {
  if (count < 1 || count > kMaxRuns) {
    refuse_value("num_runs", "1 to " + std::to_string(kMaxRuns), count);
  }
  not_null("runs", runs);
  Network network;
  network.dtype = dtype;
  network.compute = known_compute(compute, dtype);
  if (memory != FUSEDRNN_MEMORY_DEFAULT && memory != FUSEDRNN_MEMORY_LEAN) {
    refuse_value("memory", "a fusedrnn_memory", memory);
  }
  network.lean = memory == FUSEDRNN_MEMORY_LEAN;
  network.runs.reserve(static_cast<size_t>(count));
  network.rows.resize(1);
  for (int i = 0; i < count; ++i) add_run(runs[i], count == 1 ? -1 : i, network);
  check_tiled(network);
  for (const Run& run : network.runs) {
    Row& row = network.rows[run.reads];
    const int64_t end = run.read_offset + run.problem.I;
    if (end > row.width) {
      throw_field(network.number_of(run), "input_size",
                  "columns of row " + std::to_string(run.reads) + ", which ends at " +
                      std::to_string(row.width),
                  end);
    }
    if (run.problem.I != row.width) row.always_read_whole = false;
  }
  return network;
}

RunRecord record_of(const Run& run) {
  const Problem& p = run.problem;
  RunRecord record{};
  std::strncpy(record.cell, run.cell->name, sizeof record.cell - 1);
  size_fields(record) = std::tuple(
      int32_t{p.reverse}, static_cast<int32_t>(run.reads), static_cast<int32_t>(run.writes),
      run.read_offset, run.write_offset, p.I, p.H, run.cell->projects ? p.P : 0, p.heads);
  record.num_constants = p.num_constants;
  const double zoneout_c = run.num_states() > 1 ? p.noise.zoneout[1] : 0;
  noise_fields(record) = std::tuple(run.weight_dropout, p.noise.zoneout[0], zoneout_c,
                                    p.noise.candidate, p.noise.state);
  std::copy_n(p.constants, p.num_constants, record.constants);
  return record;
}

Network make_network(std::span<const std::byte> bytes, Dtype dtype, int32_t compute,
                     int32_t memory) {
  if (bytes.size() % sizeof(RunRecord) != 0) {
    refuse_value("runs", "records of " + std::to_string(sizeof(RunRecord)) + " bytes each",
                 bytes.size());
  }
  std::vector<RunRecord> records(bytes.size() / sizeof(RunRecord));
  std::ranges::copy(bytes, std::as_writable_bytes(std::span(records)).begin());
  std::vector<fusedrnn_run> runs;
  runs.reserve(records.size());
  for (const RunRecord& record : records) {
    const auto number = static_cast<int>(runs.size());
    const auto is_text = [](char c) { return c >= ' ' && c <= '~'; };  // that a message may show
    const char* const end = std::ranges::find_if_not(record.cell, is_text);
    if (end == std::end(record.cell) || *end != '\0') {
      refuse_value({"cell", number}, "a name of at most 31 letters", "other bytes");
    }
    if (record.num_constants < 0 || record.num_constants > kMaxConstants) {
      throw_field(number, "num_constants", "0 to " + std::to_string(kMaxConstants),
                  record.num_constants);
    }
    fusedrnn_run& run = runs.emplace_back();
    run.cell = record.cell;
    size_fields(run) = size_fields(record);
    run.num_constants = record.num_constants;
    run.constants = record.num_constants == 0 ? nullptr : record.constants;
    noise_fields(run) = noise_fields(record);
  }
  return make_network(runs.data(), static_cast<int>(runs.size()), dtype, compute, memory);
}

bool is_plain_stack(const Network& network) {
  return std::ranges::all_of(network.runs, [&](const Run& run) {
    return !run.problem.reverse && run.writes == run.reads + 1 &&
           run.problem.I == network.rows[run.reads].width &&
           run.problem.P == network.rows[run.writes].width;
  });
}

bool steps_fit(const Network& network, int64_t T, int64_t B) {
  const int64_t item = largest_item(network.dtype);
  for (const Row& row : network.rows) {
    if (!product_within(kMaxBytes, {T, B, row.width, item})) return false;
  }
  return std::ranges::all_of(network.runs, [&](const Run& run) {
    const Problem& p = run.problem;
    return product_within(kMaxBytes, {T, B, kBlocks, std::max(p.H, p.P) + kPad, item});
  });
}

}  // namespace fusedrnn
