// Every cell, once, in the order of fusedrnn_cell: F(enumerator, name in Python, type). A new cell
// is one file beside this one, one line here, one enumerator in fusedrnn.h, and one function in
// tests/oracle.
#pragma once

#include "cells/gru.h"
#include "cells/lstm.h"
#include "cells/rnn.h"
#include "fusedrnn/fusedrnn.h"

#define FUSEDRNN_FOR_EACH_CELL(F)                                                               \
  F(FUSEDRNN_RNN_TANH, "rnn_tanh", ::fusedrnn::cells::Rnn<::fusedrnn::cells::Tanh>)             \
  F(FUSEDRNN_RNN_RELU, "rnn_relu", ::fusedrnn::cells::Rnn<::fusedrnn::cells::Relu>)             \
  F(FUSEDRNN_RNN_SIGMOID, "rnn_sigmoid", ::fusedrnn::cells::Rnn<::fusedrnn::cells::Sigmoid>)    \
  F(FUSEDRNN_RNN_IDENTITY, "rnn_identity", ::fusedrnn::cells::Rnn<::fusedrnn::cells::Identity>) \
  F(FUSEDRNN_GRU, "gru", ::fusedrnn::cells::Gru)                                                \
  F(FUSEDRNN_GRU_RESET_BEFORE, "gru_reset_before", ::fusedrnn::cells::GruResetBefore)           \
  F(FUSEDRNN_LSTM, "lstm", ::fusedrnn::cells::Lstm)

#define FUSEDRNN_CELL_ENUMERATOR(id, text, ...) id,

namespace fusedrnn::cells {

// Tables of cells are indexed by fusedrnn_cell.
consteval bool listed_in_order() {
  constexpr fusedrnn_cell kListed[] = {FUSEDRNN_FOR_EACH_CELL(FUSEDRNN_CELL_ENUMERATOR)};
  int i = 0;
  for (const fusedrnn_cell cell : kListed) {
    if (cell != i++) return false;
  }
  return true;
}
static_assert(listed_in_order(), "the list is not in the order of fusedrnn_cell");

}  // namespace fusedrnn::cells
