// heaptape synth: makes a trace from distributions, or from the shape of a recorded trace.

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "replayer/commands/commands.h"
#include "replayer/commands/copy_trace.h"
#include "replayer/commands/memory_limit.h"
#include "replayer/commands/interrupt.h"
#include "replayer/commands/output.h"
#include "replayer/commands/progress.h"
#include "replayer/commands/talk.h"
#include "replayer/export/format.h"
#include "traces/output_file.h"
#include "traces/synth.h"
#include "traces/synth_profile.h"

namespace heaptape::commands {
namespace {

constexpr double kSecondsPerDay = 86400;
constexpr std::uint32_t kMostCpus = 8;

struct SynthArguments {
  std::string output, like, from_profile, profile;
  std::string events, sizes = "lognormal/48/1.5", lifetimes = "0-1M", live, calls = "malloc", rate = "50K", growth;
  std::vector<std::string> phases;
  std::uint32_t threads = 1;
  double run_calls = 100, cross_thread_frees = 0, realloc_share = 0;
  std::uint64_t seed = 0, time_resolution_ms = 1;
  std::size_t fit_phases = 8;
  int level = 1;
  std::uint64_t memory_limit_bytes = 0;
  bool force = false;
};

absl::StatusOr<std::vector<WeightedCall>> ParseCalls(const std::string& text) {
  std::vector<WeightedCall> calls;
  for (const auto& part : absl::StrSplit(text, ',')) {
    const std::vector<std::string> weighted = absl::StrSplit(part, ':');
    const std::vector<std::string> named = absl::StrSplit(weighted[0], '/');
    WeightedCall call;
    bool known = weighted.size() <= 2 && named.size() <= 2;
    if (weighted.size() > 1) call.weight = std::strtod(weighted[1].c_str(), nullptr);
    if (named.size() > 1) {
      const auto alignment = ParseCount(named[1], true);
      if (!alignment.ok()) return alignment.status();
      call.alignment_bytes = *alignment;
    }
    bool found = false;
    for (std::uint8_t op = 0; op < kOpCount && !found; ++op) {
      call.op = static_cast<Op>(op);
      found = named[0] == OpName(call.op) && StartsObject({.op = call.op, .flags = Event::kFresh});
    }
    known = known && found;
    if (!known) {
      return absl::InvalidArgumentError(absl::StrCat("--calls: \"", std::string(part),
                                                     "\" is no allocation; write for example malloc:9,calloc:1,posix_memalign/64:0.1"));
    }
    calls.push_back(call);
  }
  return calls;
}

// The phase that the options other than --phase describe.
absl::StatusOr<SynthPhase> BasePhase(const SynthArguments& arguments) {
  const auto sizes = ParseDistribution(arguments.sizes, true);
  auto lifetimes = ParseDistribution(arguments.lifetimes, false);
  const auto calls = ParseCalls(arguments.calls);
  const auto rate = ParseCount(arguments.rate, false);
  const auto live = ParseCount(arguments.live.empty() ? "0" : arguments.live, false);
  const auto growth = ParseCount(arguments.growth.empty() ? "0" : arguments.growth, true);
  for (const absl::Status& status :
       {sizes.status(), lifetimes.status(), calls.status(), rate.status(), live.status(), growth.status()}) {
    if (!status.ok()) return status;
  }
  SynthPhase phase;
  phase.calls_per_second = static_cast<double>(*rate);
  phase.cross_thread_free_share = arguments.cross_thread_frees;
  phase.threads.assign(arguments.threads, {.weight = 1, .run_calls = arguments.run_calls});
  if (*live > 0) {
    // Little's law: as many are alive as are started in a mean lifetime.
    const double mean = MeanOf(*lifetimes);
    if (mean <= 0) return absl::InvalidArgumentError("--live needs --lifetimes that are not all 0; give longer ones");
    const double scale = static_cast<double>(*live) / mean;
    for (WeightedRange& range : *lifetimes) {
      range.low = static_cast<std::uint64_t>(static_cast<double>(range.low) * scale);
      range.high = std::max(range.low, static_cast<std::uint64_t>(static_cast<double>(range.high) * scale));
    }
  }
  // Half of the calls are allocations, as nearly all objects are freed again.
  const double allocated_bytes_per_day = MeanOf(*sizes) * phase.calls_per_second / 2 * kSecondsPerDay;
  const double permanent = *growth ? static_cast<double>(*growth) / allocated_bytes_per_day : 0;
  if (!(permanent <= 1)) {
    return absl::InvalidArgumentError("--growth is more than the program allocates in a day at this --rate; give a smaller growth or a higher rate");
  }
  for (const WeightedRange& range : *sizes) {
    SynthClass object_class{.low_bytes = range.low, .high_bytes = range.high, .weight = range.weight, .permanent_share = permanent,
                            .realloc_share = arguments.realloc_share, .calls = *calls, .lifetimes = *lifetimes};
    // A realloc goes to any class of the same size up to twice it.
    for (std::size_t target = 0; arguments.realloc_share > 0 && target < sizes->size(); ++target) {
      const std::uint64_t low = (*sizes)[target].low;
      if (low >= range.low && low <= 2 * range.low) object_class.realloc_targets.push_back({target, 1});
    }
    phase.classes.push_back(std::move(object_class));
  }
  return phase;
}

// EVENTS[:LIVE_SCALE[:RATE]]
absl::StatusOr<SynthPhase> ParsePhase(const std::string& text, SynthPhase phase) {
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  const auto count = ParseCount(parts[0], false);
  if (!count.ok()) return count.status();
  phase.call_count = *count;
  if (parts.size() > 1) {
    const double scale = std::strtod(parts[1].c_str(), nullptr);
    if (!(scale > 0 && scale <= 1e6) || parts.size() > 3) {
      return absl::InvalidArgumentError(absl::StrCat("--phase: \"", text, "\" is not EVENTS[:LIVE_SCALE[:RATE]]; write for example 1M:0.5"));
    }
    for (SynthClass& object_class : phase.classes) {
      for (WeightedRange& range : object_class.lifetimes) {
        range.low = static_cast<std::uint64_t>(static_cast<double>(range.low) * scale);
        range.high = static_cast<std::uint64_t>(static_cast<double>(range.high) * scale);
      }
    }
  }
  if (parts.size() > 2) {
    const auto rate = ParseCount(parts[2], false);
    if (!rate.ok()) return rate.status();
    phase.calls_per_second = static_cast<double>(*rate);
  }
  return phase;
}

absl::StatusOr<SynthProfile> MakeProfile(const SynthArguments& arguments) {
  if (!arguments.from_profile.empty()) {
    const auto text = ReadWhole(arguments.from_profile);
    if (!text.ok()) return text.status();
    return ProfileFromJson(*text, arguments.from_profile);
  }
  if (!arguments.like.empty()) {
    const auto reader = TraceReader::Open(arguments.like, LimitTo(arguments.memory_limit_bytes, kFitBytes));
    if (!reader.ok()) return reader.status();
    return FitProfile(**reader, arguments.fit_phases);
  }
  const auto base = BasePhase(arguments);
  if (!base.ok()) return base.status();
  SynthProfile profile;
  for (const std::string& text : arguments.phases) {
    auto phase = ParsePhase(text, *base);
    if (!phase.ok()) return phase.status();
    profile.phases.push_back(*std::move(phase));
  }
  if (profile.phases.empty()) {
    profile.phases.push_back(*base);
    profile.phases[0].call_count = 1'000'000;
  }
  const absl::Status status = CheckProfile(profile);
  if (!status.ok()) return status;
  return profile;
}

absl::Status Write(const SynthProfile& profile, const SynthArguments& arguments) {
  SynthOptions options{.seed = arguments.seed, .time_resolution_ns = arguments.time_resolution_ms * 1'000'000};
  if (!arguments.events.empty()) {
    const auto events = ParseCount(arguments.events, false);
    if (!events.ok()) return events.status();
    options.call_count = *events;
  }
  if (options.call_count == 0) options.call_count = profile.call_count();
  std::size_t threads = 0;
  for (const SynthPhase& phase : profile.phases) threads = std::max(threads, phase.threads.size());
  TraceInfo info{.program = "synth", .heaptape_version = HEAPTAPE_VERSION, .time_resolution_ns = options.time_resolution_ns,
                 .cpu_count = static_cast<std::uint32_t>(std::min<std::size_t>(threads, kMostCpus))};
  auto trace = NewTrace::Create(arguments.output, arguments.force, info, {.compression_level = arguments.level});
  if (!trace.ok()) return trace.status();
  absl::Status status;
  {
    ProgressBoard board;
    const int bar = board.Add(arguments.output, options.call_count, "events");
    options.progress = [&](std::uint64_t done) { board.Update(bar, done); };
    options.cancelled = &StopOnInterrupt();
    status = WriteSynthetic(profile, options, trace->writer());
  }
  if (status.ok()) status = trace->Finish();
  if (!status.ok()) return status;
  const TraceWriter& writer = trace->writer();
  TellLine(absl::StrCat(arguments.output, ": ", FormatCount(writer.event_count()), " events, ", FormatCount(writer.object_count()), " objects, ",
                        FormatCount(writer.live_objects()), " alive at the end with ", FormatBytes(static_cast<double>(writer.live_bytes()))));
  return absl::OkStatus();
}

absl::Status Run(const SynthArguments& arguments) {
  if (arguments.output.empty() && arguments.profile.empty()) {
    return absl::InvalidArgumentError("nothing to make: give -o FILE for a trace or --profile FILE for a profile");
  }
  if (absl::Status free = CheckOutputs({arguments.profile}, arguments.force); !free.ok()) return free;
  if (!arguments.output.empty()) {
    if (absl::Status free = CheckOutput(arguments.output, arguments.force); !free.ok()) return free;
  }
  const auto profile = MakeProfile(arguments);
  if (!profile.ok()) return profile.status();
  if (!arguments.profile.empty()) {
    const absl::Status status = WriteOutput(arguments.profile, ProfileToJson(*profile), arguments.force);
    if (!status.ok()) return status;
  }
  return arguments.output.empty() ? absl::OkStatus() : Write(*profile, arguments);
}

}  // namespace

void AddSynth(CLI::App& program, int& status) {
  CLI::App* command = program.add_subcommand("synth", "Makes a trace from distributions or from a recorded trace's shape");
  auto arguments = std::make_shared<SynthArguments>();
  command->add_option("-o,--output", arguments->output, "Trace to write")->type_name("FILE");
  AddForceOption(*command, arguments->force);
  command->add_option("--events", arguments->events, "Allocator calls in the trace (default: the profile's, else 1M)")->type_name("COUNT");
  command->add_option("--seed", arguments->seed, "The same arguments and seed give the same bytes");
  CLI::Option* like = command->add_option("--like", arguments->like, "Fit sizes, lifetimes, threads and pace to this trace")
                          ->type_name("TRACE")->check(CLI::ExistingFile);
  command->add_option("--fit-phases", arguments->fit_phases, "Stretches that --like fits separately")->check(CLI::Range(1, 100));
  CLI::Option* from = command->add_option("--from-profile", arguments->from_profile, "Take the shape from this profile")
                          ->type_name("JSON")->check(CLI::ExistingFile);
  command->add_option("--profile", arguments->profile, "Write the shape as a profile")->type_name("JSON");
  like->excludes(from);
  for (CLI::Option* option : {
           command->add_option("--sizes", arguments->sizes, "Sizes in bytes (K, M: powers of 1024)")->capture_default_str()->type_name("DISTRIBUTION"),
           command->add_option("--lifetimes", arguments->lifetimes, "Lifetimes in allocations (K, M: powers of 1000)")->capture_default_str()->type_name("DISTRIBUTION"),
           command->add_option("--live", arguments->live, "Scale the lifetimes so that about so many objects are alive")->type_name("COUNT"),
           command->add_option("--calls", arguments->calls, "Allocation calls with alignments and weights")->capture_default_str()->type_name("LIST"),
           command->add_option("--realloc-share", arguments->realloc_share, "Lives that end by a realloc, not a free")->check(CLI::Range(0.0, 0.99)),
           command->add_option("--threads", arguments->threads, "Threads, all equally busy")->check(CLI::Range(1, 65535)),
           command->add_option("--run-calls", arguments->run_calls, "Mean calls a thread makes before another runs")->check(CLI::Range(1.0, 1e12)),
           command->add_option("--cross-thread-frees", arguments->cross_thread_frees, "Share of frees by another thread")->check(CLI::Range(0.0, 1.0)),
           command->add_option("--rate", arguments->rate, "Calls a second")->capture_default_str()->type_name("COUNT"),
           command->add_option("--growth", arguments->growth, "Bytes a day by which the live set grows")->type_name("BYTES"),
           command->add_option("--phase", arguments->phases, "EVENTS[:LIVE_SCALE[:RATE]]; several follow one another, then repeat")->type_name("PHASE"),
       }) {
    option->excludes(like)->excludes(from);
  }
  command->add_option("--time-resolution-ms", arguments->time_resolution_ms, "A time mark about this often")->check(CLI::Range(1, 1000000));
  command->add_option("--level", arguments->level, "Compression level of zstd; 1 is fastest")->check(CLI::Range(1, 19))->capture_default_str();
  AddMemoryLimit(*command, arguments->memory_limit_bytes);
  command->footer(
      "A DISTRIBUTION is 64, 16-4K (equally likely per octave), exponential/MEAN, lognormal/MEDIAN/SIGMA, or a\n"
      "list of these with weights.\n"
      "Examples:\n"
      "  heaptape synth -o big.tape --events 1000M                         a billion events\n"
      "  heaptape synth -o t.tape --sizes 16:60,64-1K:39,1M:1 --threads 8  chosen sizes, eight threads\n"
      "  heaptape synth -o leak.tape --events 50M --growth 1G              grows by 1 GiB a day\n"
      "  heaptape synth -o tide.tape --events 20M --phase 2M:1 --phase 500K:4  a live set that swells and ebbs\n"
      "  heaptape synth --like guard.tape --profile guard.json             a trace's shape, to be shared\n"
      "  heaptape synth --from-profile guard.json -o like_guard.tape       a trace of that shape");
  command->callback([arguments, &status] {
    const absl::Status result = Run(*arguments);
    status = result.ok() ? kExitDone : Fail(result);
  });
}

}  // namespace heaptape::commands
