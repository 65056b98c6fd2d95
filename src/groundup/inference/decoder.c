/* The forward pass of a Llama-like decoder for CPUs, for generation: the same mathematics as models/llama.py, in one
 * call for all layers, on weights of 4, 8, 16 or 32 bits.
 *
 * Every number is computed in one fixed order that depends on its own sequence and position alone. Sums over inputs
 * run from the first to the last in one accumulator for each output, whatever shares the pass; so an answer has the
 * same bits alone and among others, in chunks of any size, with and without guesses ahead.
 *
 * Weights lie in panels of 16 outputs: for each input the 16 values of a panel are neighbours, so that a vector
 * register holds 16 outputs and an input is broadcast. Nothing is allocated here; scratch memory comes in.
 *
 * Letters: N new tokens, M rows of a product, D width, K inputs of a matrix, H query heads, G key-value heads.
 */
#include "vectors.h"

#define GROUP 32 /* inputs that share a scale, in 8 and 4 bits */

enum kind { F32 = 0, BF16 = 1, INT8 = 2, INT4 = 3 };

struct matrix {
    int64_t kind, outputs, inputs;
    const void *values;      /* panels, see above */
    const uint16_t *scales;  /* float16, (panels, inputs / GROUP, 16); NULL without groups */
    const float *bias;       /* outputs, or NULL */
};

struct layer {
    const float *input_norm, *post_norm, *query_norm, *key_norm; /* the last two may be NULL */
    struct matrix qkv, out, gate_up, down;
};

struct model {
    int64_t layers, width, heads, key_heads, head_size, hidden, window; /* window 0: none */
    float epsilon;
    const float *cosine, *sine; /* (positions, head_size / 2) */
    const struct layer *layer;
    struct matrix embedding, head;
    const float *norm;
};

struct segment {
    int64_t count, seen, capacity, last;
    float *keys, *values; /* (layers, key_heads, capacity, head_size) */
};

INLINE vf load_scale(const uint16_t *p) {
#if defined(__AVX512F__)
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
#elif defined(__F16C__)
    vf x;
    __m256 low = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
    __m256 high = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8)));
    memcpy(&x, &low, 32);
    memcpy((char *)&x + 32, &high, 32);
    return x;
#else
    vf x;
    for (int i = 0; i < LANES; i++) {
        uint32_t sign = (uint32_t)(p[i] >> 15) << 31, exponent = (p[i] >> 10) & 31, fraction = p[i] & 1023;
        float value = exponent ? ldexpf((float)(fraction + 1024), (int)exponent - 25) : ldexpf((float)fraction, -24);
        x[i] = sign ? -value : value;
    }
    return x;
#endif
}

INLINE vf whole_to_float(vb x) {
#if defined(__AVX512F__)
    return (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32((__m128i)x));
#else
    return __builtin_convertvector(__builtin_convertvector(x, vi), vf);
#endif
}

INLINE vf half_to_float(vh x) {
#if defined(__AVX512F__)
    return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)x), 16);
#else
    return (vf)(__builtin_convertvector(x, vu) << 16);
#endif
}

/* Bytes of a panel. */
INLINE int64_t panel_bytes(int kind, int64_t inputs) {
    return kind == F32 ? inputs * 64 : kind == BF16 ? inputs * 32 : kind == INT8 ? inputs * 16 : inputs * 8;
}

/* The 16 weights of a panel for input k; in 4 bits inputs k and k + 1 share bytes, low half first. */
INLINE vf weight(int kind, const char *panel, int64_t k, vf scale) {
    if (kind == F32) return load((const float *)panel + k * LANES);
    if (kind == BF16) return half_to_float(*(const vh *)(panel + k * 32));
    if (kind == INT8) return whole_to_float(*(const vb *)(panel + k * 16)) * scale;
    vub pair = *(const vub *)(panel + (k >> 1) * 16);
    const vub low = pair & (vub){15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15};
    const vub high = pair >> (vub){4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4};
    vub half = low;
    if (k & 1) half = high;
    return whole_to_float((vb)half - (vb){8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8}) * scale;
}

