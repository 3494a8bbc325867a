#include "recorder/service.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <optional>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "recorder/launch.h"

namespace heaptape {
namespace {

namespace fs = std::filesystem;

constexpr char kFolder[] = "heaptape";  // below /var/lib
constexpr char kBegin[] = "  # heaptape: begin (written by heaptape record --service)\n";
constexpr char kEnd[] = "  # heaptape: end\n";

std::optional<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  return std::string(std::istreambuf_iterator<char>(file), {});
}

absl::Status WriteFile(const std::string& path, const std::string& content) {
  std::error_code error;
  fs::create_directories(fs::path(path).parent_path(), error);
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << content;
  file.close();
  if (!file) return absl::PermissionDeniedError(absl::StrCat(path, ": cannot be written. Run this as root."));
  return absl::OkStatus();
}

std::string WithoutBlock(const std::string& text) {
  const std::size_t begin = text.find(kBegin);
  if (begin == std::string::npos) return text;
  const std::size_t end = text.find(kEnd, begin);
  if (end == std::string::npos) return text;
  return text.substr(0, begin) + text.substr(end + std::strlen(kEnd));
}

// The last value of a key in a unit's text; lines that begin with the key only.
std::string LastValue(const std::string& text, const std::string& key) {
  std::istringstream lines(text);
  std::string line, value;
  while (std::getline(lines, line)) {
    if (absl::StartsWith(line, key + "=") && line.size() > key.size() + 1) value = line.substr(key.size() + 1);
  }
  return value;
}

// The setting of the unit that hides the file from it, or nothing.
std::string HiddenBy(const std::string& text, const std::string& path) {
  const auto within = [&path](std::initializer_list<const char*> folders) {
    return std::any_of(folders.begin(), folders.end(), [&path](const char* folder) { return absl::StartsWith(path, folder); });
  };
  const auto set = [&text](const char* key) {
    const std::string value = LastValue(text, key);
    return value == "yes" || value == "true" || value == "on" || value == "1" || value == "tmpfs";
  };
  if (within({"/home/", "/root/", "/run/user/"}) && set("ProtectHome")) return "ProtectHome";
  if (within({"/tmp/", "/var/tmp/"}) && set("PrivateTmp")) return "PrivateTmp";
  return "";
}

// What the unit preloads already, e.g. another allocator: ours goes before it.
std::string ExistingPreload(const std::string& text) {
  std::istringstream lines(text);
  std::string line, value;
  while (std::getline(lines, line)) {
    if (!absl::StartsWith(line, "Environment=")) continue;
    const std::size_t at = line.find("LD_PRELOAD=");
    if (at == std::string::npos) continue;
    const bool quoted = line.find('"') < at;
    const std::size_t start = at + std::strlen("LD_PRELOAD=");
    value = line.substr(start, line.find_first_of(quoted ? "\"" : " \t", start) - start);
  }
  return value;
}

}  // namespace

