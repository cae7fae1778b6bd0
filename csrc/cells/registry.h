// Every cell, once: F(name, type). A new cell is one file beside this one, one line here, and one
// function in tests/oracle. A cell's number is its place in this list; callers know it by its name.
#pragma once

#include "cells/general.h"
#include "cells/gru.h"
#include "cells/indrnn.h"
#include "cells/layer_norm.h"
#include "cells/lstm.h"
#include "cells/mingru.h"
#include "cells/rnn.h"
#include "cells/slstm.h"

#define FUSEDRNN_FOR_EACH_CELL(F)                                                               \
  F("rnn_tanh", ::fusedrnn::cells::Rnn<::fusedrnn::cells::Tanh>)                                \
  F("rnn_relu", ::fusedrnn::cells::Rnn<::fusedrnn::cells::Relu>)                                \
  F("rnn_sigmoid", ::fusedrnn::cells::Rnn<::fusedrnn::cells::Sigmoid>)                          \
  F("rnn_identity", ::fusedrnn::cells::Rnn<::fusedrnn::cells::Identity>)                        \
  F("gru", ::fusedrnn::cells::Gru)                                                              \
  F("gru_reset_before", ::fusedrnn::cells::GruResetBefore)                                      \
  F("lstm", ::fusedrnn::cells::LstmOf<::fusedrnn::cells::PlainLstm>)                            \
  F("lstm_peephole", ::fusedrnn::cells::LstmOf<::fusedrnn::cells::PeepholeLstm>)                \
  F("lstm_coupled", ::fusedrnn::cells::LstmOf<::fusedrnn::cells::CoupledLstm>)                  \
  F("lstm_coupled_peephole", ::fusedrnn::cells::LstmOf<::fusedrnn::cells::CoupledPeepholeLstm>) \
  F("lstm_projection", ::fusedrnn::cells::LstmOf<::fusedrnn::cells::ProjectedLstm>)             \
  F("indrnn_relu", ::fusedrnn::cells::IndRnn<::fusedrnn::cells::Relu>)                          \
  F("indrnn_tanh", ::fusedrnn::cells::IndRnn<::fusedrnn::cells::Tanh>)                          \
  F("mingru_linear", ::fusedrnn::cells::MinGru<::fusedrnn::cells::Identity>)                    \
  F("mingru_positive", ::fusedrnn::cells::MinGru<::fusedrnn::cells::Positive>)                  \
  F("minlstm_linear", ::fusedrnn::cells::MinLstm<::fusedrnn::cells::Identity>)                  \
  F("minlstm_positive", ::fusedrnn::cells::MinLstm<::fusedrnn::cells::Positive>)                \
  F("slstm", ::fusedrnn::cells::Slstm<::fusedrnn::cells::SigmoidForget>)                        \
  F("slstm_exp", ::fusedrnn::cells::Slstm<::fusedrnn::cells::ExpForget>)                        \
  F("lstm_layer_norm", ::fusedrnn::cells::LayerNormLstm)                                        \
  F("gru_layer_norm", ::fusedrnn::cells::LayerNormGru)                                          \
  F("gru_world_model", ::fusedrnn::cells::WorldModelGru)                                        \
  F("rnn_general", ::fusedrnn::cells::GeneralRnn)                                               \
  F("gru_general", ::fusedrnn::cells::GeneralGru)                                               \
  F("gru_reset_before_general", ::fusedrnn::cells::GeneralGruResetBefore)                       \
  F("lstm_general", ::fusedrnn::cells::GeneralLstm<::fusedrnn::cells::GeneralLstmTable>)        \
  F("lstm_coupled_general",                                                                     \
    ::fusedrnn::cells::GeneralLstm<::fusedrnn::cells::GeneralCoupledLstmTable>)                 \
  F("lstm_projection_general",                                                                  \
    ::fusedrnn::cells::GeneralLstm<::fusedrnn::cells::GeneralProjectedLstmTable>)
