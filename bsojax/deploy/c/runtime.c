#if defined(__GNUC__) && !defined(__clang__)
/* GCC 12 takes sums that a loop of vectors has written for unwritten; Clang's memory sanitizer finds none. */
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline, unused))
#else
#define INLINE static inline
#endif

typedef uint32_t word;
enum { BITS = 32, LANES = 64 };

/* An image of every time step, [plane][time step][pixel][words] of spikes or [time step][pixel][stride] of numbers.
   Planes are the binary digits of a sum of spikes. A still image is the same at every time step, and is held once. */
typedef struct {
  int rows, columns, channels, planes, stride, still;
} Map;

/* How a kernel moves over an image. */
typedef struct {
  int high, wide, step_y, step_x, far_y, far_x, top, left, groups;
} Window;

/* How sums become currents: (gain * sum + half >> after) + shift, from one row of a table a time step, or one for all. */
typedef struct {
  int gains, shifts, before, after, is_wide;
} Scale;

/* Decay is one over two to the decay_bits. */
typedef struct {
  int32_t decay, threshold;
  int decay_bits, is_hard;
} Neurons;

INLINE void clear(word *at, int count) {
  for (int k = 0; k < count; k++) at[k] = 0;
}

/* The number of ones. Where vectors have an instruction for it, in the form that compilers know; elsewhere in one that
   they do not: it stays in vectors, where they would take the scalar instruction. */
INLINE word ones(word x) {
  x = x - ((x >> 1) & 0x55555555u);
  x = (x & 0x33333333u) + ((x >> 2) & 0x33333333u);
#if defined(__AVX512VPOPCNTDQ__)
  return (((x + (x >> 4)) & 0x0f0f0f0fu) * 0x01010101u) >> 24;
#else
  x = (x + (x >> 4)) & 0x0f0f0f0fu;
  x += x >> 8;
  x += x >> 16;
  return x & 63;
#endif
}

INLINE int words_of(int channels) { return (channels + BITS - 1) / BITS; }

/* How many elements of a kernel share a word. */
INLINE int shared(int channels) { return channels < BITS ? BITS / channels : 1; }

/* The number in one channel of a pixel: spikes, or the digits of their sum. */
INLINE int32_t spikes_at(Map m, const word *in, int t, int pixel, int channel) {
  int words = words_of(m.channels), steps = m.still ? 1 : BLOCK;
  int32_t found = 0;
  for (int p = 0; p < m.planes; p++) {
    word bits = in[((p * steps + (m.still ? 0 : t)) * m.rows * m.columns + pixel) * words + channel / BITS];
    found += (int32_t)((bits >> channel % BITS) & 1u) << p;
  }
  return found;
}

/* Whole numbers as their binary digits. */
INLINE void to_digits(Map m, int planes, const NAME_input *restrict in, word *restrict out) {
  int words = words_of(m.channels), steps = m.still ? 1 : BLOCK, pixels = m.rows * m.columns;
  for (int p = 0; p < planes; p++)
    for (int k = 0; k < steps * pixels; k++)
      for (int first = 0; first < m.channels; first += BITS) {
        word bits = 0;
        for (int o = 0; o < (m.channels - first < BITS ? m.channels - first : BITS); o++)
          bits |= ((word)in[k * m.channels + first + o] >> p & 1u) << o;
        out[(p * steps * pixels + k) * words + first / BITS] = bits;
      }
}

INLINE int inside(Map m, Window w, int y, int x, int i, int j, int *pixel) {
  int row = y * w.step_y + i * w.far_y - w.top, column = x * w.step_x + j * w.far_x - w.left;
  *pixel = row * m.columns + column;
  return row >= 0 && row < m.rows && column >= 0 && column < m.columns;
}

/* The spikes under a kernel, [plane][time step][words], with their number, in all and in each plane. */
INLINE void gather(Map m, Window w, int y, int x, int patch_words, const word *restrict in, word *restrict patch,
                   int32_t *restrict total, int32_t *restrict in_plane) {
  int words = words_of(m.channels), together = shared(m.channels);
  int steps = m.still ? 1 : BLOCK;
  for (int t = 0; t < steps; t++) total[t] = 0;
  for (int p = 0; p < m.planes; p++)
    for (int t = 0; t < steps; t++) {
      word *at = patch + (p * steps + t) * patch_words;
      int32_t found = 0;
      if (m.channels < BITS) clear(at, patch_words);
      for (int i = 0; i < w.high; i++)
        for (int j = 0; j < w.wide; j++) {
          int pixel, tap = i * w.wide + j, is_inside = inside(m, w, y, x, i, j, &pixel);
          const word *from = in + ((p * steps + t) * m.rows * m.columns + (is_inside ? pixel : 0)) * words;
          if (m.channels < BITS) {
            if (is_inside) at[tap / together] |= from[0] << tap % together * m.channels;
          } else {
            for (int k = 0; k < words; k++) at[tap * words + k] = is_inside ? from[k] : 0;
          }
        }
      for (int k = 0; k < patch_words; k++) found += (int32_t)ones(at[k]);
      in_plane[p * steps + t] = found;
      total[t] += found << p;
    }
}

