// oneDNN's convolutions as XLA FFI handlers, in float32 and the layouts that JAX has them in:
// images [...,N,H,W,C], kernels [...,KH,KW,C/groups,O], with any number of leading axes, which all
// three arrays share: each of their elements is a convolution of its own.
//
// oneDNN itself runs on one thread. The work is cut into `threads` fixed parts, so that the order of
// sums never depends on timing, and the parts go through XLA's own thread pool.

#include <dnnl.hpp>
#include <omp.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <numeric>
#include <stdexcept>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "parallel.h"
#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using dnnl::memory;
using Dims = ffi::Span<const int64_t>;

constexpr size_t kMostKept = 1024;  // convolutions of different geometry

enum class Pass : int64_t { kForward, kImages, kKernel };

// What fixes a primitive: the pass, sizes and window of one part.
struct Geometry {
  Pass pass;
  int64_t n, h, w, c, out_h, out_w, out_c, kernel_h, kernel_w, groups;
  std::array<int64_t, 2> strides, dilation;
  std::array<int64_t, 4> padding;  // top, bottom, left, right

  int64_t image() const { return h * w * c; }
  int64_t out_image() const { return out_h * out_w * out_c; }
  int64_t kernel() const { return kernel_h * kernel_w * c / groups * out_c; }
  int64_t multiply_adds() const { return n * out_h * out_w * kernel(); }

  auto key() const {
    return std::tie(pass, n, h, w, c, out_h, out_w, out_c, kernel_h, kernel_w, groups, strides,
                    dilation, padding);
  }
  bool operator<(const Geometry& other) const { return key() < other.key(); }
};

// Memory of one thread that only grows.
class Scratch {
 public:
  ~Scratch() { std::free(data_); }
  void* get(size_t bytes) {
    if (bytes > size_) {
      std::free(data_);
      size_ = (bytes + 4095) / 4096 * 4096;
      data_ = std::aligned_alloc(4096, size_);
      if (data_ == nullptr) {
        size_ = 0;
        throw std::bad_alloc();
      }
    }
    return data_;
  }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

const dnnl::engine& Engine() {
  static const auto* engine = new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return *engine;
}

// A convolution, and the reorder between JAX' kernel layout and the one that oneDNN chose.
class Convolution {
 public:
  explicit Convolution(const Geometry& g) : pass_(g.pass) {
    using tag = memory::format_tag;
    constexpr auto f32 = memory::data_type::f32;
    const bool grouped = g.groups > 1;
    const memory::dims kernel =
        grouped ? memory::dims{g.groups, g.out_c / g.groups, g.c / g.groups, g.kernel_h, g.kernel_w}
                : memory::dims{g.out_c, g.c, g.kernel_h, g.kernel_w};
    images_ = memory::desc({g.n, g.c, g.h, g.w}, f32, tag::nhwc);
    out_ = memory::desc({g.n, g.out_c, g.out_h, g.out_w}, f32, tag::nhwc);
    given_kernel_ = memory::desc(kernel, f32, grouped ? tag::hwigo : tag::hwio);
    Choose(g, memory::desc(kernel, f32, tag::any));
    if (kernel_ != given_kernel_) {
      const auto& from = pass_ == Pass::kKernel ? kernel_ : given_kernel_;
      const auto& to = pass_ == Pass::kKernel ? given_kernel_ : kernel_;
      const dnnl::reorder::primitive_desc reorder(Engine(), from, Engine(), to, Attributes());
      reorder_scratch_ = reorder.scratchpad_desc();
      reorder_ = dnnl::reorder(reorder);
    }
  }

  void Run(float* images, float* kernel, float* out) const {
    static thread_local dnnl::stream stream(Engine());
    static thread_local Scratch scratch, reorder_scratch, reordered;
    static thread_local std::unordered_map<int64_t, Arguments> made;
    if (made.size() > kMostKept) made.clear();
    Arguments& arguments = made.try_emplace(id_, *this).first->second;
    const bool reorders = kernel_ != given_kernel_;
    arguments.given.set_data_handle(kernel);
    if (reorders) arguments.own.set_data_handle(reordered.get(kernel_.get_size()));
    arguments.pad.set_data_handle(reorder_scratch.get(reorder_scratch_.get_size()));
    arguments.images.set_data_handle(images);
    arguments.out.set_data_handle(out);
    arguments.scratch.set_data_handle(scratch.get(scratch_.get_size()));
    if (reorders && pass_ != Pass::kKernel) reorder_.execute(stream, arguments.reorder);
    convolution_.execute(stream, arguments.convolution);
    if (reorders && pass_ == Pass::kKernel) reorder_.execute(stream, arguments.reorder);
    stream.wait();
  }

