#include <sys/utsname.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "allocators/add.h"
#include "allocators/catalog.h"
#include "allocators/family.h"
#include "allocators/listing.h"
#include "allocators/specification.h"
#include "allocators/store.h"
#include "nlohmann/json.hpp"
#include "replayer/commands/commands.h"
#include "replayer/commands/interrupt.h"
#include "replayer/commands/output.h"
#include "replayer/commands/talk.h"
#include "replayer/export/external_text.h"
#include "replayer/export/text_table.h"
#include "traces/output_file.h"

namespace heaptape::commands {
namespace {

enum class Format { kTable, kJson, kMarkdown };

const std::map<std::string, Format> kFormats = {
    {"table", Format::kTable}, {"json", Format::kJson}, {"markdown", Format::kMarkdown}};

struct Arguments {
  Format format = Format::kTable;
  std::string cache_folder;
  bool update = false;
  bool no_check = false;
  std::string write_into;
  // add
  std::string what;
  std::string source, release, options, build, library;
  // tunables
  std::string family;
};

std::string CacheFolder(const Arguments& arguments) {
  return arguments.cache_folder.empty() ? DefaultCacheFolder() : arguments.cache_folder;
}

// --- list -------------------------------------------------------------------------------------------

Colour ColourOf(ListedAllocator::State state) {
  switch (state) {
    case ListedAllocator::State::kAvailable: return Colour::kDim;
    case ListedAllocator::State::kBroken: return Colour::kRed;
    default: return Colour::kNone;
  }
}

std::string ChecksText(const ListedAllocator& listed) {
  return listed.checks.empty() ? "" : ConformanceSummary(listed.checks);
}

TextTable Table(const Listing& listing) {
  TextTable table({{"Allocator", false, 9}, {"Version", false, 8}, {"State", false, 7}, {"From", false, 6}, {"Checks passed", false, 5}, {"To get it", false, 4}});
  for (const ListedAllocator& listed : listing.allocators) {
    const Colour colour = ColourOf(listed.state);
    table.AddRow({{listed.family, colour},
                  {listed.version.empty() ? "-" : listed.version, colour},
                  {StateName(listed.state), colour},
                  {listed.origin, colour},
                  {listed.problem.empty() ? ChecksText(listed) : listed.problem, colour},
                  {listed.state == ListedAllocator::State::kAvailable ? listed.command : "", colour}});
  }
  return table;
}

// A row of the document that is made of a listing names no place of this machine: a local --source becomes CLONE or FOLDER.
void LeaveOutPlaces(ListedAllocator& listed) {
  static constexpr char kOption[] = " --source ";
  const std::size_t option = listed.command.find(kOption);
  if (option == std::string::npos) return;
  const std::size_t begin = option + sizeof(kOption) - 1;
  const char end_mark = listed.command[begin] == '\'' ? '\'' : ' ';
  const std::size_t first = begin + (end_mark == '\'' ? 1 : 0);
  const std::size_t end = std::min(listed.command.find(end_mark, first), listed.command.size());
  const std::string source = listed.command.substr(first, end - first);
  if (source.find("://") != std::string::npos || source.rfind("debian:", 0) == 0) return;
  const bool clone = listed.origin.find("commit ") != std::string::npos;
  const std::size_t after = end_mark == '\'' ? std::min(end + 1, listed.command.size()) : end;
  listed.command.replace(begin, after - begin, clone ? "CLONE" : "FOLDER");
  if (const std::size_t at = listed.origin.find(source); at != std::string::npos) listed.origin.replace(at, source.size(), clone ? "CLONE" : "FOLDER");
}

// "Debian GNU/Linux 12 (bookworm)"
std::string SystemName() {
  std::ifstream release("/etc/os-release");
  for (std::string line; std::getline(release, line);) {
    if (line.rfind("PRETTY_NAME=\"", 0) == 0) return line.substr(13, line.size() - 14);
  }
  return "an unknown system";
}

// What is here, how it was obtained and where it stood the checks.
std::string Markdown(const Listing& listing) {
  TextTable table({{"Allocator", false, 9}, {"Version", false, 8}, {"State", false, 7}, {"From", false, 6}, {"Checks passed", false, 5}, {"Obtained by", false, 4}});
  for (ListedAllocator listed : listing.allocators) {
    if (listed.state == ListedAllocator::State::kAvailable) continue;
    LeaveOutPlaces(listed);
    table.AddRow({{listed.family},
                  {listed.version.empty() ? "-" : listed.version},
                  {StateName(listed.state)},
                  {listed.origin},
                  {listed.problem.empty() ? ChecksText(listed) : listed.problem},
                  {listed.command}});
  }
  utsname system{};
  uname(&system);
  return absl::StrCat("Obtained and checked on ", MarkdownText(SystemName()), ", ", system.sysname, " ", system.release, " ", system.machine, ", by heaptape ",
                      HEAPTAPE_VERSION, " (CLONE: a local clone of upstream's repository, FOLDER: its source in a folder):\n\n", table.Markdown());
}

// Puts `text` between the marks of the Markdown file `path`.
absl::Status WriteBetweenMarks(const std::string& path, const std::string& text) {
  std::ifstream file(path, std::ios::binary);
  std::string content(std::istreambuf_iterator<char>(file), {});
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  const std::size_t begin = content.find("<!-- allocators");
  const std::size_t from = begin == std::string::npos ? begin : content.find("-->\n", begin);
  const std::size_t to = content.find("<!-- /allocators -->");
  if (from == std::string::npos || to == std::string::npos || to < from) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": has no lines <!-- allocators --> and <!-- /allocators --> to write between; add them"));
  }
  content.replace(from + 4, to - from - 4, text + "\n");
  return WriteOutput(path, content, true);  // to change what lies between the marks is what was asked for
}