#define ADD3(carry, sum, a, b)           \
  {                                      \
    word half_ = (sum) ^ (a);            \
    carry = ((sum) & (a)) | (half_ & (b)); \
    sum = half_ ^ (b);                   \
  }

/* Gathered spikes times the packed signs of some outputs, side by side, [words][lanes]. */
INLINE void signs_of_spikes(int lanes, int planes, int steps, int words, const word *restrict patch, const word *restrict weights,
                            const int32_t *restrict total, const int32_t *restrict in_plane,
                            int32_t (*restrict sum)[LANES]) {
  for (int t = 0; t < steps; t++) {
    word found[LANES];
    clear(found, lanes);
    for (int p = planes - 1; p >= 0; p--) {
      const word *q = patch + (p * steps + t) * words;
      if (p != planes - 1)
        for (int o = 0; o < lanes; o++) found[o] *= 2;
      if (in_plane[p * steps + t] == 0) continue;
      int k = 0;
#if !defined(__AVX512VPOPCNTDQ__)
      /* Eight words are added as columns of bits before ones are counted. */
#define AT(j) (q[k + (j)] & weights[(k + (j)) * lanes + o])
      if (words >= 8) {
        word ones_1[LANES], ones_2[LANES], ones_4[LANES], ones_8[LANES];
        clear(ones_1, lanes);
        clear(ones_2, lanes);
        clear(ones_4, lanes);
        clear(ones_8, lanes);
        for (; k + 8 <= words; k += 8)
          for (int o = 0; o < lanes; o++) {
            word one = ones_1[o], two = ones_2[o], four = ones_4[o], eight, a, b, c, d;
            ADD3(a, one, AT(0), AT(1))
            ADD3(b, one, AT(2), AT(3))
            ADD3(c, two, a, b)
            ADD3(a, one, AT(4), AT(5))
            ADD3(b, one, AT(6), AT(7))
            ADD3(d, two, a, b)
            ADD3(eight, four, c, d)
            ones_8[o] += ones(eight);
            ones_1[o] = one;
            ones_2[o] = two;
            ones_4[o] = four;
          }
        for (int o = 0; o < lanes; o++)
          found[o] += 8 * ones_8[o] + 4 * ones(ones_4[o]) + 2 * ones(ones_2[o]) + ones(ones_1[o]);
      }
#undef AT
#endif
      for (; k < words; k++)
        for (int o = 0; o < lanes; o++) found[o] += ones(q[k] & weights[k * lanes + o]);
    }
    for (int o = 0; o < lanes; o++) sum[t][o] = 2 * (int32_t)found[o] - total[t];
  }
  for (int t = steps; t < BLOCK; t++)
    for (int o = 0; o < lanes; o++) sum[t][o] = sum[0][o];
}

/* Whole weights times spikes; weights [element][channel][stride]. */
INLINE void weights_of_spikes(int lanes, Map m, Window w, int y, int x, int stride, const word *restrict in,
                              const int32_t *restrict weights, int32_t (*restrict sum)[LANES]) {
  for (int t = 0; t < BLOCK; t++) {
    for (int o = 0; o < lanes; o++) sum[t][o] = 0;
    for (int i = 0; i < w.high; i++)
      for (int j = 0; j < w.wide; j++) {
        int pixel;
        if (!inside(m, w, y, x, i, j, &pixel)) continue;
        for (int k = 0; k < m.channels; k++) {
          int32_t value = spikes_at(m, in, t, pixel, k);
          const int32_t *at = weights + ((i * w.wide + j) * m.channels + k) * stride;
          if (value == 0) continue;
          for (int o = 0; o < lanes; o++) sum[t][o] += value * at[o];
        }
      }
  }
}

/* Sums over numbers of the outputs of one group; weights are whole, [element][channel][stride], or signs, one bit each
   in words of outputs. Sums over currents need 64 bits, and lose the last of them. */