absl::StatusOr<ServicePlan> PlanService(const ServiceOptions& options) {
  const std::string name(absl::StripSuffix(options.unit, ".service"));
  if (name.empty() || name.find('/') != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat(options.unit, ": not the name of a unit. Give one like tor@default."));
  }
  ServicePlan plan;
  std::vector<std::string> names = {name};
  if (const std::size_t at = name.find('@'); at != std::string::npos) names.push_back(name.substr(0, at + 1));
  std::string text;
  for (const std::string& unit : names) {
    for (const char* folder : {"/etc/systemd/system/", "/run/systemd/system/", "/usr/lib/systemd/system/", "/lib/systemd/system/"}) {
      const std::string path = absl::StrCat(options.root, folder, unit, ".service");
      if (const std::optional<std::string> found = ReadFile(path)) {
        plan.unit_path = path;
        text = *found;
        break;
      }
    }
    if (!plan.unit_path.empty()) break;
  }
  if (plan.unit_path.empty()) {
    return absl::NotFoundError(absl::StrCat(name, ".service: no such unit. See systemctl list-units for its name."));
  }
  const std::string drop_in_folder = absl::StrCat(options.root, "/etc/systemd/system/", name, ".service.d");
  plan.drop_in_path = drop_in_folder + "/heaptape.conf";
  std::error_code error;
  std::vector<std::string> others;
  for (const auto& entry : fs::directory_iterator(drop_in_folder, error)) {
    if (entry.path().extension() == ".conf" && entry.path() != plan.drop_in_path) others.push_back(entry.path().string());
  }
  std::sort(others.begin(), others.end());
  for (const std::string& path : others) absl::StrAppend(&text, "\n", ReadFile(path).value_or(""));

  std::string command = LastValue(text, "ExecStart");
  command.erase(0, command.find_first_not_of("-@:+! \t"));
  const std::string program = command.substr(0, command.find_first_of(" \t"));
  if (!absl::StartsWith(program, "/")) {
    return absl::FailedPreconditionError(absl::StrCat(plan.unit_path, ": has no ExecStart= with the path of a program to record. Name a unit that starts one."));
  }
  if (const std::string setting = HiddenBy(text, options.preload_path); !setting.empty()) {
    plan.warning = absl::StrCat(options.preload_path, ": the unit cannot see it (", setting, "= in ", plan.unit_path,
                                "), so it would run unrecorded. Install heaptape, e.g. by its package, and use that one.");
  }
  const std::string others_preload = ExistingPreload(text);
  plan.drop_in = absl::StrCat(
      "# Written by: heaptape record --service ", name, " --install\n"
      "# Removed by: heaptape record --service ", name, " --remove\n"
      "[Service]\n"
      "StateDirectory=", kFolder, "\n"
      "StateDirectoryMode=0700\n"
      "Environment=\"LD_PRELOAD=", options.preload_path, others_preload.empty() ? "" : ":", others_preload, "\"\n"
      "# Of all commands of the unit only this program is recorded, and not when it only checks its configuration.\n"
      "Environment=\"HEAPTAPE_PROGRAM=", program, "\"\n"
      "Environment=\"HEAPTAPE_UNLESS_ARGUMENT=--verify-config\"\n"
      "Environment=\"HEAPTAPE_OUTPUT=/var/lib/", kFolder, "/", name, "-%%t.tape\"\n"
      "Environment=\"HEAPTAPE_OPTIONS=", FormatOptions(options.recorder), "\"\n");

  std::string profile = LastValue(text, "AppArmorProfile");
  if (absl::StartsWith(profile, "-")) profile.erase(0, 1);
  if (!profile.empty() && profile != "unconfined" && profile.find('/') == std::string::npos) {
    const std::string parts = fs::path(options.preload_path).parent_path().string();
    plan.apparmor_path = absl::StrCat(options.root, "/etc/apparmor.d/local/", profile);
    plan.apparmor_rules = absl::StrCat(kBegin,
        "  ", parts, "/*.so mr,\n"
        "  /var/lib/", kFolder, "/ r,\n"
        "  owner /var/lib/", kFolder, "/** rwk,\n"
        "  @{PROC}/@{pid}/{maps,pagemap,smaps,stat,statm,status} r,\n"
        "  @{PROC}/@{pid}/task/{,**} r,\n"
        "  owner @{PROC}/@{pid}/oom_score_adj w,\n"
        "  /sys/kernel/mm/transparent_hugepage/enabled r,\n"
        "  ptrace (read) peer=", profile, ",\n", kEnd);
    plan.next_commands.push_back(absl::StrCat("apparmor_parser -r /etc/apparmor.d/", profile));
  }
  plan.next_commands.push_back("systemctl daemon-reload");
  plan.next_commands.push_back(absl::StrCat("systemctl restart ", name, ".service"));
  return plan;
}

absl::Status InstallService(const ServicePlan& plan) {
  if (!plan.apparmor_path.empty()) {
    std::string local = WithoutBlock(ReadFile(plan.apparmor_path).value_or(""));
    if (!local.empty() && local.back() != '\n') local += '\n';
    if (absl::Status status = WriteFile(plan.apparmor_path, local + plan.apparmor_rules); !status.ok()) return status;
  }
  return WriteFile(plan.drop_in_path, plan.drop_in);
}

absl::Status RemoveService(const ServicePlan& plan) {
  std::error_code error;
  if (!fs::remove(plan.drop_in_path, error)) {
    if (error) return absl::PermissionDeniedError(absl::StrCat(plan.drop_in_path, ": cannot be removed. Run this as root."));
    return absl::NotFoundError(absl::StrCat(plan.drop_in_path, ": not there, so nothing is to be removed. See systemctl cat for other drop-ins of the unit."));
  }
  fs::remove(fs::path(plan.drop_in_path).parent_path(), error);  // if it was ours alone
  if (plan.apparmor_path.empty()) return absl::OkStatus();
  const std::optional<std::string> local = ReadFile(plan.apparmor_path);
  if (!local || WithoutBlock(*local) == *local) return absl::OkStatus();
  return WriteFile(plan.apparmor_path, WithoutBlock(*local));
}

}  // namespace heaptape
