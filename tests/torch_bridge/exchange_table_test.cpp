// Our declaration of DLPack's table beside that of PyTorch's header: compiled by
// tests/torch_bridge/test_torch_plain_calls.py, never run.
#include <ATen/dlpack.h>

#include <cstddef>
#include <type_traits>

#include "bindings/dlpack_exchange_abi.h"

using fusedrnn::bindings::ExchangeTable;

static_assert(sizeof(ExchangeTable) == sizeof(DLPackExchangeAPI));
static_assert(offsetof(ExchangeTable::Header, version) ==
              offsetof(DLPackExchangeAPIHeader, version));
static_assert(offsetof(ExchangeTable::Header, previous) ==
              offsetof(DLPackExchangeAPIHeader, prev_api));

#define SAME(mine, theirs)                                                             \
  static_assert(offsetof(ExchangeTable, mine) == offsetof(DLPackExchangeAPI, theirs)); \
  static_assert(std::is_same_v<decltype(ExchangeTable::mine), decltype(DLPackExchangeAPI::theirs)>)

static_assert(offsetof(ExchangeTable, header) == offsetof(DLPackExchangeAPI, header));
SAME(allocate, managed_tensor_allocator);
SAME(lend, managed_tensor_from_py_object_no_sync);
SAME(take, managed_tensor_to_py_object_no_sync);
SAME(look, dltensor_from_py_object_no_sync);
SAME(current_stream, current_work_stream);
