// Every cell, once, in the order of fusedrnn_cell: F(enumerator, name in Python, type). A new cell
// is one file beside this one, one line here, one enumerator in fusedrnn.h, and one function in
// tests/oracle.
#pragma once

#include "cells/gru.h"
#include "cells/lstm.h"
#include "cells/rnn.h"

#define FUSEDRNN_FOR_EACH_CELL(F)                                                               \
  F(FUSEDRNN_RNN_TANH, "rnn_tanh", ::fusedrnn::cells::Rnn<::fusedrnn::cells::Tanh>)             \
  F(FUSEDRNN_RNN_RELU, "rnn_relu", ::fusedrnn::cells::Rnn<::fusedrnn::cells::Relu>)             \
  F(FUSEDRNN_RNN_SIGMOID, "rnn_sigmoid", ::fusedrnn::cells::Rnn<::fusedrnn::cells::Sigmoid>)    \
  F(FUSEDRNN_RNN_IDENTITY, "rnn_identity", ::fusedrnn::cells::Rnn<::fusedrnn::cells::Identity>) \
  F(FUSEDRNN_GRU, "gru", ::fusedrnn::cells::Gru)                                                \
  F(FUSEDRNN_GRU_RESET_BEFORE, "gru_reset_before", ::fusedrnn::cells::GruResetBefore)           \
  F(FUSEDRNN_LSTM, "lstm", ::fusedrnn::cells::Lstm)
