#include "replayer/commands/manual.h"

#include <algorithm>
#include <cctype>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "replayer/commands/commands.h"
#include "replayer/commands/output.h"
#include "traces/output_file.h"

namespace heaptape::commands {
namespace {

// Options and commands in the empty group are hidden from --help, and so from here.
bool Shown(const CLI::Option* option) { return !option->get_group().empty(); }

std::vector<const CLI::App*> ShownCommands(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App* command) { return !command->get_group().empty(); });
}

std::vector<const CLI::Option*> ShownOptions(const CLI::App& app) {
  return app.get_options([](const CLI::Option* option) { return Shown(option); });
}

// Calls `visit(path, app)` for each command and, below it, its own: ("lab up", app).
void EachCommand(const CLI::App& app, const std::string& prefix,
                 const std::function<void(const std::string&, const CLI::App&)>& visit) {
  for (const CLI::App* command : ShownCommands(app)) {
    const std::string path = prefix.empty() ? command->get_name() : prefix + " " + command->get_name();
    visit(path, *command);
    EachCommand(*command, path, visit);
  }
}

std::vector<std::string> Flags(const CLI::Option& option) {
  std::vector<std::string> flags;
  for (const std::string& name : option.get_snames()) flags.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) flags.push_back("--" + name);
  return flags;
}

std::string FirstLine(const std::string& text) { return text.substr(0, text.find('\n')); }

// Text for roff: no line may begin with a control character, and backslashes and dashes are literal.
std::string Roff(const std::string& text) {
  std::string out;
  bool line_start = true;
  for (const char c : text) {
    if (line_start && (c == '.' || c == '\'')) out += "\\&";
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else {
      out += c;
    }
    line_start = c == '\n';
  }
  return out;
}

void ManOptions(std::ostringstream& out, const CLI::App& app) {
  for (const CLI::Option* option : ShownOptions(app)) {
    out << ".TP\n";
    const std::vector<std::string> flags = Flags(*option);
    if (flags.empty()) {
      out << "\\fI" << Roff(option->get_name(true)) << "\\fR\n";
    } else {
      for (std::size_t i = 0; i < flags.size(); ++i) out << (i ? ", " : "") << "\\fB" << Roff(flags[i]) << "\\fR";
      if (option->get_items_expected_max() > 0) out << " \\fI" << Roff(option->get_type_name()) << "\\fR";
      out << "\n";
    }
    out << Roff(option->get_description());
    if (!option->get_default_str().empty()) out << " (default: " << Roff(option->get_default_str()) << ")";
    out << "\n";
  }
}

void ManExamples(std::ostringstream& out, const std::string& footer) {
  if (footer.empty()) return;
  out << ".PP\n.nf\n" << Roff(footer) << (footer.back() == '\n' ? "" : "\n") << ".fi\n";
}

void ManExamplesSection(std::ostringstream& out, const std::string& footer) {
  if (footer.empty()) return;
  out << ".SH EXAMPLES\n";
  // The section's heading says it already.
  ManExamples(out, footer.rfind("Example", 0) == 0 ? footer.substr(footer.find('\n') + 1) : footer);
}

std::string ShellQuoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'') {
      out += "'\\''";
    } else {
      out += c;
    }
  }
  return out + "'";
}

std::string Join(const std::vector<std::string>& words, const char* separator) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : separator) + word;
  return out;
}

std::vector<std::string> AllFlags(const CLI::App& app) {
  std::vector<std::string> flags;
  for (const CLI::Option* option : ShownOptions(app)) {
    for (const std::string& flag : Flags(*option)) flags.push_back(flag);
  }
  return flags;
}

std::vector<std::string> CommandNames(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : ShownCommands(app)) names.push_back(command->get_name());
  return names;
}

}  // namespace

namespace {

std::string PageName(const CLI::App& program, const CLI::App* command) {
  return command == nullptr ? program.get_name() : program.get_name() + "-" + command->get_name();
}

void ManHead(std::ostringstream& out, const std::string& name, const std::string& synopsis, const std::string& description) {
  std::string upper = name, brief = FirstLine(description);
  std::transform(upper.begin(), upper.end(), upper.begin(), [](unsigned char c) { return std::toupper(c); });
  // As `whatis` shows it: no sentence.
  if (!brief.empty() && brief.back() == '.') brief.pop_back();
  if (!brief.empty()) brief[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(brief[0])));
  out << ".TH " << Roff(upper) << " 1 \"\" \"heaptape " HEAPTAPE_VERSION "\" \"User Commands\"\n"
      << ".SH NAME\n" << Roff(name) << " \\- " << Roff(brief) << "\n"
      << ".SH SYNOPSIS\n" << synopsis << "\n"
      << ".SH DESCRIPTION\n" << Roff(description) << "\n";
}

