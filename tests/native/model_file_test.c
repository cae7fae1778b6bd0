/* Model files from C11: what was saved computes the same bits after loading, and bytes that are no
 * model file are an error. */
#define _GNU_SOURCE
#include <sys/stat.h>
#include <unistd.h>

#include "abi_support.h"

enum { T = 3, B = 2, I = 5, H = 19, RECORD = 264, HEADER = 64 };

static const Format kInt8 = {"float32 in int8", {kDLFloat, 32, 1}, FUSEDRNN_COMPUTE_INT8, 1e-2};
static const Format kDuals[] = {
    {"complex64", {kDLComplex, 64, 1}, FUSEDRNN_COMPUTE_SAME, 1e-6},
    {"complex128", {kDLComplex, 128, 1}, FUSEDRNN_COMPUTE_SAME, 1e-14},
};

static char path[256];

/* --- files --- */

typedef struct {
  unsigned char* bytes;
  size_t size;
} File;

static File read_file(void) {
  File file = {NULL, 0};
  FILE* const stream = fopen(path, "rb");
  CHECK(stream != NULL);
  if (stream == NULL) return file;
  fseek(stream, 0, SEEK_END);
  file.size = (size_t)ftell(stream);
  rewind(stream);
  file.bytes = allocate(file.size);
  CHECK(fread(file.bytes, 1, file.size, stream) == file.size);
  fclose(stream);
  return file;
}

/* The size and the checksum that belong to the bytes: CRC-32, bit by bit. */
static void seal(File file) {
  const uint64_t size = file.size;
  memcpy(file.bytes + 16, &size, sizeof size);
  uint32_t crc = ~0u;
  for (size_t i = 16; i < file.size; ++i) {
    crc ^= file.bytes[i];
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) != 0 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
  }
  crc = ~crc;
  memcpy(file.bytes + 12, &crc, sizeof crc);
}

/* --- the same bits --- */

static fusedrnn_frozen* freeze(const Problem* p) {
  fusedrnn_frozen* frozen = NULL;
  MUST(fusedrnn_freeze(p->network, p->forward.parameters, &frozen));
  return frozen;
}

static void run(const Problem* p, const fusedrnn_frozen* frozen) {
  fusedrnn_forward_args args = inference_of(p);
  args.network = NULL;
  args.parameters = NULL;
  MUST(fusedrnn_frozen_forward(frozen, &args));
}

static void fill_with_duals(Array* a) {
  const int wide = a->tensor.dtype.bits == 128;
  for (int64_t r = 0; r < a->rows; ++r) {
    for (int64_t c = 0; c < a->row_length; ++c) {
      const double numbers[] = {random_value(), random_value()};
      const float narrow[] = {(float)numbers[0], (float)numbers[1]};
      memcpy(element_of(a, r, c), wide ? (const void*)numbers : (const void*)narrow, a->item);
    }
  }
}

static void check_description(const Problem* p, const fusedrnn_frozen* loaded) {
  const fusedrnn_network* const network = fusedrnn_frozen_network(loaded);
  fusedrnn_network_info info;
  MUST(fusedrnn_network_describe(network, &info));
  CHECK(info.num_runs == p->info.num_runs && info.num_states == p->info.num_states);
  CHECK(info.input_size == p->info.input_size && info.output_size == p->info.output_size);
  CHECK(info.compute == p->setting.format->compute);
  CHECK(memcmp(&info.dtype, &p->setting.format->type, sizeof info.dtype) == 0);
  for (int32_t i = 0; i < p->info.num_parameters; ++i) {
    fusedrnn_array_info one, other;
    MUST(fusedrnn_network_parameter(p->network, i, &one));
    MUST(fusedrnn_network_parameter(network, i, &other));
    CHECK(strcmp(one.name, other.name) == 0 && one.run == other.run);
    CHECK(one.shape[0] == other.shape[0] && one.shape[1] == other.shape[1]);
  }
}