#define SUMS_OF_NUMBERS(NAME_, NUMBER)                                                                               \
  INLINE void NAME_(int lanes, int is_signs, int is_wide, int before, Map m, Window w, int y, int x, int group,       \
                    int first, int stride, const NUMBER *restrict in, const void *restrict weights,                   \
                    int32_t (*restrict sum)[LANES]) {                                                                  \
    int channels = m.channels / w.groups;                                                                              \
    for (int t = 0; t < (m.still ? 1 : BLOCK); t++) {                                                                  \
      int64_t wide[LANES];                                                                                             \
      int32_t narrow[LANES];                                                                                           \
      for (int o = 0; o < lanes; o++) wide[o] = narrow[o] = 0;                                                         \
      for (int i = 0; i < w.high; i++)                                                                                 \
        for (int j = 0; j < w.wide; j++) {                                                                             \
          int pixel;                                                                                                   \
          if (!inside(m, w, y, x, i, j, &pixel)) continue;                                                             \
          for (int k = 0; k < channels; k++) {                                                                         \
            int32_t value = in[(t * m.rows * m.columns + pixel) * m.stride + group * channels + k];                    \
            int row = ((i * w.wide + j) * channels + k) * stride;                                                      \
            if (is_signs) {                                                                                            \
              const word *at = (const word *)weights + row + first / BITS;                                             \
              for (int o = 0; o < lanes; o++) {                                                                        \
                int is_on = (int)(at[(first % BITS + o) / BITS] >> (first + o) % BITS & 1u);                           \
                if (is_wide) wide[o] += is_on ? (int64_t)value : -(int64_t)value;                                      \
                else narrow[o] += is_on ? value : -value;                                                              \
              }                                                                                                        \
            } else {                                                                                                   \
              const int32_t *at = (const int32_t *)weights + row + first;                                              \
              for (int o = 0; o < lanes; o++) {                                                                        \
                if (is_wide) wide[o] += (int64_t)value * at[o];                                                        \
                else narrow[o] += value * at[o];                                                                       \
              }                                                                                                        \
            }                                                                                                          \
          }                                                                                                            \
        }                                                                                                              \
      for (int u = t; u < (m.still ? BLOCK : t + 1); u++)                                                              \
        for (int o = 0; o < lanes; o++)                                                                                \
          sum[u][o] = is_wide ? (int32_t)((wide[o] + (((int64_t)1 << before) >> 1)) >> before) : narrow[o];            \
    }                                                                                                                  \
  }

SUMS_OF_NUMBERS(sums_of_inputs, NAME_input)
SUMS_OF_NUMBERS(sums_of_currents, int32_t)

/* A map as it is. */
INLINE void same_numbers(int lanes, Map m, int pixel, int first, const int32_t *restrict in,
                         int32_t (*restrict sum)[LANES]) {
  for (int t = 0; t < BLOCK; t++)
    for (int o = 0; o < lanes; o++)
      sum[t][o] = first + o < m.channels ? in[((m.still ? 0 : t) * m.rows * m.columns + pixel) * m.stride + first + o] : 0;
}

INLINE void same_inputs(int lanes, Map m, int pixel, int first, const NAME_input *restrict in,
                        int32_t (*restrict sum)[LANES]) {
  for (int t = 0; t < BLOCK; t++)
    for (int o = 0; o < lanes; o++)
      sum[t][o] = first + o < m.channels ? in[((m.still ? 0 : t) * m.rows * m.columns + pixel) * m.stride + first + o] : 0;
}

INLINE void same_spikes(int lanes, Map m, int pixel, int first, const word *restrict in, int32_t (*restrict sum)[LANES]) {
  for (int t = 0; t < BLOCK; t++)
    for (int o = 0; o < lanes; o++) sum[t][o] = first + o < m.channels ? spikes_at(m, in, t, pixel, first + o) : 0;
}

INLINE void to_currents(int lanes, Scale s, int first_step, int stride, const int32_t *restrict gain,
                        const int32_t *restrict shift, int32_t (*restrict sum)[LANES]) {
  for (int t = 0; t < BLOCK; t++) {
    const int32_t *g = gain + (first_step + t) % s.gains * stride, *b = shift + (first_step + t) % s.shifts * stride;
    for (int o = 0; o < lanes; o++) {
      int32_t m = s.before ? (int32_t)(((int64_t)sum[t][o] + (((int64_t)1 << s.before) >> 1)) >> s.before) : sum[t][o];
      int32_t c = s.is_wide ? (int32_t)(((int64_t)g[o] * m + (((int64_t)1 << s.after) >> 1)) >> s.after)
                            : (g[o] * m + (((int32_t)1 << s.after) >> 1)) >> s.after;
      sum[t][o] = c + b[o];
    }
  }
}