/* out[m][panel] += x[m] · weights, for `rows` rows and `panels` panels that lie one after the other. */
INLINE void product(int kind, int rows, int panels, const struct matrix *w, int64_t panel, const float *x, int64_t m,
                    float *out, int64_t stride) {
    const int64_t inputs = w->inputs, size = panel_bytes(kind, inputs), groups = inputs / GROUP;
    const char *base = (const char *)w->values + panel * size;
    vf sum[8][8];
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < panels; p++) sum[r][p] = splat(0);
    const int64_t step = kind >= INT8 ? GROUP : inputs;
    for (int64_t start = 0; start < inputs; start += step) {
        vf scale[8];
        for (int p = 0; p < panels; p++)
            scale[p] = kind >= INT8 ? load_scale(w->scales + ((panel + p) * groups + start / GROUP) * LANES) : splat(0);
        for (int64_t k = start; k < start + step; k++) {
            vf given[8];
            for (int p = 0; p < panels; p++) given[p] = weight(kind, base + p * size, k, scale[p]);
            for (int r = 0; r < rows; r++)
                for (int p = 0; p < panels; p++) sum[r][p] += splat(x[(m + r) * inputs + k]) * given[p];
        }
    }
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < panels; p++) store(out + (m + r) * stride + (panel + p) * LANES, sum[r][p]);
}

/* The weights of `panels` panels as float32, (inputs, panels, 16). */
INLINE void unpack(int kind, int panels, const struct matrix *w, int64_t panel, float *to) {
    const int64_t inputs = w->inputs, size = panel_bytes(kind, inputs), groups = inputs / GROUP;
    const char *base = (const char *)w->values + panel * size;
    const int64_t step = kind >= INT8 ? GROUP : inputs;
    for (int p = 0; p < panels; p++)
        for (int64_t start = 0; start < inputs; start += step) {
            vf scale = kind >= INT8 ? load_scale(w->scales + ((panel + p) * groups + start / GROUP) * LANES) : splat(0);
            for (int64_t k = start; k < start + step; k++)
                store(to + (k * panels + p) * LANES, weight(kind, base + p * size, k, scale));
        }
}

/* As `product`, on unpacked weights; the same operations in the same order. */
INLINE void product_unpacked(int rows, int panels, int64_t inputs, const float *weights, int64_t panel, const float *x,
                             int64_t m, float *out, int64_t stride) {
    vf sum[8][8];
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < panels; p++) sum[r][p] = splat(0);
    for (int64_t k = 0; k < inputs; k++) {
        vf given[8];
        for (int p = 0; p < panels; p++) given[p] = load(weights + (k * panels + p) * LANES);
        for (int r = 0; r < rows; r++)
            for (int p = 0; p < panels; p++) sum[r][p] += splat(x[(m + r) * inputs + k]) * given[p];
    }
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < panels; p++) store(out + (m + r) * stride + (panel + p) * LANES, sum[r][p]);
}

#if defined(__AVX512F__)
#define TALL 8
#define BROAD 3
#else
#define TALL 3
#define BROAD 2
#endif

INLINE void few_rows(int kind, const struct matrix *w, int64_t from, int64_t to, const float *x, int64_t rows,
                     float *out, int64_t stride) {
    int64_t m = 0;
#define STRIPE(R, P)                                                               \
    for (; m + (R) <= rows; m += (R)) {                                            \
        int64_t panel = from;                                                      \
        for (; panel + (P) <= to; panel += (P)) product(kind, R, P, w, panel, x, m, out, stride); \
        for (; panel < to; panel++) product(kind, R, 1, w, panel, x, m, out, stride);            \
    }
    if (rows >= 8) { STRIPE(8, BROAD) }
    if (rows - m >= 4) { STRIPE(4, 4) }
    if (rows - m >= 2) { STRIPE(2, 4) }
    STRIPE(1, 8)
#undef STRIPE
}