nlohmann::json ToJson(const Listing& listing) {
  nlohmann::json rows = nlohmann::json::array();
  for (const ListedAllocator& listed : listing.allocators) {
    nlohmann::json checks = nlohmann::json::array();
    for (const ConformanceCheck& check : listed.checks) {
      static constexpr const char* kOutcomes[] = {"passed", "failed", "absent"};
      checks.push_back({{"name", check.name}, {"outcome", kOutcomes[static_cast<int>(check.outcome)]}, {"detail", check.detail}});
    }
    rows.push_back({{"family", listed.family},
                    {"version", listed.version},
                    {"state", StateName(listed.state)},
                    {"origin", listed.origin},
                    {"library_path", listed.library_path},
                    {"build_id", listed.build_id},
                    {"command", listed.command},
                    {"problem", listed.problem},
                    {"checks", checks}});
  }
  nlohmann::json families = nlohmann::json::array();
  for (const Family* family : Families()) {
    nlohmann::json tunables = nlohmann::json::array();
    for (const Tunable& tunable : family->tunables) {
      tunables.push_back({{"name", tunable.name}, {"default", tunable.default_value}, {"meaning", tunable.meaning}});
    }
    families.push_back({{"name", family->name}, {"summary", family->summary}, {"statistics", family->statistics},
                        {"purge", family->purge}, {"caveat", family->caveat}, {"build", family->build}, {"tunables", tunables}});
  }
  return {{"schema_version", 1}, {"allocators", rows}, {"families", families}, {"debian_releases", listing.releases}, {"notes", listing.notes}};
}