void ManTail(std::ostringstream& out, const CLI::App& program, const CLI::App* command) {
  out << ".SH EXIT STATUS\n"
         "0 done; 1 failed; 2 wrong usage; 3 a threshold was exceeded. \\fBheaptape record\\fR returns the\n"
         "recorded program's own status.\n"
         ".SH ENVIRONMENT\n.TP\n\\fBNO_COLOR\\fR\nNo colour, whatever the terminal can do.\n"
         ".TP\n\\fBXDG_CACHE_HOME\\fR\nWhere allocators that were built or unpacked, and finished replays, are kept\n"
         "(default: ~/.cache).\n"
         ".SH SEE ALSO\n";
  std::vector<std::string> pages;
  if (command != nullptr) pages.push_back("\\fB" + Roff(PageName(program, nullptr)) + "\\fR(1)");
  for (const CLI::App* other : ShownCommands(program)) {
    if (other != command) pages.push_back("\\fB" + Roff(PageName(program, other)) + "\\fR(1)");
  }
  out << Join(pages, ",\n") << "\n.PP\nThe documents in /usr/share/doc/heaptape; messages.md explains the messages.\n";
}

std::string Synopsis(const CLI::App& program, const CLI::App& command) {
  std::string out = ".B " + Roff(program.get_name() + " " + command.get_name());
  if (!ShownCommands(command).empty()) out += "\n\\fICOMMAND\\fR";
  out += "\n[\\fIOPTION\\fR]...";
  for (const CLI::Option* option : ShownOptions(command)) {
    if (!Flags(*option).empty()) continue;
    const std::string name = "\\fI" + Roff(option->get_name(true)) + "\\fR";
    const std::string many = option->get_items_expected_max() > 1 ? "..." : "";
    absl::StrAppend(&out, "\n", option->get_required() ? name : absl::StrCat("[", name, "]"), many);
  }
  return out;
}

}  // namespace

std::string ManPage(const CLI::App& program) {
  std::ostringstream out;
  ManHead(out, PageName(program, nullptr), ".B heaptape\n\\fICOMMAND\\fR [\\fIOPTION\\fR]...", program.get_description());
  ManOptions(out, program);
  out << ".SH COMMANDS\n";
  for (const CLI::App* command : ShownCommands(program)) {
    out << ".TP\n\\fB" << Roff(PageName(program, command)) << "\\fR(1)\n" << Roff(FirstLine(command->get_description())) << "\n";
  }
  ManExamplesSection(out, program.get_footer());
  ManTail(out, program, nullptr);
  return out.str();
}

std::string ManPage(const CLI::App& program, const CLI::App& command) {
  std::ostringstream out;
  ManHead(out, PageName(program, &command), Synopsis(program, command), command.get_description());
  out << ".SH OPTIONS\n";
  ManOptions(out, command);
  if (!ShownCommands(command).empty()) out << ".SH COMMANDS\n";
  EachCommand(command, command.get_name(), [&](const std::string& path, const CLI::App& part) {
    out << ".SS \"heaptape " << Roff(path) << "\"\n" << Roff(part.get_description()) << "\n";
    ManOptions(out, part);
    ManExamples(out, part.get_footer());
  });
  ManExamplesSection(out, command.get_footer());
  ManTail(out, program, &command);
  return out.str();
}

std::string BashCompletion(const CLI::App& program) {
  std::ostringstream out;
  out << "# bash completion for heaptape\n"
         "_heaptape() {\n"
         "  local current=${COMP_WORDS[COMP_CWORD]} path= word\n"
         "  for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
         "    [[ $word == -- ]] && { COMPREPLY=($(compgen -c -f -- \"$current\")); return; }\n"
         "    [[ $word == -* ]] || case \"$path $word\" in\n";
  std::vector<std::string> paths;
  EachCommand(program, "", [&](const std::string& path, const CLI::App&) { paths.push_back("' " + path + "'"); });
  out << "      " << Join(paths, "|") << ") path=\"$path $word\" ;;\n"
      << "    esac\n  done\n"
         "  local words=\n  case $path in\n";
  EachCommand(program, "", [&](const std::string& path, const CLI::App& command) {
    out << "    ' " << path << "') words=" << ShellQuoted(Join(CommandNames(command), " ") + " " + Join(AllFlags(command), " "))
        << " ;;\n";
  });
  out << "    *) words=" << ShellQuoted(Join(CommandNames(program), " ") + " " + Join(AllFlags(program), " ")) << " ;;\n"
      << "  esac\n"
         "  COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
         "  [[ $current == -* || -z $path ]] || COMPREPLY+=($(compgen -f -- \"$current\"))\n"
         "}\n"
         "complete -o filenames -F _heaptape heaptape\n";
  return out.str();
}