INLINE void many_rows(int kind, const struct matrix *w, int64_t from, int64_t to, const float *x, int64_t rows,
                      float *out, int64_t stride, float *scratch) {
    int64_t panel = from;
#define BLOCK(P)                                                                            \
    unpack(kind, P, w, panel, scratch);                                                     \
    int64_t m = 0;                                                                          \
    for (; m + TALL <= rows; m += TALL) product_unpacked(TALL, P, w->inputs, scratch, panel, x, m, out, stride); \
    for (; m < rows; m++) product_unpacked(1, P, w->inputs, scratch, panel, x, m, out, stride);
    for (; panel + BROAD <= to; panel += BROAD) { BLOCK(BROAD) }
    for (; panel < to; panel++) { BLOCK(1) }
#undef BLOCK
}

/* out (rows, panels * 16) = x (rows, inputs) · weights + bias; this thread's share of the panels. */
static void multiply(const struct matrix *w, const float *x, int64_t rows, float *out, float *scratch) {
    const int64_t panels = (w->outputs + LANES - 1) / LANES, stride = panels * LANES;
    const int64_t threads = omp_get_num_threads(), me = omp_get_thread_num();
    const int64_t from = panels * me / threads, to = panels * (me + 1) / threads;
#define KIND(K)                                                              \
    case K:                                                                  \
        if (rows >= 16) many_rows(K, w, from, to, x, rows, out, stride, scratch); \
        else few_rows(K, w, from, to, x, rows, out, stride);                 \
        break;
    switch (w->kind) { KIND(F32) KIND(BF16) KIND(INT8) KIND(INT4) }
#undef KIND
    if (w->bias)
        for (int64_t m = 0; m < rows; m++)
            for (int64_t n = from * LANES; n < to * LANES && n < w->outputs; n++) out[m * stride + n] += w->bias[n];
}

/* out = x / rms(x) * weight; `size` need not be a multiple of 16 */
static void normalise(const float *x, const float *weight_, int64_t size, float epsilon, float *out) {
    vf squares = splat(0);
    int64_t k = 0;
    for (; k + LANES <= size; k += LANES) squares += load(x + k) * load(x + k);
    float sum = total(squares);
    for (; k < size; k++) sum += x[k] * x[k];
    float scale = 1.0f / sqrtf(sum / (float)size + epsilon);
    for (k = 0; k < size; k++) out[k] = x[k] * scale * weight_[k];
}

static void rotate(float *x, const float *cosine, const float *sine, int64_t half) {
    for (int64_t k = 0; k < half; k++) {
        float low = x[k], high = x[k + half];
        x[k] = low * cosine[k] - high * sine[k];
        x[k + half] = high * cosine[k] + low * sine[k];
    }
}

INLINE float dot(const float *a, const float *b, int64_t size) {
    vf sum = splat(0);
    int64_t k = 0;
    for (; k + LANES <= size; k += LANES) sum += load(a + k) * load(b + k);
    /* halves, then quarters …: a fixed order that a compiler turns into shuffles */
    float part[LANES];
    store(part, sum);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) part[i] += part[i + half];
    float result = part[0];
    for (; k < size; k++) result += a[k] * b[k];
    return result;
}

/* One query head over the positions `from` … `to` - 1 of one sequence. `scores`: room for them, up to 15 more. */
static void attend(const float *query, const float *keys, const float *values, int64_t from, int64_t to, int64_t size,
                   float *scores, float *out) {
    const float scale = 1.0f / sqrtf((float)size);
    const int64_t count = to - from;
    float most = -INFINITY;
    for (int64_t s = 0; s < count; s++) {
        scores[s] = dot(query, keys + (from + s) * size, size) * scale;
        if (scores[s] > most) most = scores[s];
    }
    for (int64_t s = count; s % LANES; s++) scores[s] = -INFINITY;
    vf sum = splat(0);
    for (int64_t s = 0; s < count; s += LANES) {
        vf share = exponential(load(scores + s) - splat(most));
        store(scores + s, share);
        sum += share;
    }
    const float all = 1.0f / total(sum);
    int64_t k = 0;
    for (; k + 4 * LANES <= size; k += 4 * LANES) {
        vf mixed[4] = {splat(0), splat(0), splat(0), splat(0)};
        for (int64_t s = 0; s < count; s++) {
            const float *value = values + (from + s) * size + k;
            for (int i = 0; i < 4; i++) mixed[i] += splat(scores[s]) * load(value + i * LANES);
        }
        for (int i = 0; i < 4; i++) store(out + k + i * LANES, mixed[i] * all);
    }
    for (; k < size; k++) {
        float mixed = 0;
        for (int64_t s = 0; s < count; s++) mixed += scores[s] * values[(from + s) * size + k];
        out[k] = mixed * all;
    }
}

