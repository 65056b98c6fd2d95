/* Causal attention over documents, with rotary positions, forward and backward (tiles and running sums as in Dao et al.
 * 2022, arXiv:2205.14135). Query t of a row sees the keys from start[t] to t and no others, so a tile of scores that
 * lies outside of all its queries' documents, or windows, is never computed.
 *
 * Each (row, key head) is one thread's work with the query heads that share it, and every sum has a fixed order: the
 * result has the same bits for any number of threads.
 *
 * Letters: B rows, T positions, H query heads, G key-value heads, K head size (a multiple of 16, up to 256), P = T
 * rounded up to whole tiles. Kept for backward: queries (B, H, P, K), keys and values (B, G, P, K), all after the
 * rotation, and the logarithm of each softmax's sum (B, H, P).
 */
#include <stdlib.h>
#include "vectors.h"

#define TILE 64
#define ROWS 6 /* rows of a block of accumulators: 6 of 4 vectors fit the 32 registers of AVX-512 */

/* c (m, n) = or += a (m, k) · b (k, n): a at a + i * ai + l * al, b and c by rows; n is a multiple of 16. */
INLINE void block(int rows, int vectors, const float *a, int64_t ai, int64_t al, const float *b, int64_t bl, int64_t k,
                  float *c, int64_t ci, int add) {
    vf sum[ROWS][4];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) sum[r][v] = add ? load(c + r * ci + v * LANES) : splat(0);
    for (int64_t l = 0; l < k; l++) {
        vf given[4];
        for (int v = 0; v < vectors; v++) given[v] = load(b + l * bl + v * LANES);
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < vectors; v++) sum[r][v] += splat(a[r * ai + l * al]) * given[v];
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) store(c + r * ci + v * LANES, sum[r][v]);
}

INLINE void strip(int rows, const float *a, int64_t ai, int64_t al, const float *b, int64_t bl, int64_t n, int64_t k,
                  float *c, int64_t ci, int add) {
    int64_t j = 0;
    for (; j + 4 * LANES <= n; j += 4 * LANES) block(rows, 4, a, ai, al, b + j, bl, k, c + j, ci, add);
    for (; j < n; j += LANES) block(rows, 1, a, ai, al, b + j, bl, k, c + j, ci, add);
}

static void product(int64_t m, int64_t n, int64_t k, const float *a, int64_t ai, int64_t al, const float *b, int64_t bl,
                    float *c, int64_t ci, int add) {
    int64_t i = 0;
    for (; i + ROWS <= m; i += ROWS) strip(ROWS, a + i * ai, ai, al, b, bl, n, k, c + i * ci, ci, add);
    for (; i + 2 <= m; i += 2) strip(2, a + i * ai, ai, al, b, bl, n, k, c + i * ci, ci, add);
    for (; i < m; i++) strip(1, a + i * ai, ai, al, b, bl, n, k, c + i * ci, ci, add);
}

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* Pairs (k, k + K/2) turned by their angles: forward for sign 1, back for -1. */
INLINE void turn(const float *x, const float *cosine, const float *sine, float sign, int64_t half, float *out) {
    int64_t k = 0;
    for (; k + LANES <= half; k += LANES) {
        vf low = load(x + k), high = load(x + half + k), c = load(cosine + k), s = load(sine + k) * splat(sign);
        store(out + k, low * c - high * s);
        store(out + half + k, high * c + low * s);
    }
    for (; k < half; k++) {
        float low = x[k], high = x[half + k], c = cosine[k], s = sine[k] * sign;
        out[k] = low * c - high * s;
        out[half + k] = high * c + low * s;
    }
}

struct sizes {
    int64_t rows, length, padded, heads, key_heads, size;
};

/* (B, T, heads, K), any strides but K's → (B, heads, P, K), rotated where there are angles; zeros after T. */
void pack(const struct sizes *s, const float *x, int64_t heads, int64_t row, int64_t position, int64_t head,
          const float *cosine, const float *sine, int64_t angles, float *out) {
    const int64_t size = s->size;
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t b = 0; b < s->rows; b++)
        for (int64_t h = 0; h < heads; h++) {
            float *to = out + (b * heads + h) * s->padded * size;
            for (int64_t t = 0; t < s->length; t++) {
                const float *from = x + b * row + t * position + h * head;
                const int64_t angle = b * angles + t * size / 2;
                if (cosine) turn(from, cosine + angle, sine + angle, 1.0f, size / 2, to + t * size);
                else memcpy(to + t * size, from, (size_t)size * sizeof(float));
            }
            memset(to + s->length * size, 0, (size_t)((s->padded - s->length) * size) * sizeof(float));
        }
}