int RunList(const Arguments& arguments) {
  if (absl::Status free = CheckOutputs({arguments.write_into}, true); !free.ok()) return Fail(free);
  const absl::StatusOr<Listing> listing = ListAllocators({.cache_folder = CacheFolder(arguments),
                                                          .update = arguments.update,
                                                          .conformance = !arguments.no_check,
                                                          .talk = TerminalForStdout().width > 0 ? heaptape::Talk(Tell) : nullptr,
                                                          .cancelled = &StopOnInterrupt()});
  if (!listing.ok()) return Fail(listing.status());
  std::string text;
  switch (arguments.format) {
    case Format::kTable: {
      const TerminalOptions terminal = TerminalForStdout();
      text = Table(*listing).Plain(0, terminal.colour);
      break;
    }
    case Format::kMarkdown:
      text = Markdown(*listing);
      break;
    case Format::kJson:
      text = JsonText(ToJson(*listing)) + "\n";
      break;
  }
  const absl::Status delivered = arguments.write_into.empty() ? Print(text) : WriteBetweenMarks(arguments.write_into, Markdown(*listing));
  if (!delivered.ok()) return Fail(delivered);
  for (const std::string& note : listing->notes) Tell(note);
  if (listing->releases.empty() && listing->notes.empty()) {
    Tell("what Debian's releases have is not known yet: `heaptape allocators list --update` asks the mirror");
  }
  return kExitDone;
}

// --- add --------------------------------------------------------------------------------------------

int RunAdd(const Arguments& arguments) {
  const absl::StatusOr<AllocatorSpecification> specification = ParseSpecification(arguments.what);
  if (!specification.ok()) return Fail(specification.status());
  if (!specification->path.empty()) {
    return Fail(absl::InvalidArgumentError(absl::StrCat(arguments.what, ": a library's path needs no adding; replay with --allocator ", arguments.what)));
  }
  if (!specification->tunables.empty() || specification->name == "all") {
    return Fail(absl::InvalidArgumentError(absl::StrCat("\"", arguments.what, "\" is not of the form NAME[@VERSION]")));
  }
  std::string command = absl::StrCat("heaptape allocators add ", arguments.what);
  for (const auto& [name, value] : {std::pair{"--release", arguments.release}, {"--source", arguments.source}, {"--options", arguments.options},
                                    {"--build", arguments.build}, {"--library", arguments.library}}) {
    if (!value.empty()) absl::StrAppend(&command, " ", name, " ", value.find(' ') == std::string::npos ? value : "'" + value + "'");
  }
  const absl::StatusOr<AddResult> added = AddAllocator({.family = specification->name,
                                                        .version = specification->version,
                                                        .release = arguments.release,
                                                        .source = arguments.source,
                                                        .build_commands = arguments.build,
                                                        .library = arguments.library,
                                                        .options = arguments.options,
                                                        .cache_folder = CacheFolder(arguments),
                                                        .command = command,
                                                        .talk = Tell,
                                                        .cancelled = &StopOnInterrupt()});
  if (!added.ok()) {
    if (absl::IsCancelled(added.status())) Tell("interrupted; nothing half-finished is left");
    return absl::IsCancelled(added.status()) ? kExitFailed : Fail(added.status());
  }
  const ResolvedAllocator& allocator = added->allocator;
  const std::string said = absl::StrCat(allocator.DisplayName(), added->was_there ? " is here already: " : " added: ", allocator.origin);
  return Print(PlainText(said) + "\n").ok() ? kExitDone : kExitFailed;
}

// --- tunables ---------------------------------------------------------------------------------------

int RunTunables(const Arguments& arguments) {
  const absl::StatusOr<const Family*> family = KnownFamily(arguments.family);
  if (!family.ok()) return Fail(family.status());
  TextTable table({{"Tunable", false, 3}, {"Default", false, 2}, {"Meaning", false, 1}});
  for (const Tunable& tunable : (*family)->tunables) table.AddRow({{tunable.name}, {tunable.default_value}, {tunable.meaning}});
  std::string text = absl::StrCat((*family)->name, ": ", (*family)->summary, "\n",
                                  "Own statistics: ", (*family)->statistics, "\n",
                                  "Purged by: ", (*family)->purge, "\n");
  if (!(*family)->caveat.empty()) absl::StrAppend(&text, "Beware: ", (*family)->caveat, "\n");
  absl::StrAppend(&text, "\n", table.empty() ? "It has no tunables.\n" : table.Plain(0, false));
  return Print(text).ok() ? kExitDone : kExitFailed;
}

}  // namespace

