// Kernels of inference on processors: products with stored weights, attention to pages of keys and
// values, rotations. langue/model/native.py builds this file at first use, and calls it.
//
// Three rules hold for every function, and are tested:
//   1. A row's result depends on that row alone: the order of its sums is the same at every number
//      of rows and at any place among them. Blocks have constant sizes for that reason.
//   2. Results do not depend on the number of threads: a result is computed by one thread.
//   3. What is not a number in one row or sequence changes no other.
//
// Letters as in ARCHITECTURE.md: N sequences, T tokens, H heads, G key/value heads, K their width.

#include <algorithm>
#include <atomic>
#include <cfloat>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <system_error>
#include <thread>
#include <type_traits>
#include <vector>

#include <pthread.h>

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define LANGUE_AVX2 1
#include <immintrin.h>
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)
#define LANGUE_AVX512 1
#endif
#endif

namespace {

// ---- Vectors: the only part that knows instruction sets ---------------------------------------

#ifdef LANGUE_AVX512
constexpr int LANES = 16;
constexpr const char* INSTRUCTIONS = "AVX-512 with VNNI";
#elif defined(LANGUE_AVX2)
constexpr int LANES = 8;
constexpr const char* INSTRUCTIONS = "AVX2";
#else
constexpr int LANES = 8;
constexpr const char* INSTRUCTIONS = "plain C++";
#endif

using Floats = float __attribute__((vector_size(4 * LANES)));
using Ints = int32_t __attribute__((vector_size(4 * LANES)));

template <class Vector>
inline Vector load(const void* from) {
    Vector vector;
    std::memcpy(&vector, from, sizeof vector);
    return vector;
}

template <class Vector>
inline void store(void* to, const Vector& vector) {
    std::memcpy(to, &vector, sizeof vector);
}

inline Floats splat(float value) { return value - Floats{}; }

// Asked for by name: a compiler that fuses where it likes may do so in one copy of a template and
// not in another. -ffp-contract=off forbids it to.
inline Floats fma(Floats a, Floats b, Floats c) {
#ifdef LANGUE_AVX512
    return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(LANGUE_AVX2)
    return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

inline Floats to_floats(Ints values) { return __builtin_convertvector(values, Floats); }

inline float from_half(uint16_t half) {  // IEEE's 16 bits
#ifdef LANGUE_AVX2
    return _cvtsh_ss(half);
#else
    const bool negative = half & 0x8000;
    const int exponent = half >> 10 & 31;
    const float fraction = float(half & 1023);
    float value;
    if (exponent == 31)
        value = fraction == 0 ? INFINITY : NAN;
    else if (exponent == 0)  // zero, or below the smallest normal number
        value = std::ldexp(fraction, -24);
    else
        value = std::ldexp(1024 + fraction, exponent - 25);
    return negative ? -value : value;
#endif
}

inline Floats widen(const float* from) { return load<Floats>(from); }

inline float widen_one(float value) { return value; }

inline Floats widen(const uint16_t* from) {  // bf16: the upper half of a float
#ifdef LANGUE_AVX512
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from));
    return (Floats)_mm512_slli_epi32(wide, 16);
#elif defined(LANGUE_AVX2)
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)from));
    return (Floats)_mm256_slli_epi32(wide, 16);
#else
    Ints wide;
    for (int lane = 0; lane < LANES; lane++) wide[lane] = int32_t(uint32_t(from[lane]) << 16);
    return (Floats)wide;
#endif
}

inline float widen_one(uint16_t value) {
    const uint32_t bits = uint32_t(value) << 16;
    return load<float>(&bits);
}

// The sum over all lanes; by halves, so that `sums` gives the same bits.
inline float sum(Floats v) {
    float lane[LANES];
    store(lane, v);
    if constexpr (LANES == 16)
        for (int i = 0; i < 8; i++) lane[i] += lane[i + 8];
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) +
           ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

// The sums of eight vectors.
inline void sums(const Floats* v, float* out) {
#ifdef LANGUE_AVX2
    __m256 part[8];
    for (int i = 0; i < 8; i++) {
#ifdef LANGUE_AVX512
        part[i] = _mm256_add_ps(_mm512_castps512_ps256((__m512)v[i]),
                                _mm512_extractf32x8_ps((__m512)v[i], 1));
#else
        part[i] = (__m256)v[i];
#endif
    }
    __m256 four[2];
    for (int i = 0; i < 2; i++) {
        const __m256 low = _mm256_hadd_ps(part[4 * i], part[4 * i + 1]);
        const __m256 high = _mm256_hadd_ps(part[4 * i + 2], part[4 * i + 3]);
        four[i] = _mm256_hadd_ps(low, high);  // of vectors 4 i to 4 i + 3: lower lanes, upper lanes
    }
    const __m256 lower = _mm256_permute2f128_ps(four[0], four[1], 0x20);
    const __m256 upper = _mm256_permute2f128_ps(four[0], four[1], 0x31);
    _mm256_storeu_ps(out, _mm256_add_ps(lower, upper));
#else
    for (int i = 0; i < 8; i++) out[i] = sum(v[i]);
#endif
}

inline float largest(Floats v) {
    float most = v[0];
    for (int lane = 1; lane < LANES; lane++) most = v[lane] > most ? v[lane] : most;
    return most;
}

