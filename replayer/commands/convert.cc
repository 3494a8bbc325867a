#include "replayer/commands/convert.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "replayer/commands/commands.h"
#include "replayer/commands/copy_trace.h"
#include "replayer/commands/interrupt.h"
#include "replayer/commands/memory_limit.h"
#include "replayer/commands/output.h"
#include "replayer/commands/talk.h"
#include "traces/convert/formats.h"
#include "traces/format.h"
#include "traces/output_file.h"

namespace heaptape::commands {
namespace {

struct Arguments {
  std::string input, output, from, to;
  std::uint64_t resolution_ns = 1'000'000;
  bool force = false;
  std::uint64_t memory_limit_bytes = 0;
};

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

absl::StatusOr<File> Open(const std::string& path) {
  if (path == "-") return File(stdin, [](std::FILE*) { return 0; });
  File file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (file == nullptr) return absl::UnavailableError(absl::StrCat(path, ": cannot open: ", std::strerror(errno)));
  return file;
}

std::string Names() {
  std::string names;
  for (const ForeignFormat* format : ForeignFormats()) absl::StrAppend(&names, names.empty() ? "" : ", ", format->name);
  return names;
}

absl::Status Import(const Arguments& arguments) {
  if (absl::Status free = CheckOutput(arguments.output, arguments.force); !free.ok()) return free;
  const std::string name = arguments.input == "-" ? "standard input" : arguments.input;
  auto file = Open(arguments.input);
  if (!file.ok()) return file.status();
  const std::atomic<bool>& interrupted = StopOnInterrupt();
  ByteReader in([&](std::span<std::uint8_t> out) -> std::size_t {
    return interrupted ? 0 : std::fread(out.data(), 1, out.size(), file->get());
  });
  const std::span<const std::uint8_t> head = in.Head(kForeignHeadBytes);
  const ForeignFormat* format = FindForeignFormat(arguments.from);
  if (format == nullptr) {
    for (const ForeignFormat* one : ForeignFormats())
      if (format == nullptr && one->recognise(head)) format = one;
  }
  if (format == nullptr) {
    const bool zip = head.size() > 2 && head[0] == 'P' && head[1] == 'K';
    return absl::InvalidArgumentError(absl::StrCat(name, zip ? ": a zip archive; unpack it first"
                                                             : ": of no known format; say which with --from: " + Names()));
  }

  TraceInfo info;
  info.time_resolution_ns = arguments.resolution_ns;
  info.heaptape_version = HEAPTAPE_VERSION;
  std::optional<NewTrace> trace;
  ImportedProgram program(info, [&](const TraceInfo& known) -> absl::StatusOr<TraceWriter*> {
    auto created = NewTrace::Create(arguments.output, arguments.force, known, PackedOptions(12));
    if (!created.ok()) return created.status();
    trace.emplace(*std::move(created));
    return &trace->writer();
  }, name, arguments.memory_limit_bytes);
  const absl::Status read = format->read(in, program);
  if (interrupted) return absl::CancelledError("interrupted");
  if (const absl::Status taken = program.Finish(); !taken.ok()) return taken;
  // What came before a damaged place makes a trace of its own.
  const std::uint64_t events = trace->writer().event_count();
  if (read.ok() || events > 0) {
    if (const absl::Status finished = trace->Finish(); !finished.ok()) return finished;
    for (const std::string& note : program.notes()) TellLine(absl::StrCat(name, ": ", note));
    TellLine(absl::StrCat(arguments.output, ": ", events, " events of ", format->title, "; not in it: ", format->read_loss));
  }
  if (read.ok()) return read;
  return absl::DataLossError(absl::StrCat(name, ": ", read.message(), events > 0 ? absl::StrCat("; ", arguments.output, " holds what came before") : ""));
}

absl::Status Export(const Arguments& arguments) {
  const ForeignFormat* format = FindForeignFormat(arguments.to);
  auto reader = TraceReader::Open(arguments.input, LimitTo(arguments.memory_limit_bytes));
  if (!reader.ok()) return reader.status();
  absl::StatusOr<OutputFile> file = OutputFile::Create(arguments.output == "-" ? "/dev/stdout" : arguments.output, arguments.force);
  if (!file.ok()) return file.status();
  const std::atomic<bool>& interrupted = StopOnInterrupt();
  std::vector<std::string> losses;
  const absl::Status done = format->write(**reader, [&](std::string_view text) {
    return !interrupted && file->Write(text);
  }, losses);
  for (const std::string& sentence : (*reader)->damage()) Tell(sentence);
  if (interrupted) return absl::CancelledError("interrupted");
  if (!done.ok()) return done;
  if (absl::Status finished = file->Finish(); !finished.ok()) return finished;
  if (!losses.empty()) {
    TellLine(absl::StrCat(arguments.output, ": left out, for ", format->name, " cannot hold it:"));
    for (const std::string& loss : losses) TellLine("  " + loss);
  }
  if (!(*reader)->loss().empty()) return absl::DataLossError(absl::StrCat(arguments.input, ": is damaged; ", arguments.output, " holds what is readable"));
  return absl::OkStatus();
}

bool IsTrace(const std::string& path) {
  auto file = Open(path);
  std::uint8_t magic[sizeof format::kFileMagic];
  return path != "-" && file.ok() && std::fread(magic, 1, sizeof magic, file->get()) == sizeof magic &&
         std::equal(std::begin(magic), std::end(magic), format::kFileMagic);
}

absl::Status Convert(const Arguments& arguments) {
  const bool is_trace = IsTrace(arguments.input);
  if (is_trace && arguments.to.empty())
    return absl::InvalidArgumentError(absl::StrCat(arguments.input, ": is a trace; say with --to what to make of it: ", Names()));
  if (!is_trace && !arguments.to.empty())
    return absl::InvalidArgumentError(absl::StrCat(arguments.input, ": not a heaptape trace; only those can be turned into ", arguments.to, ": make one of it first, without --to"));
  return is_trace ? Export(arguments) : Import(arguments);
}

}  // namespace

void AddConvert(CLI::App& program, int& status) {
  auto arguments = std::make_shared<Arguments>();
  std::vector<std::string> names;
  std::string list;
  for (const ForeignFormat* format : ForeignFormats()) {
    names.emplace_back(format->name);
    absl::StrAppend(&list, "  ", format->name, std::string(22 - std::strlen(format->name), ' '), format->title, "\n");
  }
  static const std::map<std::string, std::uint64_t> kUnits = {{"ns", 1}, {"us", 1000}, {"ms", 1'000'000}, {"s", 1'000'000'000}};
  CLI::App* command = program.add_subcommand("convert", "Make a trace of another tool's recording, or the other way");
  command->add_option("input", arguments->input, "A recording (gzip and zstd are unpacked), or a trace; - is the standard input")->required();
  command->add_option("-o,--output", arguments->output, "The file to write")->required();
  command->add_option("--from", arguments->from, "The recording's format (default: what it looks like)")->check(CLI::IsMember(names));
  command->add_option("--to", arguments->to, "The format to turn a trace into; -o - prints it")->check(CLI::IsMember(names));
  command->add_option("--time-resolution", arguments->resolution_ns, "Keep times in steps of this (default 1ms)")
      ->transform(CLI::AsNumberWithUnit(kUnits, CLI::AsNumberWithUnit::UNIT_REQUIRED, "TIME"))
      ->check(CLI::PositiveNumber);
  AddForceOption(*command, arguments->force);
  AddMemoryLimit(*command, arguments->memory_limit_bytes);
  command->footer(
      "What the other side cannot hold is said. Formats:\n" + list +
      "Examples:\n"
      "  heaptape convert heaptrack.cc1plus.raw.zst -o cc1plus.tape\n"
      "  heaptape convert --to android guard.tape -o guard.txt\n"
      "  heaptape convert --to heaptrack guard.tape -o - | zstd > guard.raw.zst");
  command->callback([arguments, &status] {
    if (const absl::Status done = Convert(*arguments); !done.ok()) status = Fail(done);
  });
}

}  // namespace heaptape::commands
