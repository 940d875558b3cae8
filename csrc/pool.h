// The threads of one context.
//
// The calling thread does the work; the workers only help. A job is a number of independent tasks; whoever is awake
// claims the next task from one atomic counter, so a worker that sleeps, or that the system has taken off its core,
// delays nobody: its tasks are done by the others. No task's result depends on who runs it, so neither do the bits.
//
//   remaining_ ── n ──► 0: all claimed ──► negative: claims that came late (harmless; the next job overwrites them)
//
// A claim is `remaining_.fetch_sub(1)`: what it returns is > 0 only for a job that cannot end before that task has,
// so job_ may be read after a claim and not before, and no worker ever has to be waited for on its way in or out.
//
// Workers that find nothing spin for spin_us (a pause instruction in the loop), which covers the gap between two
// kernels of one layer, and then sleep on a condition variable; an idle context costs nothing. torch's own threads
// (OpenMP) spin for longer: where the kernels do the products, torch gets one thread (model/torch_threads.py).
//
// Threads are not pinned. On two cores beside another process, pinning gained 20 % in one round and nothing in the next
// with two threads, and lost 7 to 10 % with one: a thread that is bound to a core cannot leave it to whoever else was put
// there. Two engines on one machine would also bind their threads to the same cores.
#ifndef HEADRACE_POOL_H
#define HEADRACE_POOL_H

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace hr {

class Pool {
public:
    explicit Pool(int num_threads);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int num_threads() const { return int(workers_.size()) + 1; }

    // Calls task(i) once for each i in [0, n), on any thread, in any order; returns when all are done.
    template <class Task>
    void run(int64_t n, const Task& task) {
        run_job(n, [](const void* t, int64_t i) { (*static_cast<const Task*>(t))(i); }, &task);
    }

private:
    using Call = void (*)(const void* task, int64_t index);
    struct Job {
        Call call;
        const void* task;
        int64_t n;
    };

    void run_job(int64_t n, Call call, const void* task);
    void work();
    void wake();
    bool spin_for_work(uint64_t seen_epoch) const;
    void worker_loop();

    Job job_{};
    std::vector<std::thread> workers_;
    std::mutex one_caller_;
    std::mutex sleep_mutex_;
    std::condition_variable sleep_;
    alignas(64) std::atomic<int64_t> remaining_{0};
    alignas(64) std::atomic<int64_t> done_{0};
    alignas(64) std::atomic<uint64_t> epoch_{0};
    std::atomic<int> sleepers_{0};
    std::atomic<bool> stop_{false};
};

}  // namespace hr
#endif