// e^x for x <= 0, within 2 units in the last place (a polynomial of degree 6 on half a power of two
// to either side); what is below the smallest normal number is 0; NaN stays NaN.
inline Floats exponential(Floats x) {
    constexpr float LOWEST = -87.33654f;
    constexpr float ROUNDER = 12582912.f;  // 1.5 * 2^23: adding it leaves a whole number
    const Floats inside = x < LOWEST ? splat(LOWEST) : x;
    const Floats power = inside * 1.44269504f + ROUNDER - ROUNDER;
    Floats rest = fma(power, splat(-0.693359375f), inside);  // ln 2 in two parts
    rest = fma(power, splat(2.12194440e-4f), rest);
    Floats value = splat(1.f / 720);
    for (const float factor : {1.f / 120, 1.f / 24, 1.f / 6, 1.f / 2, 1.f, 1.f})
        value = fma(value, rest, splat(factor));
    const Ints bits = (__builtin_convertvector(power, Ints) + 127) << 23;
    return x < LOWEST ? Floats{} : value * (Floats)bits;
}

// A matrix (outputs, inputs) as langue's `Weight` stores it; native.py has the same fields.
struct Weight {
    const void* data;
    const void* scales;  // or null
    const void* mins;    // or null
    int64_t outputs;
    int64_t inputs;
    int32_t kind;
    int32_t group;
    int32_t halves;  // whether scales and mins have 16 bits
};

// ---- Threads ----------------------------------------------------------------------------------

// OpenMP would be a second runtime beside PyTorch's, and the threads of each would wait by spinning
// where the other's have work.
class Pool {
  public:
    // task(i) for each i < count, by at most so many threads, this one among them.
    template <class Task>
    void run(int count, int threads, const Task& task) {
        threads = std::min(threads, count);
        std::unique_lock<std::mutex> alone(in_use, std::try_to_lock);
        if (threads <= 1 || !alone) {  // another thread of the program has the pool
            for (int i = 0; i < count; i++) task(i);
            return;
        }
        grow(threads - 1);
        const auto call = [](const void* what, int i) { (*static_cast<const Task*>(what))(i); };
        Job job{call, &task, count};
        {
            const std::lock_guard<std::mutex> lock(mutex);
            current = &job;
            places = threads - 1;
            number.fetch_add(1, std::memory_order_release);
        }
        wake.notify_all();
        job.work();
        {
            const std::lock_guard<std::mutex> lock(mutex);
            current = nullptr;  // who has not come yet is not waited for
        }
        while (job.inside.load(std::memory_order_acquire)) pause();
    }

  private:
    struct Job {
        void (*call)(const void*, int);
        const void* task;
        int count;
        std::atomic<int> next{0};
        std::atomic<int> inside{0};

        Job(void (*call)(const void*, int), const void* task, int count)
            : call(call), task(task), count(count) {}

        void work() {
            for (int i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) call(task, i);
        }
    };

    static constexpr int SPINS = 4000;  // some 50 microseconds: from one product to the next

    std::mutex in_use;
    std::mutex mutex;  // of what follows
    std::condition_variable wake;
    std::atomic<unsigned> number{0};
    Job* current = nullptr;
    int places = 0;
    int workers = 0;

    static void pause() {
#ifdef LANGUE_AVX2
        _mm_pause();
#else
        std::this_thread::yield();
#endif
    }

    void grow(int wanted) {
        try {
            for (; workers < wanted; workers++) std::thread([this] { serve(); }).detach();
        } catch (const std::system_error&) {
            // the system gives no more threads: fewer compute the same
        }
    }

    void serve() {
        unsigned seen = 0;
        while (true) {
            for (int i = 0; i < SPINS && number.load(std::memory_order_acquire) == seen; i++)
                pause();
            Job* job;
            {
                std::unique_lock<std::mutex> lock(mutex);
                wake.wait(lock, [&] { return number.load(std::memory_order_relaxed) != seen; });
                seen = number.load(std::memory_order_relaxed);
                if (current == nullptr || places == 0) continue;
                places--;
                job = current;
                job->inside.fetch_add(1, std::memory_order_relaxed);
            }
            job->work();
            job->inside.fetch_sub(1, std::memory_order_release);
        }
    }
};

Pool* pool = new Pool;  // never deleted: its threads wait in it when the process ends

// A fork has none of its parent's threads, and perhaps its locks.
const int registered = pthread_atfork(nullptr, nullptr, [] { pool = new Pool; });

// call(std::integral_constant<int, value>) for a value of 1 to MOST.
template <int MOST, class Call>
inline void with_constant(int value, const Call& call) {
    if constexpr (MOST > 1)
        if (value < MOST) return with_constant<MOST - 1>(value, call);
    call(std::integral_constant<int, MOST>{});
}

// ---- Products with weights of floating point: y = x W^T + b -----------------------------------

// Both lie with K contiguous, so an output is a product of two rows: LANES partial sums over each
// CHUNK of the inputs, then the sum of these.
constexpr int CHUNK = 1024;
constexpr int ROWS = 4;       // of x, and
constexpr int COLUMNS = 3;    // rows of W whose partial sums are held in registers at once
constexpr int STREAMS = 4;    // rows of W with one or two rows of x
constexpr int BLOCK = 24;     // outputs of a task: their chunks of W stay in a core's second cache
constexpr int LONGEST = 384;  // outputs of a task of few rows of x, by which W is read once

