/* Vectors of sixteen numbers, as GCC and Clang know them on every processor, and what is done with them. */
#ifndef GROUNDUP_VECTORS_H
#define GROUNDUP_VECTORS_H
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <omp.h>
#if defined(__F16C__)
#include <immintrin.h>
#endif

#define LANES 16
typedef float vf __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t vu __attribute__((vector_size(64), aligned(4), may_alias));
typedef int8_t vb __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint8_t vub __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint16_t vh __attribute__((vector_size(32), aligned(2), may_alias));

#define INLINE static inline __attribute__((always_inline))

INLINE vf splat(float x) { return x - (vf){0}; }
INLINE vf load(const float *p) { return *(const vf *)p; }
INLINE void store(float *p, vf x) { *(vf *)p = x; }

INLINE vf choose(vi mask, vf yes, vf no) { return (vf)(((vi)yes & mask) | ((vi)no & ~mask)); }

INLINE float largest(vf x) {
    float most = x[0];
    for (int i = 1; i < LANES; i++) most = x[i] > most ? x[i] : most;
    return most;
}

/* e^x for x ≤ 0, to about 1 unit in the last place of float32: 2^whole · 2^part, the latter a polynomial. */
INLINE vf exponential(vf x) {
    const vf lowest = splat(-87.0f);
    vi below = x < lowest;
    x = (vf)(((vi)lowest & below) | ((vi)x & ~below));
    vf scaled = x * splat(1.44269504088896341f);
    vf shifted = scaled + splat(12582912.0f); /* rounds to a whole number, which ends up in the low bits */
    vi whole = (vi)shifted - 0x4B400000;
    vf rounded = shifted - splat(12582912.0f);
    vf part = x - rounded * splat(0.693359375f) + rounded * splat(2.12194440e-4f);
    vf y = splat(1.9875691500e-4f);
    y = y * part + splat(1.3981999507e-3f);
    y = y * part + splat(8.3334519073e-3f);
    y = y * part + splat(4.1665795894e-2f);
    y = y * part + splat(1.6666665459e-1f);
    y = y * part + splat(5.0000001201e-1f);
    y = y * part * part + part + splat(1.0f);
    vf power = (vf)((whole + 127) << 23);
    y *= power;
    return (vf)((vi)y & ~below); /* e^-87 counts as 0 */
}

INLINE float total(vf x) {
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
}

#endif
