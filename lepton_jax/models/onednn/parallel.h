// Work in parts on XLA's own thread pool.

#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

#include "xla/ffi/api/ffi.h"

// Runs f(0), ..., f(parts - 1) on the pool and on the calling thread, which takes whatever nobody
// has begun: so it ends even where the pool is busy with callers that wait like this one.
inline void InParallel(xla::ffi::ThreadPool& pool, int64_t parts, const std::function<void(int64_t)>& f) {
  struct State {
    std::atomic<int64_t> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable finished;
    std::string error;
  };
  if (parts == 1) return f(0);
  auto state = std::make_shared<State>();
  // After the last part is taken, f may be gone: nobody who comes later touches it.
  const auto work = [state, parts, f = &f] {
    for (int64_t i; (i = state->next++) < parts;) {
      try {
        (*f)(i);
      } catch (const std::exception& error) {
        const std::lock_guard<std::mutex> lock(state->mutex);
        state->error = error.what();
      }
      const std::lock_guard<std::mutex> lock(state->mutex);
      if (++state->done == parts) state->finished.notify_all();
    }
  };
  const int64_t helpers = std::min<int64_t>(parts, pool.num_threads()) - 1;
  for (int64_t i = 0; i < helpers; i++) {
    auto task = work;
    pool.Schedule(std::move(task));
  }
  work();
  for (int i = 0; i < 4000 && state->done < parts; i++) __builtin_ia32_pause();
  std::unique_lock<std::mutex> lock(state->mutex);
  state->finished.wait(lock, [&] { return state->done == parts; });
  if (!state->error.empty()) throw std::runtime_error(state->error);
}
