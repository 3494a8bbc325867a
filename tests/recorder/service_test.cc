// The drop-in and the AppArmor rule, made from the unit and profile files that Debian's tor package installs.

#include "recorder/service.h"

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/recorder/recorded_program.h"

namespace heaptape {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

void Write(const std::string& path, const std::string& text) {
  fs::create_directories(fs::path(path).parent_path());
  std::ofstream(path) << text;
}

std::string Read(const std::string& path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

class Service : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* file : {"/lib/systemd/system/tor@default.service", "/lib/systemd/system/tor@.service"}) {
      ASSERT_TRUE(fs::exists(file)) << "Debian's tor package is needed: ./bootstrap installs it";
      Write(root_.path() + file, Read(file));
    }
  }
  absl::StatusOr<ServicePlan> Plan(const std::string& unit) {
    return PlanService({.unit = unit, .preload_path = "/usr/lib/heaptape/libheaptape.so", .recorder = {}, .root = root_.path()});
  }
  TemporaryFolder root_;
};

TEST_F(Service, TheDefaultInstanceIsRecordedUnderItsProfile) {
  const absl::StatusOr<ServicePlan> plan = Plan("tor@default");
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->drop_in_path, root_.path() + "/etc/systemd/system/tor@default.service.d/heaptape.conf");
  EXPECT_THAT(plan->drop_in, HasSubstr("Environment=\"LD_PRELOAD=/usr/lib/heaptape/libheaptape.so\"\n"));
  EXPECT_THAT(plan->drop_in, HasSubstr("Environment=\"HEAPTAPE_PROGRAM=/usr/bin/tor\"\n"));
  EXPECT_THAT(plan->drop_in, HasSubstr("StateDirectory=heaptape\n"));
  EXPECT_EQ(plan->apparmor_path, root_.path() + "/etc/apparmor.d/local/system_tor");
  EXPECT_THAT(plan->apparmor_rules, HasSubstr("owner /var/lib/heaptape/** rwk,"));
  EXPECT_THAT(plan->apparmor_rules, HasSubstr("/usr/lib/heaptape/*.so mr,"));
}

TEST_F(Service, AnInstanceIsPlannedFromItsTemplateWhichHasNoProfile) {
  const absl::StatusOr<ServicePlan> plan = Plan("tor@guard1.service");
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->unit_path, HasSubstr("tor@.service"));
  EXPECT_EQ(plan->apparmor_path, "");
  EXPECT_THAT(plan->drop_in, HasSubstr("/var/lib/heaptape/tor@guard1-%%t.tape"));
}

TEST_F(Service, WhatIsPreloadedAlreadyStaysBelow) {
  Write(root_.path() + "/etc/systemd/system/tor@default.service.d/mimalloc.conf",
        "[Service]\nEnvironment=\"LD_PRELOAD=/usr/lib/libmimalloc.so.2\"\n");
  const absl::StatusOr<ServicePlan> plan = Plan("tor@default");
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->drop_in, HasSubstr("LD_PRELOAD=/usr/lib/heaptape/libheaptape.so:/usr/lib/libmimalloc.so.2\""));
}

TEST_F(Service, InstallingTwiceAndRemovingLeavesTheFilesAsTheyWere) {
  const std::string local = root_.path() + "/etc/apparmor.d/local/system_tor";
  const std::string before = "# Site-specific additions\n  /srv/keys/ r,\n";
  Write(local, before);
  const absl::StatusOr<ServicePlan> plan = Plan("tor@default");
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_TRUE(InstallService(*plan).ok());
  ASSERT_TRUE(InstallService(*plan).ok());
  EXPECT_EQ(Read(plan->drop_in_path), plan->drop_in);
  EXPECT_EQ(Read(local), before + plan->apparmor_rules);
  ASSERT_TRUE(RemoveService(*plan).ok());
  EXPECT_FALSE(fs::exists(fs::path(plan->drop_in_path).parent_path()));
  EXPECT_EQ(Read(local), before);
  EXPECT_EQ(RemoveService(*plan).code(), absl::StatusCode::kNotFound);
}

TEST_F(Service, ALibraryThatTheUnitCannotSeeIsSaid) {
  EXPECT_EQ(Plan("tor@default")->warning, "");
  const absl::StatusOr<ServicePlan> plan =
      PlanService({.unit = "tor@default", .preload_path = "/root/build/libheaptape.so", .recorder = {}, .root = root_.path()});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->warning, HasSubstr("cannot see it (ProtectHome= in"));
}

TEST_F(Service, AnUnknownUnitIsSaidByName) {
  const absl::StatusOr<ServicePlan> plan = Plan("no-such-unit");
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(plan.status().message()), HasSubstr("no-such-unit.service: no such unit"));
}

}  // namespace
}  // namespace heaptape
