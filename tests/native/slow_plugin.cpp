// No CUDA library, but something to open that takes as long as fork_test likes.
extern "C" void fork_test_opens();

namespace {

[[maybe_unused]] const bool opened = (fork_test_opens(), true);

}  // namespace