template <class Number, int M, int O>
void dense_tile(const float* x, int64_t x_stride, const Number* w, int64_t w_stride, int count,
                float* y, int64_t y_stride, int64_t y_step) {
    constexpr int PADDED = (M * O + 7) / 8 * 8;
    constexpr int LINE = 64 / sizeof(Number);
    Floats partial[PADDED] = {};
    const auto add = [&](int k) {
        Floats weights[O];
        for (int o = 0; o < O; o++) weights[o] = widen(w + o * w_stride + k);
        for (int m = 0; m < M; m++) {
            const Floats inputs = load<Floats>(x + m * x_stride + k);
            for (int o = 0; o < O; o++)
                partial[m * O + o] = fma(inputs, weights[o], partial[m * O + o]);
        }
    };
    int k = 0;
    for (; k + LINE <= count; k += LINE)
        for (int i = 0; i < LINE; i += LANES) add(k + i);
    for (; k + LANES <= count; k += LANES) add(k);
    float total[PADDED];
    for (int i = 0; i < PADDED; i += 8) sums(partial + i, total + i);
    for (int m = 0; m < M; m++)
        for (int o = 0; o < O; o++) {
            float rest = 0;  // of inputs that fill no vector
            for (int i = k; i < count; i++)
                rest += x[m * x_stride + i] * widen_one(w[o * w_stride + i]);
            y[m * y_stride + o * y_step] += total[m * O + o] + rest;
        }
}

// Adds what the inputs from `first` to `last` give to `block` outputs. The rows of W that are read
// at once are far from each other and each is followed by its next one: O long streams, which
// hardware sees coming, where neighbours would be O short ones.
template <class Number, int M, int O>
void dense_rows(const float* x, const Number* w, int64_t inputs, int64_t first, int64_t last,
                float* y, int64_t outputs, int block) {
    const int apart = block / O;
    for (int o = 0; o < apart; o++)
        for (int64_t k = first; k < last; k += CHUNK)
            dense_tile<Number, M, O>(x + k, inputs, w + o * inputs + k, apart * inputs,
                                     int(std::min<int64_t>(CHUNK, last - k)), y + o, outputs,
                                     apart);
    for (int o = apart * O; o < block; o++)
        for (int64_t k = first; k < last; k += CHUNK)
            dense_tile<Number, M, 1>(x + k, inputs, w + o * inputs + k, inputs,
                                     int(std::min<int64_t>(CHUNK, last - k)), y + o, outputs, 1);
}

template <class Number>
void dense(const Weight& w, const float* x, const float* bias, float* y, int64_t rows,
           int threads) {
    const int64_t outputs = w.outputs;
    const int64_t inputs = w.inputs;
    const bool few = rows <= ROWS;
    const int64_t share = std::min<int64_t>(LONGEST, (outputs + threads - 1) / threads);
    const int64_t size = few ? std::max<int64_t>(BLOCK, share) : BLOCK;
    const int64_t span = few ? inputs : CHUNK;
    pool->run(int((outputs + size - 1) / size), threads, [&](int task) {
        const int64_t begin = int64_t(task) * size;
        const int block = int(std::min(size, outputs - begin));
        const Number* weights = static_cast<const Number*>(w.data) + begin * inputs;
        for (int64_t m = 0; m < rows; m++)
            for (int64_t o = begin; o < begin + block; o++)
                y[m * outputs + o] = bias ? bias[o] : 0;
        for (int64_t k = 0; k < inputs; k += span)
            for (int64_t m = 0; m < rows; m += ROWS) {
                const auto tile = [&](auto tile_rows) {
                    constexpr int M = decltype(tile_rows)::value;
                    dense_rows<Number, M, (M > 2 ? COLUMNS : STREAMS)>(
                        x + m * inputs, weights, inputs, k, std::min(k + span, inputs),
                        y + m * outputs + begin, outputs, block);
                };
                with_constant<ROWS>(int(std::min<int64_t>(ROWS, rows - m)), tile);
            }
    });
}

// ---- Products with weights of whole numbers ---------------------------------------------------

// The inputs become whole numbers, too: each UNIT of a row is divided by its own largest absolute
// value. The products of a group are summed exactly, as whole numbers; then, group after group,
//     y[o] = fma(float(sum), x_scale * w_scale[o], y[o]).
// LANES outputs are computed abreast: their rows of weights are first laid into a panel, in which
// four inputs of each row stand side by side.
constexpr int UNIT = 32;
constexpr int QUADS = UNIT / 4;
constexpr int PANEL_UNITS = 32;  // 8 or 16 KB of weights: in a core's first cache
constexpr int TILE = 4;          // rows of x computed at once
constexpr int64_t FEW = 8;       // rows of x for which a panel would not pay
constexpr int64_t ROW_BLOCK = 256;

struct Quantised {  // rows of x
    std::vector<int8_t> values;
    std::vector<float> scales;  // of each unit
    std::vector<int32_t> sums;  // of each half of a unit

    void resize(int64_t rows, int64_t inputs) {
        values.resize(rows * inputs);
        scales.resize(rows * inputs / UNIT);
        sums.resize(rows * inputs / UNIT * 2);
    }

    void fill(const float* x, int64_t first_unit, int64_t units) {
        for (int64_t unit = first_unit; unit < first_unit + units; unit++) {
            int8_t* out = &values[unit * UNIT];
            scales[unit] = quantise(x + unit * UNIT, out);
            for (int half = 0; half < 2; half++) {
                int32_t total = 0;
                for (int i = 0; i < UNIT / 2; i++) total += out[half * UNIT / 2 + i];
                sums[2 * unit + half] = total;
            }
        }
    }

    // Returns the scale: 0 where nothing is larger than SMALLEST, NaN where not all is finite.
    static float quantise(const float* x, int8_t* out) {
        constexpr float SMALLEST = 1e-36f;  // 127 / it is finite
        constexpr float ROUNDER = 12582912.f;
        uint32_t most = 0;  // the bits of absolute values are ordered as these are, NaN the largest
        for (int i = 0; i < UNIT; i++) {
            uint32_t bits;
            std::memcpy(&bits, x + i, sizeof bits);
            most = std::max(most, bits & 0x7fffffff);
        }
        float largest;
        std::memcpy(&largest, &most, sizeof largest);
        if (!(largest <= FLT_MAX) || largest < SMALLEST) {
            std::memset(out, 0, UNIT);
            return largest <= FLT_MAX ? 0 : NAN;
        }
        const float factor = 127 / largest;
        for (int i = 0; i < UNIT; i++) {  // the whole number stands in the lowest bits of the sum
            const float shifted = x[i] * factor + ROUNDER;
            int32_t bits;
            std::memcpy(&bits, &shifted, sizeof bits);
            out[i] = int8_t(bits);
        }
        return largest / 127;
    }
};

