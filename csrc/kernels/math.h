// exp and the activations, on vectors.
namespace hr::HR_ISA {

// eˣ with a relative error under 3e-7: Cody and Waite's reduction, x = n·ln 2 + r, and Cephes' expf polynomial.
// NaN stays NaN; from -104 down the result is 0.
inline vf vexp(vf x) {
    x = vmax(vset(-104.0f), vmin(vset(88.7f), x));
    const vf n = vround(vmul(x, vset(1.44269504f)));
    const vf r = vfma(n, vset(2.12194440e-4f), vfma(n, vset(-0.693359375f), x));
    vf p = vset(1.9875691500e-4f);
    p = vfma(p, r, vset(1.3981999507e-3f));
    p = vfma(p, r, vset(8.3334519073e-3f));
    p = vfma(p, r, vset(4.1665795894e-2f));
    p = vfma(p, r, vset(1.6666665459e-1f));
    p = vfma(p, r, vset(0.5f));
    p = vadd(vfma(vmul(p, r), r, r), vset(1.0f));
    return vscale2(p, n);
}

// tanh x = 1 - 2 / (e²ˣ + 1); near 0 the difference loses digits, so there the odd Taylor terms.
inline vf vtanh(vf x) {
    const vf far = vsub(vset(1.0f), vdiv(vset(2.0f), vadd(vexp(vadd(x, x)), vset(1.0f))));
    const vf square = vmul(x, x);
    vf near = vset(-17.0f / 315.0f);
    near = vfma(near, square, vset(2.0f / 15.0f));
    near = vfma(near, square, vset(-1.0f / 3.0f));
    near = vfma(vmul(near, square), x, x);
    return vbelow(vabs(x), vset(0.2f), near, far);
}

inline vf vsigmoid(vf x) { return vdiv(vset(1.0f), vadd(vset(1.0f), vexp(vsub(vzero(), x)))); }

// Abramowitz and Stegun 7.1.26: the error is under 1.5e-7.
inline vf verf(vf x) {
    const vf a = vabs(x);
    const vf t = vdiv(vset(1.0f), vfma(vset(0.3275911f), a, vset(1.0f)));
    vf p = vset(1.061405429f);
    p = vfma(p, t, vset(-1.453152027f));
    p = vfma(p, t, vset(1.421413741f));
    p = vfma(p, t, vset(-0.284496736f));
    p = vfma(p, t, vset(0.254829592f));
    const vf positive = vsub(vset(1.0f), vmul(vmul(p, t), vexp(vsub(vzero(), vmul(a, a)))));
    return vbelow(x, vzero(), vsub(vzero(), positive), positive);
}

inline vf vgelu(vf x) {
    const vf half = vmul(vset(0.5f), x);
    return vfma(half, verf(vmul(x, vset(0.70710678f))), half);
}

inline vf vgelu_tanh(vf x) {
    const vf inner = vmul(vset(0.79788456f), vfma(vmul(vmul(vset(0.044715f), x), x), x, x));
    const vf half = vmul(vset(0.5f), x);
    return vfma(half, vtanh(inner), half);
}

inline vf vactivate(vf x, int activation) {
    switch (activation) {
        case HR_SILU: return vmul(x, vsigmoid(x));
        case HR_GELU: return vgelu(x);
        case HR_GELU_TANH: return vgelu_tanh(x);
        case HR_RELU: return vmax(vzero(), x);
        default: return x;
    }
}

}  // namespace hr::HR_ISA
