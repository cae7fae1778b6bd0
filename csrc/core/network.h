// A network: runs of cells, one after the other, and the rows that lie between them. Only a
// description: made once, it serves any number of calls and threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "cells/cell.h"
#include "core/error.h"
#include "core/problem.h"
#include "core/tensor.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn {

// The table of a cell (cells/cell.h), for code that is not compiled for each of them.
struct CellTable {
  const char* name;
  std::span<const cells::Parameter> parameters;
  std::span<const cells::State> states;
  std::span<const char* const> gates;  // names of those that a reserve holds
  std::span<const cells::Constant> constants;
  std::span<const cells::Stage> stages;
  int num_gates, num_saved, num_norms;  // blocks of a, saved vectors, norms over rows
  bool projects;                        // whether P is a number of its own
  bool masks_candidate;                 // whether its candidate may be dropped
};
// Throws where there is no such cell. `run`: the one that a message names, or -1.
const CellTable& known_cell(const char* name, int run = -1);
int number_of_w_hh(const CellTable& cell);  // the matrix; -1 where there is none
// Throws where its w_hh has no so many blocks.
void check_heads(const Name& name, const CellTable& cell, int64_t H, int64_t heads);

// Bytes of a number of a matrix as it is multiplied, and so kept.
int64_t weight_bytes(const Problem& p);

// What fusedrnn_run says, checked.
struct Run {
  const CellTable* cell;
  Problem problem;  // T and B are 0
  size_t reads, writes;
  int64_t read_offset, write_offset;
  int first_parameter, first_state;  // in the lists of the network
  double weight_dropout;

  int64_t extent(char letter) const {
    return letter == 'I' ? problem.I : letter == 'P' ? problem.P : problem.H;
  }
  int64_t extent(cells::Extent e) const { return e.times * extent(e.letter); }
  int num_parameters() const { return static_cast<int>(cell->parameters.size()); }
  int num_states() const { return static_cast<int>(cell->states.size()); }
  const cells::Parameter& parameter(int i) const {
    return cell->parameters[static_cast<size_t>(i)];
  }
  const cells::State& state(int s) const { return cell->states[static_cast<size_t>(s)]; }
  int64_t state_size(int s) const { return extent(state(s).size); }
  // The number of the matrix w_hh; -1 where there is none.
  int recurrent_weights() const { return number_of_w_hh(*cell); }
  bool is_matrix(int i) const { return parameter(i).columns.letter != 0; }
  int64_t rows(int i) const { return extent(parameter(i).rows); }
  int64_t columns(int i) const;  // 1 of a vector
  Shape parameter_shape(int i) const {
    return is_matrix(i) ? Shape{rows(i), columns(i)} : Shape{rows(i)};
  }
  Problem at(int64_t T, int64_t B) const {
    Problem p = problem;
    p.T = T;
    p.B = B;
    return p;
  }
};

// [T,B,width]
struct Row {
  int64_t width = 0;
  bool always_read_whole = true;  // by each run that reads it
};

}  // namespace fusedrnn

struct fusedrnn_network {
  fusedrnn::Dtype dtype = fusedrnn::Dtype::float32;
  fusedrnn::Compute compute = fusedrnn::Compute::same;
  bool lean = false;
  std::vector<fusedrnn::Run> runs;
  std::vector<fusedrnn::Row> rows;  // the first is x, the last y
  int num_parameters = 0, num_states = 0;

  int64_t input_size() const { return rows.front().width; }
  int64_t output_size() const { return rows.back().width; }
  int number_of(const fusedrnn::Run& run) const { return static_cast<int>(&run - runs.data()); }
  // The run that a message names, or none where there is but one.
  int named(const fusedrnn::Run& run) const { return runs.size() == 1 ? -1 : number_of(run); }
  // Calls visit(run, number within the run, number in the network) for each of them.
  template <class Visit>
  void for_parameters(const Visit& visit) const {
    for (const fusedrnn::Run& run : runs) {
      for (int i = 0; i < run.num_parameters(); ++i) visit(run, i, run.first_parameter + i);
    }
  }
  template <class Visit>
  void for_states(const Visit& visit) const {
    for (const fusedrnn::Run& run : runs) {
      for (int s = 0; s < run.num_states(); ++s) visit(run, s, run.first_state + s);
    }
  }
};

namespace fusedrnn {

using Network = fusedrnn_network;

// `count` tensors of a list from `first` on, as an engine takes them; without a list none is given.
template <class Tensor>
void to_matrices(Matrix* matrices, Tensor* const* list, int first, int count) {
  for (int i = 0; list != nullptr && i < count; ++i) {
    const DLTensor* t = list[first + i];
    if (t != nullptr) matrices[i] = {data_of(*t), stride_of(*t, 0)};
  }
}

// Fields that fusedrnn_run and other descriptions of a run have, to be set together.
template <class Description>
auto size_fields(Description& run) {
  return std::tie(run.reverse, run.reads, run.writes, run.read_offset, run.write_offset,
                  run.input_size, run.hidden_size, run.projection_size, run.heads);
}
template <class Description>
auto noise_fields(Description& run) {
  return std::tie(run.weight_dropout, run.zoneout_h, run.zoneout_c, run.candidate_dropout,
                  run.recurrent_dropout);
}

// Throws where the runs make no network.
Network make_network(const fusedrnn_run* runs, int count, Dtype dtype, int32_t compute,
                     int32_t memory);

// fusedrnn_run as bytes: what model files, reserves and programs of XLA have of a network.
struct RunRecord {
  char cell[32];  // filled up with zeros
  int32_t reverse, reads, writes, num_constants;
  int64_t read_offset, write_offset, input_size, hidden_size, projection_size, heads;
  double weight_dropout, zoneout_h, zoneout_c, candidate_dropout, recurrent_dropout;
  double constants[kMaxConstants];
};
static_assert(sizeof(RunRecord) == 264);

// What make_network() was given of a run, with all constants.
RunRecord record_of(const Run& run);
// Of records one behind the other; none of the bytes needs to be right.
Network make_network(std::span<const std::byte> records, Dtype dtype, int32_t compute,
                     int32_t memory);

// Whether layers follow one another, each in the forward direction: what can take a step.
bool is_plain_stack(const Network& network);

// Whether all that an engine may want for T steps of B sequences is of a size that can be named.
bool steps_fit(const Network& network, int64_t T, int64_t B);

}  // namespace fusedrnn