// A kind of code says how a unit's 32 bytes are got from the stored row, and what was added to each
// so that the dot product is of unsigned with signed bytes, as the instructions want them.
struct Int8 {
    static constexpr int BYTES = 32;
#ifdef LANGUE_AVX512
    static constexpr int OFFSET = 128;
#else
    static constexpr int OFFSET = 0;
#endif
    static constexpr bool NIBBLES = false;
};

struct Int4 {  // byte i: element i in its lower half, element i + 16 in the upper one
    static constexpr int BYTES = 16;
    static constexpr int OFFSET = 8;
    static constexpr bool NIBBLES = true;
};

struct Panel {
    alignas(64) uint8_t codes[PANEL_UNITS][QUADS][LANES][4];
    alignas(64) float scales[2 * PANEL_UNITS][LANES];  // group after group
    alignas(64) float mins[2 * PANEL_UNITS][LANES];
};

#ifdef LANGUE_AVX2

inline void transpose(__m256i (&v)[8]) {  // 8 x 8 numbers of 32 bits
    __m256i pairs[8], fours[8];
    for (int i = 0; i < 8; i += 2) {
        pairs[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            fours[i + 2 * j] = _mm256_unpacklo_epi64(pairs[i + j], pairs[i + j + 2]);
            fours[i + 2 * j + 1] = _mm256_unpackhi_epi64(pairs[i + j], pairs[i + j + 2]);
        }
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_permute2x128_si256(fours[i], fours[i + 4], 0x20);
        v[i + 4] = _mm256_permute2x128_si256(fours[i], fours[i + 4], 0x31);
    }
}

template <class Code>
inline __m256i unit_of(const uint8_t* from) {
    if constexpr (Code::NIBBLES) {
        const __m128i both = _mm_loadu_si128((const __m128i*)from);
        const __m256i wide = _mm256_set_m128i(_mm_srli_epi16(both, 4), both);
        return _mm256_and_si256(wide, _mm256_set1_epi8(15));
    } else {
        const __m256i codes = _mm256_loadu_si256((const __m256i*)from);
        return Code::OFFSET ? _mm256_xor_si256(codes, _mm256_set1_epi8(-128)) : codes;
    }
}

#endif

// One unit of LANES rows of weights.
template <class Code>
inline void lay_unit(const uint8_t* const* rows, int64_t offset, uint8_t (&out)[QUADS][LANES][4]) {
#ifdef LANGUE_AVX2
    for (int first = 0; first < LANES; first += 8) {
        __m256i v[8];
        for (int i = 0; i < 8; i++) v[i] = unit_of<Code>(rows[first + i] + offset);
        transpose(v);
        for (int quad = 0; quad < QUADS; quad++) store(out[quad][first], v[quad]);
    }
#else
    for (int lane = 0; lane < LANES; lane++)
        for (int i = 0; i < UNIT; i++) {
            const uint8_t byte = rows[lane][offset + (Code::NIBBLES ? i % 16 : i)];
            out[i / 4][lane][i % 4] = !Code::NIBBLES ? byte : i < 16 ? byte & 15 : byte >> 4;
        }
#endif
}

// Scales (or mins) of `groups` groups from `first` on, of LANES rows.
inline void lay_scales(const void* from, bool halves, const int64_t* rows, int64_t first,
                       int groups, float (*out)[LANES]) {
    int group = 0;
#ifdef LANGUE_AVX2
    for (; group + 8 <= groups; group += 8)
        for (int lane = 0; lane < LANES; lane += 8) {
            __m256i v[8];
            for (int i = 0; i < 8; i++) {
                const int64_t at = rows[lane + i] + first + group;
                v[i] = halves ? (__m256i)_mm256_cvtph_ps(load<__m128i>((const uint16_t*)from + at))
                              : load<__m256i>((const float*)from + at);
            }
            transpose(v);
            for (int i = 0; i < 8; i++) store(&out[group + i][lane], v[i]);
        }
#endif
    for (; group < groups; group++)
        for (int lane = 0; lane < LANES; lane++) {
            const int64_t at = rows[lane] + first + group;
            out[group][lane] =
                halves ? from_half(((const uint16_t*)from)[at]) : ((const float*)from)[at];
        }
}

