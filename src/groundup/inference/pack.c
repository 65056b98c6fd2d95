/* Weights (outputs, inputs) by rows, laid out in panels as decoder.c reads them: the same bits as packed.py's plain form.
 *
 * The outputs of a last panel that are not there are zeros.
 */
#include "vectors.h"

#define GROUP 32

/* float16 of x ≥ 0, rounded to the nearest, ties to even. */
static uint16_t to_half(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if (bits >= 0x47800000u) return bits > 0x7F800000u ? 0x7E00 : 0x7C00; /* too large, or no number */
    if (bits < 0x38800000u) {                                             /* below the smallest normal one */
        float scaled = x * 16777216.0f; /* the last bit of float16 counts 2^-24 */
        return (uint16_t)rintf(scaled);
    }
    uint32_t odd = (bits >> 13) & 1;
    return (uint16_t)((bits + 0xFFFu + odd - 0x38000000u) >> 13);
}

static float from_half(uint16_t x) {
    uint32_t exponent = (x >> 10) & 31, fraction = x & 1023;
    if (exponent == 31) return fraction ? NAN : INFINITY;
    return exponent ? ldexpf((float)(fraction + 1024), (int)exponent - 25) : ldexpf((float)fraction, -24);
}

void pack_float32(const float *weight, int64_t outputs, int64_t inputs, float *values) {
    const int64_t panels = (outputs + LANES - 1) / LANES;
#pragma omp parallel for schedule(static)
    for (int64_t p = 0; p < panels; p++)
        for (int64_t k = 0; k < inputs; k++)
            for (int64_t o = 0; o < LANES; o++) {
                const int64_t row = p * LANES + o;
                values[(p * inputs + k) * LANES + o] = row < outputs ? weight[row * inputs + k] : 0;
            }
}

/* Whole numbers up to ±largest with a scale for each GROUP inputs of an output; `four`: two of them in a byte. */
void pack_groups(const float *weight, int64_t outputs, int64_t inputs, float largest_whole, int four, uint8_t *values,
                 uint16_t *scales) {
    const int64_t panels = (outputs + LANES - 1) / LANES, groups = inputs / GROUP;
#pragma omp parallel for schedule(static)
    for (int64_t p = 0; p < panels; p++) {
        uint8_t *to = values + p * inputs * LANES / (four ? 2 : 1);
        for (int64_t c = 0; c < groups; c++)
            for (int64_t o = 0; o < LANES; o++) {
                const int64_t row = p * LANES + o;
                const float *from = weight + row * inputs + c * GROUP;
                float most = 0;
                if (row < outputs)
                    for (int k = 0; k < GROUP; k++) most = fabsf(from[k]) > most ? fabsf(from[k]) : most;
                const uint16_t kept = to_half(most / largest_whole);
                const float scale = from_half(kept), step = scale > 0 ? scale : INFINITY;
                scales[(p * groups + c) * LANES + o] = kept;
                int8_t whole[GROUP];
                for (int k = 0; k < GROUP; k++) {
                    float x = row < outputs ? rintf(from[k] / step) : 0;
                    whole[k] = (int8_t)(x > largest_whole ? largest_whole : x < -largest_whole ? -largest_whole : x);
                }
                if (four)
                    for (int k = 0; k < GROUP; k += 2)
                        to[(c * GROUP + k) / 2 * LANES + o] = (uint8_t)((whole[k] + 8) | (whole[k + 1] + 8) << 4);
                else
                    for (int k = 0; k < GROUP; k++) to[(c * GROUP + k) * LANES + o] = (uint8_t)whole[k];
            }
    }
}
