#include "core/network.h"

#include <algorithm>
#include <string>

#include "core/dtype.h"
#include "core/tensor.h"

namespace fusedrnn {
namespace {

// The largest buffers of any engine, rounded up: gates and gradients of all steps, packed weights.
constexpr int64_t kPad = 64, kBlocks = 8, kLargestItem = sizeof(double);
constexpr int kMaxRuns = 1 << 20;

const char* compute_name(int32_t compute) {
  switch (compute) {
    case FUSEDRNN_COMPUTE_SAME:
      return "FUSEDRNN_COMPUTE_SAME";
    case FUSEDRNN_COMPUTE_BFLOAT16:
      return "FUSEDRNN_COMPUTE_BFLOAT16";
    case FUSEDRNN_COMPUTE_INT8:
      return "FUSEDRNN_COMPUTE_INT8";
    case FUSEDRNN_COMPUTE_TFLOAT32:
      return "FUSEDRNN_COMPUTE_TFLOAT32";
    default:
      return nullptr;
  }
}

Compute known_compute(int32_t compute, Dtype dtype) {
  const char* name = compute_name(compute);
  if (name == nullptr) {
    throw_value_error(expected("compute", "a fusedrnn_compute", std::to_string(compute)));
  }
  if (dtype == Dtype::bfloat16 && compute == FUSEDRNN_COMPUTE_BFLOAT16) {
    return Compute::same;  // its operands are nothing else
  }
  if (dtype != Dtype::float32 && compute != FUSEDRNN_COMPUTE_SAME) {
    throw_value_error(expected(
        "compute", "FUSEDRNN_COMPUTE_SAME with arrays of " + std::string(dtype_name(dtype)), name));
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
  throw_value_error(expected({"", field, "", run}, wanted, std::to_string(got)));
}

class Builder {
 public:
  Builder(Network& network, int count) : network_(network), count_(count) {
    network_.rows.reserve(static_cast<size_t>(count) + 1);
    network_.rows.resize(1);
  }

  void add(const fusedrnn_run& given) {
    const int number = static_cast<int>(network_.runs.size());
    Run run{};
    run.cell = given.cell == nullptr ? nullptr : find_cell(given.cell);
    if (run.cell == nullptr) {
      throw_value_error(
          expected({"", "cell", "", count_ == 1 ? -1 : number}, "one of " + cell_names(),
                   given.cell == nullptr ? "null" : "'" + std::string(given.cell) + "'"));
    }
    run.problem.cell = cell_number(*run.cell);
    run.problem.dtype = network_.dtype;
    run.problem.compute = network_.compute;
    run.problem.reverse = given.reverse != 0;
    set_sizes(given, number, run);
    set_rows(given, number, run);
    run.first_parameter = network_.num_parameters;
    run.first_state = network_.num_states;
    network_.num_parameters += run.num_parameters();
    network_.num_states += run.num_states();
    network_.runs.push_back(run);
  }

  void finish() const {
    for (int row = 1; row < num_rows(); ++row) check_tiled(row);
    for (const Run& run : network_.runs) {
      if (run.reads == 0) continue;
      const int64_t end = run.read_offset + run.problem.I;
      const int64_t width = network_.rows[static_cast<size_t>(run.reads)].width;
      if (end <= width) continue;
      throw_field(static_cast<int>(&run - network_.runs.data()), "input_size",
                  "columns of row " + std::to_string(run.reads) + ", which ends at " +
                      std::to_string(width),
                  end);
    }
    for (const Run& run : network_.runs) {
      Row& row = network_.rows[static_cast<size_t>(run.reads)];
      ++row.readers;
      if (run.read_offset != 0 || run.problem.I != row.width) row.always_read_whole = false;
    }
  }

 private:
  int num_rows() const { return static_cast<int>(network_.rows.size()); }

  void set_sizes(const fusedrnn_run& given, int number, Run& run) const {
    Problem& p = run.problem;
    p.I = given.input_size;
    p.H = given.hidden_size;
    p.P = run.cell->projects && given.projection_size != 0 ? given.projection_size : p.H;
    if (p.I < 1) throw_field(number, "input_size", "at least 1", p.I);
    if (p.H < 1) throw_field(number, "hidden_size", "at least 1", p.H);
    if (p.P < 1) throw_field(number, "projection_size", "at least 0", p.P);
    if (given.projection_size != 0 && !run.cell->projects) {
      throw_field(number, "projection_size",
                  std::string("0 (") + run.cell->name + " has no projection)",
                  given.projection_size);
    }
    if (given.reserved != 0) throw_field(number, "reserved", "0", given.reserved);
    for (int i = 0; i < run.num_parameters(); ++i) {
      const cells::Parameter& parameter = run.cell->parameters[static_cast<size_t>(i)];
      const auto padded = [&](cells::Extent e) {
        return e.letter == 0 ? 1 : std::min(kMaxBytes, run.extent(e.letter)) + kPad;
      };
      if (std::max({p.I, p.H, p.P}) <= kMaxBytes &&
          product_within(kMaxBytes, {parameter.rows.times, padded(parameter.rows),
                                     padded(parameter.columns), kLargestItem})) {
        continue;
      }
      const Name name{"", parameter.name, "", count_ == 1 ? -1 : number};
      throw_value_error(name.text() + ": I = " + std::to_string(p.I) +
                        ", H = " + std::to_string(p.H) + " are too large");
    }
  }

  void set_rows(const fusedrnn_run& given, int number, Run& run) {
    run.reads = given.reads;
    run.writes = given.writes;
    run.read_offset = given.read_offset;
    run.write_offset = given.write_offset;
    if (run.reads < 0 || run.reads >= num_rows()) {
      throw_field(number, "reads",
                  "a row that was written before, " + range_text(0, num_rows() - 1), run.reads);
    }
    // One row after the other: what has been read is complete.
    const int last = num_rows() - 1;
    if (run.writes <= run.reads || run.writes < std::max(1, last) || run.writes > last + 1) {
      throw_field(number, "writes",
                  "a row above the one that it reads, " +
                      range_text(std::max({1, last, run.reads + 1}), last + 1),
                  run.writes);
    }
    for (const auto& [field, offset] :
         {std::pair{"read_offset", run.read_offset}, std::pair{"write_offset", run.write_offset}}) {
      if (offset < 0) throw_field(number, field, "at least 0", offset);
      if (offset > kMaxBytes)
        throw_field(number, field, "at most " + std::to_string(kMaxBytes), offset);
    }
    if (run.writes == num_rows()) network_.rows.emplace_back();
    Row& written = network_.rows[static_cast<size_t>(run.writes)];
    written.width = std::max(written.width, run.write_offset + run.problem.P);
    if (run.reads == 0) {
      Row& x = network_.rows.front();
      x.width = std::max(x.width, run.read_offset + run.problem.I);
    }
  }

  // Every column is written by one run.
  void check_tiled(int row) const {
    if (count_ == 1 && network_.runs.front().write_offset == 0) return;
    std::vector<std::pair<int64_t, int64_t>> slices;
    for (const Run& run : network_.runs) {
      if (run.writes == row)
        slices.emplace_back(run.write_offset, run.write_offset + run.problem.P);
    }
    std::sort(slices.begin(), slices.end());
    int64_t end = 0;
    for (const auto& [begin, next] : slices) {
      if (begin != end) {
        throw_value_error(expected("write_offset",
                                   "every column of row " + std::to_string(row) +
                                       " written by one run, the next at " + std::to_string(end),
                                   std::to_string(begin)));
      }
      end = next;
    }
  }

  Network& network_;
  const int count_;
};

}  // namespace

Shape Run::parameter_shape(int i) const {
  const cells::Parameter& parameter = cell->parameters[static_cast<size_t>(i)];
  Shape shape{extent(parameter.rows)};
  if (parameter.columns.letter != 0) shape.add(extent(parameter.columns));
  return shape;
}

Network make_network(const fusedrnn_run* runs, int count, Dtype dtype, int32_t compute) {
  if (count < 1 || count > kMaxRuns) {
    throw_value_error(
        expected("num_runs", "1 to " + std::to_string(kMaxRuns), std::to_string(count)));
  }
  if (runs == nullptr) throw_value_error("runs: expected an address, got null");
  Network network;
  network.dtype = dtype;
  network.compute = known_compute(compute, dtype);
  network.runs.reserve(static_cast<size_t>(count));
  Builder builder(network, count);
  for (int i = 0; i < count; ++i) builder.add(runs[i]);
  builder.finish();
  return network;
}

bool is_plain_stack(const Network& network) {
  return std::all_of(network.runs.begin(), network.runs.end(), [&](const Run& run) {
    const Row& read = network.rows[static_cast<size_t>(run.reads)];
    const Row& written = network.rows[static_cast<size_t>(run.writes)];
    return !run.problem.reverse && run.writes == run.reads + 1 && run.problem.I == read.width &&
           run.problem.P == written.width;
  });
}

bool steps_fit(const Network& network, int64_t T, int64_t B) {
  for (const Row& row : network.rows) {
    if (!product_within(kMaxBytes, {T, B, row.width, kLargestItem})) return false;
  }
  return std::all_of(network.runs.begin(), network.runs.end(), [&](const Run& run) {
    const Problem& p = run.problem;
    return product_within(kMaxBytes, {T, B, kBlocks, std::max(p.H, p.P) + kPad, kLargestItem});
  });
}

}  // namespace fusedrnn
