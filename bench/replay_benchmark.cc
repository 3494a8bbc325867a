// How fast the engine is: what it adds to a bare loop of the same allocator calls, and how many events a
// second it takes from a compressed file when the allocator does nothing.
//
// replay_benchmark [--events N] [--live N] [--rounds N] [--long] [--null-only] [-a NAME]... [TRACE...]
// NAME as for `heaptape replay -a`; without, all that are here. Every figure is the least of the rounds; engine and bare loop take turns, so that a busy machine hits both. The
// generated trace is hard to compress and to decode; TRACEs are replayed with the null allocator too.
// --long adds a generated trace of 10^9 events.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "allocators/catalog.h"
#include "bench/generated_trace.h"
#include "replayer/replay.h"
#include "traces/trace_reader.h"

namespace heaptape {
namespace {

struct Arguments {
  std::uint64_t events = 20'000'000;
  std::uint64_t live = 200'000;
  int rounds = 3;
  bool long_trace = false;
  bool null_only = false;
  std::vector<std::string> allocators;
  std::vector<std::string> traces;
};

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "replay_benchmark: %s\n", what.c_str());
  std::exit(1);
}

class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "heaptape-bench-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) Die("cannot make a temporary folder");
    path_ = name;
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string File(const char* name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

absl::StatusOr<RunResult> ReplayOnce(const std::string& trace, const ResolvedAllocator& allocator, Touch touch) {
  ReplayOptions options;
  options.worker_path = HEAPTAPE_WORKER;
  options.touch = touch;
  absl::StatusOr<RunResult> run = Replay(trace, allocator, options);
  if (run.ok() && run->error) return absl::AbortedError(*run->error);
  return run;
}

RunResult MustReplay(const std::string& trace, const ResolvedAllocator& allocator, Touch touch) {
  absl::StatusOr<RunResult> run = ReplayOnce(trace, allocator, touch);
  if (!run.ok()) Die(absl::StrCat(allocator.DisplayName(), ": ", run.status().message()));
  return *std::move(run);
}

absl::StatusOr<std::uint64_t> BareLoopNs(const ResolvedAllocator& allocator, const std::string& events) {
  std::string command = "GLIBC_TUNABLES=glibc.rtld.optional_static_tls=16384";
  for (const auto& [name, value] : allocator.environment) absl::StrAppend(&command, " ", name, "='", value, "'");
  absl::StrAppend(&command, " '" HEAPTAPE_BARE_LOOP "' '", allocator.library_path, "' '", allocator.symbol_prefix, "' '", events,
                  "' 2>&1");
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return absl::ErrnoToStatus(errno, "the bare loop cannot be started");
  std::string said;
  for (int letter; (letter = std::fgetc(pipe)) != EOF;) said += static_cast<char>(letter);
  const int status = pclose(pipe);
  std::uint64_t ns = 0;
  if (status != 0 || !absl::SimpleAtoi(said, &ns)) return absl::AbortedError(absl::StrCat("the bare loop failed: ", said));
  return ns;
}

std::uint64_t WriteRawEvents(const std::string& trace, const std::string& raw) {
  absl::StatusOr<std::unique_ptr<TraceReader>> reader = TraceReader::Open(trace);
  if (!reader.ok()) Die(std::string(reader.status().message()));
  std::ofstream out(raw, std::ios::binary);
  std::uint64_t count = 0;
  for (;;) {
    absl::StatusOr<EventBlock> block = (*reader)->Next();
    if (!block.ok()) Die(std::string(block.status().message()));
    if (block->events.empty()) break;
    for (const Event& event : block->events) {
      if (!IsCall(event.op)) continue;
      out.write(reinterpret_cast<const char*>(&event), sizeof(event));
      ++count;
    }
  }
  return count;
}

double PerEvent(std::uint64_t ns, std::uint64_t events) { return static_cast<double>(ns) / static_cast<double>(events); }

void CompareWithBareLoop(const Arguments& arguments, const Folder& folder, const std::string& trace) {
  const std::string raw = folder.File("events");
  const std::uint64_t calls = WriteRawEvents(trace, raw);
  std::vector<ResolvedAllocator> allocators;
  for (const std::string& name : arguments.allocators.empty() ? std::vector<std::string>{"all"} : arguments.allocators) {
    absl::StatusOr<std::vector<ResolvedAllocator>> found = ResolveAllocators(name);
    if (!found.ok()) Die(std::string(found.status().message()));
    allocators.insert(allocators.end(), found->begin(), found->end());
  }
  std::printf("CPU time of the worker, ns per event (%llu events, %llu live objects)\n\n%-22s %8s %8s %8s %12s\n",
              static_cast<unsigned long long>(calls), static_cast<unsigned long long>(arguments.live), "allocator", "bare",
              "engine", "added", "with touch");
  for (const ResolvedAllocator& allocator : allocators) {
    if (!allocator.loader_path.empty()) continue;  // the bare loop runs under the system's C library
    std::uint64_t bare = ~0ull, engine = ~0ull, touching = ~0ull;
    absl::Status failed = allocator.problem.empty() ? absl::OkStatus() : absl::FailedPreconditionError(allocator.problem);
    const auto least = [&](std::uint64_t& figure, const absl::StatusOr<RunResult>& run) {
      failed.Update(run.status());
      if (run.ok()) figure = std::min(figure, run->cpu_user_ns + run->cpu_system_ns);
    };
    for (int round = 0; round < arguments.rounds && failed.ok(); ++round) {
      const absl::StatusOr<std::uint64_t> loop = BareLoopNs(allocator, raw);
      failed.Update(loop.status());
      if (loop.ok()) bare = std::min(bare, *loop);
      least(engine, ReplayOnce(trace, allocator, Touch::kNone));
      least(touching, ReplayOnce(trace, allocator, Touch::kRecorded));
    }
    if (!failed.ok()) {
      std::printf("%s: left out: %s\n", allocator.DisplayName().c_str(), std::string(failed.message()).c_str());
      continue;
    }
    std::printf("%-22s %8.1f %8.1f %+8.1f %12.1f\n", allocator.DisplayName().c_str(), PerEvent(bare, calls),
                PerEvent(engine, calls), PerEvent(engine, calls) - PerEvent(bare, calls), PerEvent(touching, calls));
  }
}

void ReplayWithNullAllocator(int rounds, const std::string& trace) {
  ResolvedAllocator null_allocator;
  null_allocator.family = kNullAllocator;
  std::uint64_t best = ~0ull, events = 0;
  for (int round = 0; round < rounds; ++round) {
    const RunResult run = MustReplay(trace, null_allocator, Touch::kRecorded);
    best = std::min(best, run.wall_ns);
    events = run.events_replayed;
  }
  std::printf("null allocator, %s: %llu events in %.2f s of wall time, %.1f million a second, from a file of %.1f MB\n",
              std::filesystem::path(trace).filename().c_str(),
              static_cast<unsigned long long>(events), static_cast<double>(best) / 1e9,
              static_cast<double>(events) * 1e3 / static_cast<double>(best),
              static_cast<double>(std::filesystem::file_size(trace)) / 1e6);
}

int Main(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    const auto value = [&]() -> std::uint64_t { return ++i < argc ? std::strtoull(argv[i], nullptr, 10) : 0; };
    if (name == "--events") {
      arguments.events = value();
    } else if (name == "--live") {
      arguments.live = value();
    } else if (name == "--rounds") {
      arguments.rounds = static_cast<int>(value());
    } else if (name == "--long") {
      arguments.long_trace = true;
    } else if (name == "--null-only") {
      arguments.null_only = true;
    } else if (name == "-a" && i + 1 < argc) {
      arguments.allocators.emplace_back(argv[++i]);
    } else if (name.substr(0, 1) != "-") {
      arguments.traces.emplace_back(name);
    } else {
      std::fprintf(stderr, "usage: replay_benchmark [--events N] [--live N] [--rounds N] [--long] [--null-only] [-a NAME]... [TRACE...]\n");
      return 2;
    }
  }
  const Folder folder;
  const std::string trace = folder.File("generated.tape");
  if (absl::Status written = WriteGeneratedTrace(trace, arguments.events, arguments.live); !written.ok()) {
    Die(std::string(written.message()));
  }
  ReplayWithNullAllocator(arguments.rounds, trace);
  for (const std::string& given : arguments.traces) ReplayWithNullAllocator(arguments.rounds, given);
  if (arguments.long_trace) {
    const std::string long_trace = folder.File("long.tape");
    constexpr std::uint64_t kLongEvents = 1'000'000'000;
    if (absl::Status written = WriteGeneratedTrace(long_trace, kLongEvents, arguments.live); !written.ok()) {
      Die(std::string(written.message()));
    }
    ReplayWithNullAllocator(1, long_trace);
    ResolvedAllocator glibc;
    glibc.family = "glibc";
    const RunResult run = MustReplay(long_trace, glibc, Touch::kRecorded);
    std::printf("glibc: %llu events in %.1f s of wall time, peak %.1f MiB\n", static_cast<unsigned long long>(kLongEvents),
                static_cast<double>(run.wall_ns) / 1e9, static_cast<double>(run.peak_rss_bytes) / 1048576.0);
  }
  if (!arguments.null_only) CompareWithBareLoop(arguments, folder, trace);
  return 0;
}

}  // namespace
}  // namespace heaptape

int main(int argc, char** argv) { return heaptape::Main(argc, argv); }