// Sums of products of M rows of x with LANES rows of weights, over `quads` times four inputs.
template <class Code, int M>
inline void dot(const uint8_t (*codes)[LANES][4], int quads, const int8_t* x, int64_t stride,
                Ints (&out)[M]) {
#ifdef LANGUE_AVX512
    __m512i total[M] = {};
    for (int quad = 0; quad < quads; quad++) {
        const __m512i w = _mm512_load_si512(codes[quad]);
        for (int m = 0; m < M; m++) {
            const __m512i inputs = _mm512_set1_epi32(load<int32_t>(x + m * stride + 4 * quad));
            total[m] = _mm512_dpbusd_epi32(total[m], w, inputs);
        }
    }
    for (int m = 0; m < M; m++) out[m] = (Ints)total[m];
#elif defined(LANGUE_AVX2)
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i total[M] = {};
    for (int quad = 0; quad < quads; quad++) {
        const __m256i w = _mm256_load_si256((const __m256i*)codes[quad]);
        const __m256i absolute = Code::NIBBLES ? w : _mm256_abs_epi8(w);
        for (int m = 0; m < M; m++) {
            const __m256i inputs = _mm256_set1_epi32(load<int32_t>(x + m * stride + 4 * quad));
            if constexpr (Code::NIBBLES) {  // eight sums of two products of 15 and 127: in 16 bits
                total[m] = _mm256_add_epi16(total[m], _mm256_maddubs_epi16(w, inputs));
            } else {  // |w| * (sign of w) x: two products of at most 128 and 127, in 16 bits
                const __m256i pairs = _mm256_maddubs_epi16(absolute, _mm256_sign_epi8(inputs, w));
                total[m] = _mm256_add_epi32(total[m], _mm256_madd_epi16(pairs, ones));
            }
        }
    }
    for (int m = 0; m < M; m++)
        out[m] = (Ints)(Code::NIBBLES ? _mm256_madd_epi16(total[m], ones) : total[m]);
#else
    for (int m = 0; m < M; m++) {
        int32_t total[LANES] = {};
        for (int quad = 0; quad < quads; quad++)
            for (int lane = 0; lane < LANES; lane++)
                for (int i = 0; i < 4; i++) {
                    const uint8_t code = codes[quad][lane][i];
                    const int weight = Code::NIBBLES ? code : int8_t(code);
                    total[lane] += weight * x[m * stride + 4 * quad + i];
                }
        out[m] = load<Ints>(total);
    }
#endif
}

#ifdef LANGUE_AVX2

// The same of one unit of eight rows of weights as they lie, for M rows of x: sums of either half
// of it, or of all of it in `lower`.
template <int M>
inline void dot_eight(Int4, const uint8_t* const* rows, int64_t offset, const int8_t* x,
                      int64_t stride, __m256i (&lower)[M], __m256i (&)[M]) {
    const __m256i mask = _mm256_set1_epi8(15);
    __m256i v[M][4];
    for (int i = 0; i < 4; i++) {  // rows i and i + 4 in one vector
        const __m256i both = _mm256_set_m128i(load<__m128i>(rows[i + 4] + offset),
                                              load<__m128i>(rows[i] + offset));
        const __m256i low = _mm256_and_si256(both, mask);
        const __m256i high = _mm256_and_si256(_mm256_srli_epi16(both, 4), mask);
        for (int m = 0; m < M; m++) {
            const __m256i first = _mm256_broadcastsi128_si256(load<__m128i>(x + m * stride));
            const __m256i second = _mm256_broadcastsi128_si256(load<__m128i>(x + m * stride + 16));
#ifdef LANGUE_AVX512
            v[m][i] = _mm256_dpbusd_epi32(_mm256_dpbusd_epi32(__m256i{}, low, first), high, second);
#else
            v[m][i] = _mm256_add_epi16(_mm256_maddubs_epi16(low, first),
                                       _mm256_maddubs_epi16(high, second));
#endif
        }
    }
    for (int m = 0; m < M; m++) {
#ifdef LANGUE_AVX512
        lower[m] = _mm256_hadd_epi32(_mm256_hadd_epi32(v[m][0], v[m][1]),
                                     _mm256_hadd_epi32(v[m][2], v[m][3]));
#else  // in 16 bits, which hold 16 products of 15 and 127
        const __m256i pairs = _mm256_hadd_epi16(_mm256_hadd_epi16(v[m][0], v[m][1]),
                                                _mm256_hadd_epi16(v[m][2], v[m][3]));
        lower[m] = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#endif
    }
}

template <int M>
inline void dot_eight(Int8, const uint8_t* const* rows, int64_t offset, const int8_t* x,
                      int64_t stride, __m256i (&lower)[M], __m256i (&upper)[M]) {
    __m256i v[M][8];
    for (int i = 0; i < 8; i++) {
        const __m256i w = unit_of<Int8>(rows[i] + offset);
        for (int m = 0; m < M; m++) {
            const __m256i inputs = load<__m256i>(x + m * stride);
#ifdef LANGUE_AVX512
            v[m][i] = _mm256_dpbusd_epi32(__m256i{}, w, inputs);
#else
            v[m][i] = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(inputs, w));
            v[m][i] = _mm256_madd_epi16(v[m][i], _mm256_set1_epi16(1));
#endif
        }
    }
    for (int m = 0; m < M; m++) {
        __m256i four[2];
        for (int i = 0; i < 2; i++)
            four[i] = _mm256_hadd_epi32(_mm256_hadd_epi32(v[m][4 * i], v[m][4 * i + 1]),
                                        _mm256_hadd_epi32(v[m][4 * i + 2], v[m][4 * i + 3]));
        lower[m] = _mm256_permute2x128_si256(four[0], four[1], 0x20);
        upper[m] = _mm256_permute2x128_si256(four[0], four[1], 0x31);
    }
}

#endif