/* The reverse of a gradient's way: (B, heads, P, K) → (B, T, heads, K). */
void unpack(const struct sizes *s, const float *x, int64_t heads, const float *cosine, const float *sine,
            int64_t angles, float *out) {
    const int64_t size = s->size;
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t b = 0; b < s->rows; b++)
        for (int64_t t = 0; t < s->length; t++)
            for (int64_t h = 0; h < heads; h++) {
                const float *from = x + ((b * heads + h) * s->padded + t) * size;
                float *to = out + ((b * s->length + t) * heads + h) * size;
                const int64_t angle = b * angles + t * size / 2;
                if (cosine) turn(from, cosine + angle, sine + angle, -1.0f, size / 2, to);
                else memcpy(to, from, (size_t)size * sizeof(float));
            }
}

/* (P, K) → for each tile of TILE positions its transpose (K, TILE). */
static void transpose(const float *x, int64_t padded, int64_t size, float *out) {
    for (int64_t start = 0; start < padded; start += TILE)
        for (int64_t t = 0; t < TILE; t++)
            for (int64_t k = 0; k < size; k++) out[start * size + k * TILE + t] = x[(start + t) * size + k];
}

/* Scores of a query tile with a key tile, scaled, and -inf where a query does not see a key. */
INLINE void score(const float *queries, int64_t count, int64_t size, const float *turned, const int32_t *start,
                  int64_t q, int64_t s, int partly, float scale, float *out) {
    product(count, TILE, size, queries, size, 1, turned, TILE, out, TILE, 0);
    for (int64_t i = 0; i < count; i++)
        for (int64_t v = 0; v < TILE; v += LANES) store(out + i * TILE + v, load(out + i * TILE + v) * splat(scale));
    if (!partly) return;
    for (int64_t i = 0; i < count; i++)
        for (int64_t j = 0; j < TILE; j++)
            if (s + j < start[q + i] || s + j > q + i) out[i * TILE + j] = -INFINITY;
}

/* Whether some query of the tile does not see some key of it. */
INLINE int partly_seen(const int32_t *start, int64_t q, int64_t count, int64_t s) {
    if (s + TILE - 1 > q) return 1;
    for (int64_t i = 0; i < count; i++)
        if (start[q + i] > s) return 1;
    return 0;
}

INLINE int64_t first_tile(const int32_t *start, int64_t q, int64_t count) {
    int64_t first = start[q];
    for (int64_t i = 1; i < count; i++) first = smaller(first, start[q + i]);
    return first / TILE * TILE;
}

INLINE float row_largest(const float *x) {
    vf most = load(x);
    for (int j = LANES; j < TILE; j += LANES) most = choose(load(x + j) > most, load(x + j), most);
    return largest(most);
}

/* out (B, T, H, K) and logsum (B, H, P) of packed queries, keys and values. Returns 1 if memory is missing. */
int64_t attend_forward(const struct sizes *s, const float *queries, const float *keys, const float *values,
                       const int32_t *start, float scale, float *out, float *logsum) {
    const int64_t size = s->size, share = s->heads / s->key_heads, plane = s->padded * size;
    int64_t failed = 0;
#pragma omp parallel reduction(| : failed)
    {
        float *turned = malloc((size_t)(plane + TILE * TILE + TILE * size) * sizeof(float));
        if (!turned) failed = 1;
#pragma omp for collapse(2) schedule(dynamic)
        for (int64_t b = 0; b < s->rows; b++)
            for (int64_t g = 0; g < s->key_heads; g++) {
                if (!turned) continue;
                float *scores = turned + plane, *sums = scores + TILE * TILE;
                const float *key = keys + (b * s->key_heads + g) * plane;
                const float *value = values + (b * s->key_heads + g) * plane;
                const int32_t *from = start + b * s->length;
                transpose(key, s->padded, size, turned);
                for (int64_t h = g * share; h < (g + 1) * share; h++)
                    for (int64_t q = 0; q < s->length; q += TILE) {
                        const int64_t count = smaller(TILE, s->length - q);
                        const float *query = queries + (b * s->heads + h) * plane + q * size;
                        float most[TILE], sum[TILE];
                        for (int64_t i = 0; i < count; i++) most[i] = -INFINITY, sum[i] = 0;
                        memset(sums, 0, (size_t)(TILE * size) * sizeof(float));
                        for (int64_t k = first_tile(from, q, count); k < q + count; k += TILE) {
                            const int partly = partly_seen(from, q, count, k);
                            score(query, count, size, turned + k * size, from, q, k, partly, scale, scores);
                            for (int64_t i = 0; i < count; i++) {
                                float *row = scores + i * TILE, top = row_largest(row);
                                if (top == -INFINITY) { /* this query sees nothing of the tile */
                                    memset(row, 0, TILE * sizeof(float));
                                    continue;
                                }
                                if (top > most[i]) {
                                    const float less = most[i] == -INFINITY ? 0 : expf(most[i] - top);
                                    for (int64_t d = 0; d < size; d += LANES)
                                        store(sums + i * size + d, load(sums + i * size + d) * splat(less));
                                    sum[i] *= less;
                                    most[i] = top;
                                }
                                vf added = splat(0);
                                for (int64_t j = 0; j < TILE; j += LANES) {
                                    vf x = exponential(load(row + j) - splat(most[i]));
                                    added += x;
                                    store(row + j, x);
                                }
                                sum[i] += total(added);
                            }
                            product(count, size, TILE, scores, TILE, 1, value + k * size, size, sums, size, 1);
                        }
                        for (int64_t i = 0; i < count; i++) {
                            float *to = out + ((b * s->length + q + i) * s->heads + h) * size;
                            logsum[(b * s->heads + h) * s->padded + q + i] = most[i] + logf(sum[i]);
                            for (int64_t d = 0; d < size; d += LANES)
                                store(to + d, load(sums + i * size + d) / splat(sum[i]));
                        }
                    }
            }
        free(turned);
    }
    return failed;
}

