// heaptape join: the segments of one recording as one trace.

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "replayer/commands/commands.h"
#include "replayer/commands/copy_trace.h"
#include "replayer/commands/memory_limit.h"
#include "replayer/commands/output.h"
#include "replayer/commands/talk.h"
#include "replayer/export/format.h"
#include "traces/output_file.h"

namespace heaptape::commands {
namespace {

struct Arguments {
  std::vector<std::string> inputs;
  std::string output;
  bool force = false;
  std::uint64_t memory_limit_bytes = 0;
};

struct Segment {
  std::string path;
  std::unique_ptr<TraceReader> reader;

  std::uint64_t number() const { return reader->info().segment_number; }
};

// Whatever the segments of one recording have in common.
TraceInfo RecordingOf(const Segment& segment) {
  TraceInfo info = segment.reader->info();
  info.ForgetSegment();
  return info;
}

absl::Status Join(const Arguments& arguments) {
  if (absl::Status free = CheckOutput(arguments.output, arguments.force); !free.ok()) return free;
  std::vector<Segment> segments;
  for (const std::string& path : arguments.inputs) {
    auto reader = TraceReader::Open(path, LimitTo(arguments.memory_limit_bytes, kJoinBytes));
    if (!reader.ok()) return reader.status();
    segments.push_back({path, *std::move(reader)});
  }
  std::sort(segments.begin(), segments.end(), [](const Segment& a, const Segment& b) { return a.number() < b.number(); });
  for (std::size_t i = 1; i < segments.size(); ++i) {
    const Segment& before = segments[i - 1];
    const Segment& segment = segments[i];
    if (RecordingOf(segment) != RecordingOf(before))
      return absl::InvalidArgumentError(absl::StrCat(segment.path, ": is no segment of the recording that ", before.path,
                                                     " is of; name the segments of one recording (heaptape inspect shows what each is of)"));
    if (before.number() == 0)
      return absl::InvalidArgumentError(absl::StrCat(before.path, ": is a whole recording, no segment of one; name segments (heaptape inspect shows what each is)"));
    if (segment.number() == before.number())
      return absl::InvalidArgumentError(absl::StrCat(segment.path, ": is segment ", segment.number(), " of a recording, as ", before.path,
                                                     " is; name the segments of one recording, each once"));
    if (segment.number() != before.number() + 1)
      return absl::InvalidArgumentError(absl::StrCat(segment.path, ": is segment ", segment.number(), ", and ", before.path, " is ", before.number(),
                                                     ": those between them are missing. Name them too, or join what lies before and after by itself"));
  }
  std::vector<TraceReader*> readers;
  readers.reserve(segments.size());
  TraceWriterOptions options = PackedOptions(12);
  for (const Segment& segment : segments) {
    readers.push_back(segment.reader.get());
    options.expected_events += segment.reader->summary().event_count;
  }
  TraceInfo info = segments[0].reader->info();
  info.segment_number = 0;
  std::size_t at = 0;
  const absl::Status joined = JoinTraces(readers, arguments.output, arguments.force, info, options, &at);
  if (absl::IsFailedPrecondition(joined) && at > 0)
    return absl::FailedPreconditionError(absl::StrCat(segments[at].path, ": does not go on where ", segments[at - 1].path, " ends (", joined.message(),
                                                      "), so one of the two is damaged there: heaptape verify says which. Join those before and those from here on by themselves"));
  if (!joined.ok()) return joined;
  auto whole = TraceReader::Open(arguments.output, LimitTo(arguments.memory_limit_bytes));
  if (!whole.ok()) return whole.status();
  const TraceSummary& summary = (*whole)->summary();
  TellLine(absl::StrCat(arguments.output, ": ", segments.size(), " segments, ", FormatCount(summary.event_count), " events in ",
                        FormatDuration(summary.duration_ns)));
  return absl::OkStatus();
}

}  // namespace

void AddJoin(CLI::App& program, int& status) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = program.add_subcommand("join", "Make one trace of a recording's segments");
  command->add_option("traces", arguments->inputs, "The segments, in any order")->required();
  command->add_option("-o,--output", arguments->output, "The file to write")->required();
  AddForceOption(*command, arguments->force);
  AddMemoryLimit(*command, arguments->memory_limit_bytes);
  command->footer(
      "Segments are what `heaptape record --segment-time`, `--segment-size` and `--service` write. Where the oldest are gone\n"
      "the trace begins with what was alive then.\n"
      "Examples:\n"
      "  heaptape join /var/lib/heaptape/tor@default-20261127T080000Z.*.tape -o guard.tape\n"
      "  heaptape join guard.0001.tape guard.0002.tape guard.0003.tape.part -o guard.tape");
  command->callback([arguments, &status] {
    if (const absl::Status done = Join(*arguments); !done.ok()) status = Fail(done);
  });
}

}  // namespace heaptape::commands