/* x * sigmoid(x) * up, in place of the first half of each row */
static void gate(float *row, int64_t hidden, float *out) {
    int64_t k = 0;
    for (; k + LANES <= hidden; k += LANES) {
        vf x = load(row + k), up = load(row + hidden + k);
        vi negative = x < splat(0);
        vf small = exponential((vf)(((vi)x & negative) | ((vi)(-x) & ~negative))); /* e^-|x| */
        vf top = (vf)(((vi)small & negative) | ((vi)splat(1) & ~negative));
        store(out + k, x * (top / (splat(1) + small)) * up);
    }
    for (; k < hidden; k++) out[k] = row[k] / (1.0f + expf(-row[k])) * row[hidden + k];
}

/* One row of the embedding, unpacked. */
static void embed(const struct matrix *w, int64_t token, float *out) {
    const int64_t panel = token / LANES, lane = token % LANES, groups = w->inputs / GROUP;
    const char *base = (const char *)w->values + panel * panel_bytes((int)w->kind, w->inputs);
    for (int64_t k = 0; k < w->inputs; k++) {
        vf scale = splat(1);
        if (w->kind >= INT8) scale = load_scale(w->scales + (panel * groups + k / GROUP) * LANES);
        vf all = w->kind == F32 ? weight(F32, base, k, scale) : w->kind == BF16 ? weight(BF16, base, k, scale)
               : w->kind == INT8 ? weight(INT8, base, k, scale) : weight(INT4, base, k, scale);
        out[k] = all[lane];
    }
}

static int64_t padded(int64_t outputs) { return (outputs + LANES - 1) / LANES * LANES; }

/* How many floats of scratch memory `run` needs for N tokens, M wanted rows, and sequences of S positions. */
int64_t scratch_floats(const struct model *m, int64_t tokens, int64_t wanted, int64_t longest, int64_t threads) {
    int64_t inputs = m->width > m->hidden ? m->width : m->hidden;
    int64_t queries = m->heads * m->head_size;
    if (queries > inputs) inputs = queries;
    int64_t rows = tokens * (2 * m->width + padded(queries + 2 * m->key_heads * m->head_size) + queries +
                             padded(2 * m->hidden) + m->hidden + padded(m->width));
    return rows + wanted * m->width + threads * (inputs * LANES * BROAD + longest + 2 * LANES) + 64;
}

/* Extend every segment by its tokens and write the logits of the wanted rows, each padded to a multiple of 16.
 * Returns how many rows that is. */
