#include "pool.h"

#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace hr {
namespace {

constexpr std::chrono::microseconds spin_us{40};
constexpr int pauses_between_clock_reads = 32;

void pause() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace

Pool::Pool(int num_threads) {
    for (int i = 1; i < num_threads; ++i) workers_.emplace_back([this] { worker_loop(); });
}

Pool::~Pool() {
    stop_.store(true);
    epoch_.fetch_add(1);
    wake();
    for (std::thread& worker : workers_) worker.join();
}

void Pool::run_job(int64_t n, Call call, const void* task) {
    if (n <= 0) return;
    std::unique_lock<std::mutex> lock(one_caller_, std::defer_lock);
    if (n == 1 || workers_.empty() || !lock.try_lock()) {
        for (int64_t i = 0; i < n; ++i) call(task, i);
        return;
    }
    job_ = {call, task, n};
    done_.store(0, std::memory_order_relaxed);
    remaining_.store(n, std::memory_order_release);
    epoch_.fetch_add(1);
    if (sleepers_.load() > 0) wake();
    work();
    for (int turn = 0; done_.load(std::memory_order_acquire) < n; ++turn) {
        pause();
        if (turn > 4096) std::this_thread::yield();  // a worker lost its core in the middle of a task
    }
}

void Pool::work() {
    for (;;) {
        const int64_t left = remaining_.fetch_sub(1, std::memory_order_acq_rel);
        if (left <= 0) return;
        job_.call(job_.task, job_.n - left);
        done_.fetch_add(1, std::memory_order_release);
    }
}

void Pool::wake() {
    // A worker between its last look and its sleep holds this: wait until it hears the call.
    sleep_mutex_.lock();
    sleep_mutex_.unlock();
    sleep_.notify_all();
}

bool Pool::spin_for_work(uint64_t seen_epoch) const {
    const auto start = std::chrono::steady_clock::now();
    do {
        for (int i = 0; i < pauses_between_clock_reads; ++i) {
            if (epoch_.load(std::memory_order_acquire) != seen_epoch) return true;
            pause();
        }
    } while (std::chrono::steady_clock::now() - start < spin_us);
    return false;
}

void Pool::worker_loop() {
    uint64_t seen = 0;
    while (!stop_.load()) {
        if (!spin_for_work(seen)) {
            std::unique_lock<std::mutex> lock(sleep_mutex_);
            sleepers_.fetch_add(1);
            sleep_.wait(lock, [&] { return epoch_.load() != seen; });
            sleepers_.fetch_sub(1);
        }
        seen = epoch_.load();
        work();
    }
}

}  // namespace hr
