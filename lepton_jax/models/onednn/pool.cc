// Max-pooling as XLA FFI handlers, in float32 and JAX' layout: images [...,H,W,C] with any leading
// axes. Of a tie the first element of the window wins, as in lax; NaN wins over all.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <exception>
#include <utility>

#include "parallel.h"
#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using Dims = ffi::Span<const int64_t>;

constexpr int64_t kLanes = 16;
typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
typedef uint8_t Bytes __attribute__((vector_size(kLanes)));

// An element of a window: its place there, and its pixel's offset in the image.
struct Tap {
  uint8_t place;
  int64_t offset;
};

template <class Vector, class Element>
Vector Load(const Element* from) {
  Vector vector;
  std::memcpy(&vector, from, sizeof(vector));
  return vector;
}

template <class Vector, class Element>
void Store(const Vector& vector, Element* to) {
  std::memcpy(to, &vector, sizeof(vector));
}

// The greatest of a window's elements, channel by channel.
void TakeGreatest(const float* x, const Tap* taps, int64_t count, int64_t channels, float* y,
                                     uint8_t* which) {
  int64_t c = 0;
  for (; c + kLanes <= channels; c += kLanes) {
    Floats best = Load<Floats>(x + taps[0].offset + c);
    Ints place = Ints{} + taps[0].place;
    for (int64_t i = 1; i < count; i++) {
      const Floats next = Load<Floats>(x + taps[i].offset + c);
      const Ints greater = (next > best) | (next != next);
      best = greater ? next : best;
      place = greater ? Ints{} + taps[i].place : place;
    }
    Store(best, y + c);
    Store(__builtin_convertvector(place, Bytes), which + c);
  }
  for (; c < channels; c++) {
    y[c] = x[taps[0].offset + c];
    which[c] = taps[0].place;
    for (int64_t i = 1; i < count; i++) {
      const float next = x[taps[i].offset + c];
      if (next > y[c] || next != next) y[c] = next, which[c] = taps[i].place;
    }
  }
}

// to[c] += from[c] where the greatest element of channel c is the one at this place.
void AddWhere(const float* __restrict from, const uint8_t* __restrict which, uint8_t place, int64_t channels,
              float* __restrict to) {
  for (int64_t c = 0; c < channels; c++) to[c] += which[c] == place ? from[c] : 0.0f;
}

// The windows of one image.
struct Windows {
  int64_t h, w, c, out_h, out_w, window, stride, top, left;

  int64_t image() const { return h * w * c; }
  int64_t out_image() const { return out_h * out_w * c; }

  // Calls visit(the taps that are inside the image, their number, offset of the window in the output).
  template <class Visit>
  void ForEach(Visit visit) const {
    std::array<Tap, 256> taps;
    for (int64_t i = 0; i < out_h; i++)
      for (int64_t j = 0; j < out_w; j++) {
        int64_t count = 0;
        for (int64_t place = 0; place < window * window; place++) {
          const int64_t y = i * stride - top + place / window, x = j * stride - left + place % window;
          if (y < 0 || y >= h || x < 0 || x >= w) continue;
          taps[count++] = {static_cast<uint8_t>(place), (y * w + x) * c};
        }
        visit(taps.data(), count, (i * out_w + j) * c);
      }
  }
};

void Maximum(const Windows& windows, const float* x, float* y, uint8_t* which) {
  windows.ForEach([&](const Tap* taps, int64_t count, int64_t out) {
    TakeGreatest(x, taps, count, windows.c, y + out, which + out);
  });
}

void Gather(const Windows& windows, const float* x, const uint8_t* which, float* y) {
  std::fill_n(y, windows.out_image(), 0.0f);
  windows.ForEach([&](const Tap* taps, int64_t count, int64_t out) {
    for (const Tap* tap = taps; tap < taps + count; tap++)
      AddWhere(x + tap->offset, which + out, tap->place, windows.c, y + out);
  });
}