// The same of one unit where the weights lie. PARTS: groups of a unit, out[part][m].
template <class Code, int PARTS, int M>
inline void dot_in_place(const uint8_t* const* rows, int64_t offset, const int8_t* x,
                         int64_t stride, Ints (&out)[PARTS][M]) {
#ifdef LANGUE_AVX2
    __m256i lower[LANES / 8][M];
    __m256i upper[LANES / 8][M];
    const auto whole = [](const __m256i (&eights)[LANES / 8][M], int m) {
#ifdef LANGUE_AVX512  // not by way of memory, where a load would wait for both stores
        return (Ints)_mm512_inserti64x4(_mm512_castsi256_si512(eights[0][m]), eights[1][m], 1);
#else
        return (Ints)eights[0][m];
#endif
    };
    for (int i = 0; i < LANES / 8; i++)
        dot_eight(Code{}, rows + 8 * i, offset, x, stride, lower[i], upper[i]);
    for (int m = 0; m < M; m++) {
        out[0][m] = whole(lower, m);
        if constexpr (PARTS == 2)
            out[1][m] = whole(upper, m);
        else if constexpr (!Code::NIBBLES)
            out[0][m] += whole(upper, m);
    }
#else
    uint8_t codes[QUADS][LANES][4];
    lay_unit<Code>(rows, offset, codes);
    constexpr int PART_QUADS = QUADS / PARTS;
    for (int part = 0; part < PARTS; part++)
        dot<Code, M>(codes + part * PART_QUADS, PART_QUADS, x + part * PART_QUADS * 4, stride,
                     out[part]);
#endif
}

// Fetches the LANES rows that follow: a share for each unit that is read, in the order in which
// they lie, as hardware follows one long stream and not LANES short ones.
template <class Code>
inline void fetch_next(const uint8_t* rows, int64_t row_units, int64_t offset) {
    const uint8_t* next = rows + (row_units * Code::BYTES + offset) * LANES;
    for (int i = 0; i < LANES * Code::BYTES; i += 64) __builtin_prefetch(next + i, 0, 2);
}

// PARTS: groups of a unit. total (rows, LANES): added to. PANEL: it has codes, not scales alone.
template <class Code, int PARTS, bool MINS, bool PANEL, int M>
void coded_tile(const Panel& panel, const uint8_t* const* rows, int64_t offset, int units,
                const Quantised& x, int64_t at, int64_t row_units, float (*total)[LANES]) {
    constexpr int OFFSET = MINS ? 0 : Code::OFFSET;
    constexpr int PART_QUADS = QUADS / PARTS;
    Floats y[M];
    for (int m = 0; m < M; m++) y[m] = load<Floats>(total[m]);
    const int64_t stride = row_units * UNIT;
    for (int unit = 0; unit < units; unit++) {
        const int8_t* inputs = &x.values[(at + unit) * UNIT];
        Ints all[PARTS][M];
        if constexpr (!PANEL) {
            const int64_t place = offset + unit * Code::BYTES;
            fetch_next<Code>(rows[0], row_units, place);
            dot_in_place<Code, PARTS, M>(rows, place, inputs, stride, all);
        } else {
            for (int part = 0; part < PARTS; part++)
                dot<Code, M>(panel.codes[unit] + part * PART_QUADS, PART_QUADS,
                             inputs + part * PART_QUADS * 4, stride, all[part]);
        }
        for (int part = 0; part < PARTS; part++) {
            const int group = unit * PARTS + part;
            const Ints(&products)[M] = all[part];
            const Floats scales = load<Floats>(panel.scales[group]);
            for (int m = 0; m < M; m++) {
                const int64_t place = at + m * row_units + unit;
                const float scale = x.scales[place];
                int32_t inputs_sum = 0;
                if constexpr (OFFSET || MINS)
                    inputs_sum = PARTS == 2 ? x.sums[2 * place + part]
                                            : x.sums[2 * place] + x.sums[2 * place + 1];
                y[m] = fma(to_floats(products[m] - OFFSET * inputs_sum), scales * scale, y[m]);
                if constexpr (MINS)
                    y[m] = fma(load<Floats>(panel.mins[group]), splat(-scale * inputs_sum), y[m]);
            }
        }
    }
    for (int m = 0; m < M; m++) store(total[m], y[m]);
}

template <class Code, int PARTS, bool MINS>
void coded_panel(const Weight& w, int64_t output, const Quantised& x, int64_t rows,
                 const float* bias, float* y) {
    static thread_local Panel panel;
    alignas(64) static thread_local float total[ROW_BLOCK][LANES];
    const int lanes = int(std::min<int64_t>(LANES, w.outputs - output));
    const int64_t row_units = w.inputs / UNIT;
    const uint8_t* data[LANES];
    int64_t scales[LANES];
    for (int lane = 0; lane < LANES; lane++) {  // where rows are missing, the last one again
        const int64_t row = output + std::min(lane, lanes - 1);
        data[lane] = static_cast<const uint8_t*>(w.data) + row * row_units * Code::BYTES;
        scales[lane] = row * row_units * PARTS;
    }
    for (int64_t first = 0; first < rows; first += ROW_BLOCK) {
        const int64_t block = std::min(ROW_BLOCK, rows - first);
        std::memset(total, 0, block * sizeof *total);
        for (int64_t unit = 0; unit < row_units; unit += PANEL_UNITS) {
            const int units = int(std::min<int64_t>(PANEL_UNITS, row_units - unit));
            const int64_t offset = unit * Code::BYTES;
            const bool in_place = block <= FEW;
            lay_scales(w.scales, w.halves, scales, unit * PARTS, units * PARTS, panel.scales);
            if constexpr (MINS)
                lay_scales(w.mins, w.halves, scales, unit * PARTS, units * PARTS, panel.mins);
            for (int i = 0; i < units && !in_place; i++) {
                fetch_next<Code>(data[0], row_units, offset + i * Code::BYTES);
                lay_unit<Code>(data, offset + i * Code::BYTES, panel.codes[i]);
            }
            for (int64_t m = 0; m < block; m += TILE) {
                const auto tile = [&](auto code) {
                    constexpr int M = decltype(code)::value;
                    const int64_t at = (first + m) * row_units + unit;
                    if (in_place)
                        coded_tile<Code, PARTS, MINS, false, M>(panel, data, offset, units, x, at,
                                                                row_units, total + m);
                    else
                        coded_tile<Code, PARTS, MINS, true, M>(panel, data, offset, units, x, at,
                                                               row_units, total + m);
                };
                with_constant<TILE>(int(std::min<int64_t>(TILE, block - m)), tile);
            }
        }
        for (int64_t m = 0; m < block; m++)
            for (int lane = 0; lane < lanes; lane++)
                y[(first + m) * w.outputs + output + lane] =
                    total[m][lane] + (bias ? bias[output + lane] : 0);
    }
}

