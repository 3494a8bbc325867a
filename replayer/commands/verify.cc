// heaptape verify: is a trace whole, and what is lost if not.

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"
#include "replayer/commands/commands.h"
#include "replayer/commands/copy_trace.h"
#include "replayer/commands/interrupt.h"
#include "replayer/commands/memory_limit.h"
#include "replayer/commands/progress.h"
#include "replayer/export/external_text.h"
#include "replayer/export/format.h"
#include "traces/digest.h"
#include "traces/trace_reader.h"

namespace heaptape::commands {
namespace {

struct Arguments {
  std::string input;
  std::string format = "text";
  std::uint64_t memory_limit_bytes = 0;
};

// Recorded events that cannot be read.
struct Gap {
  std::uint64_t first_event, events, start_ns, end_ns;
};

// Reads everything. Returns the exit status.
absl::StatusOr<int> Verify(const Arguments& arguments) {
  auto opened = TraceReader::Open(arguments.input, LimitTo(arguments.memory_limit_bytes));
  if (!opened.ok()) return opened.status();
  TraceReader& reader = **opened;
  const TraceSummary& summary = reader.summary();
  const std::atomic<bool>& interrupted = StopOnInterrupt();
  EventDigest digest;
  std::uint64_t read = 0;
  std::vector<Gap> gaps;
  std::uint64_t next_event = 0, now_ns = 0;
  bool restored = false;
  {
    ProgressBoard board;
    const int bar = board.Add(arguments.input, summary.event_count, "events");
    while (true) {
      auto block = reader.Next();
      if (!block.ok()) return block.status();
      if (block->events.empty()) break;
      if (interrupted) return absl::CancelledError("interrupted");
      restored |= block->restored;
      if (block->restored && block->events.front().op == Op::kLost) {
        const std::uint64_t lost = block->events.front().size;
        // Behind the last gap there is no checkpoint that would say when it ends.
        const bool to_the_end = next_event + lost == summary.event_count;
        gaps.push_back({next_event, lost, now_ns, to_the_end ? summary.duration_ns : block->end_time_ns});
      }
      if (block->restored) {
        next_event = block->first_event;
        continue;
      }
      next_event = block->first_event + block->events.size();
      now_ns = block->end_time_ns;
      for (const Event& event : block->events) digest.Add(event);
      read += block->events.size();
      board.Update(bar, read);
    }
    for (const absl::Status& status : {reader.ReadResident().status(), reader.ReadTouched().status(),
                                       reader.ReadStacks().status(), reader.ReadModules().status()})
      if (!status.ok()) return status;
  }
  const bool same = restored || digest.state() == summary.event_digest;
  const std::uint64_t unreadable = summary.event_count - read;
  const bool good = reader.damage().empty() && unreadable == 0 && same;
  if (arguments.format == "json") {
    nlohmann::ordered_json json_gaps = nlohmann::ordered_json::array();
    for (const Gap& gap : gaps)
      json_gaps.push_back({{"first_event", gap.first_event}, {"events", gap.events}, {"start_ns", gap.start_ns}, {"end_ns", gap.end_ns}});
    nlohmann::ordered_json json = {{"schema_version", 1},
                                         {"trace", arguments.input},
                                         {"events", summary.event_count},
                                         {"events_readable", read},
                                         {"events_lost", summary.lost_events},
                                         {"blocks_repaired", summary.repaired_blocks},
                                         {"gaps", std::move(json_gaps)},
                                         {"blocks", summary.block_count},
                                         {"complete", summary.complete},
                                         {"has_index", summary.has_index},
                                         {"digest", summary.digest},
                                         {"digest_matches", same},
                                         {"damage", reader.damage()}};
    if (summary.unmatched_frees) {
      json["unknown_frees"] = summary.unmatched_frees->unknown;
      json["missed_frees"] = summary.unmatched_frees->missed;
    }
    std::printf("%s\n", JsonText(json).c_str());
    return good ? kExitDone : kExitFailed;
  }
  const std::string name = PlainText(arguments.input);
  for (const std::string& sentence : reader.damage()) std::printf("%s\n", PlainText(sentence).c_str());
  for (const Gap& gap : gaps)
    std::printf("%s: lost: %llu events from number %llu on, between %.3f s and %.3f s\n", name.c_str(),
                static_cast<unsigned long long>(gap.events), static_cast<unsigned long long>(gap.first_event),
                static_cast<double>(gap.start_ns) / 1e9, static_cast<double>(gap.end_ns) / 1e9);
  if (!same) std::printf("%s: the events are not those that were recorded\n", name.c_str());
  std::printf("%s: %llu blocks, %llu events of which %llu are readable", name.c_str(),
              static_cast<unsigned long long>(summary.block_count), static_cast<unsigned long long>(summary.event_count), static_cast<unsigned long long>(read));
  if (summary.lost_events > unreadable) std::printf("; %llu were lost while recording", static_cast<unsigned long long>(summary.lost_events - unreadable));
  std::printf("; %s\n", summary.ended_at_limit ? "ended at its size limit"
                        : !summary.complete    ? "not finished"
                        : unreadable != 0      ? "it had been finished"
                                               : "complete");
  if (summary.unmatched_frees && *summary.unmatched_frees != UnmatchedFrees()) {
    const UnmatchedFrees& frees = *summary.unmatched_frees;
    const bool hide_heap = frees.HideHeap(summary.event_count);
    std::printf("%s: %s\n", arguments.input.c_str(), (hide_heap ? MissingHeapSentence(frees) : FormatUnmatchedFrees(frees)).c_str());
  }
  return good ? kExitDone : kExitFailed;
}

}  // namespace

void AddVerify(CLI::App& program, int& status) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = program.add_subcommand("verify", "Check every byte of a trace and say what is lost");
  command->add_option("trace", arguments->input, "The trace file")->required();
  command->add_option("--format", arguments->format, "text or json")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  AddMemoryLimit(*command, arguments->memory_limit_bytes);
  command->footer(
      "Exits 0 if nothing is damaged (a recording that was killed may still be whole as far as it goes), else 1.\n"
      "What the recording did not see of the heap is said too, and is not damage.\n"
      "Examples:\n"
      "  heaptape verify guard.tape\n"
      "  heaptape verify --format json guard.tape | jq .damage");
  command->callback([arguments, &status] {
    const auto result = Verify(*arguments);
    status = result.ok() ? *result : Fail(result.status());
  });
}

}  // namespace heaptape::commands
