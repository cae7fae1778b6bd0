// The map of a block of a matrix unit, which goes on in parts while the next block's product does.
// AMX falls asleep where nothing is multiplied for some 1,500 cycles, and takes as many to wake up;
// a map of 32 rows takes longer than that.
#pragma once

#include "cpu/kernels/map.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// What else there is to do, part by part, while a matrix unit multiplies.
struct Meanwhile {
  void (*take_part)(void* work);
  void* work;
};

// What is left of the map of a block whose sums, `Numbers` at most, are known. `Mapper` as in
// narrow_tile.h. In turn: next(), products into sums(), finish(), begin().
template <class Mapper, class Map, int Numbers>
class RestOfMap {
 public:
  using Real = typename Mapper::Real;

  RestOfMap() = default;
  RestOfMap(const RestOfMap&) = delete;
  RestOfMap& operator=(const RestOfMap&) = delete;

  // A block begins: which of two places belongs to it, and where its sums go.
  FUSEDRNN_MEMBER void next() { turn_ ^= 1; }
  FUSEDRNN_MEMBER int turn() const { return turn_; }
  FUSEDRNN_MEMBER Real* sums() { return sums_[turn_]; }
  // To be done while that is multiplied, or null.
  FUSEDRNN_MEMBER const Meanwhile* meanwhile() const {
    return tile_.rows > 0 ? &meanwhile_ : nullptr;
  }

  FUSEDRNN_MEMBER void finish() {
    if (tile_.rows > 0) take(tile_.rows);
  }
  // `numbers`: of a row. All before must be finished.
  FUSEDRNN_MEMBER void begin(Mapper& mapper, Map map, const Tile& tile, int64_t numbers) {
    mapper_ = &mapper;
    map_ = map;
    tile_ = tile;
    tile_.repeated = 0;
    next_ = sums_[turn_] + tile.repeated * numbers;
    numbers_ = numbers;
  }

 private:
  static constexpr int64_t kRowsOfPart = 8;

  FUSEDRNN_MEMBER void take(int64_t rows) {
    Tile part = tile_;
    part.rows = rows < tile_.rows ? rows : tile_.rows;
    mapper_->run(part, map_, next_);
    tile_.row += part.rows;
    tile_.rows -= part.rows;
    next_ += part.rows * numbers_;
  }
  FUSEDRNN_ONCE static void take_part(void* work) {
    auto& rest = *static_cast<RestOfMap*>(work);
    if (rest.tile_.rows > 0) rest.take(kRowsOfPart);
  }

  const Meanwhile meanwhile_{take_part, this};
  Mapper* mapper_ = nullptr;
  Map map_ = nullptr;
  Tile tile_{};
  const Real* next_ = nullptr;
  int64_t numbers_ = 0;
  int turn_ = 0;
  alignas(64) Real sums_[2][Numbers];
};

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