INLINE int32_t decayed(Neurons n, int32_t v) {
  if (n.decay == 0) return 0;
  if ((int64_t)n.decay == (int64_t)1 << n.decay_bits) return v;
  if ((int64_t)n.decay * 2 == (int64_t)1 << n.decay_bits) return v >> 1;
  return (int32_t)(((int64_t)v * n.decay) >> n.decay_bits);
}

/* Neurons of one pixel through all time steps of a block; the membrane is kept where more of them follow. */
INLINE void fire(int lanes, Neurons n, int32_t (*restrict current)[LANES], NAME_membrane *restrict kept,
                 word (*restrict fired)[LANES]) {
  int32_t v[LANES];
  for (int o = 0; o < lanes; o++) v[o] = kept ? kept[o] : 0;
  for (int t = 0; t < BLOCK; t++)
    for (int o = 0; o < lanes; o++) {
      int32_t u = decayed(n, v[o]) + current[t][o], is_on = u >= n.threshold;
      fired[t][o] = (word)is_on;
      v[o] = n.is_hard ? (is_on ? 0 : u) : u - (is_on ? n.threshold : 0);
    }
  if (kept)
    for (int o = 0; o < lanes; o++) kept[o] = (NAME_membrane)v[o];
}

/* Spikes of some channels into a map. */
INLINE void put(int lanes, int channels, int pixels, int pixel, int first, word (*restrict fired)[LANES],
                word *restrict out) {
  int words = words_of(channels);
  for (int t = 0; t < BLOCK; t++)
    for (int part = 0; part < lanes && first + part < channels; part += BITS) {
      word bits = 0, *at = out + (t * pixels + pixel) * words + (first + part) / BITS;
      for (int o = 0; o < (lanes - part < BITS ? lanes - part : BITS); o++)
        bits |= (first + part + o < channels ? fired[t][part + o] : 0) << o;
      if (first % BITS == 0) *at = bits;
      else *at |= bits << first % BITS;
    }
}

/* Sums over windows of spikes, as planes; or whether any fired, as one. */
INLINE void pool_spikes(Map m, int high, int wide, int rows, int columns, int planes, int is_any,
                        const word *restrict in, word *restrict out) {
  int words = words_of(m.channels);
  for (int t = 0; t < BLOCK; t++)
    for (int y = 0; y < rows; y++)
      for (int x = 0; x < columns; x++)
        for (int k = 0; k < words; k++) {
          word sum[8] = {0};
          for (int i = 0; i < high; i++)
            for (int j = 0; j < wide; j++) {
              word carry = in[((t * m.rows + y * high + i) * m.columns + x * wide + j) * words + k];
              if (is_any) sum[0] |= carry;
              else
                for (int p = 0; p < planes; p++) {
                  word both = sum[p] & carry;
                  sum[p] ^= carry;
                  carry = both;
                }
            }
          for (int p = 0; p < planes; p++) out[((p * BLOCK + t) * rows * columns + y * columns + x) * words + k] = sum[p];
        }
}

/* Sums over windows of numbers; the last row and column are repeated where a window is cut off. */
#define POOL_NUMBERS(NAME_, NUMBER)                                                                                  \
  INLINE void NAME_(Map m, int high, int wide, int rows, int columns, const NUMBER *restrict in, int32_t *restrict out) { \
    for (int t = 0; t < (m.still ? 1 : BLOCK); t++)                                                                    \
      for (int y = 0; y < rows; y++)                                                                                   \
        for (int x = 0; x < columns; x++)                                                                              \
          for (int k = 0; k < m.channels; k++) {                                                                       \
            int32_t sum = 0;                                                                                           \
            for (int i = 0; i < high; i++)                                                                             \
              for (int j = 0; j < wide; j++) {                                                                         \
                int row = y * high + i < m.rows ? y * high + i : m.rows - 1;                                           \
                int column = x * wide + j < m.columns ? x * wide + j : m.columns - 1;                                  \
                sum += in[((t * m.rows + row) * m.columns + column) * m.stride + k];                                   \
              }                                                                                                        \
            out[((t * rows + y) * columns + x) * m.channels + k] = sum;                                                \
          }                                                                                                            \
  }

POOL_NUMBERS(pool_inputs, NAME_input)
POOL_NUMBERS(pool_currents, int32_t)