template <class Code, int PARTS, bool MINS>
void coded(const Weight& w, const float* x, const float* bias, float* y, int64_t rows,
           int threads) {
    constexpr int64_t TASK_UNITS = 512;  // of x, a task of quantising
    constexpr int PANELS = 4;            // of a task of multiplying
    static thread_local Quantised quantised;
    Quantised& inputs = quantised;  // this thread's, whoever works on it
    inputs.resize(rows, w.inputs);
    const int64_t units = rows * w.inputs / UNIT;
    pool->run(int((units + TASK_UNITS - 1) / TASK_UNITS), threads, [&](int task) {
        const int64_t first = task * TASK_UNITS;
        inputs.fill(x, first, std::min(TASK_UNITS, units - first));
    });
    constexpr int64_t OUTPUTS = PANELS * LANES;
    pool->run(int((w.outputs + OUTPUTS - 1) / OUTPUTS), threads, [&](int task) {
        const int64_t end = std::min(w.outputs, (task + 1) * OUTPUTS);
        for (int64_t output = task * OUTPUTS; output < end; output += LANES)
            coded_panel<Code, PARTS, MINS>(w, output, inputs, rows, bias, y);
    });
}

// ---- Attention of one query a sequence to pages of keys and values ----------------------------

constexpr int PAGE = 16;  // tokens

struct Pages {  // (2, pages, G, PAGE, K): keys, then values
    float* data;
    int64_t pages;
    int64_t heads;
    int64_t width;

    float* block(int which, int64_t page, int64_t head) const {
        return data + ((which * pages + page) * heads + head) * PAGE * width;
    }
};

struct Attention {
    float scale;
    int32_t window;  // 0: none
    float cap;       // 0: none
};

// A block is about a page of the system's, where hardware that guesses the next place stops.
inline void fetch(const float* block, int64_t width) {
    for (int64_t i = 0; i < PAGE * width; i += 64 / sizeof *block) __builtin_prefetch(block + i);
}

// scores of the PAGE keys of a block
inline void page_scores(const float* query, const float* keys, int64_t width, float* out) {
    for (int first = 0; first < PAGE; first += 8) {
        const float* from = keys + first * width;
        Floats partial[8] = {};
        int64_t i = 0;
        for (; i + LANES <= width; i += LANES) {
            const Floats part = load<Floats>(query + i);
            for (int key = 0; key < 8; key++)
                partial[key] = fma(part, load<Floats>(from + key * width + i), partial[key]);
        }
        sums(partial, out + first);
        for (; i < width; i++)
            for (int key = 0; key < 8; key++) out[first + key] += query[i] * from[key * width + i];
    }
}

// Adds weights[t] * values[t] over `count` tokens; VECTORS of the width are held in registers.
template <int VECTORS>
inline void mix(const float* weights, const float* values, int count, int64_t width, float* out) {
    Floats total[VECTORS];
    for (int i = 0; i < VECTORS; i++) total[i] = load<Floats>(out + i * LANES);
    for (int t = 0; t < count; t++)
        for (int i = 0; i < VECTORS; i++) {
            const Floats value = load<Floats>(values + t * width + i * LANES);
            total[i] = fma(splat(weights[t]), value, total[i]);
        }
    for (int i = 0; i < VECTORS; i++) store(out + i * LANES, total[i]);
}

inline void mix_all(const float* weights, const float* values, int count, int64_t width,
                    float* out) {
    constexpr int VECTORS = 8;
    int64_t i = 0;
    for (; i + VECTORS * LANES <= width; i += VECTORS * LANES)
        mix<VECTORS>(weights, values + i, count, width, out + i);
    for (; i + LANES <= width; i += LANES) mix<1>(weights, values + i, count, width, out + i);
    for (int t = 0; t < count; t++)
        for (int64_t j = i; j < width; j++) out[j] += weights[t] * values[t * width + j];
}

// One head of one sequence: softmax(cap(q K^T scale) - slope * distance) V over its last `window`
// tokens; sink: one score more in that softmax, without a value. table: its pages; `scores` has room for whole pages; is_first: of the heads that share
// these keys, which so are not in the caches yet.
void attend_head(const float* query, const Pages& pages, const int32_t* table, int64_t kv_head,
                 int length, const Attention& how, float slope, float sink, bool is_first,
                 float* scores, float* out) {
    const int begin = how.window ? std::max(0, length - how.window) : 0;
    const int first = begin / PAGE;
    const int last = (length - 1) / PAGE;
    const int places = (last + 1 - first) * PAGE;
    for (int page = first; page <= last; page++) {
        const int next = page < last ? page + 1 : first;  // after the last keys, values
        if (is_first) fetch(pages.block(page == last, table[next], kv_head), pages.width);
        page_scores(query, pages.block(0, table[page], kv_head), pages.width,
                    scores + (page - first) * PAGE);
    }
    for (int i = 0; i < places; i++) {
        const int place = first * PAGE + i;
        float score = scores[i] * how.scale;
        if (how.cap) score = how.cap * std::tanh(score / how.cap);
        score -= slope * (length - 1 - place);
        scores[i] = place < begin || place >= length ? -INFINITY : score;
    }
    static_assert(PAGE % LANES == 0, "pages are whole vectors");
    Floats most = load<Floats>(scores);
    for (int i = LANES; i < places; i += LANES) {
        const Floats each = load<Floats>(scores + i);
        most = each > most ? each : most;
    }
    const float top = std::max(largest(most), sink);
    Floats parts = {};
    for (int i = 0; i < places; i += LANES) {
        const Floats weights = exponential(load<Floats>(scores + i) - top);
        store(scores + i, weights);
        parts += weights;
    }
    const float total = sum(parts) + std::exp(sink - top);
    std::fill(out, out + pages.width, 0.f);
    for (int page = first; page <= last; page++) {
        const int skip = std::max(0, begin - page * PAGE);
        const int count = std::min(PAGE, length - page * PAGE) - skip;
        const float* values = pages.block(1, table[page], kv_head) + skip * pages.width;
        if (is_first && page < last) fetch(pages.block(1, table[page + 1], kv_head), pages.width);
        mix_all(scores + (page - first) * PAGE + skip, values, count, pages.width, out);
    }
    for (int64_t i = 0; i < pages.width; i++) out[i] /= total;
}

}  // namespace

