/* What stands between the matrix products of a Transformer's training step, forward and backward, each in one pass over
 * memory: RMSNorm, SwiGLU, and the cross-entropy of a chunk of logits. The plain forms are in functional.py.
 *
 * Every row is one thread's work and its sums run in a fixed order. Sums over rows (the gradient of a norm's weight) are
 * made of one part for each thread, so they are equal bit for bit at an equal number of threads.
 *
 * Letters: N rows, D width, V classes.
 */
#include "vectors.h"

/* out = x / rms(x) * weight; the reciprocal of each row's root mean square is kept for backward. */
void norm_forward(const float *x, const float *weight, int64_t rows, int64_t size, float epsilon, float *out,
                  float *inverse) {
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < rows; n++) {
        const float *from = x + n * size;
        float *to = out + n * size;
        vf squares = splat(0);
        int64_t k = 0;
        for (; k + LANES <= size; k += LANES) squares += load(from + k) * load(from + k);
        float sum = total(squares);
        for (; k < size; k++) sum += from[k] * from[k];
        const float scale = 1.0f / sqrtf(sum / (float)size + epsilon);
        inverse[n] = scale;
        for (k = 0; k + LANES <= size; k += LANES) store(to + k, load(from + k) * splat(scale) * load(weight + k));
        for (; k < size; k++) to[k] = from[k] * scale * weight[k];
    }
}

/* The gradients of x and weight. parts: (threads, size), zeroed by this function. */
void norm_backward(const float *x, const float *weight, const float *inverse, const float *grad, int64_t rows,
                   int64_t size, float *grad_x, float *grad_weight, float *parts, int64_t threads) {
#pragma omp parallel num_threads((int)threads)
    {
        const int64_t me = omp_get_thread_num(), all = omp_get_num_threads();
        float *part = parts + me * size;
        memset(part, 0, (size_t)size * sizeof(float));
        for (int64_t n = rows * me / all; n < rows * (me + 1) / all; n++) {
            const float *from = x + n * size, *given = grad + n * size;
            float *to = grad_x + n * size;
            vf inner = splat(0);
            int64_t k = 0;
            for (; k + LANES <= size; k += LANES) {
                vf product = load(given + k) * load(from + k);
                inner += product * load(weight + k);
                store(part + k, load(part + k) + product * splat(inverse[n]));
            }
            float sum = total(inner);
            for (; k < size; k++) {
                float product = given[k] * from[k];
                sum += product * weight[k];
                part[k] += product * inverse[n];
            }
            const float scale = inverse[n], back = sum * scale * scale * scale / (float)size;
            for (k = 0; k + LANES <= size; k += LANES)
                store(to + k, load(given + k) * load(weight + k) * splat(scale) - load(from + k) * splat(back));
            for (; k < size; k++) to[k] = given[k] * weight[k] * scale - from[k] * back;
        }
#pragma omp barrier
#pragma omp for schedule(static)
        for (int64_t k = 0; k < size; k++) {
            float sum = 0;
            for (int64_t t = 0; t < all; t++) sum += parts[t * size + k];
            grad_weight[k] = sum;
        }
    }
}

/* 1 / (1 + e^-x), from e^-|x|, which does not overflow */
INLINE vf sigmoid(vf x) {
    vi negative = x < splat(0);
    vf small = exponential(choose(negative, x, -x));
    return choose(negative, small, splat(1)) / (splat(1) + small);
}

/* out = silu(gate) * up, `count` numbers of each, in pieces of one cache line. */
void swiglu_forward(const float *gate, const float *up, int64_t count, float *out) {
    const int64_t whole = count / LANES;
#pragma omp parallel for schedule(static)
    for (int64_t v = 0; v < whole; v++) {
        vf x = load(gate + v * LANES);
        store(out + v * LANES, x * sigmoid(x) * load(up + v * LANES));
    }
    for (int64_t k = whole * LANES; k < count; k++) out[k] = gate[k] / (1.0f + expf(-gate[k])) * up[k];
}

void swiglu_backward(const float *gate, const float *up, const float *grad, int64_t count, float *grad_gate,
                     float *grad_up) {
    const int64_t whole = count / LANES;
#pragma omp parallel for schedule(static)
    for (int64_t v = 0; v < whole; v++) {
        const int64_t k = v * LANES;
        vf x = load(gate + k), share = sigmoid(x), given = load(grad + k);
        store(grad_up + k, given * x * share);
        store(grad_gate + k, given * load(up + k) * share * (splat(1) + x * (splat(1) - share)));
    }
    for (int64_t k = whole * LANES; k < count; k++) {
        float x = gate[k], share = 1.0f / (1.0f + expf(-x));
        grad_up[k] = grad[k] * x * share;
        grad_gate[k] = grad[k] * up[k] * share * (1.0f + x * (1.0f - share));
    }
}

/* loss = log(sum(e^logits)) - logits[target]; with `gradient` the logits become its gradient, p - onehot(target). */
void cross_entropy(float *logits, const int64_t *target, int64_t rows, int64_t classes, float *loss, int gradient) {
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < rows; n++) {
        float *row = logits + n * classes;
        int64_t k = 0;
        vf most_ = splat(-INFINITY);
        for (; k + LANES <= classes; k += LANES) {
            vf x = load(row + k);
            most_ = choose(x > most_, x, most_);
        }
        float most = largest(most_);
        for (; k < classes; k++) most = row[k] > most ? row[k] : most;
        const float picked = row[target[n]] - most;
        vf sums = splat(0);
        for (k = 0; k + LANES <= classes; k += LANES) {
            vf x = exponential(load(row + k) - splat(most));
            sums += x;
            store(row + k, x);
        }
        float sum = total(sums);
        for (; k < classes; k++) sum += row[k] = expf(row[k] - most);
        loss[n] = logf(sum) - picked;
        if (!gradient) continue;
        const float scale = 1.0f / sum;
        for (k = 0; k + LANES <= classes; k += LANES) store(row + k, load(row + k) * splat(scale));
        for (; k < classes; k++) row[k] *= scale;
        row[target[n]] -= 1.0f;
    }
}