int64_t run(const struct model *m, const int64_t *tokens, const struct segment *segments, int64_t count,
            float *scratch, int64_t longest, float *logits, int threads) {
    int64_t all = 0, wanted = 0, most_inputs = m->width > m->hidden ? m->width : m->hidden;
    const int64_t D = m->width, K = m->head_size, half = K / 2, queries = m->heads * K, keys = m->key_heads * K;
    const int64_t share = m->heads / m->key_heads;
    if (queries > most_inputs) most_inputs = queries;
    for (int64_t s = 0; s < count; s++) all += segments[s].count, wanted += segments[s].last ? 1 : segments[s].count;
    const int64_t qkv_stride = padded(queries + 2 * keys), gu_stride = padded(2 * m->hidden), d_stride = padded(D);
    float *x = scratch, *normed = x + all * D, *qkv = normed + all * D, *mixed = qkv + all * qkv_stride;
    float *gate_up = mixed + all * queries, *inner = gate_up + all * gu_stride, *added = inner + all * m->hidden;
    float *chosen = added + all * d_stride, *own = chosen + wanted * D;
    const int64_t own_size = most_inputs * LANES * BROAD + longest + 2 * LANES;

#pragma omp parallel num_threads(threads)
    {
        const int64_t me = omp_get_thread_num(), workers = omp_get_num_threads();
        float *mine = own + me * own_size, *scores = mine + most_inputs * LANES * BROAD;
        for (int64_t n = me; n < all; n += workers) embed(&m->embedding, tokens[n], x + n * D);
        for (int64_t l = 0; l < m->layers; l++) {
            const struct layer *layer = m->layer + l;
            for (int64_t n = me; n < all; n += workers)
                normalise(x + n * D, layer->input_norm, D, m->epsilon, normed + n * D);
#pragma omp barrier
            multiply(&layer->qkv, normed, all, qkv, mine);
#pragma omp barrier
            int64_t row = 0;
            for (int64_t s = 0; s < count; s++) /* norms, rotation, storage */
                for (int64_t t = 0; t < segments[s].count; t++, row++) {
                    if (row % workers != me) continue;
                    const int64_t position = segments[s].seen + t;
                    const float *cosine = m->cosine + position * half, *sine = m->sine + position * half;
                    float *q = qkv + row * qkv_stride, *k = q + queries, *v = k + keys;
                    for (int64_t h = 0; h < m->heads; h++) {
                        if (layer->query_norm) normalise(q + h * K, layer->query_norm, K, m->epsilon, q + h * K);
                        rotate(q + h * K, cosine, sine, half);
                    }
                    for (int64_t g = 0; g < m->key_heads; g++) {
                        const int64_t place = ((l * m->key_heads + g) * segments[s].capacity + position) * K;
                        if (layer->key_norm) normalise(k + g * K, layer->key_norm, K, m->epsilon, k + g * K);
                        rotate(k + g * K, cosine, sine, half);
                        memcpy(segments[s].keys + place, k + g * K, (size_t)K * sizeof(float));
                        memcpy(segments[s].values + place, v + g * K, (size_t)K * sizeof(float));
                    }
                }
#pragma omp barrier
            row = 0;
            for (int64_t s = 0; s < count; s++)
                for (int64_t t = 0; t < segments[s].count; t++, row++)
                    for (int64_t h = 0; h < m->heads; h++) {
                        if ((row * m->heads + h) % workers != me) continue;
                        const int64_t to = segments[s].seen + t + 1, g = h / share;
                        const int64_t from = m->window && to > m->window ? to - m->window : 0;
                        const int64_t place = (l * m->key_heads + g) * segments[s].capacity * K;
                        attend(qkv + row * qkv_stride + h * K, segments[s].keys + place, segments[s].values + place,
                               from, to, K, scores, mixed + row * queries + h * K);
                    }
#pragma omp barrier
            multiply(&layer->out, mixed, all, added, mine);
#pragma omp barrier
            for (int64_t n = me; n < all; n += workers) {
                for (int64_t d = 0; d < D; d++) x[n * D + d] += added[n * d_stride + d];
                normalise(x + n * D, layer->post_norm, D, m->epsilon, normed + n * D);
            }
#pragma omp barrier
            multiply(&layer->gate_up, normed, all, gate_up, mine);
#pragma omp barrier
            for (int64_t n = me; n < all; n += workers) gate(gate_up + n * gu_stride, m->hidden, inner + n * m->hidden);
#pragma omp barrier
            multiply(&layer->down, inner, all, added, mine);
#pragma omp barrier
            for (int64_t n = me; n < all; n += workers)
                for (int64_t d = 0; d < D; d++) x[n * D + d] += added[n * d_stride + d];
        }
#pragma omp barrier
        if (me == 0) {
            int64_t row = 0, out = 0;
            for (int64_t s = 0; s < count; s++)
                for (int64_t t = 0; t < segments[s].count; t++, row++)
                    if (!segments[s].last || t == segments[s].count - 1)
                        normalise(x + row * D, m->norm, D, m->epsilon, chosen + out++ * D);
        }
#pragma omp barrier
        multiply(&m->head, chosen, wanted, logits, mine);
    }
    return wanted;
}