 private:
  // What a thread hands over; making it anew for each call would have threads wait for memory.
  struct Arguments {
    explicit Arguments(const Convolution& c)
        : images(c.images_, Engine(), nullptr),
          out(c.out_, Engine(), nullptr),
          given(c.given_kernel_, Engine(), nullptr),
          own(c.kernel_ == c.given_kernel_ ? given : memory(c.kernel_, Engine(), nullptr)),
          scratch(c.scratch_, Engine(), nullptr),
          pad(c.reorder_scratch_, Engine(), nullptr) {
      const bool of_images = c.pass_ == Pass::kImages, of_kernel = c.pass_ == Pass::kKernel;
      convolution = {{of_images ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, images},
                     {of_kernel ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, own},
                     {of_images || of_kernel ? DNNL_ARG_DIFF_DST : DNNL_ARG_DST, out},
                     {DNNL_ARG_SCRATCHPAD, scratch}};
      reorder = {{DNNL_ARG_FROM, of_kernel ? own : given},
                 {DNNL_ARG_TO, of_kernel ? given : own},
                 {DNNL_ARG_SCRATCHPAD, pad}};
    }
    memory images, out, given, own, scratch, pad;
    std::unordered_map<int, memory> convolution, reorder;
  };

  static dnnl::primitive_attr Attributes() {
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    return attributes;
  }

  void Choose(const Geometry& g, const memory::desc& any) {
    const auto algorithm = dnnl::algorithm::convolution_direct;
    const memory::dims strides{g.strides[0], g.strides[1]};
    const memory::dims dilation{g.dilation[0] - 1, g.dilation[1] - 1};
    const memory::dims low{g.padding[0], g.padding[2]}, high{g.padding[1], g.padding[3]};
    const dnnl::convolution_forward::primitive_desc forward(
        Engine(), dnnl::prop_kind::forward_training, algorithm, images_, any, out_, strides, dilation,
        low, high, Attributes());
    if (pass_ == Pass::kForward) {
      kernel_ = forward.weights_desc();
      Take(forward);
    } else if (pass_ == Pass::kImages) {
      const dnnl::convolution_backward_data::primitive_desc images(
          Engine(), algorithm, images_, any, out_, strides, dilation, low, high, forward, Attributes());
      kernel_ = images.weights_desc();
      Take(images);
    } else {
      const dnnl::convolution_backward_weights::primitive_desc kernel(
          Engine(), algorithm, images_, any, out_, strides, dilation, low, high, forward, Attributes());
      kernel_ = kernel.diff_weights_desc();
      Take(kernel);
    }
  }

  template <class Description>
  void Take(const Description& description) {
    scratch_ = description.scratchpad_desc();
    convolution_ = dnnl::primitive(description.get());
  }

  static int64_t NextId() {
    static std::atomic<int64_t> next{0};
    return next++;
  }

