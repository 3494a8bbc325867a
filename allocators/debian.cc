#include "allocators/debian.h"

#include <cctype>
#include <cstddef>
#include <fstream>
#include <string>

namespace heaptape {
namespace {

constexpr char kDpkg[] = "/var/lib/dpkg";

bool HasLine(std::istream& text, const std::string& wanted) {
  for (std::string line; std::getline(text, line);) {
    if (line == wanted) return true;
  }
  return false;
}

}  // namespace

std::map<std::string, std::string> ParseDpkgStatus(std::istream& status) {
  std::map<std::string, std::string> installed;
  std::string package, version;
  bool is_installed = false;
  const auto finish = [&] {
    if (is_installed && !package.empty()) installed[package] = version;
    package.clear();
    version.clear();
    is_installed = false;
  };
  for (std::string line; std::getline(status, line);) {
    if (line.empty()) finish();
    if (line.rfind("Package: ", 0) == 0) package = line.substr(9);
    if (line.rfind("Version: ", 0) == 0) version = line.substr(9);
    if (line == "Status: install ok installed" || line == "Status: hold ok installed") is_installed = true;
  }
  finish();
  return installed;
}

InstalledPackage PackageOfFile(const std::string& path, const std::vector<std::string>& candidates) {
  static const std::map<std::string, std::string> installed = [] {
    std::ifstream status(std::string(kDpkg) + "/status");
    return ParseDpkgStatus(status);
  }();
  // With /lib a link to /usr/lib a package may list either.
  const std::string without_usr = path.rfind("/usr/", 0) == 0 ? path.substr(4) : path;
  for (const std::string& name : candidates) {
    const auto found = installed.find(name);
    if (found == installed.end()) continue;
    for (const char* form : {":amd64.list", ".list"}) {
      for (const std::string& listed : {path, without_usr}) {
        std::ifstream list(std::string(kDpkg) + "/info/" + name + form);
        if (list && HasLine(list, listed)) return {name, found->second};
      }
    }
  }
  return {};
}

std::string UpstreamVersion(const std::string& debian_version) {
  std::string version = debian_version;
  if (const std::size_t colon = version.find(':'); colon != std::string::npos) version.erase(0, colon + 1);
  if (const std::size_t dash = version.rfind('-'); dash != std::string::npos) version.resize(dash);
  if (const std::size_t mark = version.find_first_of("+~"); mark != std::string::npos) version.resize(mark);
  return version;
}

bool VersionAnswers(const std::string& version, const std::string& wanted) {
  if (wanted.empty() || version == wanted) return true;
  return version.size() > wanted.size() && version.compare(0, wanted.size(), wanted) == 0 &&
         std::isdigit(static_cast<unsigned char>(version[wanted.size()])) == 0;
}

int CompareVersions(const std::string& left, const std::string& right) {
  std::size_t i = 0, j = 0;
  const auto is_digit = [](char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; };
  while (i < left.size() || j < right.size()) {
    if (i < left.size() && j < right.size() && is_digit(left[i]) && is_digit(right[j])) {
      const auto number = [&is_digit](const std::string& text, std::size_t& at) {
        while (at < text.size() && text[at] == '0') ++at;
        const std::size_t begin = at;
        while (at < text.size() && is_digit(text[at])) ++at;
        return text.substr(begin, at - begin);
      };
      const std::string a = number(left, i), b = number(right, j);
      if (a.size() != b.size()) return a.size() < b.size() ? -1 : 1;
      if (const int order = a.compare(b); order != 0) return order;
      continue;
    }
    const int a = i < left.size() ? static_cast<unsigned char>(left[i]) : -1;
    const int b = j < right.size() ? static_cast<unsigned char>(right[j]) : -1;
    if (a != b) return a - b;
    ++i;
    ++j;
  }
  return 0;
}

}  // namespace heaptape