/* From a file, and from memory at an odd address; a file of what was loaded is the same file. */
static void check_files(Problem* p) {
  if (p->setting.format->type.code == kDLComplex) {
    fill_with_duals(p->x);
    for (int i = 0; i < p->parameters.count; ++i) fill_with_duals(p->parameters.arrays[i]);
    for (int i = 0; i < p->states.count; ++i) fill_with_duals(p->states.arrays[i]);
  }
  fusedrnn_frozen* const saved = freeze(p);
  run(p, saved);
  Array* const y = new_sequence(&p->setting, p->info.output_size);
  copy_columns(y, p->y, 0);
  MUST(fusedrnn_frozen_save(saved, path));
  fusedrnn_frozen_free(saved);
  const File file = read_file();
  unsigned char* const odd = allocate(file.size + 1);
  memcpy(odd + 1, file.bytes, file.size);

  for (int from_memory = 0; from_memory < 2; ++from_memory) {
    fusedrnn_frozen* loaded = NULL;
    if (from_memory) {
      MUST(fusedrnn_frozen_read(odd + 1, file.size, &loaded));
    } else {
      MUST(fusedrnn_frozen_load(path, &loaded));
    }
    if (loaded == NULL) break;
    check_description(p, loaded);
    clear_outputs(p);
    run(p, loaded);
    CHECK(same_bits(p->y, y));
    MUST(fusedrnn_frozen_save(loaded, path));
    const File again = read_file();
    CHECK(again.size == file.size && memcmp(again.bytes, file.bytes, file.size) == 0);
    free(again.bytes);
    fusedrnn_frozen_free(loaded);
  }
  free(odd);
  free(file.bytes);
  free_array(y);
}

static void test_formats(void) {
  const Format* formats[FORMATS + 3] = {&kInt8, &kDuals[0], &kDuals[1]};
  for (int f = 0; f < FORMATS; ++f) formats[f + 3] = &kFormats[f];
  for (int f = 0; f < FORMATS + 3; ++f) {
    const Setting setting = {formats[f], T, B, 0, 0};
    snprintf(context, sizeof context, "%s", formats[f]->name);
    fusedrnn_run projection = layer("lstm_projection", 1, H + 5, H);
    projection.projection_size = 7;
    /* Unlike cells, in both directions, of which one reads a part of a row. */
    const fusedrnn_run runs[] = {layer("lstm_peephole", 0, I, H),
                                 placed(reversed(layer("gru_reset_before", 0, I, 5)), 0, H),
                                 projection, placed(layer("gru", 2, 6, H), 1, 0)};
    Problem* const p = new_problem(runs, 4, setting);
    check_files(p);
    free_problem(p);
  }
  for (int cell = 0; cell < CELLS; ++cell) {
    snprintf(context, sizeof context, "%s", kCells[cell]);
    const fusedrnn_run one = layer(kCells[cell], 0, I, H);
    Problem* const p = new_problem(&one, 1, (Setting){&kFormats[FLOAT32], T, B, 0, 0});
    check_files(p);
    free_problem(p);
  }
  context[0] = '\0';
}

/* --- errors --- */

static File small_file(const Format* format) {
  const fusedrnn_run runs[] = {layer("lstm_general", 0, 3, 4), layer("gru_reset_before", 1, 4, 4)};
  Problem* const p = new_problem(runs, 2, (Setting){format, T, B, 0, 0});
  fusedrnn_frozen* const frozen = freeze(p);
  MUST(fusedrnn_frozen_save(frozen, path));
  fusedrnn_frozen_free(frozen);
  free_problem(p);
  return read_file();
}

static uint32_t draw(uint32_t below) {
  static uint64_t state = 1;
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)((state >> 33) % below);
}

/* Whatever the bytes are: an error, or a network that can be run. */
static int try_bytes(File file) {
  fusedrnn_frozen* frozen = NULL;
  const fusedrnn_status status = fusedrnn_frozen_read(file.bytes, file.size, &frozen);
  if (status != FUSEDRNN_OK) {
    CHECK(status == FUSEDRNN_INVALID_VALUE && frozen == NULL);
    CHECK(strncmp(fusedrnn_last_error(), "bytes: ", 7) == 0);
    return 0;
  }
  size_t workspace = fusedrnn_frozen_workspace(frozen, 1);
  CHECK(workspace < 1 << 20);
  fusedrnn_frozen_free(frozen);
  return 1;
}