void Scatter(const Windows& windows, const float* y, const uint8_t* which, float* x) {
  std::fill_n(x, windows.image(), 0.0f);
  windows.ForEach([&](const Tap* taps, int64_t count, int64_t out) {
    for (const Tap* tap = taps; tap < taps + count; tap++)
      AddWhere(y + out, which + out, tap->place, windows.c, x + tap->offset);
  });
}

using Buffer = ffi::Buffer<ffi::F32>;
using Result = ffi::ResultBuffer<ffi::F32>;
using Which = ffi::Buffer<ffi::U8>;

// Runs work(windows, image) for every image.
template <class Work>
ffi::Error OverImages(ffi::ThreadPool& pool, Dims in, Dims out, int64_t window, int64_t stride, Dims padding,
                      int64_t threads, Work work) {
  const Windows windows{in.end()[-3],  in.end()[-2], in.end()[-1], out.end()[-3], out.end()[-2],
                        window,        stride,       padding[0],   padding[1]};
  int64_t images = 1;
  for (auto axis = in.begin(); axis != in.end() - 3; axis++) images *= *axis;
  const int64_t parts = std::clamp<int64_t>(threads, 1, std::max<int64_t>(1, images));
  try {
    InParallel(pool, parts, [&](int64_t part) {
      for (int64_t i = images * part / parts; i < images * (part + 1) / parts; i++) work(windows, i);
    });
    return ffi::Error::Success();
  } catch (const std::exception& error) {
    return ffi::Error::Internal(error.what());
  }
}

ffi::Error RunMaximum(ffi::ThreadPool pool, Buffer x, Result y, ffi::ResultBuffer<ffi::U8> which,
                      int64_t window, int64_t stride, Dims padding, int64_t threads) {
  return OverImages(pool, x.dimensions(), y->dimensions(), window, stride, padding, threads,
                    [&](const Windows& windows, int64_t i) {
                      Maximum(windows, x.typed_data() + i * windows.image(),
                              y->typed_data() + i * windows.out_image(),
                              which->typed_data() + i * windows.out_image());
                    });
}

ffi::Error RunGather(ffi::ThreadPool pool, Buffer x, Which which, Result y, int64_t window, int64_t stride,
                     Dims padding, int64_t threads) {
  return OverImages(pool, x.dimensions(), y->dimensions(), window, stride, padding, threads,
                    [&](const Windows& windows, int64_t i) {
                      Gather(windows, x.typed_data() + i * windows.image(),
                             which.typed_data() + i * windows.out_image(),
                             y->typed_data() + i * windows.out_image());
                    });
}

ffi::Error RunScatter(ffi::ThreadPool pool, Buffer y, Which which, Result x, int64_t window, int64_t stride,
                      Dims padding, int64_t threads) {
  return OverImages(pool, x->dimensions(), y.dimensions(), window, stride, padding, threads,
                    [&](const Windows& windows, int64_t i) {
                      Scatter(windows, y.typed_data() + i * windows.out_image(),
                              which.typed_data() + i * windows.out_image(),
                              x->typed_data() + i * windows.image());
                    });
}

template <class Binding>
auto WithWindow(Binding binding) {
  return std::move(binding)
      .template Attr<int64_t>("window")
      .template Attr<int64_t>("stride")
      .template Attr<Dims>("padding")
      .template Attr<int64_t>("threads");
}

auto OfMaximum() {
  return WithWindow(
      ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Buffer>().Ret<Buffer>().Ret<Which>());
}

auto OfLinear() {
  return WithWindow(
      ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Buffer>().Arg<Which>().Ret<Buffer>());
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(pool_maximum, RunMaximum, OfMaximum());
XLA_FFI_DEFINE_HANDLER_SYMBOL(pool_gather, RunGather, OfLinear());
XLA_FFI_DEFINE_HANDLER_SYMBOL(pool_scatter, RunScatter, OfLinear());