  const int64_t id_ = NextId();
  Pass pass_;
  memory::desc images_, out_, given_kernel_, kernel_, scratch_, reorder_scratch_;
  dnnl::primitive convolution_, reorder_;
};

// Making a convolution takes milliseconds, since oneDNN compiles it: each is kept.
std::shared_ptr<const Convolution> Get(const Geometry& geometry) {
  static auto* mutex = new std::mutex;
  static auto* made = new std::map<Geometry, std::shared_ptr<const Convolution>>;
  const std::lock_guard<std::mutex> lock(*mutex);
  const auto found = made->find(geometry);
  if (found != made->end()) return found->second;
  if (made->size() >= kMostKept) made->clear();  // what runs just now holds its own
  omp_set_num_threads(1);                    // oneDNN fixes the number when it makes one
  auto convolution = std::make_shared<const Convolution>(geometry);
  made->emplace(geometry, convolution);
  return convolution;
}

// One convolution, its images cut into parts; a kernel's gradient is the sum of theirs.
void RunOne(ffi::ThreadPool& pool, const Geometry& g, int64_t threads, float* images, float* kernel,
            float* out) {
  constexpr int64_t kWorthSplitting = 1'000'000;  // multiply-adds
  const int64_t parts = g.multiply_adds() < kWorthSplitting ? 1 : std::min(threads, g.n);
  std::vector<std::shared_ptr<const Convolution>> convolutions;
  for (int64_t i = 0; i < parts; i++) {
    Geometry part = g;
    part.n = g.n * (i + 1) / parts - g.n * i / parts;
    convolutions.push_back(Get(part));
  }
  const bool sums = g.pass == Pass::kKernel;
  static thread_local Scratch scratch;
  float* sum = sums && parts > 1 ? static_cast<float*>(scratch.get((parts - 1) * g.kernel() * 4)) : nullptr;
  InParallel(pool, parts, [&](int64_t i) {
    omp_set_num_threads(1);
    const int64_t first = g.n * i / parts;
    float* target = sums && i > 0 ? sum + (i - 1) * g.kernel() : kernel;
    convolutions[i]->Run(images + first * g.image(), target, out + first * g.out_image());
  });
  for (int64_t i = 1; sums && i < parts; i++)
    for (int64_t j = 0; j < g.kernel(); j++) kernel[j] += sum[(i - 1) * g.kernel() + j];
}

// Many convolutions of one geometry: each runs whole, on one thread.
void RunMany(ffi::ThreadPool& pool, const Geometry& g, int64_t count, int64_t threads, float* images,
             float* kernels, float* out) {
  const auto convolution = Get(g);
  const int64_t parts = std::min(threads, count);
  InParallel(pool, parts, [&](int64_t i) {
    omp_set_num_threads(1);
    for (int64_t j = count * i / parts; j < count * (i + 1) / parts; j++)
      convolution->Run(images + j * g.n * g.image(), kernels + j * g.kernel(), out + j * g.n * g.out_image());
  });
}

using Buffer = ffi::Buffer<ffi::F32>;
using Result = ffi::ResultBuffer<ffi::F32>;

struct Array {
  float* data;
  Dims dims;
  int64_t axis(int i) const { return dims.end()[i]; }  // from the end: -4 is N or KH
};

template <Pass pass>
ffi::Error Convolve(ffi::ThreadPool pool, Buffer a, Buffer b, Result result, Dims strides, Dims dilation,
                    Dims padding, int64_t groups, int64_t threads) {
  const Array first{a.typed_data(), a.dimensions()}, second{b.typed_data(), b.dimensions()};
  const Array third{result->typed_data(), result->dimensions()};
  const Array& images = pass == Pass::kImages ? third : first;
  const Array& kernel = pass == Pass::kKernel ? third : second;
  const Array& out = pass == Pass::kForward ? third : pass == Pass::kImages ? first : second;
  Geometry g{pass,           images.axis(-4), images.axis(-3), images.axis(-2), images.axis(-1),
             out.axis(-3),   out.axis(-2),    out.axis(-1),    kernel.axis(-4), kernel.axis(-3),
             groups,         {},              {},              {}};
  std::copy(strides.begin(), strides.end(), g.strides.begin());
  std::copy(dilation.begin(), dilation.end(), g.dilation.begin());
  std::copy(padding.begin(), padding.end(), g.padding.begin());
  const int64_t count =
      std::accumulate(images.dims.begin(), images.dims.end() - 4, int64_t{1}, std::multiplies<>());
  threads = std::clamp<int64_t>(threads, 1, std::max<int64_t>(1, pool.num_threads()));
  try {
    if (count == 1) {
      RunOne(pool, g, threads, images.data, kernel.data, out.data);
    } else {
      RunMany(pool, g, count, threads, images.data, kernel.data, out.data);
    }
    return ffi::Error::Success();
  } catch (const std::exception& error) {
    return ffi::Error::Internal(std::string("oneDNN: ") + error.what());
  }
}

auto Binding() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<Buffer>()
      .Arg<Buffer>()
      .Ret<Buffer>()
      .Attr<Dims>("strides")
      .Attr<Dims>("dilation")
      .Attr<Dims>("padding")
      .Attr<int64_t>("groups")
      .Attr<int64_t>("threads");
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(forward, Convolve<Pass::kForward>, Binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(backward_images, Convolve<Pass::kImages>, Binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(backward_kernel, Convolve<Pass::kKernel>, Binding());