std::string ZshCompletion(const CLI::App& program) {
  std::ostringstream out;
  const auto describe = [](const std::string& text) {
    std::string line = FirstLine(text);
    // A colon separates the word from its description.
    std::replace(line.begin(), line.end(), ':', ' ');
    return line;
  };
  const auto words = [&](const CLI::App& app) {
    std::vector<std::string> entries;
    for (const CLI::App* command : ShownCommands(app)) {
      entries.push_back(ShellQuoted(command->get_name() + ":" + describe(command->get_description())));
    }
    for (const CLI::Option* option : ShownOptions(app)) {
      for (const std::string& flag : Flags(*option)) {
        entries.push_back(ShellQuoted(flag + ":" + describe(option->get_description())));
      }
    }
    return Join(entries, " ");
  };
  out << "#compdef heaptape\n"
         // Not `path`: zsh ties that name to PATH.
         "local chosen= word\nlocal -a entries\n"
         "for word in ${words[2,CURRENT-1]}; do\n"
         "  [[ $word == -- ]] && { _normal; return }\n"
         "  [[ $word == -* ]] || case \"$chosen $word\" in\n";
  std::vector<std::string> paths;
  EachCommand(program, "", [&](const std::string& path, const CLI::App&) { paths.push_back("' " + path + "'"); });
  out << "    " << Join(paths, "|") << ") chosen=\"$chosen $word\" ;;\n  esac\ndone\ncase $chosen in\n";
  EachCommand(program, "", [&](const std::string& path, const CLI::App& command) {
    out << "  ' " << path << "') entries=(" << words(command) << ") ;;\n";
  });
  out << "  *) entries=(" << words(program) << ") ;;\nesac\n"
      << "_describe heaptape entries\n[[ -z $chosen ]] || _files\n";
  return out.str();
}

std::string FishCompletion(const CLI::App& program) {
  std::ostringstream out;
  out << "# fish completion for heaptape\n";
  const auto options = [&](const CLI::App& app, const std::string& condition) {
    for (const CLI::Option* option : ShownOptions(app)) {
      if (Flags(*option).empty()) continue;
      out << "complete -c heaptape" << condition;
      for (const std::string& name : option->get_snames()) out << " -s " << name;
      for (const std::string& name : option->get_lnames()) out << " -l " << name;
      if (option->get_items_expected_max() > 0) out << " -r";
      out << " -d " << ShellQuoted(FirstLine(option->get_description())) << "\n";
    }
  };
  const auto subcommands = [&](const CLI::App& app, const std::string& condition) {
    for (const CLI::App* command : ShownCommands(app)) {
      out << "complete -c heaptape -f" << condition << " -a " << command->get_name() << " -d "
          << ShellQuoted(FirstLine(command->get_description())) << "\n";
    }
  };
  subcommands(program, " -n __fish_use_subcommand");
  options(program, " -n __fish_use_subcommand");
  EachCommand(program, "", [&](const std::string& path, const CLI::App& command) {
    const std::string condition = " -n '__fish_seen_subcommand_from " + path.substr(path.rfind(' ') + 1) + "'";
    subcommands(command, condition);
    options(command, condition);
  });
  return out.str();
}

absl::Status WriteManPages(const CLI::App& program, const std::string& folder, bool force) {
  absl::Status status = WriteOutput(folder + "/" + PageName(program, nullptr) + ".1", ManPage(program), force);
  for (const CLI::App* command : ShownCommands(program)) {
    if (status.ok()) status = WriteOutput(folder + "/" + PageName(program, command) + ".1", ManPage(program, *command), force);
  }
  return status;
}

void AddManual(CLI::App& program, int& status) {
  CLI::App* command = program.add_subcommand("manual", "Writes the man pages, or prints a shell's completions");
  command->group("");  // hidden
  auto kind = std::make_shared<std::string>();
  auto folder = std::make_shared<std::string>();
  command->add_option("kind", *kind, "man, bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"man", "bash", "zsh", "fish"}));
  command->add_option("folder", *folder, "Where the man pages are written to")->check(CLI::ExistingDirectory);
  auto force = std::make_shared<bool>(false);
  AddForceOption(*command, *force);
  command->callback([&program, &status, kind, folder, force] {
    absl::Status done;
    if (*kind == "man") {
      done = folder->empty() ? Print(ManPage(program)) : WriteManPages(program, *folder, *force);
    } else {
      done = Print(*kind == "bash" ? BashCompletion(program) : *kind == "zsh" ? ZshCompletion(program) : FishCompletion(program));
    }
    status = done.ok() ? kExitDone : Fail(done);
  });
}

}  // namespace heaptape::commands