/* Gradients of packed queries, keys and values (given zeroed), of `grad` (B, T, H, K) and `out`. Returns 1 if memory is
 * missing. */
int64_t attend_backward(const struct sizes *s, const float *queries, const float *keys, const float *values,
                        const int32_t *start, float scale, const float *out, const float *logsum, const float *grad,
                        float *grad_queries, float *grad_keys, float *grad_values) {
    const int64_t size = s->size, share = s->heads / s->key_heads, plane = s->padded * size;
    int64_t failed = 0;
#pragma omp parallel reduction(| : failed)
    {
        float *turned = malloc((size_t)(2 * plane + 2 * TILE * TILE) * sizeof(float));
        if (!turned) failed = 1;
#pragma omp for collapse(2) schedule(dynamic)
        for (int64_t b = 0; b < s->rows; b++)
            for (int64_t g = 0; g < s->key_heads; g++) {
                if (!turned) continue;
                float *value_turned = turned + plane, *weights = value_turned + plane, *slopes = weights + TILE * TILE;
                const int64_t own = (b * s->key_heads + g) * plane, step = s->heads * size;
                const int32_t *from = start + b * s->length;
                transpose(keys + own, s->padded, size, turned);
                transpose(values + own, s->padded, size, value_turned);
                for (int64_t h = g * share; h < (g + 1) * share; h++)
                    for (int64_t q = 0; q < s->length; q += TILE) {
                        const int64_t count = smaller(TILE, s->length - q), other = (b * s->heads + h) * plane + q * size;
                        const float *query = queries + other, *sums = logsum + (b * s->heads + h) * s->padded + q;
                        const float *given = grad + ((b * s->length + q) * s->heads + h) * size;
                        const float *made = out + ((b * s->length + q) * s->heads + h) * size;
                        float inner[TILE];
                        for (int64_t i = 0; i < count; i++) {
                            vf sum = splat(0);
                            for (int64_t d = 0; d < size; d += LANES)
                                sum += load(given + i * step + d) * load(made + i * step + d);
                            inner[i] = total(sum);
                        }
                        for (int64_t k = first_tile(from, q, count); k < q + count; k += TILE) {
                            const int64_t seen = smaller(TILE, s->length - k);
                            const int partly = partly_seen(from, q, count, k);
                            score(query, count, size, turned + k * size, from, q, k, partly, scale, weights);
                            product(count, TILE, size, given, step, 1, value_turned + k * size, TILE, slopes, TILE, 0);
                            for (int64_t i = 0; i < count; i++)
                                for (int64_t j = 0; j < TILE; j += LANES) {
                                    float *weight = weights + i * TILE + j, *slope = slopes + i * TILE + j;
                                    vf x = exponential(load(weight) - splat(sums[i]));
                                    store(weight, x);
                                    store(slope, x * (load(slope) - splat(inner[i])) * splat(scale));
                                }
                            product(count, size, TILE, slopes, TILE, 1, keys + own + k * size, size,
                                    grad_queries + other, size, 1);
                            product(seen, size, count, slopes, 1, TILE, query, size, grad_keys + own + k * size, size, 1);
                            product(seen, size, count, weights, 1, TILE, given, step, grad_values + own + k * size, size,
                                    1);
                        }
                    }
            }
        free(turned);
    }
    return failed;
}