// ---- What Python calls: 0, or what is wrong (native.py has the words) -------------------------

extern "C" {

const char* langue_instructions() { return INSTRUCTIONS; }

enum Kind { FP32, BF16, INT8, INT4 };
enum Fault { NONE, BAD_KIND, BAD_PAGE, BAD_LENGTH };

// x (rows, inputs) -> y (rows, outputs)
int langue_linear(const Weight* weight, const float* bias, const float* x, float* y, int64_t rows,
                  int threads) {
    const Weight& w = *weight;
    if (w.kind == FP32)
        dense<float>(w, x, bias, y, rows, threads);
    else if (w.kind == BF16)
        dense<uint16_t>(w, x, bias, y, rows, threads);
    else if (w.kind == INT8 && w.group == UNIT && !w.mins)
        coded<Int8, 1, false>(w, x, bias, y, rows, threads);
    else if (w.kind == INT8 && w.group == UNIT / 2 && !w.mins)
        coded<Int8, 2, false>(w, x, bias, y, rows, threads);
    else if (w.kind == INT4 && w.group == UNIT && !w.mins)
        coded<Int4, 1, false>(w, x, bias, y, rows, threads);
    else if (w.kind == INT4 && w.group == UNIT)
        coded<Int4, 1, true>(w, x, bias, y, rows, threads);
    else
        return BAD_KIND;
    return NONE;
}

// q (sequences, heads, width) -> out (sequences, heads * width); tables (sequences, table_pages)
int langue_attend(const float* q, float* data, int64_t pages, int64_t kv_heads, int64_t width,
                  const int32_t* tables, int64_t table_pages, const int32_t* lengths,
                  int64_t sequences, int64_t heads, float scale, int window, float cap,
                  const float* slopes, const float* sinks, float* out, int threads) {
    const Pages all{data, pages, kv_heads, width};
    const Attention how{scale, window, cap};
    for (int64_t n = 0; n < sequences; n++) {
        if (lengths[n] < 1 || lengths[n] > table_pages * PAGE) return BAD_LENGTH;
        const int last = (lengths[n] - 1) / PAGE;
        for (int page = window ? std::max(0, lengths[n] - window) / PAGE : 0; page <= last; page++)
            if (tables[n * table_pages + page] < 0 || tables[n * table_pages + page] >= pages)
                return BAD_PAGE;
    }
    const int64_t serves = heads / kv_heads;
    pool->run(int(sequences * kv_heads), threads, [&](int task) {
        const int64_t n = task / kv_heads;
        const int64_t kv_head = task % kv_heads;
        static thread_local std::vector<float> scores;
        scores.resize((lengths[n] + PAGE - 1) / PAGE * PAGE);
        for (int64_t head = kv_head * serves; head < (kv_head + 1) * serves; head++) {
            const int64_t at = (n * heads + head) * width;
            attend_head(q + at, all, tables + n * table_pages, kv_head, lengths[n], how,
                        slopes ? slopes[head] : 0, sinks ? sinks[head] : -INFINITY,
                        head == kv_head * serves, scores.data(), out + at);
        }
    });
    return NONE;
}

// k, v (tokens, kv_heads, width) to the places `slots` (page * PAGE + place) of the pages
int langue_write(const float* k, const float* v, float* data, int64_t pages, int64_t kv_heads,
                 int64_t width, const int64_t* slots, int64_t tokens) {
    const Pages all{data, pages, kv_heads, width};
    for (int64_t t = 0; t < tokens; t++)
        if (slots[t] < 0 || slots[t] >= pages * PAGE) return BAD_PAGE;
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t head = 0; head < kv_heads; head++)
            for (int which = 0; which < 2; which++) {
                const float* from = (which ? v : k) + (t * kv_heads + head) * width;
                float* to = all.block(which, slots[t] / PAGE, head) + slots[t] % PAGE * width;
                std::memcpy(to, from, width * sizeof *to);
            }
    return NONE;
}

// x (tokens, heads, width), in place; cosines, sines (tokens, half): element i turns with i + half
int langue_rotate(float* x, const float* cosines, const float* sines, int64_t tokens, int64_t heads,
                  int64_t width, int64_t half) {
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t head = 0; head < heads; head++) {
            float* first = x + (t * heads + head) * width;
            float* second = first + half;
            const float* cosine = cosines + t * half;
            const float* sine = sines + t * half;
            for (int64_t i = 0; i < half; i++) {
                const float a = first[i];
                const float b = second[i];
                first[i] = a * cosine[i] - b * sine[i];
                second[i] = b * cosine[i] + a * sine[i];
            }
        }
    return NONE;
}
}