/* Bytes exchanged for others, numbers for numbers at the ends of their ranges, parts taken out. */
static void test_changed_files(void) {
  const int64_t edges[] = {0,         1,         -1,        2,         4,         127,
                           INT32_MAX, INT32_MIN, 1LL << 32, INT64_MAX, INT64_MIN, 1LL << 61};
  const Format* const formats[] = {&kFormats[FLOAT32], &kFormats[FLOAT32_IN_BFLOAT16], &kInt8};
  int networks = 0;
  for (int f = 0; f < 3; ++f) {
    const File file = small_file(formats[f]);
    CHECK(try_bytes(file));
    for (int i = 0; i < 1500; ++i) {
      File copy = {allocate(file.size + 64), file.size};
      memcpy(copy.bytes, file.bytes, file.size);
      for (uint32_t k = draw(3) + 1; k > 0; --k) {
        const uint32_t end = draw(5) == 0 ? (uint32_t)copy.size - 8 : HEADER + 2 * RECORD - 8;
        const uint32_t at = 24 + draw(end - 24);
        const int64_t edge = edges[draw(sizeof edges / sizeof edges[0])];
        switch (draw(5)) {
          case 0:
            copy.bytes[at] ^= (unsigned char)(1u << draw(8));
            break;
          case 1:
            memcpy(copy.bytes + at / 8 * 8, &edge, 8);
            break;
          case 2:
            memcpy(copy.bytes + at / 4 * 4, &edge, 4);
            break;
          case 3:
            copy.bytes[at] = (unsigned char)draw(256);
            break;
          default:
            if (copy.size - at > 80 && copy.size > HEADER + 2 * RECORD + 200) {
              const uint32_t cut = draw(64) + 1;
              memmove(copy.bytes + at, copy.bytes + at + cut, copy.size - at - cut);
              copy.size -= cut;
            }
        }
      }
      /* Exactly as many bytes as there are, so that a sanitizer sees one too many. */
      copy.bytes = realloc(copy.bytes, copy.size);
      if (i % 4 != 0) seal(copy);
      networks += try_bytes(copy);
      free(copy.bytes);
    }
    for (size_t size = 0; size < file.size; size += size < 100 ? 1 : 29) {
      File part = {allocate(size), size};
      memcpy(part.bytes, file.bytes, size);
      CHECK(!try_bytes(part));
      if (size >= HEADER) {
        seal(part);
        CHECK(!try_bytes(part));
      }
      free(part.bytes);
    }
    free(file.bytes);
  }
  CHECK(networks > 100 && networks < 2000);
}

static void test_messages(void) {
  const File file = small_file(&kFormats[FLOAT32]);
  fusedrnn_frozen* frozen = NULL;
  EXPECT_VALUE_ERROR(fusedrnn_frozen_read(NULL, 8, &frozen),
                     "bytes: expected an address, got null");
  EXPECT_VALUE_ERROR(fusedrnn_frozen_read(file.bytes, file.size, NULL),
                     "frozen: expected an address, got null");
  EXPECT_VALUE_ERROR(fusedrnn_frozen_load(NULL, &frozen), "path: expected an address, got null");
  EXPECT_VALUE_ERROR(fusedrnn_frozen_save(NULL, path), "frozen: expected an address, got null");
  EXPECT_VALUE_ERROR(fusedrnn_frozen_read(file.bytes, 10, &frozen),
                     "bytes: expected a model file, at least 64 bytes, got 10");
  file.bytes[file.size - 1] ^= 1;
  EXPECT_VALUE_ERROR(fusedrnn_frozen_read(file.bytes, file.size, &frozen),
                     "bytes: damaged: its checksum is another one");
  memcpy(file.bytes + HEADER + RECORD, "grr", 4);
  seal(file);
  CHECK(fusedrnn_frozen_read(file.bytes, file.size, &frozen) == FUSEDRNN_INVALID_VALUE);
  CHECK(strncmp(fusedrnn_last_error(), "bytes: runs[1].cell: expected one of rnn_tanh", 44) == 0);
  free(file.bytes);

  char text[512];
  fusedrnn_frozen* good = NULL;
  const File another = small_file(&kFormats[FLOAT32]);
  free(another.bytes);
  MUST(fusedrnn_frozen_load(path, &good));
  char folder[300];
  snprintf(folder, sizeof folder, "%s.folder", path);
  CHECK(mkdir(folder, 0777) == 0);
  snprintf(text, sizeof text, "%s: expected a file, got a folder", folder);
  EXPECT_VALUE_ERROR(fusedrnn_frozen_load(folder, &frozen), text);
  snprintf(text, sizeof text, "%s: expected a file or nothing, got a folder", folder);
  EXPECT_VALUE_ERROR(fusedrnn_frozen_save(good, folder), text);
  rmdir(folder);
  EXPECT(fusedrnn_frozen_load("no/such", &frozen), FUSEDRNN_FILE_ERROR,
         "no/such: No such file or directory");
  EXPECT(fusedrnn_frozen_save(good, "no/such"), FUSEDRNN_FILE_ERROR,
         "no/such: No such file or directory");
  CHECK(truncate(path, 1000) == 0);
  snprintf(text, sizeof text, "%s: expected 1776 bytes, as the file says of itself, got 1000",
           path);
  fusedrnn_frozen* none = NULL;
  EXPECT_VALUE_ERROR(fusedrnn_frozen_load(path, &none), text);
  CHECK(none == NULL && frozen == NULL);
  CHECK(fusedrnn_frozen_network(NULL) == NULL);
  fusedrnn_frozen_free(good);
}

int main(void) {
  if (!can_run()) return NOT_ON_THIS_MACHINE;
  snprintf(path, sizeof path, "model_file_test.%d", (int)getpid());
  test_formats();
  test_changed_files();
  test_messages();
  remove(path);
  return result();
}