void AddAllocators(CLI::App& program, int& status) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = program.add_subcommand("allocators", "List the allocators here, and get others");
  command->require_subcommand(0, 1);
  const auto add_cache = [&arguments](CLI::App* to) {
    to->add_option("--cache", arguments->cache_folder, "Where obtained allocators lie (default: heaptape in $XDG_CACHE_HOME or ~/.cache)")
        ->type_name("FOLDER");
  };
  command->footer(
      "Examples:\n"
      "  heaptape allocators                                what is here\n"
      "  heaptape allocators list --update                  and what Debian's releases have\n"
      "  heaptape allocators add mimalloc@3.0.1             get one\n"
      "  heaptape allocators show mimalloc                  its tunables");

  CLI::App* list = command->add_subcommand("list", "What is here and what can be had, checked");
  add_cache(list);
  list->add_option("-f,--format", arguments->format, "What is printed (default: table)")
      ->transform(OneOf(kFormats))->type_name("table|json|markdown");
  list->add_flag("--update", arguments->update, "Ask the mirror what every Debian release has (about 10 MB each, once a day)");
  list->add_option("--write-into", arguments->write_into,
                   "Write what is here as a table into this Markdown file, between its lines <!-- allocators --> and <!-- /allocators -->")
      ->type_name("FILE");
  list->add_flag("--no-check", arguments->no_check, "Leave the conformance checks out");
  list->footer(
      "The checks are run once for each library and remembered. A library that fails some can still be replayed.\n"
      "Examples:\n"
      "  heaptape allocators list --update\n"
      "  heaptape allocators list --write-into allocators/README.md");
  list->callback([arguments, &status] { status = RunList(*arguments); });

  CLI::App* add = command->add_subcommand("add", "Get an allocator, without touching the system's libraries");
  add_cache(add);
  add->add_option("allocator", arguments->what, "Which one")->required()->type_name("NAME[@VERSION]");
  add->add_option("--release", arguments->release, "Take the package of this Debian release only (trixie, forky, ...)")->type_name("NAME");
  add->add_option("--source", arguments->source,
                  "Build it from this: a git URL or clone (the version is a tag, branch or commit), an archive, a folder, or "
                  "debian:PACKAGE[/FOLDER] for a Debian source package")
      ->type_name("WHERE");
  add->add_option("--options", arguments->options, "Added to the configuration of the build, e.g. -DMI_SECURE=ON")->type_name("TEXT");
  add->add_option("--build", arguments->build, "Shell commands in place of the family's own; $PREFIX and $JOBS are set")->type_name("COMMANDS");
  add->add_option("--library", arguments->library, "The library they make, as a glob")->type_name("GLOB");
  add->footer(
      "Packages are tried first, of the running Debian release and then of others, by an apt of its own from the\n"
      "machine's mirror; then copies in other source packages; then upstream's repository.\n"
      "Examples:\n"
      "  heaptape allocators add mimalloc@3.0.1\n"
      "  heaptape allocators add glibc@2.41\n"
      "  heaptape allocators add mimalloc@2.1.7 --source ~/src/mimalloc\n"
      "  heaptape allocators add jemalloc@5.3.0 --source jemalloc-5.3.0.tar.bz2 --options --enable-prof\n"
      "  heaptape allocators add mimalloc@3.6.0 --source debian:mimalloc --release forky");
  add->callback([arguments, &status] { status = RunAdd(*arguments); });

  CLI::App* show = command->add_subcommand("show", "A family's tunables, statistics and purge call");
  show->add_option("family", arguments->family, "Which one")->required()->type_name("NAME");
  show->footer("Example:\n  heaptape allocators show jemalloc");
  show->callback([arguments, &status] { status = RunTunables(*arguments); });

  // `heaptape allocators` alone lists.
  command->callback([command, arguments, &status] {
    if (command->get_subcommands().empty()) status = RunList(*arguments);
  });
}

}  // namespace heaptape::commands
